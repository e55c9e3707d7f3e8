import json
import subprocess
from pathlib import Path

import pytest
import torch

from dap.checksums import sha256_of
from training.run_record import RECORDS, git_revision, record_run

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def test_the_records_say_what_a_run_depends_on(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    record_run(tmp_path / "run", '{"seed": 3}', {"source": "shards"}, CPU, 2, tmp_path / "weights")
    config, data, environment = (json.loads((tmp_path / "run" / name).read_text()) for name in RECORDS)
    assert (config, data) == ({"seed": 3}, {"source": "shards"})
    assert (environment["torch"], environment["processes"], environment["gpu"]) == (torch.__version__, 2, None)
    assert environment["revision"] == git_revision()
    assert environment["weights_sha256"] == sha256_of(tmp_path / "weights")


def test_weights_that_are_gone_are_no_error(tmp_path: Path) -> None:
    record_run(tmp_path, "{}", {}, CPU, weights=tmp_path / "gone")
    assert json.loads((tmp_path / "environment.json").read_text())["weights_sha256"] is None


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_the_revision_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert git_revision() in (head.stdout.strip(), f"{head.stdout.strip()}-dirty")


def test_without_git_there_is_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_revision() is None
