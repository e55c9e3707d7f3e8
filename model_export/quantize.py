"""Graphs in eight bits: what is quantised, what stays float32, and the ranges, measured on panoramas.

Convolutions and products with parameters get `QuantizeLinear`/`DequantizeLinear` pairs (static QDQ): weights int8 by
channel, values uint8 with the range that they have on the calibration panoramas. An engine runs a product between two
pairs in integers; everything else stays float32.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from model_export.precision import FIRST_LAYERS

_FIRST = (*FIRST_LAYERS, "network.encoder.stages.1.")
FLOAT32_LAYERS: tuple[tuple[str, ...], ...] = (
    (*_FIRST, "network.depth_head.output_conv"),
    (*_FIRST, "network.encoder.stages.2.", "network.depth_head."),
    (*_FIRST, "network.encoder.stages.2.", "network.depth_head.", "network.mask_head."),
)
"""As `model_export.precision.FLOAT32_LAYERS`. Measured on an encoder of the EfficientNet family, one part of the
network at a time in int8: AbsRel 6.1% by the stem, 4.1% and 1.8% by the first two stages, 0.95% and 0.59% by the
convolutions that give the depth, at most 0.53% by any other part. A ViT-S of random weights needs both of its heads in
float32: 1.6%, and 94% of its range masks are the same with one of them in int8, 98.6% with none."""

_PRODUCTS = ("Conv", "MatMul")


class Quantizer:
    """Quantises one graph, as often as is needed; the ranges of its values are measured once. A context manager.

    Args:
        model: an exported float32 graph.
        panoramas: uint8 (H, W, 3) of the graph's input size, to measure on.
    """

    def __init__(self, model: onnx.ModelProto, panoramas: Sequence[npt.NDArray[np.uint8]]) -> None:
        self._model = model
        self._panoramas = panoramas
        self._folder = tempfile.TemporaryDirectory(prefix="dap-quantize-")
        self._source = Path(self._folder.name) / "float32.onnx"
        onnx.save(model, self._source)

    def quantized(self, float32_layers: Sequence[str]) -> onnx.ModelProto:
        """The graph in `int8`; inputs and outputs as they were.

        Args:
            float32_layers: beginnings of the names of parameters whose layers stay float32.
        """
        products = list(_products(self._model, float32_layers))
        if not products:
            return onnx.load(self._source)  # to the quantiser no products are all of them
        path = Path(self._folder.name) / "quantized.onnx"
        with _quiet():
            quantize_static(
                self._source,
                path,
                _Reader(self._panoramas),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_PRODUCTS),
                nodes_to_quantize=products,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=Path(self._folder.name) / "ranges.json",
                extra_options={"MatMulConstBOnly": True},
            )
        return onnx.load(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()


def _products(model: onnx.ModelProto, float32_layers: Sequence[str]) -> Iterator[str]:
    """Names of the nodes that multiply by parameters outside of these layers."""
    parameters = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        of_node = parameters.intersection(node.input)
        if node.op_type in _PRODUCTS and of_node and not any(n.startswith(tuple(float32_layers)) for n in of_node):
            yield node.name


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, panoramas: Sequence[npt.NDArray[np.uint8]]) -> None:
        self._rest = iter(panoramas)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        panorama = next(self._rest, None)
        return None if panorama is None else {"panorama": panorama[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser gives advice on the root logger, on graphs that are to be prepared another way."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
