"""From an ONNX file to a TensorRT plan, on the GPU that will run it. Needs the libraries `tensorrt` and `onnx`.

The same calls build with TensorRT 10 and 11. Networks are strongly typed, as in 11 they always are: each number has the
precision that the file gives it, and none is lowered behind anybody's back.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dap.engines.plans import BatchRanges
from dap.engines.tensorrt_library import take_complaints, tensorrt_logger
from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid

if TYPE_CHECKING:
    import onnx
    import tensorrt as trt

INPUT = "panorama"
FLOAT_INPUT = "panorama_float32"


@dataclass(frozen=True)
class BuiltPlan:
    """What a build leaves.

    Attributes:
        plan: the engine, as TensorRT serialises it.
        timings: of the layers, for the next build.
    """

    plan: bytes
    timings: bytes


def build_plan(
    model: bytes, name: str, input_size: tuple[int, int], ranges: BatchRanges, timings: bytes | None
) -> BuiltPlan:
    """Build an ONNX graph on the current GPU. It takes from seconds to many minutes.

    Args:
        model: as `dap export` writes it.
        name: of its file, for people.
        input_size: (H, W) of its input.
        ranges: an optimisation profile for each, at its best for the largest batch in it.
        timings: of an earlier build on such a GPU with this driver and TensorRT.

    Raises:
        ModelFileInvalid: TensorRT cannot read the graph.
        EngineError: the build failed.
        EngineUnavailable: the library `onnx` is not installed.
    """
    import tensorrt as trt

    take_complaints()
    builder = trt.Builder(tensorrt_logger())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, tensorrt_logger())
    if not parser.parse(cast_pixels(model)):
        reason = parser.get_error(0).desc() if parser.num_errors else take_complaints()
        raise ModelFileInvalid(f"TensorRT cannot read {name}: {reason}")
    config = builder.create_builder_config()
    # What the file says is float32 is computed in float32: products of 10 bits are beyond the limit of an export.
    config.clear_flag(trt.BuilderFlag.TF32)
    cache = _set_timings(config, timings)
    for least, most in ranges:
        _add_profile(builder, config, input_size, least, most)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT cannot build {name}: {take_complaints()}")
    return BuiltPlan(bytes(plan), bytes(cache.serialize()))


def joined_timings(timings: bytes, others: bytes) -> bytes:
    """Timings with those of another build on such a GPU, with this driver and TensorRT, where TensorRT takes them.

    Args:
        timings: as a build leaves them; of a layer that is in both, these count.
        others: likewise.
    """
    import tensorrt as trt

    builder = trt.Builder(tensorrt_logger())
    config = builder.create_builder_config()
    cache = config.create_timing_cache(timings)
    cache.combine(config.create_timing_cache(others), ignore_mismatch=False)
    return bytes(cache.serialize())


def cast_pixels(model: bytes) -> bytes:
    """The same ONNX graph in plain operators, in which nothing but a cast to float32 sees the uint8 pixels.

    Attention is an operator of ONNX Runtime's in the file, beside a function that spells it out (`dap export`).
    TensorRT takes uint8 as the input of a network and nowhere else, not even to transpose it or to ask for its shape
    (onnx-tensorrt, docs/operators.md; TensorRT operators, Shape). All 256 values are exact in every type they are cast
    to later.

    Raises:
        EngineUnavailable: the library `onnx` is not installed.
        ModelFileInvalid: the graph is in int8 for ONNX Runtime, with zero points that TensorRT does not know.
    """
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise EngineUnavailable(
            "Building a TensorRT plan needs onnx, which is not installed: pip install 'depth-any-panorama[gpu]'."
        ) from error
    proto = onnx.inliner.inline_local_functions(onnx.load_model_from_string(model))
    graph = proto.graph
    _require_symmetric(graph)
    for node in graph.node:
        node.input[:] = [FLOAT_INPUT if name == INPUT else name for name in node.input]
    graph.node.insert(0, onnx.helper.make_node("Cast", [INPUT], [FLOAT_INPUT], to=onnx.TensorProto.FLOAT))
    graph.ClearField("value_info")  # it may say of values that were pixels that they are bytes
    content: bytes = proto.SerializeToString()
    return content


def _require_symmetric(graph: "onnx.GraphProto") -> None:
    """TensorRT quantises around 0 alone (onnx-tensorrt, docs/operators.md)."""
    from onnx import numpy_helper

    zeros = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}
    if any(numpy_helper.to_array(tensor).any() for tensor in graph.initializer if tensor.name in zeros):
        raise ModelFileInvalid(
            "The file is quantised for ONNX Runtime, around other numbers than 0, which TensorRT does not take: "
            "expected one that `dap export --to tensorrt --precision int8` wrote."
        )


def _set_timings(config: "trt.IBuilderConfig", timings: bytes | None) -> "trt.ITimingCache":
    """Start from known timings, or from none where TensorRT does not take them. They must outlive the build."""
    cache = config.create_timing_cache(timings or b"")
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _add_profile(
    builder: "trt.Builder", config: "trt.IBuilderConfig", input_size: tuple[int, int], least: int, most: int
) -> None:
    import tensorrt as trt

    profile = builder.create_optimization_profile()
    smallest, largest = (trt.Dims([count, *input_size, 3]) for count in (least, most))
    profile.set_shape(INPUT, smallest, largest, largest)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT takes no profile for {least} to {most} panoramas: {take_complaints()}")
