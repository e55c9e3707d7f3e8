"""Small ONNX files made by hand, whose answers can be told from the pixels."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dap.graph import GraphMetadata

SIZE = (16, 32)
METADATA = GraphMetadata("red", (10.0, 20.0, 50.0, 100.0), SIZE, "CC0-1.0", "0" * 64)


def red_graph(metadata: GraphMetadata = METADATA, divisor: float = 2.0, spread: int = 1) -> onnx.ModelProto:
    """A model whose depth in metres is the red channel / `divisor`; in range is what is nearer than the threshold.

    Args:
        metadata: what it says of itself.
        divisor: 0 makes infinities, and NaN of black.
        spread: how many copies of the depth it makes on the way, to no effect but memory.
    """
    height, width = metadata.input_size
    thresholds = np.array(metadata.thresholds, np.float32).reshape(1, -1, 1, 1)
    constants = {
        "red_channel": np.array(0, np.int64),
        "divisor": np.array(divisor, np.float32),
        "channel_axis": np.array([1], np.int64),
        "thresholds": thresholds,
        "copies": np.array([1, spread, 1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["panorama", "red_channel"], ["red"], axis=3),
        helper.make_node("Cast", ["red"], ["red_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["red_float", "divisor"], ["metres"]),
        helper.make_node("Unsqueeze", ["metres", "channel_axis"], ["one"]),
        helper.make_node("Expand", ["one", "copies"], ["many"]),
        helper.make_node("ReduceMax", ["many", "channel_axis"], ["depth"], keepdims=0),
        helper.make_node("Less", ["one", "thresholds"], ["nearer"]),
        helper.make_node("Cast", ["nearer"], ["in_range"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        metadata.name,
        [helper.make_tensor_value_info("panorama", TensorProto.UINT8, ["batch", height, width, 3])],
        [
            helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["batch", height, width]),
            helper.make_tensor_value_info("in_range", TensorProto.FLOAT, ["batch", thresholds.size, height, width]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata.entries())
    return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def red_panorama(*metres: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 (B, H, W, 3): panoramas in which everything is so far away, for `red_graph`."""
    pixels = np.zeros((len(metres), *size, 3), np.uint8)
    pixels[..., 0] = np.array(metres)[:, None, None] * 2
    return pixels
