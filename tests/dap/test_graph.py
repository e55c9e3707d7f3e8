"""What an ONNX file says of itself is read without running it, and a file that points outside itself is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dap.errors import ModelFileInvalid
from dap.graph import (
    SWITCH,
    GraphMetadata,
    outline,
    read_graph_metadata,
    size_from_json,
    with_switch,
    without_range,
)
from tests.dap.graphs import METADATA, red_graph, save


def test_metadata_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_graph_metadata(save(red_graph(), tmp_path / "red.onnx")) == METADATA


def test_a_file_from_before_seams_were_written_down_may_have_one() -> None:
    entries = dataclasses.replace(METADATA, spherical=True).entries()
    assert GraphMetadata.from_entries(entries).spherical
    del entries["dap.spherical"], entries["dap.precision"]
    assert not GraphMetadata.from_entries(entries).spherical
    assert GraphMetadata.from_entries(entries).precision == "fp32"


def test_text_of_any_language_survives(tmp_path: Path) -> None:
    metadata = dataclasses.replace(METADATA, name="größe-深度", licence="siehe © Modellkarte")
    assert read_graph_metadata(save(red_graph(metadata), tmp_path / "red.onnx")) == metadata


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("dap.thresholds", "[]", "ascending metres"),
        ("dap.thresholds", "[20.0, 10.0]", "ascending metres"),
        ("dap.thresholds", "[10.0, 10.0]", "ascending metres"),
        ("dap.thresholds", "[-1.0]", "ascending metres"),
        ("dap.thresholds", '["10"]', "ascending metres"),
        ("dap.thresholds", "ten", "ascending metres"),
        ("dap.input_size", "[256, -512]", "in pixels"),
        ("dap.input_size", "[256.0, 512.0]", "in pixels"),
        ("dap.input_size", "[0, 0]", "in pixels"),
        ("dap.input_size", "{}", "in pixels"),
        ("dap.spherical", "yes", "true or false"),
        ("dap.precision", "fp64", "fp32, bf16, fp16, int8, fp8"),
    ],
)
def test_metadata_that_make_no_sense_are_refused(key: str, value: str, complaint: str) -> None:
    with pytest.raises(ModelFileInvalid, match=complaint):
        GraphMetadata.from_entries(METADATA.entries() | {key: value})


def test_missing_metadata_are_named(tmp_path: Path) -> None:
    model = red_graph()
    helper.set_model_props(model, {"dap.name": "red", "dap.licence": "CC0-1.0"})
    with pytest.raises(ModelFileInvalid, match=r"no metadata dap\.thresholds, dap\.input_size, dap\.weights_sha256"):
        read_graph_metadata(save(model, tmp_path / "red.onnx"))


def outside() -> TensorProto:
    """A tensor whose numbers are in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    return tensor


def in_an_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside())


def in_an_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["outside"], value=outside()))


def in_a_sparse_tensor(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(outside())


def in_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [outside()])
    model.graph.node.append(helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch))


def in_a_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["outside"], value=outside())
    model.functions.append(helper.make_function("ours", "F", [], ["outside"], [node], [helper.make_opsetid("", 20)]))


@pytest.mark.parametrize("hide", [in_an_initializer, in_an_attribute, in_a_sparse_tensor, in_a_branch, in_a_function])
def test_weights_in_another_file_are_refused_wherever_they_hide(hide, tmp_path: Path) -> None:
    model = red_graph()
    hide(model)
    with pytest.raises(ModelFileInvalid, match="external data"):
        read_graph_metadata(save(model, tmp_path / "red.onnx"))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = red_graph().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileInvalid):
            read_graph_metadata(path)


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_of_no_graph_or_several_is_refused(count: int, tmp_path: Path) -> None:
    """Several would be merged by whoever loads the file, and what was found in one is not what runs."""
    whole, graph = red_graph(), onnx.ModelProto()
    graph.graph.CopyFrom(whole.graph)
    whole.ClearField("graph")
    path = tmp_path / "graphs.onnx"
    path.write_bytes(whole.SerializeToString() + count * graph.SerializeToString())
    with pytest.raises(ModelFileInvalid, match=f"graphs.onnx holds {count} graphs: expected one"):
        read_graph_metadata(path)


def test_an_output_that_is_no_message_is_refused(tmp_path: Path) -> None:
    model = red_graph()
    output = model.graph.output[0].SerializeToString()
    path = tmp_path / "output.onnx"
    path.write_bytes(model.SerializeToString().replace(output, b"\x0a\x7f" + output[2:]))
    with pytest.raises(ModelFileInvalid, match="truncated or no ONNX file"):
        read_graph_metadata(path)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content

    graph = b""
    for _ in range(40):
        graph = field(1, field(5, field(6, graph)))  # a node with an attribute that is a graph
    path = tmp_path / "deep.onnx"
    path.write_bytes(red_graph().SerializeToString() + field(7, graph))
    with pytest.raises(ModelFileInvalid, match="no ONNX file"):
        read_graph_metadata(path)


@given(data=st.binary(max_size=200))
def test_bytes_of_any_kind_raise_nothing_but_our_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "any.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileInvalid):
        read_graph_metadata(path)


def test_a_size_is_height_and_width() -> None:
    assert size_from_json("[256, 512]") == (256, 512)
    assert size_from_json("[96, 256]") == (96, 256)


