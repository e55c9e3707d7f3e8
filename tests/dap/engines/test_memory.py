"""What is freed goes back to the system, under glibc."""

import ctypes
import platform
from pathlib import Path

import pytest

from dap.engines.memory import give_back

BLOCK_BYTES, BLOCKS = 64 * 1024, 1000  # each too small to be given back by itself


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_what_is_free_below_what_is_in_use_goes_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    give_back()
    blocks = [ctypes.c_void_p(libc.malloc(BLOCK_BYTES)) for _ in range(BLOCKS)]
    for block in blocks:
        assert block.value is not None
        ctypes.memset(block, 1, BLOCK_BYTES)
    *freed, last = blocks
    for block in freed:
        libc.free(block)
    before = resident_bytes()
    give_back()
    libc.free(last)
    assert before - resident_bytes() > 0.9 * BLOCK_BYTES * BLOCKS
