"""The verification sees what an export gets wrong, and says by how much."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dap.errors import ModelFileInvalid, VerificationFailed
from dap.model.checkpoints import load_network
from model_export.verify import LIMITS, Agreement, sample_panoramas, verify

PERFECT = Agreement(
    panoramas=6, depth_absolute=0.0, depth_relative=0.0, absrel=0.0, in_range_absolute=0.0, mask_iou=1.0
)


def test_a_true_export_agrees(checkpoint: Path, exported: Path) -> None:
    agreement = verify(exported, load_network(checkpoint))
    agreement.require()
    assert agreement.panoramas == 6
    assert 0 < agreement.absrel < agreement.depth_relative < 1e-4
    assert agreement.mask_iou > 0.999


def changed(exported: Path, path: Path, output: str, factor: float) -> Path:
    """The export with one of its outputs multiplied at the end."""
    model = onnx.load(exported)
    for node in model.graph.node:
        node.output[:] = [f"{name}_before" if name == output else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "factor"))
    model.graph.node.append(onnx.helper.make_node("Mul", [f"{output}_before", "factor"], [output]))
    path.write_bytes(model.SerializeToString())
    return path


def test_metres_that_are_off_by_a_ten_thousandth_are_found(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    agreement = verify(changed(exported, tmp_path / "off.onnx", "depth", 1.0001), load_network(checkpoint))
    assert agreement.absrel == pytest.approx(1e-4, rel=0.1)
    with pytest.raises(VerificationFailed, match=r"absrel is .*, the limit is 1e-05"):
        agreement.require()


def test_probabilities_that_are_off_are_found(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    agreement = verify(changed(exported, tmp_path / "off.onnx", "in_range", 0.5), load_network(checkpoint))
    assert agreement.absrel < LIMITS["absrel"]
    assert agreement.mask_iou == 0  # nothing is above a half any more
    with pytest.raises(VerificationFailed, match=r"in_range_absolute is .*; mask_iou is 0,"):
        agreement.require()


def test_an_item_that_leaks_into_its_neighbour_is_found(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    for node in model.graph.node:
        node.output[:] = ["depth_before" if name == "depth" else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "batch_axis"))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["depth_before", "batch_axis"], ["leaked"]))
    model.graph.node.append(onnx.helper.make_node("Shape", ["depth_before"], ["leaked_shape"]))
    model.graph.node.append(onnx.helper.make_node("Expand", ["leaked", "leaked_shape"], ["depth"]))
    (tmp_path / "leak.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(VerificationFailed, match="absrel"):
        verify(tmp_path / "leak.onnx", load_network(checkpoint)).require()


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_is_held(name: str) -> None:
    PERFECT.require()
    worse = -1e-3 if name == "mask_iou" else 1e-6
    replace(PERFECT, **{name: LIMITS[name]}).require()
    with pytest.raises(VerificationFailed, match=f"{name} is"):
        replace(PERFECT, **{name: LIMITS[name] + worse}).require()
    with pytest.raises(VerificationFailed, match=f"{name} is nan"):
        replace(PERFECT, **{name: float("nan")}).require()


def test_panoramas_of_ones_own_are_compared_at_the_models_size(checkpoint: Path, exported: Path) -> None:
    own = [np.full((300, 600, 3), 77, np.uint8)]
    assert verify(exported, load_network(checkpoint), own).panoramas == 1


def test_the_samples_go_from_flat_to_noise() -> None:
    samples = sample_panoramas((32, 64))
    assert [sample.shape for sample in samples] == [(32, 64, 3)] * 6
    roughness = [float(np.abs(np.diff(sample.astype(float), axis=1)).mean()) for sample in samples]
    assert roughness[0] == roughness[1] == roughness[2] == 0
    assert 0 < roughness[3] < roughness[4] <= roughness[5]


def test_a_file_that_is_no_export_of_ours_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"")
    with pytest.raises(ModelFileInvalid):
        verify(tmp_path / "other.onnx", load_network(checkpoint))
