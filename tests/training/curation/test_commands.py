"""`dap data curate` and `dap data select`, as a shell sees them."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dap.command import main
from dap.sphere import roll_yaw
from tests.training.curation.test_duplicates import recompressed, scene
from tests.training.curation.test_horizon import room, turned
from tests.training.label_files import ALONE, made_labels
from training.curation import commands
from training.curation.verdicts import Verdicts
from training.datasets.images import Images
from training.datasets.packing import PackOptions, pack
from training.scoring import read_scores
from training.selection import Selection


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, ["data", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def said(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, the same turned and compressed, and a room whose camera leans by 18 degrees."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "pictures").mkdir()
    pictures = {
        "a-scene": scene(0),
        "b-copy": roll_yaw(recompressed(scene(0), 80), 55),
        "c-leaning": room(turned(40, 18)),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / "pictures" / f"{name}.png")
    pack(Images(folder / "pictures"), "all", folder / "packed", PackOptions(image="png"))
    return folder / "packed"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three labels from indoors and three from outdoors, and their scores."""
    made, scores = made_labels(tmp_path_factory.mktemp("labels"))
    return made.folder, scores


class TestCurate:
    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commands, "started", lambda _workers: nullcontext(ALONE))

    def test_tells_what_it_keeps_and_why_it_leaves_out_the_rest(self, shards: Path, tmp_path: Path) -> None:
        told = run("curate", shards, "--output", tmp_path, "--no-places").stdout
        assert f"{tmp_path}: 1 of 3 kept (1 not sorted); left out: 1 duplicate, 1 leaning" in told
        (shard,) = shards.glob("*.tar")
        reasons = {one.id: one.reason for one in Verdicts(tmp_path).of_shard(shard.name)}
        assert reasons == {"a-scene": None, "b-copy": "duplicate", "c-leaning": "leaning"}

    def test_rules_are_options_and_json_has_counts_rate_and_cost(self, shards: Path, tmp_path: Path) -> None:
        arguments = ("curate", shards, "--output", tmp_path, "--no-places")
        lenient = said(*arguments, "--max-lean", 30, "--price-per-hour", 2)
        assert (lenient["panoramas"], lenient["kept"], lenient["left_out"]) == (3, 2, {"duplicate": 1})
        hours = 2_000_000 / lenient["panoramas_per_second"] / 3600
        assert lenient["forecast"]["cost"] == pytest.approx(2 * hours)
        assert said(*arguments, "--max-lean", 1)["left_out"] == {"duplicate": 1, "leaning": 1}

    def test_a_folder_that_holds_no_shards_is_refused(self, tmp_path: Path) -> None:
        assert "holds no manifest.json" in run("curate", tmp_path, "--output", tmp_path / "out", status=1).output


class TestSelect:
    def test_lists_the_best_of_each_place(self, labels: tuple[Path, Path], tmp_path: Path) -> None:
        folder, scores = labels
        output = tmp_path / "selection.jsonl"
        told = run("select", folder, "--scores", scores, "--indoor", 2, "--outdoor", 1, "--output", output).stdout
        assert told == f"{output}: 2 of 2 indoor, 1 of 1 outdoor\n"
        values = {one.id: one.score or 0.0 for one in read_scores(scores)}
        worst_indoor = min(("p0", "p1", "p2"), key=lambda name: values[name])
        best_outdoor = max(("p3", "p4", "p5"), key=lambda name: values[name])
        expected = sorted({"p0", "p1", "p2", best_outdoor} - {worst_indoor})
        assert [one.id for one in Selection.read(output).chosen] == expected

    def test_takes_all_where_there_are_fewer_and_json_says_so(self, labels: tuple[Path, Path], tmp_path: Path) -> None:
        folder, scores = labels
        found = said("select", folder, "--scores", scores, "--output", tmp_path / "selection.jsonl")
        assert found["asked"] == {"indoor": 300_000, "outdoor": 300_000}, "as many as the paper took"
        assert found["chosen"] == {"indoor": 3, "outdoor": 3}

    def test_needs_the_scores(self, labels: tuple[Path, Path], tmp_path: Path) -> None:
        assert "Missing option '--scores'" in run("select", labels[0], "--output", tmp_path / "s", status=2).output
