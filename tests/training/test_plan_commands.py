import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dap.errors import InvalidParameter
from training.commands import train


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(train, ["plan", *map(str, arguments)], catch_exceptions=False)


def test_a_dry_run_measures_real_steps_and_plans_hours_at_their_rate() -> None:
    options = ("--preset", "smoke", "--devices", "2", "--device", "cpu", "--threads", "1", "--price-per-hour", "2")
    told = json.loads(run(*options, "--measure", "--height", "32", "--batch", "2", "--json").stdout)
    measured = told["measured"]
    assert (measured["samples"], measured["accumulate"], measured["precision"]) == (2, 1, "float32")
    assert measured["seconds"] > 0
    assert measured["peak_bytes"] > 10**7
    seconds = sum(stage["flop"] / stage["devices"] for stage in told["stages"]) / measured["tflops"] / 1e12
    assert told["hours"] == pytest.approx(seconds / 3600)
    assert [*told["traces"]] == ["stage-1-labeler at 32", "stage-2-labeler at 32", "stage-3-dap at 32"]
    assert "as --measure found" in " ".join(told["assumptions"])


def test_people_get_tables_and_what_was_assumed() -> None:
    told = run("--preset", "smoke", "--devices", "1", "--tflops", "0.01").stdout
    for heading in ("Network of stage-1-labeler at 32, stage-2-labeler at 32\n", "Memory of one device", "Stages"):
        assert heading in told
    assert "| depth_head | 1x32x64 |" in told
    assert "each device achieves 0.01 TFLOP/s in every stage: given, not measured" in told
    assert "Measured" not in told


def test_options_that_change_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="--height and --batch go with --measure"):
        run("--preset", "smoke", "--height", "64")
    with pytest.raises(InvalidParameter, match="--shards with --labels"):
        run("--preset", "smoke", "--shards", tmp_path)
