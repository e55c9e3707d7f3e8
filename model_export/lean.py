"""A network with less to compute: the same function, for ONNX Runtime on a CPU in float32.

There products are nearly all that a transformer waits for (docs/performance.md), so nothing but fewer of them makes it
much faster; what stands between them is made less, too (`model_export.blocks`). Other precisions and TensorRT get the
network as it is written. What it is worth on a GPU was not measured.
"""

import copy
from typing import TypeVar, cast

from onnx import ModelProto
from torch import Tensor, nn

from dap.model.attention import Block
from dap.model.config import PATCH
from dap.model.dap import DapNetwork
from dap.model.dpt import DptHead, Fusion, half_of
from model_export.blocks import LeanBlock
from model_export.enlargement import EnlargedConv2d
from model_export.folding import PaddedWithOnes, in_blocks, pointwise_then, transposed_then, with_ones
from model_export.winograd import WinogradConv2d

# Measured with ONNX Runtime 1.32 on a Zen 4, two cores: with the 64 features of a ViT-S, neither Winograd nor products
# before an enlargement gain anything. Where tiles are few, Winograd's weights, four times as large, are too much memory
# for what they save.
_FEWEST_FEATURES, _FEWEST_TILES = 128, 512

_CONVOLUTIONS = ("Conv", "ConvTranspose")

_Copied = TypeVar("_Copied", bound=nn.Module)


def lean(network: DapNetwork, size: tuple[int, int]) -> DapNetwork:
    """The same network with a `LeanBlock` for each of a transformer's blocks and a lean head for each official one.

    What is not changed is shared.

    Args:
        network: in evaluation mode.
        size: (H, W) of the images that it is for.
    """
    changed = _sharing_copy(network)
    official = network.depth_head.full_resolution and not network.config.spherical
    for name, module in network.named_modules():
        if isinstance(module, Block):
            changed.set_submodule(name, LeanBlock(module))
        elif isinstance(module, DptHead) and official:
            wide = module.output_conv1.in_channels >= _FEWEST_FEATURES
            changed.set_submodule(name, LeanHead(module, size) if wide else folded_head(module))
    return changed.eval()


class LeanHead(nn.Module):
    """What a `DptHead` of patch features at full resolution says, with a third to a half of its multiplications.

    Args:
        head: not spherical.
        size: (H, W) of the images.
    """

    def __init__(self, head: DptHead, size: tuple[int, int]) -> None:
        super().__init__()
        self.patches = size[0] * size[1] // PATCH**2
        self.head = _sharing_copy(head)
        for level in (0, 1):
            self._quicken(cast("Fusion", self.head.fusions[level]), pixels=16 // 4**level)
        _fold(self.head)
        first, *last = head.output_conv2
        self.output_conv1 = EnlargedConv2d(head.output_conv1, cast("nn.Conv2d", head.fusions[0].out_conv))
        self.output_conv2 = EnlargedConv2d(cast("nn.Conv2d", first))
        self.last = nn.Sequential(*last)
        self.head.fusions[0].out_conv = nn.Identity()
        del self.head.output_conv1, self.head.output_conv2

    def forward(self, taps: list[Tensor], size: tuple[int, int]) -> Tensor:
        maps = self.output_conv1(self.head.fused(taps), half_of(size))
        return self.last(self.output_conv2(maps, size))  # type: ignore[no-any-return]

    def _quicken(self, fusion: Fusion, pixels: int) -> None:
        """Each convolution of a fusion that gives `pixels` for each patch, as `_quickest` has it."""
        for unit in (fusion.resConfUnit1, fusion.resConfUnit2):
            if unit is not None:
                for name in ("conv1", "conv2"):
                    unit.set_submodule(name, self._quickest(cast("nn.Conv2d", unit.get_submodule(name)), pixels))

    def _quickest(self, convolution: nn.Conv2d, pixels: int) -> nn.Conv2d | WinogradConv2d:
        """What gives a 3x3 convolution of stride 1 with zero padding soonest, which gives `pixels` for each patch."""
        tiles = self.patches * pixels // WinogradConv2d.TILE**2
        return WinogradConv2d(convolution) if tiles >= _FEWEST_TILES else convolution


def folded_head(head: DptHead) -> DptHead:
    """What `head`, a `DptHead` of patch features that is not spherical, says: with two layers as one where it gains."""
    changed = _sharing_copy(head)
    _fold(changed)
    return changed


def _fold(head: DptHead) -> None:
    """Put two layers in one where a level is made of patch features, in `head` itself."""
    for level in (0, 1):
        _fold_transposed(head, level)
    _fold_projection(head, 2, head.to_features)
    _fold_projection(head, 3, head.resize_layers)


def _fold_transposed(head: DptHead, level: int) -> None:
    """Transposed convolution and the convolution after it in one; always fewer products."""
    project, convolution = (cast("nn.Conv2d", layers[level]) for layers in (head.projects, head.to_features))
    transposed = cast("nn.ConvTranspose2d", head.resize_layers[level])
    head.projects[level] = with_ones(project)
    head.resize_layers[level] = transposed_then(convolution, transposed)
    plain = not any(isinstance(module, WinogradConv2d) for module in head.fusions[level].modules())
    head.to_features[level] = in_blocks(convolution.out_channels) if plain else nn.Identity()


def _fold_projection(head: DptHead, level: int, convolutions: nn.ModuleList) -> None:
    """Projection and the convolution after it in one, at the size of the patches, if that is fewer products."""
    project, convolution = (cast("nn.Conv2d", layers[level]) for layers in (head.projects, convolutions))
    both = pointwise_then(convolution, project)
    if _products(both) < _products(project) + _products(convolution):
        head.projects[level] = nn.Identity()
        convolutions[level] = PaddedWithOnes(both)


def own_weights(model: ModelProto) -> None:
    """Give each convolution weights of its own, where the exporter has found the same ones in several.

    What the head of depth and that of range masks share would lie outside the branch in which an engine runs the latter
    (`dap.graph.with_switch`), and ONNX Runtime lays out weights only within their graph.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        for position, name in enumerate(node.input if node.op_type in _CONVOLUTIONS else ()):
            if name in taken:
                own = model.graph.initializer.add()
                own.CopyFrom(weights[name])
                own.name = node.input[position] = f"{node.output[0]}.{name}"
            elif name in weights:
                taken.add(name)


def _products(convolution: nn.Conv2d) -> int:
    """For four pixels of its input."""
    return convolution.weight.numel() * 4 // convolution.stride[0] ** 2


def _sharing_copy(module: _Copied) -> _Copied:
    """A copy whose modules are its own; the tensors are those of `module`."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})
