"""EfficientNet-Lite0 with attention on top: an encoder that has seen photographs before it sees rendered scenes.

The convolutions are those of EfficientNet (arXiv 1905.11946, table 1) without squeeze-and-excitation and with ReLU6,
as its authors published them for small devices ("Lite"), and start from weights learnt on ImageNet: what learns depth
on rendered scenes alone is then not surprised by a photograph. Three things differ from the published network:

- longitude is a circle;
- the last stage keeps stride 16 and is dilated: a stride of 32 would see every second patch only, and rolling the image
  by one patch would change more than the place of the output;
- the batch norms are folded into the convolutions when weights are read, so there are none to train or to export.

A few transformer blocks follow, since a convolution sees a part of the sphere only; the latitude goes in at the stem
and at the tokens, as in `dap.model.hybrid`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dap.errors import ModelFileInvalid
from dap.model.attention import Block, RotaryAngles
from dap.model.hybrid import latitude_channels

# Of the published weights: their input is (pixel - 127) / 128 of 0 to 255, and their batch norms have this epsilon.
PIXEL_OFFSET, PIXEL_SCALE = 127.0, 128.0
_BATCH_NORM_EPS = 1e-3

_STEM = 32
_COARSEST_STRIDE = 16
_TAPPED_STAGES = (1, 2, 4)
# The classifier is of no use here.
_LEFT_OUT = ("_conv_head.", "_bn1.", "_fc.")


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class EfficientNetShape:
    """Sizes of what follows the convolutions.

    Attributes:
        width: of the tokens.
        blocks: transformer blocks at stride 16.
        heads: of each of them.
    """

    width: int
    blocks: int
    heads: int


EFFICIENTNET_SHAPES = {"efficientnet-lite0": EfficientNetShape(width=192, blocks=4, heads=6)}


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads ("same"): of an odd number of rows or columns the end gets one more.

    Spherical: columns are taken from the other side of the image, and rows are zero beyond the poles.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        spherical: bool,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, dilation=dilation, groups=groups)
        beyond = max(0, dilation * (kernel - 1) + 1 - stride)
        self.before, self.after = beyond // 2, beyond - beyond // 2
        self.spherical = spherical

    def forward(self, features: Tensor) -> Tensor:
        if not self.after:
            return super().forward(features)
        if not self.spherical:
            return super().forward(F.pad(features, (self.before, self.after, self.before, self.after)))
        width = features.shape[-1]
        # The reach of a dilated kernel goes more than once around the smallest panoramas.
        circle = features if width >= self.after else features.repeat(1, 1, 1, -(-self.after // width))
        sides = circle[..., circle.shape[-1] - self.before :], circle[..., : self.after]
        around = torch.cat([sides[0], features, sides[1]], dim=-1)
        return super().forward(F.pad(around, (0, 0, self.before, self.after)))


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by itself, project by 1x1; around it a skip where the sizes allow."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, dilation: int, expansion: int, spherical: bool
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = nn.Conv2d(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(
            inner, inner, kernel, stride=stride, dilation=dilation, groups=inner, spherical=spherical
        )
        self.project = nn.Conv2d(inner, outputs, 1)
        self.has_skip = inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        inner = features if self.expand is None else F.relu6(self.expand(features))
        inner = self.project(F.relu6(self.depthwise(inner)))
        return features + inner if self.has_skip else inner  # type: ignore[no-any-return]


class EfficientNetEncoder(nn.Module):
    """Encoder: images (B, 3, H, W) to four taps at strides 4, 8, 16 and 16.

    Attributes:
        channels: of each tap.
    """

    def __init__(self, shape: EfficientNetShape, *, spherical: bool) -> None:
        super().__init__()
        self.channels = (*(_STAGES[index].channels for index in _TAPPED_STAGES), shape.width)
        self.stem = SameConv2d(5, _STEM, 3, stride=2, spherical=spherical)
        self.stages = nn.ModuleList(_stages(spherical))
        self.to_tokens = nn.Linear(_STAGES[-1].channels + 2, shape.width)
        self.rotary = RotaryAngles(shape.width // shape.heads, spherical=spherical)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads, layer_scale=0.1) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = F.relu6(self.stem(torch.cat([images, latitude_channels(images)], dim=1)))
        taps = []
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index in _TAPPED_STAGES:
                taps.append(features)
        batch, _, rows, columns = features.shape
        features = torch.cat([features, latitude_channels(features)], dim=1)
        tokens = self.to_tokens(features.flatten(2).transpose(1, 2))
        rotation = self.rotary(rows, columns)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return [*taps, self.norm(tokens).transpose(1, 2).reshape(batch, -1, rows, columns)]

    def convolutions(self) -> Iterator[tuple[str, str, nn.Conv2d]]:
        """Those that ImageNet weights are for, each after the published names of itself and of its batch norm."""
        yield "_conv_stem", "_bn0", self.stem
        residuals = (module for module in self.stages.modules() if isinstance(module, InvertedResidual))
        for index, block in enumerate(residuals):
            name = f"_blocks.{index}"
            if block.expand is not None:
                yield f"{name}._expand_conv", f"{name}._bn0", block.expand
            yield f"{name}._depthwise_conv", f"{name}._bn1", block.depthwise
            yield f"{name}._project_conv", f"{name}._bn2", block.project


@torch.no_grad()
def read_imagenet(
    encoder: EfficientNetEncoder, state: Mapping[str, Tensor], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Give the convolutions the published weights; what is not published (latitude, attention) stays as it is.

    Args:
        encoder: to be changed.
        state: of the published EfficientNet-Lite0, classifier included.
        mean: of the input of this project's networks, which is (pixel / 255 - mean) / std.
        std: see mean.

    Raises:
        ModelFileInvalid: a tensor is missing, unexpected or misshapen.
    """
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if not name.startswith(_LEFT_OUT)}
    expected = _published_shapes(encoder)
    if found != expected:
        wrong = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        raise ModelFileInvalid(f"Not the weights of EfficientNet-Lite0: {len(wrong)} tensors differ, as {wrong[:4]}.")
    for name, norm, convolution in encoder.convolutions():
        factor = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _BATCH_NORM_EPS).sqrt()
        weight = state[f"{name}.weight"] * factor[:, None, None, None]
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor
        if convolution is encoder.stem:
            offset = (255 * torch.tensor(mean) - PIXEL_OFFSET) / PIXEL_SCALE
            bias = bias + (weight * offset[:, None, None]).sum((1, 2, 3))
            weight = weight * (255 * torch.tensor(std) / PIXEL_SCALE)[:, None, None]
            weight = torch.cat([weight, torch.zeros_like(convolution.weight[:, 3:])], dim=1)
        convolution.weight.copy_(weight)
        convolution.bias.copy_(bias)  # type: ignore[union-attr]


def _published_shapes(encoder: EfficientNetEncoder) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, norm, convolution in encoder.convolutions():
        outputs, inputs, *kernel = convolution.weight.shape
        shapes[f"{name}.weight"] = (outputs, 3 if convolution is encoder.stem else inputs, *kernel)
        shapes |= {f"{norm}.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes


def _stages(spherical: bool) -> Iterator[nn.Sequential]:
    inputs, stride, dilation = _STEM, 2, 1
    for stage in _STAGES:
        blocks = []
        for repeat in range(stage.repeats):
            step = stage.stride if repeat == 0 else 1
            # What would have strided still has pixels of its own stride around it; those after it have not.
            before = dilation
            if stride * step > _COARSEST_STRIDE:
                step, dilation = 1, 2 * dilation
            blocks.append(
                InvertedResidual(
                    inputs,
                    stage.channels,
                    stage.kernel,
                    stride=step,
                    dilation=before,
                    expansion=stage.expansion,
                    spherical=spherical,
                )
            )
            stride, inputs = stride * step, stage.channels
        yield nn.Sequential(*blocks)
