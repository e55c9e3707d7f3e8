"""The pipeline as a whole, on the smoke preset: what each stage leaves, what is done again, what goes on where."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dap.errors import TrainingError
from dap.model.checkpoints import load_network
from dap.models import find_model
from training.batches import Share
from training.config import PerturbationConfig
from training.datasets.shards import ShardReader
from training.discriminator import steps_done
from training.distributed import Process
from training.pipeline_config import PIPELINES, PipelineConfig
from training.pipeline_state import RunState, StageRecord
from training.scoring import read_scores
from training.selection import Selection
from training.stages import STAGES, Place, Run, last_event, run_pipeline, selection_file
from training.trainer import train

ROOT = Path(__file__).parents[2]
SMOKE = PIPELINES["smoke"]
AFTER_SELECTION = ("stage-2-labeler", "labels-2", "stage-3-dap")


@pytest.fixture
def copied(smoke_runs: Path, tmp_path: Path) -> Callable[[PipelineConfig], Run]:
    """The finished run, copied, with another configuration or the same."""
    shutil.copytree(smoke_runs / "smoke-seed-0", tmp_path / "run")

    def copy(config: PipelineConfig) -> Run:
        return Run(config, Place(tmp_path / "run", smoke_runs / "data", Process()))

    return copy


def outputs(run: Run) -> dict[str, str]:
    return {name: record.output for name, record in run.state.read().items()}


def seen_by(run: Run, stage: str) -> dict[str, dict[str, Any]]:
    """What a training recorded of its data."""
    parts: dict[str, dict[str, Any]] = json.loads((run.folder(stage) / "data.json").read_text())["parts"]
    return parts


def test_every_stage_leaves_what_the_next_one_needs(copied: Callable[[PipelineConfig], Run]) -> None:
    run = copied(SMOKE)
    assert {name: record.state for name, record in run.state.read().items()} == dict.fromkeys(STAGES, "done")
    for stage in ("stage-1-labeler", "stage-2-labeler", "stage-3-dap"):
        assert load_network(run.model(stage)).config == SMOKE.stage_1.network
    assert find_model(run.model("stage-3-dap")).input_size == (32, 64)
    (pool,) = SMOKE.unlabelled
    for stage, labeler in (("labels-1", "stage-1-labeler"), ("labels-2", "stage-2-labeler")):
        labels = run.labels(stage, pool, labeler)
        ids = [member.id for index in range(2) for member in labels.members(index)]
        assert ids == [picture.id for picture in run.reader(pool)]


def test_the_pool_that_is_labelled_has_no_truth(copied: Callable[[PipelineConfig], Run]) -> None:
    pool = copied(SMOKE).reader(SMOKE.unlabelled[0])
    assert all(sample.depth is None for sample in pool)
    assert {sample.metadata["domain"] for sample in pool} == {"real-like"}


def test_stages_see_what_the_paper_says(copied: Callable[[PipelineConfig], Run]) -> None:
    run = copied(SMOKE)
    first, second, third = (seen_by(run, stage) for stage in STAGES if STAGES[stage].trains)
    assert set(first) == {"fresh scenes", "smoke-labelled"}
    assert set(second) == set(third) == {"fresh scenes", "smoke-labelled", "smoke-real-like"}
    assert [parts["smoke-labelled"]["samples"] for parts in (first, second, third)] == [4, 4, 8], "half is held out"
    assert second["smoke-real-like"]["samples"] == 3, "the best two indoor and one outdoor"
    assert third["smoke-real-like"]["samples"] == 8
    assert second["smoke-real-like"]["share"] == third["smoke-real-like"]["share"] == 0.5
    labels = [run.labels(f"labels-{n}", SMOKE.unlabelled[0], f"stage-{n}-labeler") for n in (1, 2)]
    assert second["smoke-real-like"]["labels"] == labels[0].manifest.fingerprint
    assert third["smoke-real-like"]["labels"] == labels[1].manifest.fingerprint


def test_stage_3_has_no_more_labels_than_stage_1_if_it_is_told_so(copied: Callable[[PipelineConfig], Run]) -> None:
    run = copied(replace(SMOKE, stage_3_sees_held_out=False))
    run.do(STAGES["stage-3-dap"])
    samples = [seen_by(run, stage)["smoke-labelled"]["samples"] for stage in ("stage-1-labeler", "stage-3-dap")]
    assert samples == [4, 4]


@pytest.mark.parametrize(
    ("labelled", "perturbed"),
    [(0.0, {"smoke-real-like"}), (0.5, {"smoke-real-like", "smoke-labelled", "fresh scenes"})],
)
def test_pseudo_labelled_panoramas_are_perturbed_if_it_is_told_so_and_labelled_ones_by_request(
    copied: Callable[[PipelineConfig], Run], labelled: float, perturbed: set[str]
) -> None:
    run = copied(replace(SMOKE, perturbation=PerturbationConfig(labelled=labelled)))
    run_pipeline(run)
    for stage in ("stage-2-labeler", "stage-3-dap"):
        assert {name for name, part in seen_by(run, stage).items() if "perturbation" in part} == perturbed
    assert not any("perturbation" in part for part in seen_by(run, "stage-1-labeler").values())


def test_the_best_scores_of_each_place_are_selected(copied: Callable[[PipelineConfig], Run]) -> None:
    run = copied(SMOKE)
    labels = run.labels("labels-1", SMOKE.unlabelled[0], "stage-1-labeler")
    selection = Selection.read(selection_file(run, SMOKE.unlabelled[0]))
    chosen = {one.id for one in selection.chosen}
    assert {one for ids in selection.ids(labels).values() for one in ids} == chosen
    (file,) = labels.folder.glob("scores-*.jsonl")
    for place, count in (("indoor", 2), ("outdoor", 1)):
        scores = sorted((one for one in read_scores(file) if one.place == place), key=lambda one: -(one.score or 0))
        assert [one.id in chosen for one in scores] == [True] * count + [False] * (len(scores) - count)


def test_stage_2_goes_on_from_stage_1_unless_it_is_told_not_to(copied: Callable[[PipelineConfig], Run]) -> None:
    run = copied(SMOKE)
    config = json.loads((run.folder("stage-2-labeler") / "config.json").read_text())
    assert config["initial"] == "model"
    assert Path(config["weights"]).name == "model.safetensors"
    assert Path(config["weights"]).parent.name == "stage-1-labeler"
    assert json.loads((run.folder("stage-3-dap") / "config.json").read_text())["initial"] == "random"


def test_what_is_done_is_not_done_again(copied: Callable[[PipelineConfig], Run]) -> None:
    run = copied(SMOKE)
    before = {name: record for name, record in run.state.read().items() if name != "data"}
    times = {path: path.stat().st_mtime_ns for path in run.place.folder.rglob("*.safetensors")}
    run_pipeline(run)
    assert {name: record for name, record in run.state.read().items() if name != "data"} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_other_settings_do_again_what_depends_on_them_and_keep_what_there_was(
    copied: Callable[[PipelineConfig], Run],
) -> None:
    before = outputs(copied(SMOKE))
    run = copied(replace(SMOKE, pseudo_share_3=0.25))
    run_pipeline(run)
    after = outputs(run)
    assert [name for name in STAGES if after[name] != before[name]] == ["stage-3-dap"]
    (aside,) = run.place.folder.glob("stage-3-dap.*")
    assert load_network(aside / "model.safetensors").config == SMOKE.stage_3.network


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"stage_1": replace(SMOKE.stage_1, seed=5)}, "stage-1-labeler"),
        ({"discriminator": replace(SMOKE.discriminator, noise=0.2)}, "discriminator"),
        ({"selected": replace(SMOKE.selected, indoor=1)}, "selection"),
        ({"pseudo_share_2": 0.3}, "stage-2-labeler"),
        ({"perturbation": PerturbationConfig()}, "stage-2-labeler"),
    ],
)
def test_what_comes_after_a_changed_stage_is_outdated(
    copied: Callable[[PipelineConfig], Run], change: dict[str, Any], first: str
) -> None:
    run = copied(replace(SMOKE, **change))
    outdated = {name for name, stage in STAGES.items() if not run.up_to_date(stage)}
    needs = {first}
    for name, stage in STAGES.items():
        if needs & set(stage.needs):
            needs.add(name)
    assert outdated == needs


@pytest.mark.parametrize(
    ("named", "outdated"),
    [
        ("stage_1", set(STAGES) - {"data"}),
        ("stage_2", set()),
        ("stage_3", {"stage-3-dap"}),
    ],
)
def test_other_bytes_in_the_weights_it_starts_from_outdate_a_stage(
    copied: Callable[[PipelineConfig], Run], tmp_path: Path, named: str, outdated: set[str]
) -> None:
    """Stage 2 starts from stage 1 here, whatever weights it names."""
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"1")
    stage = replace(getattr(SMOKE, named), initial="model", weights=str(weights))
    run = copied(replace(SMOKE, **{named: stage}))
    record_as_done(run)
    weights.write_bytes(b"2")
    assert {name for name, stage in STAGES.items() if not run.up_to_date(stage)} == outdated
    weights.unlink()
    assert all(run.up_to_date(stage) for stage in STAGES.values()), "they are needed no longer"


def record_as_done(run: Run) -> None:
    """What the stages of a run made, as if it had been made from what there is now."""
    for name, stage in STAGES.items():
        output = run.state.of(name).output
        run.state.begin(name, run.inputs(stage))
        run.state.finish(name, output, {})


def test_a_stage_that_begins_needs_its_weights(copied: Callable[[PipelineConfig], Run], tmp_path: Path) -> None:
    run = copied(replace(SMOKE, stage_1=replace(SMOKE.stage_1, initial="model", weights=str(tmp_path / "none.pth"))))
    with pytest.raises(TrainingError, match=r"none\.pth was expected: the weights that stage-1-labeler starts from"):
        run_pipeline(run, ["stage-1-labeler"])


def test_a_stage_alone_needs_those_before_it(smoke_runs: Path, tmp_path: Path) -> None:
    run = Run(SMOKE, Place(tmp_path, smoke_runs / "data", Process()))
    with pytest.raises(TrainingError, match="labels-1 needs stage-1-labeler, which is waiting"):
        run_pipeline(run, ["labels-1"])


def test_data_that_is_not_there_is_named_with_its_command(tmp_path: Path) -> None:
    config = replace(SMOKE, labelled=(replace(SMOKE.labelled[0], name="structured3d", scenes=None),))
    with pytest.raises(TrainingError, match=r"structured3d was expected: write it with `dap data pack"):
        run_pipeline(Run(config, Place(tmp_path, tmp_path / "data", Process())), ["data"])


def test_several_processes_share_trainings_only(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "data", Process(share=Share(0, 2)))
    with pytest.raises(TrainingError, match="several processes share a training only"):
        run_pipeline(Run(SMOKE, place))


def test_a_run_that_is_stopped_in_a_stage_ends_as_an_unbroken_one(
    copied: Callable[[PipelineConfig], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(SMOKE)
    whole = outputs(run)
    begin_again_from(run, AFTER_SELECTION)

    def stopped(*arguments: Any) -> None:
        *others, on_step = arguments  # as train_stage passes them
        steps = iter(range(4))

        def stop() -> None:
            on_step()
            if next(steps) == 2:
                raise KeyboardInterrupt

        train(*(*others, stop))

    monkeypatch.setattr("training.stages.train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(run)
    monkeypatch.undo()
    assert run.state.of("stage-2-labeler").state == "running"
    assert (run.folder("stage-2-labeler") / "latest").read_text() == "step-0000002"
    run_pipeline(run)
    assert outputs(run) == whole
    assert not list(run.place.folder.glob("stage-2-labeler.*")), "it went on: nothing was moved aside"


def test_a_process_that_is_killed_in_a_stage_leaves_a_run_that_ends_as_an_unbroken_one(
    copied: Callable[[PipelineConfig], Run],
) -> None:
    run = copied(SMOKE)
    whole = outputs(run)
    begin_again_from(run, ("discriminator", "labels-1", "selection", *AFTER_SELECTION))
    command = [sys.executable, "-m", "dap", "train", "pipeline", "--device", "cpu", "--threads", "1"]
    command += ["--runs", str(run.place.folder.parent), "--run", run.place.folder.name, "--data", str(run.place.data)]
    process = subprocess.Popen(command, cwd=ROOT)
    while not steps_done(run.folder("discriminator")):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert run.state.of("stage-3-dap").state == "waiting"
    run_pipeline(run)
    assert outputs(run) == whole
    assert not list(run.place.folder.glob("*.????????")), "it went on: nothing was moved aside"


def begin_again_from(run: Run, names: tuple[str, ...]) -> None:
    """Forget some stages."""
    for name in names:
        shutil.rmtree(run.folder(name))
        RunState(run.place.folder).write(name, StageRecord())


def test_a_log_that_has_no_line_yet_says_nothing(tmp_path: Path) -> None:
    assert last_event(tmp_path / "log.jsonl") == {}
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    assert last_event(tmp_path / "log.jsonl") == {"step": 2}


def test_labels_are_of_the_labeler_that_made_them(copied: Callable[[PipelineConfig], Run]) -> None:
    run = copied(SMOKE)
    labels = run.labels("labels-1", SMOKE.unlabelled[0], "stage-1-labeler")
    assert labels.manifest.config["model_sha256"] == run.state.of("stage-1-labeler").output
    assert isinstance(labels, ShardReader)
