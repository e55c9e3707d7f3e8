import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dap.errors import DatasetError, InvalidParameter
from dap.sphere import roll_yaw
from tests.dap.images import picture, saved
from tests.training.curation.test_duplicates import recompressed, scene
from tests.training.curation.test_horizon import room, turned
from tests.training.label_files import ALONE
from training.curation import survey
from training.curation.places import PlaceOptions
from training.curation.survey import Rules, SurveyWork, curate
from training.curation.verdicts import Verdicts
from training.datasets.images import Images
from training.datasets.packing import PackOptions, pack
from training.datasets.shards import ShardReader, write_shard

RULES = Rules()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, another, a leaning room, the first turned and compressed, an upright room; two to a shard."""
    folder = tmp_path_factory.mktemp("curation")
    (folder / "pictures").mkdir()
    pictures = {
        "a-scene": scene(0),
        "b-other": scene(1),
        "c-leaning": room(turned(40, 18)),
        "d-copy": roll_yaw(recompressed(scene(0), 80), 55),
        "e-upright": room(turned(0, 0)),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / "pictures" / f"{name}.png")
    pack(Images(folder / "pictures"), "all", folder / "shards", PackOptions(shard_size=2, image="png"))
    return folder / "shards"


def test_leaning_panoramas_and_copies_are_left_out_and_it_is_said_of_what(shards: Path, tmp_path: Path) -> None:
    verdicts, throughput = curate(shards, tmp_path, RULES, None, ALONE)
    assert throughput.panoramas == 5
    found = {one.id: one for shard in ShardReader(shards).manifest.shards for one in verdicts.of_shard(shard.name)}
    assert {name: one.reason for name, one in found.items()} == {
        "a-scene": None,
        "b-other": None,
        "c-leaning": "leaning",
        "d-copy": "duplicate",
        "e-upright": None,
    }
    assert found["d-copy"].duplicate_of == "a-scene"
    assert found["c-leaning"].lean_deg == pytest.approx(18, abs=1.5)
    assert verdicts.summary["left_out"] == {"duplicate": 1, "leaning": 1}
    assert verdicts.summary["places"] == {"not sorted": 3}


def test_other_rules_judge_anew_what_was_measured_once(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = curate(shards, tmp_path, RULES, None, ALONE)[0].fingerprint
    monkeypatch.setattr(SurveyWork, "read", lambda work, row: pytest.fail("measured again"))
    assert curate(shards, tmp_path, RULES, None, ALONE)[0].fingerprint == first
    lenient = curate(shards, tmp_path, Rules(max_lean_deg=30), None, ALONE)[0]
    assert lenient.summary["left_out"] == {"duplicate": 1}
    assert lenient.fingerprint != first


def test_measuring_goes_on_where_it_was_stopped(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = curate(shards, tmp_path, RULES, None, ALONE)[0].fingerprint
    next(tmp_path.glob("*-000001.json")).unlink()
    (tmp_path / "verdicts.json").unlink()
    with pytest.raises(DatasetError, match="run `dap data curate` to its end"):
        _ = Verdicts(tmp_path).fingerprint
    again, throughput = curate(shards, tmp_path, RULES, None, ALONE)
    assert throughput.panoramas == 2
    assert again.fingerprint == expected


class Answers:
    """A classifier that says that what is bright at the top was outdoors."""

    def __init__(self, options: PlaceOptions, device: str, threads: int) -> None:
        self._rows = options.rows

    def outdoor(self, pictures: np.ndarray) -> np.ndarray:
        assert pictures.shape[1:] == (self._rows, 2 * self._rows, 3)
        return (0.8 * pictures[:, :8].mean((1, 2, 3)) / 255).astype(np.float32)


def test_each_panorama_gets_its_own_place_also_beside_what_is_none(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "PlaceClassifier", Answers)
    reader = ShardReader(shards)
    folder = tmp_path / "shards"
    folder.mkdir()
    members = [(one.id, dict(one.files)) for index in range(3) for one in reader.members(index)]
    members[1][1]["png"] = members[1][1]["png"][:200]
    members.append(("f-flat", {**members[0][1], "png": saved(picture(64, 64), "PNG")}))
    record = write_shard(folder / "all.tar", members)
    reader.manifest.__class__(reader.manifest.config, {}, (record,), complete=True).write(folder)

    verdicts, _ = curate(folder, tmp_path / "out", RULES, PlaceOptions(rows=56), ALONE)
    found = {one.id: one for one in verdicts.of_shard("all.tar")}
    assert (found["b-other"].reason, found["b-other"].outdoor) == ("broken", None)
    assert (found["f-flat"].reason, found["f-flat"].outdoor) == ("not 2:1", None)
    # A grey scene, and a room whose ceiling is 225.
    assert (found["a-scene"].place, found["e-upright"].place) == ("indoor", "outdoor")
    assert found["e-upright"].outdoor == pytest.approx(0.8 * 225 / 255, abs=0.01)
    assert verdicts.kept("all.tar") == {one.id: one.place for one in found.values() if one.reason is None}
    assert json.loads((tmp_path / "out" / "verdicts.json").read_text())["classifier"]["rows"] == 56


def test_rules_that_find_no_copy_or_everything_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="0 to 31 bits"):
        Rules(duplicate_bits=32)
    with pytest.raises(InvalidParameter, match="lean above 0"):
        Rules(max_lean_deg=0)
