"""A range mask head for thresholds that a model lacks: it learns, and nothing else of the model changes."""

import asyncio
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from dap.errors import InvalidParameter, TrainingError
from dap.model.checkpoints import load_network, network_from_state, save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, NetworkOutput
from dap.models import find_model
from model_export.commands import export
from service.app import create_app
from service.serving import State
from service.settings import Settings
from tests.dap.model.conformance import official_state
from training import commands, mask_head
from training.augmentation import normalise
from training.batches import Batch
from training.commands import train
from training.config import AugmentationConfig, Phase, TrainingConfig
from training.datasets.packing import PackOptions, pack
from training.datasets.rendered import Rendered
from training.distributed import Process
from training.losses import LOSSES, Truth
from training.mask_head import range_losses, with_new_head
from training.trainer import train as training_run

LICENCE = "CC0-1.0, as tests go"


def fresh(*thresholds: float) -> DapNetwork:
    torch.manual_seed(3)
    return DapNetwork(NetworkConfig(encoder="hybrid-xs", thresholds=thresholds)).eval()


def said(network: DapNetwork) -> NetworkOutput:
    """What a network says of noise."""
    with torch.inference_mode():
        output: NetworkOutput = network(torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(5)))
    return output


def channel(network: DapNetwork, threshold: float) -> Tensor:
    return said(network).range_logits[:, network.config.thresholds.index(threshold)]


class TestWithNewHead:
    def test_depth_and_the_thresholds_there_were_stay_bit_for_bit(self) -> None:
        old = fresh(5.0, 100.0)
        grown = with_new_head(old, (10.0, 20.0))
        assert grown.config.thresholds == (5.0, 10.0, 20.0, 100.0)
        assert torch.equal(said(grown).log_depth, said(old).log_depth)
        assert all(torch.equal(channel(grown, metres), channel(old, metres)) for metres in (5.0, 100.0))

    def test_a_new_threshold_starts_as_the_nearest_by_ratio(self) -> None:
        old = fresh(5.0, 100.0)
        grown = with_new_head(old, (20.0, 50.0))
        assert torch.equal(channel(grown, 20.0), channel(old, 5.0)), "a quarter is nearer than five times"
        assert torch.equal(channel(grown, 50.0), channel(old, 100.0))
        assert not torch.equal(channel(old, 5.0), channel(old, 100.0))

    def test_the_new_head_shares_no_memory_with_the_old_network(self) -> None:
        old = fresh(100.0)
        before = said(old)
        with torch.no_grad():
            for parameter in with_new_head(old, (10.0,)).parameters():
                parameter.zero_()
        assert all(map(torch.equal, said(old), before))

    def test_a_threshold_there_was_moves_to_the_new_head(self) -> None:
        old = fresh(10.0, 20.0, 100.0)
        grown = with_new_head(old, (10.0, 50.0))
        assert grown.config.mask_heads == ((20.0, 100.0), (10.0, 50.0))
        torch.testing.assert_close(channel(grown, 20.0), channel(old, 20.0))
        torch.testing.assert_close(channel(grown, 100.0), channel(old, 100.0))

    def test_a_head_whose_thresholds_have_all_moved_is_gone(self) -> None:
        grown = with_new_head(with_new_head(fresh(100.0), (10.0, 20.0)), (10.0, 20.0, 100.0))
        assert grown.config == NetworkConfig(encoder="hybrid-xs", thresholds=(10.0, 20.0, 100.0))

    def test_heads_are_added_to_heads(self) -> None:
        old = with_new_head(fresh(100.0), (10.0, 20.0))
        grown = with_new_head(old, (50.0,))
        assert grown.config.mask_heads == ((100.0,), (10.0, 20.0), (50.0,))
        assert all(torch.equal(channel(grown, metres), channel(old, metres)) for metres in (10.0, 20.0, 100.0))

    @pytest.mark.parametrize("thresholds", [(), (0.0, 10.0), (20.0, 10.0), (10.0, 10.0)])
    def test_thresholds_that_do_not_ascend_are_refused(self, thresholds: tuple[float, ...]) -> None:
        with pytest.raises(InvalidParameter, match="ascend"):
            with_new_head(fresh(100.0), thresholds)


def run(*arguments: object) -> Result:
    options = ("--phase", "32:4:2", "--device", "cpu", "--threads", 1)
    return CliRunner().invoke(train, ["mask-head", *map(str, (*options, *arguments))], catch_exceptions=False)


