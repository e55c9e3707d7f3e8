"""Reading and writing weights: the official layout, and ours.

Official: a state dict in `model.pth` (or the same names in safetensors), each name with or without a leading
    `module.`. Ours: safetensors with the network's configuration in the file's metadata. DINOv3: an encoder alone, in
    the names of Meta's release or in those of transformers.

All are read strictly: a missing, unexpected or misshapen tensor is an error that lists the names. Nothing is ever
unpickled but plain tensors (`weights_only`).
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dap.errors import ModelFileInvalid, ModelFileMissing
from dap.model.config import CONFIG_KEY, EncoderName, NetworkConfig
from dap.model.dap import DapNetwork
from dap.model.vit import VIT_SHAPES, VisionTransformer

_LISTED = 12
_TRANSFORMERS_NAMES = {
    "attn.proj": "attention.o_proj",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
}
_TRANSFORMERS_ROOTS = {
    "cls_token": "embeddings.cls_token",
    "storage_tokens": "embeddings.register_tokens",
    "patch_embed.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.bias": "embeddings.patch_embeddings.bias",
}
_MASK_SIGN = ("mask_head.output_conv2.2.weight", "mask_head.output_conv2.2.bias")


def load_network(path: Path | str) -> DapNetwork:
    """A network in evaluation mode on the CPU, from the official layout or ours.

    `.safetensors` with our configuration in its header is ours; any other `.safetensors`, and every other file, is
    read as the official layout.

    Raises:
        ModelFileMissing: there is no such file.
        ModelFileInvalid: not a checkpoint, or not one of a network known here; the message lists the names that are
            wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileMissing(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        state, config = _read_safetensors(path)
    else:
        state, config = _read_pickle(path), None
    return network_from_state(state, config).eval()


def network_from_state(state: Mapping[str, Tensor], config: NetworkConfig | None = None) -> DapNetwork:
    """A network from tensors: with a configuration, in our names; without one, in the official layout.

    Raises:
        ModelFileInvalid: see `load_network`.
    """
    if config is None:
        config, state = from_official(state)
    network = DapNetwork(config)
    _load_strictly(network, state)
    return network


def save_network(network: DapNetwork, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
    """Write our layout: safetensors, with the configuration (and `metadata`) in the header.

    The same network and metadata are the same bytes.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={**(metadata or {}), CONFIG_KEY: network.config.to_json()})
    _sort_header(Path(path))


def _sort_header(path: Path) -> None:
    """Put the header's metadata in order: safetensors writes it in another one each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        # In place: what follows stays where it is, and spaces at the end are part of the format.
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def from_official(state: Mapping[str, Tensor]) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """The configuration of an official checkpoint, and its tensors under our names.

    The release has one mask channel, the probability of being BEYOND 100 m. Its last convolution is negated here,
    once and for all, so that every network of ours speaks of being in range.

    Raises:
        ModelFileInvalid: see `load_network`.
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    encoder = _official_encoder(plain)
    config = NetworkConfig.official(encoder)
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in DapNetwork(config).state_dict().items()}
    names = {official_name(ours): ours for ours in expected}
    shapes = {official: expected[ours] for official, ours in names.items()}
    _check(shapes | _unused_official(shapes), {name: tensor.shape for name, tensor in plain.items()})
    ours = {names[official]: plain[official] for official in names}
    for name in _MASK_SIGN:
        ours[name] = -ours[name]
    return config, ours


def _official_encoder(state: Mapping[str, Tensor]) -> EncoderName:
    token = state.get("core.pretrained.model.cls_token")
    width = token.shape[-1] if token is not None and token.ndim else None
    for encoder in ("vit-s", "vit-b", "vit-l"):
        if VIT_SHAPES[encoder].width == width:
            return encoder
    found = "there is no such tensor" if width is None else f"its last dimension is {width}"
    raise ModelFileInvalid(
        "Not an official DAP checkpoint: core.pretrained.model.cls_token should be 384, 768 or 1024 wide "
        f"(ViT-S, B, L); {found}. {_some_names('The file holds', state)}"
    )


def official_name(ours: str) -> str:
    """The official checkpoint's name (without `module.`) of one of our tensors.

    The official module registers the blocks twice, as `pretrained.model.blocks` and as `pretrained.blocks`: the same
    parameters under two names, of which a load keeps the one read last, the second.
    """
    part, rest = ours.split(".", 1)
    if part == "encoder":
        if rest.startswith("blocks."):
            return f"core.pretrained.{rest}"
        if rest.startswith("tap_norm."):
            return f"core.pretrained.{rest.removeprefix('tap_')}"
        return f"core.pretrained.model.{rest.replace('patch_embed.', 'patch_embed.proj.')}"
    kind, *tail = rest.split(".")
    if kind in ("projects", "resize_layers"):
        return f"core.{ours}"
    if kind == "to_features":
        return f"core.{part}.scratch.layer{int(tail[0]) + 1}_rn.{'.'.join(tail[1:])}"
    if kind == "fusions":
        return f"core.{part}.scratch.refinenet{int(tail[0]) + 1}.{'.'.join(tail[1:])}"
    return f"core.{part}.scratch.{rest}"


def load_dinov3(encoder: VisionTransformer, path: Path | str) -> None:
    """Give an encoder the published DINOv3 weights of its size; `tap_norm`, which DINOv3 lacks, stays as it is.

    The file is Meta's (`dinov3_vits16_pretrain_lvd1689m-....pth`) or that of transformers (`model.safetensors`), which
    has queries, keys and values apart and no bias of the keys, since DINOv3 masks it.

    Raises:
        ModelFileMissing: there is no such file.
        ModelFileInvalid: not DINOv3 weights, or of another size; the message lists the names that are wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileMissing(f"There is no file {path}.")
    state = _read_safetensors(path)[0] if path.suffix == ".safetensors" else _read_pickle(path)
    own = encoder.state_dict()
    encoder.load_state_dict({**own, **from_dinov3(state, own)})


def from_dinov3(state: Mapping[str, Tensor], encoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a DINOv3 file under the names of our encoder.

    Args:
        state: of the file, in either layout.
        encoder: state of the encoder that they are for; only its shapes are looked at, and its masks and rotary
            periods, which transformers does not store.

    Raises:
        ModelFileInvalid: see `load_dinov3`.
    """
    ours = {name: tensor for name, tensor in encoder.items() if not name.startswith("tap_norm.")}
    width = ours["cls_token"].shape[-1]
    # Meta's file has the rotary periods; an encoder whose longitude is a circle has other ones, which are in no file.
    if "cls_token" in state:
        parts = {name: _meta_names(name) for name in ours}
        periods = state["rope_embed.periods"].shape if "rope_embed.periods" in state else torch.Size()
        unused = {"mask_token": torch.Size((1, width)), "rope_embed.periods": periods}
    else:
        # Since version 5 transformers keeps the blocks in `model`.
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        parts = {name: _transformers_names(name) for name in ours if not name.endswith((".bias_mask", ".periods"))}
        unused = {"embeddings.mask_token": torch.Size((1, 1, width))}
    expected = {
        name: torch.Size((tensor.shape[0] // len(names), *tensor.shape[1:]))
        for ours_name, names in parts.items()
        for tensor in [ours[ours_name]]
        for name in names
        if name
    }
    _check(unused | expected, {name: tensor.shape for name, tensor in state.items()})
    return {name: _joined(state, names) for name, names in parts.items()}


def _meta_names(ours: str) -> tuple[str, ...]:
    return (ours.replace("patch_embed.", "patch_embed.proj."),)


def _transformers_names(ours: str) -> tuple[str, ...]:
    """The names in transformers' layout of what one of our tensors holds, one after the other; empty for zeros."""
    if not ours.startswith("blocks."):
        return (_TRANSFORMERS_ROOTS.get(ours, ours),)
    _, block, *rest = ours.split(".")
    tail = ".".join(rest)
    if rest[:2] == ["attn", "qkv"]:
        apart = [f"layer.{block}.attention.{part}_proj.{rest[2]}" for part in "qkv"]
        return (apart[0], "" if rest[2] == "bias" else apart[1], apart[2])
    for own, theirs in _TRANSFORMERS_NAMES.items():
        tail = tail.replace(own, theirs)
    return (f"layer.{block}.{tail}",)


def _joined(state: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor:
    return torch.cat([(state[name] if name else torch.zeros_like(state[names[0]])).float() for name in names])


def _unused_official(used: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """Tensors that stand in every official file and that no output depends on: they must be there, and are not read."""
    width = used["core.pretrained.model.cls_token"][-1]
    unused = {"core.pretrained.model.mask_token": torch.Size((1, width))}
    for name, shape in used.items():
        if name.startswith("core.pretrained.blocks."):
            unused[name.replace("core.pretrained.", "core.pretrained.model.", 1)] = shape
        if ".refinenet3.resConfUnit1." in name:
            unused[name.replace("refinenet3", "refinenet4")] = shape
    return unused


def _load_strictly(network: DapNetwork, state: Mapping[str, Tensor]) -> None:
    _check(
        {name: tensor.shape for name, tensor in network.state_dict().items()},
        {name: tensor.shape for name, tensor in state.items()},
    )
    network.load_state_dict(state)


def _check(expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> None:
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(_some_names("Missing", missing))
    if unexpected := sorted(found.keys() - expected.keys()):
        problems.append(_some_names("Unexpected", unexpected))
    misshapen = [
        f"{name} should be {tuple(shape)} and is {tuple(found[name])}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if misshapen:
        problems.append(_some_names("Misshapen", misshapen))
    if problems:
        raise ModelFileInvalid("The checkpoint does not fit the network. " + " ".join(problems))


def _some_names(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{what} ({len(names)}): {', '.join(names[:_LISTED])}{more}."


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # torch's own message suggests to turn weights_only off: the last thing to do with a file that is not plain
        # tensors.
        raise ModelFileInvalid(f"{path.name} is not a checkpoint of plain tensors.") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelFileInvalid(f"{path.name} should hold one mapping of names to tensors, as the release does.")
    return dict(state)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], NetworkConfig | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a mapping
    except SafetensorError as error:
        raise ModelFileInvalid(f"{path.name} is not a safetensors file: {error}.") from error
    config = metadata.get(CONFIG_KEY)
    return state, NetworkConfig.from_json(config) if config is not None else None
