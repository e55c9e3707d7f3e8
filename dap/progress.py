"""Progress of long work: a bar on a terminal, log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

_log = logging.getLogger(__name__)

_EVERY_S = 10.0


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far work is, on stderr.

    Yields a function to be told how much has been done since it was last called. Without a terminal a line is logged
    every ten seconds, and one at the end.

    Args:
        label: what is done.
        total: how much there is of it, in any unit.
    """
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    done = 0
    next_line = time.monotonic() + _EVERY_S

    def advance(amount: int) -> None:
        nonlocal done, next_line
        done += amount
        if done < total and time.monotonic() >= next_line:
            _log.info("%s: %d of %d (%.0f%%)", label, done, total, 100 * done / max(total, 1))
            next_line = time.monotonic() + _EVERY_S

    yield advance
    _log.info("%s: %d of %d", label, done, total)


def log_to_stderr() -> None:
    """Log lines for people: all from info upward, but on a terminal, where there is a bar, only what is wrong."""
    level = logging.WARNING if sys.stderr.isatty() else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", stream=sys.stderr)