@pytest.fixture(scope="module", autouse=True)
def short(tiny: TrainingConfig) -> Iterator[None]:
    """Runs that read a few small scenes."""
    few = replace(mask_head.DEFAULTS, stream=tiny.stream, report=tiny.report)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_head, "DEFAULTS", replace(few, optimizer=tiny.optimizer))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of ours that has 100 m alone."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_network(fresh(100.0), path, {"dap.name": "tiny", "dap.licence": LICENCE, "dap.input_size": "[32, 64]"})
    return path


@pytest.fixture(scope="module")
def ranged(model: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dap train mask-head` makes of it."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = ("--model", model, "--thresholds", 20, 10, 50, "--run", "tiny-ranges", "--runs", runs)
    result = run(*arguments, "--cache", scenes)
    path = runs / "tiny-ranges" / "model.safetensors"
    assert result.stdout == f"{path}\n"
    return path


def test_the_model_has_the_thresholds_and_is_otherwise_what_it_was(ranged: Path, model: Path) -> None:
    described, before = find_model(ranged), find_model(model)
    assert described.thresholds == (10.0, 20.0, 50.0, 100.0)
    assert described.name == "tiny-ranges"
    assert (described.licence, described.input_size) == (before.licence, before.input_size) == (LICENCE, (32, 64))
    new, old = load_network(ranged).state_dict(), load_network(model).state_dict()
    assert all(new[name].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in old.items())
    assert {name.split(".")[0] for name in new.keys() - old.keys()} == {"added_mask_heads"}


def test_the_new_head_is_what_was_trained(ranged: Path) -> None:
    start, new = load_network(ranged.parent / "start.safetensors").state_dict(), load_network(ranged).state_dict()
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, start[name])}
    assert {name for name in new if name.startswith("added_mask_heads.")} == changed


def test_only_the_losses_of_the_mask_are_taken(ranged: Path) -> None:
    config = TrainingConfig.from_json((ranged.parent / "config.json").read_text())
    assert config.loss == range_losses("paper")
    assert (config.loss.range_cross_entropy, config.loss.range_dice, config.loss.silog) == (2.0, 2.0, 0.0)
    formula = range_losses("paper-formula")
    assert (formula.range_squared, formula.range_dice, formula.range_cross_entropy) == (2.0, 1.0, 0.0)
    step = json.loads((ranged.parent / "log.jsonl").read_text().splitlines()[0])
    assert step.keys() & LOSSES.keys() == {"range_cross_entropy", "range_dice"}


class BrightIsNear:
    """Panoramas of bright things 5 m away before dark ones 30 m away; a `training.batches.Source`."""

    def batch(self, step: int) -> Batch:
        near = torch.rand(4, 4, 8, generator=torch.Generator().manual_seed(step)) < 0.5
        near = near.repeat_interleave(8, 1).repeat_interleave(8, 2)
        rgb = torch.where(near, 220, 30).to(torch.uint8)[..., None].expand(4, 32, 64, 3)
        return Batch(rgb, Truth(torch.where(near, 5.0, 30.0), torch.ones_like(near)))

    def manifest(self) -> Mapping[str, object]:
        return {}


def test_the_new_head_learns_from_features_that_stay(model: Path, tmp_path: Path) -> None:
    """It begins as the 100 m channel, which knows nothing of 10 m."""
    config = mask_head.prepare(find_model(model), (10.0,), tmp_path)
    config = replace(config, phases=(Phase(32, 40, 4),), augmentation=AugmentationConfig(strength=0))
    config = replace(config, optimizer=replace(config.optimizer, learning_rate=0.01))
    trained = training_run(config, tmp_path, BrightIsNear(), Process(), {})
    finished = load_network(mask_head.finish(tmp_path, trained))
    batch = BrightIsNear().batch(1000)
    with torch.inference_mode():
        before, after = (
            network(normalise(batch.rgb)).range_logits[:, 0] > 0 for network in (load_network(config.weights), finished)
        )
    right = batch.truth.depth < 10
    assert (before == right).float().mean() < 0.7
    assert (after == right).float().mean() > 0.9


def test_the_official_checkpoint_keeps_its_depth_and_its_mask(scenes: Path, tmp_path: Path) -> None:
    """The release's layout and size of ViT-S, weights drawn from a seed."""
    state = official_state("vits", seed=7)
    torch.save(state, tmp_path / "official.pth")
    arguments = ("--model", tmp_path / "official.pth", "--thresholds", 10, 20, 50, "--run", "o", "--runs", tmp_path)
    run(*arguments, "--cache", scenes, "--phase", "32:1:1")
    new, old = load_network(tmp_path / "o" / "model.safetensors"), network_from_state(state).eval()
    assert new.config.thresholds == (10.0, 20.0, 50.0, 100.0)
    assert find_model(tmp_path / "o" / "model.safetensors").input_size == (512, 1024)
    assert torch.equal(said(new).depth, said(old).depth)
    assert torch.equal(channel(new, 100.0), channel(old, 100.0))


async def test_it_is_exported_and_the_service_offers_its_thresholds(ranged: Path, tmp_path: Path) -> None:
    exported = tmp_path / "tiny.onnx"
    result = CliRunner().invoke(export, ["--model", str(ranged), "--output", str(exported), "--threads", "1"])
    assert result.exit_code == 0, result.output
    picture = io.BytesIO()
    Image.new("RGB", (64, 32), (90, 120, 60)).save(picture, "PNG")
    app = create_app(Settings(model=str(exported)))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        while app.state.serving.state is State.LOADING:
            await asyncio.sleep(0.01)
        models = (await client.get("/models")).json()["models"]
        answers = [
            await client.post(
                f"/depth?range={metres}", content=picture.getvalue(), headers={"Content-Type": "image/png"}
            )
            for metres in (10, 20, 50, 100)
        ]
    assert models[0]["thresholds"] == [10, 20, 50, 100]
    assert [answer.headers["X-Range-Mask"] for answer in answers] == ["head"] * 4


class Killed(BaseException):
    """What a run cannot catch."""


def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(
    model: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies in its sixth step of eight; the checkpoint is at the fourth."""
    begin = ("--model", model, "--thresholds", 10)
    options = ("--runs", tmp_path, "--cache", scenes, "--phase", "32:8:1")
    left = iter(range(5))

    def die(steps: int) -> None:
        if steps and next(left, None) is None:
            raise Killed

    run(*begin, "--run", "unbroken", *options)
    monkeypatch.setattr(commands, "_bar", lambda steps, process: nullcontext(die))
    with pytest.raises(Killed):
        run(*begin, "--run", "broken", *options)
    monkeypatch.undo()
    with pytest.raises(InvalidParameter, match="one that is resumed has them"):
        run(*begin, "--run", "broken", *options, "--resume")
    run("--run", "broken", *options, "--resume")
    unbroken, broken = (load_network(tmp_path / name / "model.safetensors") for name in ("unbroken", "broken"))
    assert all(map(torch.equal, unbroken.state_dict().values(), broken.state_dict().values()))


def test_shards_are_trained_on_beside_rendered_scenes(model: Path, scenes: Path, tmp_path: Path) -> None:
    pack(Rendered(4, "indoor", 7), "all", tmp_path / "shards", PackOptions(32, "jpeg", 2))
    arguments = (
        "--model",
        model,
        "--thresholds",
        10,
        "--run",
        "s",
        "--runs",
        tmp_path,
        "--shards",
        tmp_path / "shards",
    )
    run(*arguments, "--cache", scenes)
    data = json.loads((tmp_path / "s" / "data.json").read_text())
    assert {part["source"] for part in data["parts"].values()} == {"rendered scenes", "shards"}


def test_an_exported_model_cannot_be_trained() -> None:
    with pytest.raises(InvalidParameter, match="dap-s is exported: expected a checkpoint"):
        run("--model", "dap-s", "--thresholds", 10, "--run", "x")


@pytest.mark.parametrize("given", [(), ("--thresholds", 10), ("--model", "m.safetensors")])
def test_a_run_begins_with_a_model_and_thresholds(given: tuple[object, ...], tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="--model and --thresholds are needed"):
        run(*given, "--run", "x", "--runs", tmp_path)


def test_a_range_that_cannot_be_asked_for_is_no_threshold() -> None:
    assert "'30' is not one of '10', '20', '50', '100'" in run("--model", "m", "--thresholds", 10, 30).output


def test_what_has_not_begun_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint to resume"):
        run("--run", "x", "--runs", tmp_path, "--resume")
