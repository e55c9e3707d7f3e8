"""The arithmetic of a plan, on the smoke preset and on steps of made-up sizes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dap.errors import TrainingError
from training.config import Phase
from training.datasets.shards import DEPTH, Manifest, ShardReader, encode_depth, write_shard
from training.pipeline_config import PIPELINES, PipelineConfig, ShardData
from training.plan import HEADROOM, Means, PackedSize, Plan, fits_of, held_bytes, make_plan, packed_size, panoramas_of
from training.step_trace import Parameters, StepBytes, StepTrace

SIZE = PackedSize(picture=0.5, depth=0.25, label=1.0, rest=100, decoding=None, source="made up")


def smoke() -> PipelineConfig:
    """With the cheaper losses everywhere, so that one trace serves all three stages."""
    config = PIPELINES["smoke"]
    return replace(config, stage_3=replace(config.stage_3, loss=config.stage_1.loss))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(smoke(), Means(devices=2, memory_gb=1.0, size=SIZE))


def trace(kept: StepBytes, recomputed: StepBytes | None = None) -> StepTrace:
    """Of a network of a million parameters, of which half are trained."""
    parameters = {"encoder": Parameters(1_000_000, 500_000)}
    return StepTrace(512, parameters, (), {"encoder": 10}, 30, 40 if recomputed else None, kept, recomputed)


def test_a_device_holds_parameters_gradients_adam_and_the_mean() -> None:
    """ViT-L: 16 bytes of state and 4 of gradient for each of 362.7 M parameters, all float32."""
    assert held_bytes(362_688_898, 362_688_898) == 20 * 362_688_898
    assert held_bytes(1000, 0) == 8 * 1000


def test_what_fits_is_what_memory_is_left_for() -> None:
    """1 GB less a tenth, 14 MB held and 86 MB once: 800 MB for samples of 150 MB each."""
    (fit,) = fits_of(trace(StepBytes(86_000_000, 150_000_000)), share=12, memory_gb=1.0)
    assert math.isclose(HEADROOM, 0.1)
    assert (fit.most, fit.accumulate) == (5, 3)
    assert fit.bytes == 14_000_000 + 86_000_000 + 4 * 150_000_000


def test_what_does_not_fit_is_said_to_not_fit() -> None:
    kept, again = fits_of(trace(StepBytes(0, 2 * 10**9), StepBytes(0, 10**8)), share=4, memory_gb=1.0)
    assert (kept.most, kept.accumulate, kept.bytes) == (0, None, None)
    assert (again.checkpoint_activations, again.accumulate, again.step_flop) == (True, 1, 40)


def test_more_memory_never_needs_more_parts() -> None:
    step = trace(StepBytes(10**7, 10**8))
    parts = [fits_of(step, share=32, memory_gb=gb)[0].accumulate or 99 for gb in (0.2, 0.5, 1, 2, 4, 8)]
    assert parts == sorted(parts, reverse=True)
    assert parts[0] > parts[-1] == 1


def test_stages_come_in_their_order_with_their_counts(plan: Plan) -> None:
    """Eight labelled, eight unlabelled and four test scenes; four steps of two samples; four of two pairs."""
    counts = {stage.name: stage.panoramas for stage in plan.stages}
    assert counts == {
        "data": 20, "stage-1-labeler": 8, "discriminator": 8, "labels-1": 8, "selection": 8,
        "stage-2-labeler": 8, "labels-2": 8, "stage-3-dap": 8,
    }  # fmt: skip
    assert {stage.name for stage in plan.stages if stage.steps == 4} == {
        "stage-1-labeler", "discriminator", "stage-2-labeler", "stage-3-dap",
    }  # fmt: skip


def test_flop_are_samples_times_those_of_one(plan: Plan) -> None:
    step = plan.traces["stage-1-labeler at 32"]
    by_name = {stage.name: stage.flop for stage in plan.stages}
    assert by_name["stage-1-labeler"] == 8 * step.step_flop
    assert by_name["labels-2"] == 8 * plan.label_flop == 8 * sum(step.forward_flop.values())
    assert by_name["data"] == 0
    assert plan.flop == sum(by_name.values())


def test_storage_is_panoramas_times_bytes(plan: Plan) -> None:
    """Of 32x64 pixels: half a byte of picture, a quarter of true depth, one of a label, 100 bytes around each."""
    by_name = {stage.name: stage.storage for stage in plan.stages}
    pixels = 32 * 64
    assert by_name["data"] == 20 * (0.5 * pixels + 100) + 12 * (0.25 * pixels + 100)
    assert by_name["labels-1"] == by_name["labels-2"] == 8 * (pixels + 100)
    numbers = sum(part.all for part in plan.traces["stage-1-labeler at 32"].parameters.values())
    assert by_name["stage-1-labeler"] == 2 * 16 * numbers + 4 * numbers, "one checkpoint is kept, one is being written"
    assert plan.storage == sum(by_name.values())


def test_hours_are_flop_by_rate_and_cost_is_that_of_all_devices(plan: Plan) -> None:
    rated = plan.at(1e-6, "made up", price=2.0)
    first, discriminator = rated.stages[1], rated.stages[2]
    assert first.hours == pytest.approx(first.flop / (2 * 1e6) / 3600)
    assert first.cost == pytest.approx(2 * 2.0 * first.hours)
    assert discriminator.hours == pytest.approx(discriminator.flop / 1e6 / 3600), "one process trains it"
    assert rated.hours == pytest.approx(sum(stage.hours or 0 for stage in rated.stages))
    assert "1e-06 TFLOP/s in every stage: made up" in rated.assumptions[-2]
    assert plan.hours is None
    assert plan.cost is None
    with pytest.raises(TrainingError, match="a rate above zero"):
        plan.at(0, "")


def test_a_batch_is_shared_by_devices(plan: Plan) -> None:
    assert [phase.share for phase in plan.stages[1].phases] == [1]
    with pytest.raises(TrainingError, match="stage-1-labeler: a batch of 2 cannot be shared by 4 devices"):
        make_plan(smoke(), Means(devices=4))


def test_a_second_phase_is_traced_at_its_size() -> None:
    config = smoke()
    phases = (Phase(32, 4, 2), Phase(64, 3, 2))
    made = make_plan(replace(config, stage_1=replace(config.stage_1, phases=phases)), Means(devices=1))
    assert "stage-1-labeler at 64" in made.traces
    small, large = made.stages[1].phases
    assert large.flop / 6 > 2 * small.flop / 8, "four times the pixels; the views of the losses stay"


def test_a_plan_without_devices_is_refused() -> None:
    with pytest.raises(TrainingError, match="got 0 with 80"):
        Means(devices=0)


def test_panoramas_are_counted_in_shards_or_scenes_or_as_published(tmp_path: Path) -> None:
    assert panoramas_of(ShardData("structured3d"), None) == 18_298
    assert panoramas_of(PIPELINES["smoke"].labelled[0], tmp_path) == 8
    packed(tmp_path / "structured3d", 3)
    assert panoramas_of(ShardData("structured3d"), tmp_path) == 3
    with pytest.raises(TrainingError, match="how many panoramas attic has"):
        panoramas_of(ShardData("attic"), tmp_path)


def packed(folder: Path, count: int, *, picture: bool = True) -> ShardReader:
    """Panoramas of 16x32 with depth, or labels without a picture."""
    from dap.formats import png

    depth = encode_depth(np.full((16, 32), 2.0, np.float32))
    rgb = png.encode(np.zeros((16, 32, 3), np.uint8))
    members = {DEPTH: depth, "json": b'{"id": "a"}'} | ({"png": rgb} if picture else {})
    folder.mkdir()
    record = write_shard(folder / "a-all-000000.tar", ((f"p{number}", members) for number in range(count)))
    Manifest({"labelled": True}, {}, (record,), complete=True).write(folder)
    return ShardReader(folder)


def test_sizes_are_measured_on_shards(tmp_path: Path) -> None:
    panoramas, labels = packed(tmp_path / "a", 3), packed(tmp_path / "b", 2, picture=False)
    size = packed_size([panoramas], [labels])
    files = next(panoramas.members(0)).files
    assert size.picture == len(files["png"]) / 512
    assert size.depth == size.label == len(files[DEPTH]) / 512
    whole = (panoramas.folder / "a-all-000000.tar").stat().st_size
    told = size.of(3, 16, "picture", "depth")
    assert 0 <= whole - told < 10240 + 3 * 1024, "the tar is filled up to 10240 bytes"
    assert size.decoding is not None
    assert size.decoding > 0
    assert "measured in" in size.source
    with pytest.raises(TrainingError, match="there is no label"):
        packed_size([panoramas], [])
