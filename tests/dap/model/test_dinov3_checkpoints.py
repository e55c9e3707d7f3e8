"""DINOv3 weights, as Meta and as transformers lay them out, make the same encoder."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dap.errors import ModelFileInvalid, ModelFileMissing
from dap.model.checkpoints import from_dinov3, load_dinov3
from dap.model.vit import VIT_SHAPES, VisionTransformer, VitShape
from tests.dap.model.conformance import layout

TINY_VIT = VitShape(width=32, depth=2, heads=2, taps=(0, 0, 1, 1))


def meta_state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A DINOv3 of two blocks as Meta releases them, by the names of its own code."""
    width = TINY_VIT.width
    mask = torch.ones(3 * width)
    mask[width : 2 * width] = 0
    block = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.qkv.bias_mask": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "ls1.gamma": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
        "ls2.gamma": (width,),
    }
    shapes = {
        "cls_token": (1, 1, width),
        "storage_tokens": (1, 4, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        **{f"blocks.{index}.{name}": shape for index in range(2) for name, shape in block.items()},
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    generator = torch.Generator().manual_seed(3)
    state = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    masks = {name: mask.clone() for name in shapes if name.endswith("bias_mask")}
    periods = 100.0 ** (torch.arange(4, dtype=torch.float32) / 4)
    return {name: t.to(dtype) for name, t in (state | masks | {"rope_embed.periods": periods}).items()}


def transformers_state(blocks: str = "layer.") -> dict[str, torch.Tensor]:
    """The same network as transformers stores it: queries, keys and values apart, no bias of the keys."""
    meta = meta_state()
    roots = {
        "cls_token": "embeddings.cls_token",
        "storage_tokens": "embeddings.register_tokens",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
        "norm.weight": "norm.weight",
        "norm.bias": "norm.bias",
    }
    leaves = {
        "norm1.weight": "norm1.weight",
        "norm1.bias": "norm1.bias",
        "attn.proj.weight": "attention.o_proj.weight",
        "attn.proj.bias": "attention.o_proj.bias",
        "ls1.gamma": "layer_scale1.lambda1",
        "norm2.weight": "norm2.weight",
        "norm2.bias": "norm2.bias",
        "mlp.fc1.weight": "mlp.up_proj.weight",
        "mlp.fc1.bias": "mlp.up_proj.bias",
        "mlp.fc2.weight": "mlp.down_proj.weight",
        "mlp.fc2.bias": "mlp.down_proj.bias",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    state = {theirs: meta[name] for name, theirs in roots.items()}
    state["embeddings.mask_token"] = meta["mask_token"][None]
    for index in range(2):
        state |= {f"{blocks}{index}.{theirs}": meta[f"blocks.{index}.{name}"] for name, theirs in leaves.items()}
        attention = f"{blocks}{index}.attention"
        query, key, value = (part.clone() for part in meta[f"blocks.{index}.attn.qkv.weight"].chunk(3))
        state |= {f"{attention}.q_proj.weight": query, f"{attention}.k_proj.weight": key}
        state |= {f"{attention}.v_proj.weight": value}
        query, _, value = (part.clone() for part in meta[f"blocks.{index}.attn.qkv.bias"].chunk(3))
        state |= {f"{attention}.q_proj.bias": query, f"{attention}.v_proj.bias": value}
    return state


def tiny_vit(*, spherical: bool = False) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(TINY_VIT, spherical=spherical, token_stretch=False).eval()


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("blocks", ["layer.", "model.layer."])
def test_dinov3_weights_of_both_layouts_make_the_same_network(tmp_path: Path, spherical: bool, blocks: str) -> None:
    one, other, fresh = (tiny_vit(spherical=spherical) for _ in range(3))
    torch.save(meta_state(), tmp_path / "dinov3_pretrain.pth")
    save_file(transformers_state(blocks), tmp_path / "model.safetensors")
    load_dinov3(one, tmp_path / "dinov3_pretrain.pth")
    load_dinov3(other, tmp_path / "model.safetensors")
    image = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        taps, same, before = one(image), other(image), fresh(image)
    assert all(torch.equal(a, b) for a, b in zip(taps, same, strict=True))
    assert not any(torch.allclose(a, b) for a, b in zip(taps, before, strict=True))
    assert torch.equal(one.blocks[1].attn.qkv.weight[32:64], transformers_state()["layer.1.attention.k_proj.weight"])
    assert torch.equal(one.tap_norm.weight, fresh.tap_norm.weight), "DINOv3 has no such norm"


def test_dinov3_weights_of_half_precision_are_read_as_float32(tmp_path: Path) -> None:
    torch.save(meta_state(torch.bfloat16), tmp_path / "half.pth")
    network = tiny_vit()
    load_dinov3(network, tmp_path / "half.pth")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("state", "lost", "misshapen", "complaint"),
    [
        (meta_state(), "blocks.1.ls2.gamma", "blocks.0.attn.qkv.bias", "should be (96,) and is (7,)"),
        (meta_state(), "rope_embed.periods", "cls_token", "should be (1, 1, 32) and is (7,)"),
        (
            transformers_state(),
            "layer.1.attention.k_proj.weight",
            "layer.0.attention.q_proj.bias",
            "should be (32,) and is (7,)",
        ),
    ],
)
def test_dinov3_weights_that_do_not_fit_are_named(
    state: dict[str, torch.Tensor], lost: str, misshapen: str, complaint: str
) -> None:
    broken = {name: tensor for name, tensor in state.items() if name != lost}
    broken |= {misshapen: torch.zeros(7), "head.weight": torch.zeros(1)}
    with pytest.raises(ModelFileInvalid) as error:
        from_dinov3(broken, tiny_vit(spherical=True).state_dict())
    assert f"Missing (1): {lost}" in str(error.value)
    assert "Unexpected (1): head.weight" in str(error.value)
    assert f"{misshapen} {complaint}" in str(error.value)


def test_something_else_is_no_dinov3(tmp_path: Path) -> None:
    with pytest.raises(ModelFileInvalid, match=r"Missing \(\d+\): embeddings.cls_token"):
        from_dinov3({"weight": torch.zeros(3)}, tiny_vit().state_dict())
    with pytest.raises(ModelFileMissing):
        load_dinov3(tiny_vit(), tmp_path / "none.pth")


@pytest.mark.parametrize("encoder", ["s", "l"])
def test_every_tensor_of_the_encoder_in_the_official_model_has_the_name_that_meta_gave_it(encoder: str) -> None:
    """The official checkpoint holds Meta's module whole, so its names and shapes are Meta's."""
    prefix = "core.pretrained.model."
    shapes = {k.removeprefix(prefix): v for k, v in layout(f"vit{encoder}").items() if k.startswith(prefix)}
    with torch.device("meta"):
        vit = VisionTransformer(VIT_SHAPES[f"vit-{encoder}"], spherical=False, token_stretch=False)
        read = from_dinov3({name: torch.empty(shape) for name, shape in shapes.items()}, vit.state_dict())
    assert {name for name in vit.state_dict() if not name.startswith("tap_norm.")} == set(read)
