"""Sessions on the CPU compute in the same memory, and the last one gives it back."""

import gc
import platform
from pathlib import Path

import pytest

from dap.engines.memory import give_back
from dap.engines.onnx import OnnxEngine
from dap.models import find_model
from tests.dap.graphs import SIZE, red_graph, red_panorama, save

COPIES = 1 << 15
VALUES_BYTES = 4 * SIZE[0] * SIZE[1] * COPIES  # 67 MB

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is freed goes back under glibc")


def resident_bytes() -> int:
    gc.collect()
    give_back()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def ran(path: Path) -> OnnxEngine:
    engine = OnnxEngine(path, find_model(path), device="cpu", threads=1)
    engine.infer(red_panorama(5.0))
    return engine


def test_what_several_engines_compute_in_is_there_once_and_goes_with_the_last(tmp_path: Path) -> None:
    path = save(red_graph(spread=COPIES), tmp_path / "red.onnx")
    ran(path).close()  # ONNX Runtime itself is in memory from now on
    before = resident_bytes()
    engines = [ran(path) for _ in range(3)]
    assert resident_bytes() - before < 2 * VALUES_BYTES
    for engine in engines[:2]:
        engine.close()
    engines[2].infer(red_panorama(5.0))
    assert resident_bytes() - before < 2 * VALUES_BYTES
    engines[2].close()
    assert resident_bytes() - before < 0.1 * VALUES_BYTES
