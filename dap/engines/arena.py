"""The memory in which ONNX Runtime computes on the CPU: one arena for all sessions of this process.

By itself each session has an arena of its own, which grows by region after region as ever larger values are asked for.
What is free in one region does not join what is free in the next, so the largest values, which come last, find room in
none: a ViT-S that has 147 MB of values at most took 288 MB, and takes 220 MB with a first region that is large at once.
Of a region only what is touched is memory. And sessions that seldom run at the same time need it once, not each.
"""

import threading
import weakref

import onnxruntime as ort

# What a network computes at a time should fit into the first region: in two it takes more from run to run. A ViT-L
# needs a third of its weights' size. No larger than useful, since ONNX Runtime's books on a region are 3% of its size.
_LEAST_REGION_BYTES = 256 * 1024 * 1024
_OF_WEIGHTS = 0.5


class Arena:
    """Holds the place that ONNX Runtime has for one arena in the process.

    A session that is opened with `session.use_env_allocators` keeps the arena that it found there. When the last of
    them is gone a new one takes the place, and the memory of the old one goes back to the system.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # while a session is counted another may be collected, in the same thread
        self._sessions = 0

    def prepare(self, options: ort.SessionOptions, weights_bytes: int) -> None:
        """Have the session that is opened with these options, and has so many bytes of weights, use the arena."""
        with self._lock:
            if not self._sessions:
                _renew(max(_LEAST_REGION_BYTES, int(_OF_WEIGHTS * weights_bytes)))
        options.add_session_config_entry("session.use_env_allocators", "1")

    def add(self, session: ort.InferenceSession) -> None:
        """Count a session that uses the arena, until it is gone."""
        with self._lock:
            self._sessions += 1
        weakref.finalize(session, self._leave).atexit = False

    def _leave(self) -> None:
        with self._lock:
            self._sessions -= 1
            if not self._sessions:
                _renew(_LEAST_REGION_BYTES)


def _renew(region_bytes: int) -> None:
    kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(kind, ort.OrtArenaCfg({"initial_chunk_size_bytes": region_bytes}))


ARENA = Arena()
