"""`dap bench`, as a shell sees it."""

import pytest
import torch
from click.testing import CliRunner

from benchmarks.commands import bench


@pytest.mark.parametrize("command", ["engine", "roofline"])
@pytest.mark.parametrize(
    ("device", "complaint"),
    [("auto", "'auto' is not cpu, cuda or cuda:N"), ("cuda:1", "cuda:1 was asked for, and torch finds 0 CUDA devices")],
)
def test_a_device_that_cannot_be_measured_is_told_at_once(
    command: str, device: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(bench, [command, "--device", device])
    assert result.exit_code == 2
    assert complaint in result.output
