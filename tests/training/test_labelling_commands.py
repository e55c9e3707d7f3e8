import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.training.label_files import ALONE, discriminator, model, packed
from training import labelling_commands


@pytest.mark.parametrize("as_json", [True, False])
def test_it_tells_how_fast_it_labelled_and_how_fast_it_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr(labelling_commands, "started", lambda _workers: nullcontext(ALONE))
    shards, judge = packed(tmp_path, count=4), discriminator(tmp_path)
    options = [
        "--model",
        model(tmp_path),
        "--shards",
        shards.folder,
        "--output",
        tmp_path / "labels",
        "--price-per-hour",
        "2",
    ]
    options += ["--discriminator", judge, *(["--json"] if as_json else [])]
    told = CliRunner().invoke(labelling_commands.label, [*map(str, options)], catch_exceptions=False).stdout
    if as_json:
        said = json.loads(told)
        for rate in (said, said["scoring"]):
            assert rate["panoramas"] == 4
            assert rate["forecast"]["hours"] == pytest.approx(2_000_000 / rate["panoramas_per_second"] / 3600)
    else:
        assert told.count("4 panoramas, ") == 2
        assert told.index("4 labels in 2 shards") < told.index(": their scores")
