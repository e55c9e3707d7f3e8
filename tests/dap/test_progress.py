"""Progress: log lines where there is no terminal, a bar where there is one."""

import io
import logging
import sys

import pytest

from dap import progress as module
from dap.progress import log_to_stderr, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_there_are_lines_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = iter([0.0, 4.0, 11.0, 11.0, 12.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with caplog.at_level(logging.INFO), progress("depth", 4) as advance:
        for _ in range(3):
            advance(1)
    assert caplog.messages == ["depth: 2 of 4 (50%)", "depth: 3 of 4"]


def test_on_a_terminal_there_is_a_bar_and_no_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with caplog.at_level(logging.INFO), progress("depth", 4) as advance:
        advance(4)
    assert "depth" in sys.stderr.getvalue()
    assert "100%" in sys.stderr.getvalue()
    assert caplog.messages == []


@pytest.mark.parametrize(("stream", "level"), [(Terminal(), logging.WARNING), (io.StringIO(), logging.INFO)])
def test_beside_a_bar_only_what_is_wrong_is_logged(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, level: int
) -> None:
    root = logging.RootLogger(logging.NOTSET)
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_stderr()
    assert root.level == level