def names(entries: object) -> list[str]:
    return [entry.name or entry.output[0] for entry in entries]


def test_an_outline_says_where_in_the_file_the_large_weights_are(tmp_path: Path) -> None:
    model = red_graph()
    for name, count in (("small", 100), ("large", 100_000), ("larger", 200_000)):
        weights = np.random.default_rng(count).random(count, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    (tmp_path / "blobs").mkdir()
    stored = save(model, tmp_path / "blobs" / "0123")
    linked = tmp_path / "red.onnx"
    linked.symlink_to(stored)  # as the hub's cache does
    drawn = outline(linked)
    assert len(drawn) < 5000
    left = onnx.load_from_string(drawn)
    assert [tensor.name for tensor in left.graph.initializer if tensor.external_data] == ["large", "larger"]
    onnx.load_external_data_for_model(left, str(stored.parent))
    for tensor in left.graph.initializer:
        tensor.ClearField("data_location")
    assert left == model


def test_weights_behind_a_switch_that_are_no_convolution_stay_in_the_outline(tmp_path: Path) -> None:
    model = red_graph()
    for name in ("added", "multiplied"):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((200, 200), np.float32), name))
    model.graph.node.append(helper.make_node("MatMul", ["multiplied", "nearer_float"], ["product"]))
    model.graph.node.append(helper.make_node("Add", ["added", "product"], ["in_range"]))
    model.graph.node[7].output[0] = "nearer_float"
    left = onnx.load_from_string(outline(save(model, tmp_path / "red.onnx")))
    assert [tensor.name for tensor in left.graph.initializer if tensor.external_data] == ["multiplied"]


def test_an_outline_of_small_weights_is_the_file(tmp_path: Path) -> None:
    path = save(red_graph(), tmp_path / "red.onnx")
    assert outline(path) == path.read_bytes()


def test_without_range_only_what_depth_needs_is_left() -> None:
    model = red_graph()
    left = onnx.load_from_string(without_range(model.SerializeToString()))
    onnx.checker.check_model(left, full_check=True)
    assert names(left.graph.output) == ["depth"]
    assert [node.output[0] for node in left.graph.node] == ["red", "red_float", "metres", "one", "many", "depth"]
    assert names(left.graph.initializer) == ["red_channel", "divisor", "channel_axis", "copies"]
    del left.graph.node[:], left.graph.initializer[:], left.graph.output[:]
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    assert left == model


def test_what_a_branch_reads_from_around_it_is_left() -> None:
    model = red_graph()
    value = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", ["nearer_float"], ["chosen"])], "branch", [], [value])
    nodes = model.graph.node
    nodes[5].output[0] = "depth_without_branch"
    nodes[7].output[0] = "nearer_float"
    nodes.append(helper.make_node("If", ["is_day"], ["depth"], then_branch=branch, else_branch=branch))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "is_day"))
    left = onnx.load_from_string(without_range(model.SerializeToString()))
    assert [node.output[0] for node in left.graph.node][-3:] == ["nearer", "nearer_float", "depth"]
    assert names(left.graph.initializer)[-2:] == ["thresholds", "is_day"]


def test_behind_a_switch_is_what_only_range_masks_need() -> None:
    model = red_graph()
    switched = onnx.load_from_string(with_switch(model.SerializeToString()))
    onnx.checker.check_model(switched, full_check=True)
    assert names(switched.graph.input) == ["panorama", SWITCH]
    assert switched.graph.output == model.graph.output
    *outside, switch = switched.graph.node
    assert [node.output[0] for node in outside] == ["red", "red_float", "metres", "one", "many", "depth"]
    assert names(switched.graph.initializer) == ["red_channel", "divisor", "channel_axis", "copies"]
    branches = {attribute.name: attribute.g for attribute in switch.attribute}
    assert [node.op_type for node in branches["then_branch"].node] == ["Less", "Cast"]
    assert names(branches["then_branch"].initializer) == ["thresholds"]
    assert [node.op_type for node in branches["else_branch"].node] == ["Constant"]


def test_what_a_graph_says_of_values_behind_a_switch_is_there_too() -> None:
    """ONNX Runtime does not look for the shapes of a branch's values around it."""
    model = red_graph()
    for name, kind in (("metres", TensorProto.FLOAT), ("nearer", TensorProto.BOOL)):
        model.graph.value_info.append(helper.make_tensor_value_info(name, kind, None))
    switched = onnx.load_from_string(with_switch(model.SerializeToString()))
    branches = {attribute.name: attribute.g for attribute in switched.graph.node[-1].attribute}
    assert names(switched.graph.value_info) == ["metres"]
    assert names(branches["then_branch"].value_info) == ["nearer"]
    left = onnx.load_from_string(without_range(model.SerializeToString()))
    assert names(left.graph.value_info) == ["metres"]


def test_range_masks_that_depth_itself_needs_are_behind_no_switch() -> None:
    model = red_graph()
    nodes = model.graph.node
    nodes[5].output[0] = "depth_before"
    nodes.append(helper.make_node("ReduceMax", ["in_range", "channel_axis"], ["any_in_range"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["any_in_range", "depth_before"], ["depth"]))
    switched = onnx.load_from_string(with_switch(model.SerializeToString()))
    onnx.checker.check_model(switched, full_check=True)
    assert names(switched.graph.input) == ["panorama", SWITCH]
    assert switched.graph.node == nodes
