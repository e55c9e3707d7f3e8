import copy
import functools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from dap.errors import TrainingError
from dap.model.checkpoints import load_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, NetworkOutput
from tests.training import killed_run
from tests.training.drawn import DrawnSource
from training import trainer
from training.augmentation import augment, step_generator
from training.batches import Batch, Share, cut
from training.config import AugmentationConfig, LossWeights, Phase, ReportConfig, TrainingConfig
from training.distributed import Process
from training.evaluate import LabelledPanorama
from training.losses import LOSSES, Truth, training_loss
from training.optimizer import make_optimizer
from training.run_record import git_revision
from training.shards import ShardFolder
from training.synthetic import RENDERER_VERSION
from training.synthetic_stream import SampleStream
from training.trainer import Learner, follow, latest_checkpoint, update

ROOT = Path(__file__).parents[2]


TWO_STEPS = replace(killed_run.CONFIG, phases=(Phase(height=16, steps=2, batch=1),))


class Killed(BaseException):
    """What a run cannot catch."""


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train(
    config: TrainingConfig,
    folder: Path,
    scenes: Path,
    sets: dict[str, list[LabelledPanorama]] | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> DapNetwork:
    """Train on rendered scenes, alone."""
    with SampleStream(config, scenes) as source:
        return trainer.train(config, folder, source, Process(), sets or {}, on_step)


def train_drawn(config: TrainingConfig, folder: Path) -> DapNetwork:
    """Train on drawn noise, alone: nothing is rendered."""
    return trainer.train(config, folder, DrawnSource(config, Share()), Process(), {})


def kill_after(steps: int) -> Callable[[], None]:
    """Something to call after each step that ends the run after some."""
    left = iter(range(steps - 1))

    def tick() -> None:
        if next(left, None) is None:
            raise Killed

    return tick


def events(folder: Path, name: str) -> list[dict[str, float]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The parameters of `killed_run` when nobody kills it."""
    return parameters(killed_run.run(tmp_path_factory.mktemp("unbroken")))


def between_checkpoints(folder: Path) -> bool:
    """Eight steps are done, two after the second checkpoint."""
    log = folder / "log.jsonl"
    return log.exists() and log.read_bytes().count(b"\n") >= 8


def in_the_middle_of_a_checkpoint(folder: Path) -> bool:
    """One is there and another is being written."""
    return (folder / "latest").exists() and any(folder.glob("checkpoints/.step-*"))


@pytest.mark.parametrize("moment", [between_checkpoints, in_the_middle_of_a_checkpoint])
def test_a_process_that_is_killed_and_resumed_gives_the_parameters_of_an_unbroken_one(
    unbroken: dict[str, Tensor], tmp_path: Path, moment: Callable[[Path], bool]
) -> None:
    process = subprocess.Popen([sys.executable, "-m", "tests.training.killed_run", "network", str(tmp_path)], cwd=ROOT)
    while not moment(tmp_path):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    resumed = killed_run.run(tmp_path)
    assert same(parameters(resumed), unbroken)
    done = [event["step"] for event in events(tmp_path, "step")]
    assert done[-1] == 20
    assert 0 <= len(done) - 20 <= 3, "what was done after the last checkpoint was done again, and nothing else"


def test_bf16_is_what_convolutions_give_and_parameters_stay_float32(tmp_path: Path) -> None:
    """Its relative rounding is 2**-9, so the loss of the first step is nearly that of float32."""
    given: dict[Literal["float32", "bf16"], set[torch.dtype]] = {"float32": set(), "bf16": set()}
    losses = {}
    for precision, types in given.items():

        def note(module: nn.Module, _: object, output: Tensor, types: set[torch.dtype] = types) -> None:
            if isinstance(module, nn.Conv2d) and module.training:
                types.add(output.dtype)

        hook = nn.modules.module.register_module_forward_hook(note)
        network = train_drawn(replace(TWO_STEPS, precision=precision), tmp_path / precision)
        hook.remove()
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert all(p.isfinite().all() for p in network.parameters())
        losses[precision] = [event["loss"] for event in events(tmp_path / precision, "step")]
    assert given == {"float32": {torch.float32}, "bf16": {torch.bfloat16}}
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"][0] == pytest.approx(losses["float32"][0], rel=0.05)


def test_a_compiled_network_is_trained_to_the_same_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch.compile, but what it made of the network is run as it is: code for it would need a compiler."""
    graphs: list[torch.fx.GraphModule] = []

    def as_it_is(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    expected = parameters(train_drawn(TWO_STEPS, tmp_path / "eager"))
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=as_it_is))
    compiled = train_drawn(replace(TWO_STEPS, compile=True), tmp_path / "compiled")
    assert sum(len(graph.graph.nodes) for graph in graphs) > 100
    assert same(parameters(compiled), expected)


@pytest.mark.parametrize("killed_after", [4, 6])
def test_a_run_that_is_stopped_and_resumed_gives_the_parameters_of_an_unbroken_one(
    tiny: TrainingConfig, scenes: Path, tmp_path: Path, killed_after: int
) -> None:
    """The checkpoint lies between two resolutions; two steps after it are lost and done again."""
    unbroken = train(tiny, tmp_path / "unbroken", scenes)
    with pytest.raises(Killed):
        train(tiny, tmp_path / "broken", scenes, on_step=kill_after(killed_after))
    resumed = train(tiny, tmp_path / "broken", scenes)
    assert same(parameters(resumed), parameters(unbroken))
    last = [
        parameters(load_network(tmp_path / run / "checkpoints/step-0000008/network.safetensors"))
        for run in ("unbroken", "broken")
    ]
    assert same(*last)


def test_a_seed_gives_other_parameters(tiny: TrainingConfig, scenes: Path, tmp_path: Path) -> None:
    runs = [train(replace(tiny, seed=seed), tmp_path / str(seed), scenes) for seed in (0, 1)]
    assert not same(*map(parameters, runs))


def test_a_run_leaves_its_configuration_data_environment_log_previews_and_model(
    tiny: TrainingConfig, scenes: Path, tmp_path: Path
) -> None:
    validation = ShardFolder(scenes, "mixed", 32, 2, validation=True)
    validation.render(0)
    samples = validation.load(0)
    panoramas = [LabelledPanorama(str(k), samples.rgb[k], samples.depth[k].astype("float32")) for k in range(2)]
    network = train(tiny, tmp_path, scenes, {"rendered": panoramas})
    assert TrainingConfig.from_json((tmp_path / "config.json").read_text()) == tiny
    checkpoint = tmp_path / "checkpoints" / "step-0000008"
    for record in ("config.json", "data.json", "environment.json"):
        assert (checkpoint / record).read_bytes() == (tmp_path / record).read_bytes()
    environment = json.loads((checkpoint / "environment.json").read_text())
    assert (environment["torch"], environment["processes"]) == (torch.__version__, 1)
    assert environment["revision"] == git_revision()
    assert json.loads((checkpoint / "data.json").read_text()) == {
        "source": "rendered scenes",
        "kind": "mixed",
        "renderer": RENDERER_VERSION,
        "rendered_on": "cpu",
    }
    assert [event["step"] for event in events(tmp_path, "step")] == list(range(1, 9))
    assert [event["step"] for event in events(tmp_path, "evaluation")] == [4, 8]
    assert (tmp_path / "previews" / "rendered-0000008.png").is_file()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert same(parameters(load_network(tmp_path / "model.safetensors")), parameters(network))


def test_a_resume_may_extend_the_run_but_not_change_the_network(
    tiny: TrainingConfig, scenes: Path, tmp_path: Path
) -> None:
    train(tiny, tmp_path, scenes)
    longer = replace(tiny, phases=(*tiny.phases, Phase(height=16, steps=2, batch=2)))
    train(longer, tmp_path, scenes)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-0000010"
    other = replace(longer, network=NetworkConfig(encoder="hybrid-xs", depth_activation="linear"))
    with pytest.raises(TrainingError, match="linear"):
        train(other, tmp_path, scenes)
    assert TrainingConfig.from_json((tmp_path / "config.json").read_text()) == longer


def test_a_checkpoint_that_is_not_finished_is_not_there(
    tiny: TrainingConfig, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of writing the second checkpoint, the run goes on from the first."""
    unbroken = parameters(train(tiny, tmp_path / "unbroken", scenes))
    torch_save = torch.save

    def save_until_killed(value: object, path: Path) -> None:
        if "step-0000008" in str(path):
            path.write_bytes(b"half")
            raise Killed
        torch_save(value, path)

    monkeypatch.setattr(torch, "save", save_until_killed)
    broken = tmp_path / "broken"
    with pytest.raises(Killed):
        train(tiny, broken, scenes)
    assert latest_checkpoint(broken) == broken / "checkpoints" / "step-0000004"
    monkeypatch.undo()
    assert same(parameters(train(tiny, broken, scenes)), unbroken)


def test_the_newest_checkpoints_are_kept(tiny: TrainingConfig, scenes: Path, tmp_path: Path) -> None:
    config = replace(tiny, report=ReportConfig(checkpoint=2, keep=3))
    train(config, tmp_path, scenes)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-0000004", "step-0000006", "step-0000008"]


def test_a_pointer_to_a_checkpoint_that_is_gone_is_an_error(tiny: TrainingConfig, scenes: Path, tmp_path: Path) -> None:
    train(tiny, tmp_path, scenes)
    shutil.rmtree(tmp_path / "checkpoints" / "step-0000008")
    with pytest.raises(TrainingError, match="latest names step-0000008"):
        train(tiny, tmp_path, scenes)


def learner(seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    network = DapNetwork(NetworkConfig(encoder="hybrid-xs"))
    average = copy.deepcopy(network).requires_grad_(requires_grad=False)
    return Learner(network, average, make_optimizer(network, TrainingConfig()), network)


def descend(student: Learner, loss: Tensor, clip: float, learning_rate: float) -> tuple[float, bool]:
    student.optimizer.zero_grad()
    loss.backward()
    return update(student, loss, clip, learning_rate, 0.99)


def test_thirty_steps_on_two_scenes_halve_the_loss(scenes: Path) -> None:
    folder = ShardFolder(scenes, "mixed", 32, 2)
    folder.render(0)
    batch, student, losses = Batch.of(folder.load(0)), learner(), []
    for step in range(30):
        example = augment(batch, AugmentationConfig(flip=0, strength=0), step_generator(0, step))
        output = student.network(example.images)
        loss, _ = training_loss(output, example.truth, (10.0, 20.0, 50.0, 100.0), LossWeights())
        descend(student, loss, 1.0, 3e-3)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_moves_nothing(bad: float) -> None:
    student = learner()
    before = parameters(student.network), parameters(student.average)
    loss = student.network(torch.zeros(1, 3, 16, 32)).log_depth.mean() * bad
    _, moved = descend(student, loss, 1.0, 1e-3)
    assert not moved
    assert same(parameters(student.network), before[0])
    assert same(parameters(student.average), before[1])
    assert not student.optimizer.state


def with_bad_steps(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the first losses of the next run be not a number."""
    left = iter(range(count))

    def spoilt(
        prediction: NetworkOutput, truth: Truth, thresholds: tuple[float, ...], weights: LossWeights
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = training_loss(prediction, truth, thresholds, weights)
        return (loss if next(left, None) is None else loss * torch.nan), terms

    monkeypatch.setattr(trainer, "training_loss", spoilt)


def test_bad_steps_are_skipped_and_counted(
    tiny: TrainingConfig, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_bad_steps(monkeypatch, 3)
    network = train(tiny, tmp_path, scenes)
    assert [event["bad_steps"] for event in events(tmp_path, "step")] == [1, 2, 3, 3, 3, 3, 3, 3]
    assert events(tmp_path, "step")[0]["loss"] is None
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_too_many_bad_steps_end_the_run(
    tiny: TrainingConfig, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_bad_steps(monkeypatch, 8)
    config = replace(tiny, optimizer=replace(tiny.optimizer, bad_steps=2))
    with pytest.raises(TrainingError, match="3 steps had no finite loss and gradient, the last at 2"):
        train(config, tmp_path, scenes)


def test_the_running_mean_moves_by_what_the_decay_leaves() -> None:
    average, network = nn.Linear(2, 1), nn.Linear(2, 1)
    nn.init.constant_(average.weight, 1.0)
    nn.init.constant_(network.weight, 3.0)
    follow(average, network, 0.75)
    assert average.weight.tolist() == [[1.5, 1.5]]
    assert network.weight.tolist() == [[3.0, 3.0]]


def test_each_group_moves_at_its_own_rate() -> None:
    student = learner()
    student.optimizer.param_groups[1]["scale"] = 0.25
    descend(student, student.network(torch.zeros(1, 3, 16, 32)).log_depth.square().mean(), 1.0, 1e-3)
    assert [group["lr"] for group in student.optimizer.param_groups] == [1e-3, 0.25e-3]


def test_the_gradient_is_clipped_to_the_norm_asked_for() -> None:
    student = learner()
    loss = 1e4 * student.network(torch.zeros(1, 3, 16, 32)).log_depth.square().mean()
    norm, _ = descend(student, loss, 0.5, 1e-3)
    gradients = [p.grad.norm() for p in student.network.parameters() if p.grad is not None]
    assert norm > 1
    assert torch.stack(gradients).norm().item() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_mean_over_images_of_what_each_has_by_itself(name: str) -> None:
    """So a batch may be cut anyhow. The images have unlike labels; of one nothing is known."""
    config = replace(TrainingConfig(), phases=(Phase(height=16, steps=2, batch=4),))
    truth = DrawnSource(config, Share()).batch(1).truth
    generator = torch.Generator().manual_seed(0)
    log_depth = torch.randn(4, 16, 32, generator=generator)
    output = NetworkOutput(log_depth.exp(), log_depth, torch.randn(4, 2, 16, 32, generator=generator))
    factors = {field: float(field == name) for field in LOSSES}
    weights = replace(LossWeights(), **factors, fidelity_size=8)

    def loss(rows: slice) -> float:
        part = NetworkOutput(*(tensor[rows] for tensor in output))
        return training_loss(part, cut(truth, rows), (10.0, 20.0), weights)[0].item()

    whole = loss(slice(0, 4))
    assert whole > 0
    assert whole == pytest.approx(0.25 * loss(slice(0, 1)) + 0.75 * loss(slice(1, 4)), rel=1e-5)


def test_checkpointed_activations_give_the_same_gradients_and_keep_less() -> None:
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    kept, gradients = [], []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        network = DapNetwork(NetworkConfig(encoder="hybrid-s"))
        if checkpointed:
            trainer.recompute_blocks(network)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            network.encoder(images)[-1].square().mean().backward()
        kept.append(sum(sizes))
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert kept[1] < 0.5 * kept[0]
    assert same(*gradients)
    assert any(name.startswith("encoder.blocks.") for name in gradients[1])
