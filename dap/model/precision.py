"""The network in less than float32: what runs in bfloat16 or float16, and what stays float32.

Every layer with weights computes in the type of its weights, and its input is converted where that is another: what
autocast does, but for weights that are converted once instead of in every run, and alike on every device. Convolutions
and linear layers have low weights, but for `float32_layers`; norms keep float32 ones, and sums take the higher type, so
the tokens that run through a transformer are float32. The network itself takes logits to metres in float32.
"""

import torch
from torch import Tensor, nn

from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from dap.model.vit import VIT_SHAPES

FIRST_LAYERS = ("encoder.stem.", "encoder.stage4.", "encoder.stages.0.", "encoder.patch_embed.")
"""Beginnings of the names of the layers that see the pixels first, whichever encoder has them."""

_PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def float32_layers(config: NetworkConfig) -> tuple[str, ...]:
    """Layers that stay float32, by the beginnings of their names: those that see the pixels first, or give the depth.

    Nearly all of the error is theirs, as docs/precision.md has it measured. A plain ViT has it in all of its depth
    head, the others in the last two convolutions there.
    """
    return (*FIRST_LAYERS, "depth_head." if config.encoder in VIT_SHAPES else "depth_head.output_conv")


def lower(network: DapNetwork, dtype: torch.dtype) -> None:
    """Have the network run in `torch.bfloat16` or `torch.float16`, but for what needs float32. It is changed for good.

    Inputs and outputs stay what they were.
    """
    kept = float32_layers(network.config)
    for name, layer in network.named_modules():
        if not isinstance(getattr(layer, "weight", None), Tensor):
            continue
        if isinstance(layer, _PRODUCTS) and not f"{name}.".startswith(kept):
            layer.to(dtype)
        layer.register_forward_pre_hook(_in_type_of_weights)


def _in_type_of_weights(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    weight = layer.weight
    assert isinstance(weight, Tensor)  # noqa: S101 - `lower` has seen it
    return (inputs[0].to(weight.dtype),)
