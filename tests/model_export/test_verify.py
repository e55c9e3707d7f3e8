"""The verification sees what an export gets wrong, and says by how much."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from dap.engines import Inference
from dap.engines.onnx import OnnxEngine
from dap.errors import EngineUnavailable, ModelFileInvalid, VerificationFailed
from dap.graph import GraphPrecision
from dap.model.checkpoints import load_network
from dap.model.config import EncoderName, NetworkConfig
from dap.model.dap import DapNetwork
from model_export import verify as module
from model_export.verify import LIMITS, Agreement, Reference, Source, compare_by_onnx, reference_sets, verify
from tests.dap.graphs import save

PERFECT = Agreement(
    engine="onnx",
    precision="fp32",
    panoramas=6,
    depth_absolute=0.0,
    depth_relative=0.0,
    absrel=0.0,
    in_range_absolute=0.0,
    mask_iou=1.0,
    seam_error=0.0,
    network_seam_error=0.0,
)


def test_a_true_export_agrees(checkpoint: Path, exported: Path) -> None:
    found = verify(exported, load_network(checkpoint))
    assert [agreement.source for agreement in found] == ["synthetic", "rendered"]
    for agreement in found:
        agreement.require()
        assert (agreement.engine, agreement.precision, agreement.panoramas) == ("onnx", "fp32", 6)
        assert agreement.seam_error == pytest.approx(agreement.network_seam_error, rel=1e-3)
        assert 0 < agreement.absrel < agreement.depth_relative < 1e-4
        assert agreement.mask_iou > 0.999


@pytest.mark.parametrize(
    ("precision", "encoder", "size", "sets"),
    [
        ("fp32", "vit-s", (512, 1024), [("synthetic", 6), ("rendered", 6)]),
        ("fp32", "vit-l", (512, 1024), [("synthetic", 6), ("rendered", 2)]),
        ("fp32", "vit-l", (128, 256), [("synthetic", 6), ("rendered", 6)]),
        ("bf16", "vit-l", (512, 1024), [("rendered", 6)]),
    ],
)
def test_scenes_are_fewer_only_where_the_network_is_large_and_float32(
    precision: GraphPrecision,
    encoder: EncoderName,
    size: tuple[int, int],
    sets: list[tuple[Source, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(_: object, panoramas: Sequence[object], __: object, source: Source = "given") -> tuple[Source, int]:
        return source, len(panoramas)

    monkeypatch.setattr(Reference, "of", said)
    network = cast("DapNetwork", SimpleNamespace(config=NetworkConfig.official(encoder)))
    given = [np.zeros((32, 64, 3), np.uint8)]
    assert [*reference_sets(network, None, precision, size)] == sets
    assert [*reference_sets(network, given, precision, size)] == [*sets, ("given", 1)]


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
    found = verify(changed(exported, tmp_path / "off.onnx", "depth", 1.0001), load_network(checkpoint))
    for agreement in found:
        assert agreement.absrel == pytest.approx(1e-4, rel=0.1)
        with pytest.raises(VerificationFailed, match=rf"6 {agreement.source} .* absrel is .*, the limit is 1e-05"):
            agreement.require()


def test_probabilities_that_are_off_are_found(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    agreement, _ = verify(changed(exported, tmp_path / "off.onnx", "in_range", 0.5), load_network(checkpoint))
    assert agreement.absrel < LIMITS["fp32"]["absrel"]
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
    for agreement in verify(tmp_path / "leak.onnx", load_network(checkpoint)):
        assert any(number.startswith("absrel is") for number in agreement.broken)


@pytest.mark.parametrize(
    ("precision", "name", "limit"),
    [
        ("fp32", "absrel", 1e-5),
        ("bf16", "absrel", 5e-3),
        ("fp16", "absrel", 5e-3),
        ("int8", "absrel", 2e-2),
        ("fp8", "absrel", 2e-2),
        *(("fp32", name, limit) for name, limit in LIMITS["fp32"].items() if name != "absrel"),
        *((precision, "mask_iou", LIMITS[precision]["mask_iou"]) for precision in ("bf16", "int8")),
    ],
)
def test_each_limit_is_held(precision: GraphPrecision, name: str, limit: float) -> None:
    perfect = replace(PERFECT, precision=precision)
    perfect.require()
    worse = -1e-3 if name == "mask_iou" else 1e-6
    replace(perfect, **{name: limit}).require()
    with pytest.raises(VerificationFailed, match=f"The {precision} model .* on 6 given panoramas: {name} is"):
        replace(perfect, **{name: limit + worse}).require()
    with pytest.raises(VerificationFailed, match=f"{name} is nan"):
        replace(perfect, **{name: float("nan")}).require()


def test_a_step_at_the_border_is_a_seam_error() -> None:
    """Depth that grows by the factor e from the first column to the last, so that its log steps by 1 at the border."""
    depth = np.exp(np.linspace(0, 1, 33)[:-1]).astype(np.float32)
    straight = np.broadcast_to(depth, (1, 16, 32))
    reference = Reference(np.zeros((1, 16, 32, 3), np.uint8), straight.astype(np.float64), np.ones((1, 4, 16, 32)), 100)
    engine = SimpleNamespace(
        name="flat", device="cpu", infer=lambda *_, **__: Inference(np.full_like(straight, 2), np.ones((1, 4, 16, 32)))
    )
    agreement = reference.compare(engine, "bf16")
    assert agreement.network_seam_error == pytest.approx(1, abs=1e-4)
    assert agreement.seam_error == pytest.approx(0, abs=1e-6)


def off_in_one_depth(metres: float, factor: float) -> Agreement:
    """Of an engine that is right but for one pixel, whose depth it multiplies."""
    depth = np.full((1, 16, 32), 2.0)
    depth[0, 8, 16] = metres
    found = depth.astype(np.float32)
    found[0, 8, 16] *= factor
    reference = Reference(np.zeros((1, 16, 32, 3), np.uint8), depth, np.ones((1, 4, 16, 32)), 100)
    engine = SimpleNamespace(name="one", device="cpu", infer=lambda *_, **__: Inference(found, np.ones((1, 4, 16, 32))))
    return reference.compare(engine, "fp32")


@pytest.mark.parametrize("factor", [0.996, 1.004])
def test_a_single_depth_that_is_off_is_found(factor: float) -> None:
    """By 8 mm at 2 m: too little for the mean of all pixels, and as a part of the farthest depth."""
    agreement = off_in_one_depth(2, factor)
    assert agreement.absrel < LIMITS["fp32"]["absrel"]
    assert agreement.depth_absolute < LIMITS["fp32"]["depth_absolute"]
    with pytest.raises(VerificationFailed, match=r"panoramas: depth_relative is 0.004, the limit is 0.001\.$"):
        agreement.require()


@pytest.mark.parametrize(("metres", "relative"), [(0.2, 0.1), (0.1, 0.1), (0.01, 0.01), (0.001, 0.001)])
def test_next_to_the_camera_a_single_depth_is_held_to_a_part_of_ten_centimetres(metres: float, relative: float) -> None:
    assert off_in_one_depth(metres, 1.1).depth_relative == pytest.approx(relative, rel=1e-5)


@pytest.mark.parametrize("wrong", [True, False])
def test_depth_that_is_off_with_range_masks_or_without_is_found(wrong: bool) -> None:
    """Engines have a session, a plan or a branch for each."""
    depth = np.full((1, 16, 32), 2.0)
    reference = Reference(np.zeros((1, 16, 32, 3), np.uint8), depth, np.ones((1, 4, 16, 32)), 100)

    def infer(batch: object, in_range: bool = True) -> Inference:
        metres = np.full((1, 16, 32), 2.2 if in_range == wrong else 2.0, np.float32)
        return Inference(metres, np.ones((1, 4 if in_range else 0, 16, 32), np.float32))

    agreement = reference.compare(SimpleNamespace(name="of two minds", device="cpu", infer=infer), "bf16")
    assert (agreement.absrel, agreement.depth_relative) == pytest.approx((0.1, 0.1))
    assert agreement.depth_absolute == pytest.approx(0.002)


def counting(device: str, ran: list[int], wrong: int = 0) -> tuple[Reference, Any]:
    """Six panoramas of 1 to 6 m, and an engine on this device that is wrong on the last of so many at a time."""
    metres = np.arange(1.0, 7.0)
    pixels = np.broadcast_to(metres.astype(np.uint8)[:, None, None, None], (6, 16, 32, 3))
    depth = np.broadcast_to(metres[:, None, None], (6, 16, 32))

    def infer(batch: npt.NDArray[np.uint8], in_range: bool = True) -> Inference:
        found = batch[..., 0].astype(np.float32)
        if len(batch) == wrong:
            found[-1] *= 2
        if in_range:
            ran.append(len(batch))
        return Inference(found, np.ones((len(batch), 4 if in_range else 0, 16, 32), np.float32))

    return Reference(pixels, depth, np.ones((6, 4, 16, 32)), 100), SimpleNamespace(name="e", device=device, infer=infer)


@pytest.mark.parametrize(
    ("device", "max_batch_size", "batches"),
    [
        ("cpu", 16, [1, 2, 3]),
        ("cuda:0", 1, [1, 2, 3, *6 * [1]]),
        ("cuda:0", 4, [1, 2, 3, *6 * [1], 4, 4]),
        ("cuda:0", 16, [1, 2, 3, *6 * [1], 4, 4, 16]),
    ],
)
def test_on_a_gpu_all_panoramas_run_in_batches_of_each_size_that_plans_are_for(
    device: str, max_batch_size: int, batches: list[int]
) -> None:
    ran: list[int] = []
    reference, engine = counting(device, ran)
    agreement = reference.compare(engine, "bf16", max_batch_size=max_batch_size)
    assert ran == batches
    assert (agreement.panoramas, agreement.absrel, agreement.mask_iou) == (6, 0, 1)


@pytest.mark.parametrize(("wrong", "absrel"), [(1, 1), (4, 0.25), (16, 1 / 18)])
def test_what_is_wrong_in_batches_of_one_size_alone_is_found_and_what_is_right_in_others_takes_nothing_off(
    wrong: int, absrel: float
) -> None:
    """In batches of 4, which are 1234 and 5612, the fourth is wrong and the second in one run of two; in one of 16 the
    fourth in one run of three."""
    reference, engine = counting("cuda:0", [], wrong)
    agreement = reference.compare(engine, "bf16", max_batch_size=16)
    assert agreement.absrel == pytest.approx(absrel)
    assert agreement.depth_relative == 1


def test_panoramas_of_ones_own_are_compared_on_by_themselves_at_the_models_size(
    checkpoint: Path, exported: Path
) -> None:
    own = [np.full((300, 600, 3), 77, np.uint8)]
    found = verify(exported, load_network(checkpoint), own)
    assert [(one.source, one.panoramas) for one in found] == [("synthetic", 6), ("rendered", 6), ("given", 1)]
    assert found[:2] == verify(exported, load_network(checkpoint)), "what is given takes nothing from the other sets"


def test_what_is_compared_with_several_sets_is_opened_once(
    checkpoint: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def engine(path: Path, *arguments: Any, **named: Any) -> OnnxEngine:
        opened.append(path)
        return OnnxEngine(path, *arguments, **named)

    monkeypatch.setattr(module, "OnnxEngine", engine)
    assert len(verify(exported, load_network(checkpoint), [np.full((64, 128, 3), 77, np.uint8)])) == 3
    assert opened == [exported]


@pytest.mark.parametrize("asked", [{"device": "cuda"}, {"device": "auto", "provider": "cuda"}])
def test_what_a_gpu_should_run_is_emulated_on_no_cpu(asked: dict[str, Any], exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    for entry in model.metadata_props:
        entry.value = "bf16" if entry.key == "dap.precision" else entry.value
    with pytest.raises(EngineUnavailable, match=f"{asked.get('provider', asked['device'])} was asked for"):
        compare_by_onnx(save(model, tmp_path / "bf16.onnx"), (), **asked)


def test_a_file_that_is_no_export_of_ours_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"")
    with pytest.raises(ModelFileInvalid):
        verify(tmp_path / "other.onnx", load_network(checkpoint))
