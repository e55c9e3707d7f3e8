"""How the onnx engine shares the cores of a CPU among panoramas."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from dap.engines.assignment import CPU
from dap.engines.base import Inference
from dap.engines.sessions import new_session, output_names
from dap.graph import SWITCH

# Beyond so many cores, or so large a file, all cores run one batch together.
_MAX_LANES = 4
_MAX_BYTES_TWICE = 256 * 1024 * 1024
_MOMENT_S = 0.05


class Crowd:
    """Who runs on the cores of this CPU now: all `Lanes` that share them are told of each other here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_progress = 0
        self._is_crowded = False
        self._crowded_until = 0.0

    @contextmanager
    def one_more(self) -> Iterator[bool]:
        """Count this run; whether there is no other, nor was a moment ago: under load lanes may well end together."""
        with self._lock:
            self._in_progress += 1
            self._is_crowded = self._is_crowded or self._in_progress > 1
            is_alone = not self._is_crowded and time.monotonic() >= self._crowded_until
        try:
            yield is_alone
        finally:
            with self._lock:
                self._in_progress -= 1
                if self._is_crowded:
                    self._crowded_until = time.monotonic() + _MOMENT_S
                    self._is_crowded = self._in_progress > 0


class Lanes:
    """Runs panoramas on the CPU, one that is alone on all cores, several at a time on one each.

    Cores that share a panorama wait for each other at every operator: on 2 busy cores dap-s costs 180 to 186 ms of
    processor time so, and 156 to 158 ms side by side, for the same answer to the last bit. The price is a session with
    weights of its own for each core, so large files are not run so. (Threads that share a session are as quick in one
    process, and in the next a sixth slower: 11.4 to 12.0 panoramas/s of the service in 8 starts out of 8 with a session
    for each, 10.0 to 10.6 in 4 out of 8 with one for both.) Nor is anything on many cores, where a panorama that comes
    while another runs would get one of the many.

    Who asks for no range masks has them switched off in the same session (`dap.graph.with_switch`), which takes a
    seventh less time.

    Attributes:
        count: runs that may be in progress at a time.
    """

    def __init__(self, path: Path, session: ort.InferenceSession, thresholds: int, cores: int, crowd: Crowd) -> None:
        self._path = path
        self._crowd = crowd
        self._thresholds = thresholds
        is_small = path.stat().st_size <= _MAX_BYTES_TWICE
        self.count = cores if cores <= _MAX_LANES and is_small else 1
        self._on_all_cores = session
        self._idle: list[ort.InferenceSession] = []
        self._lock = threading.Lock()

    def run(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool) -> Inference:
        """See `dap.engines.base.Engine.infer`; raises what ONNX Runtime raises."""
        with self._crowd.one_more() as is_alone:
            if self.count == 1 or (is_alone and len(panoramas) == 1):
                return self._run(self._on_all_cores, panoramas, in_range)
            if len(panoramas) > 1:
                return self._side_by_side(panoramas, in_range)
            with self._single_threaded() as session:
                return self._run(session, panoramas, in_range)

    def _run(self, session: ort.InferenceSession, panoramas: npt.NDArray[np.uint8], in_range: bool) -> Inference:
        inference = self._room(panoramas, in_range)
        _fill(inference, session, panoramas)
        return inference

    def _room(self, panoramas: npt.NDArray[np.uint8], in_range: bool) -> Inference:
        """Arrays for an answer.

        Those that ONNX Runtime makes lie amid the memory that it computes in for as long as somebody has them, and the
        next run finds no room for its largest values between them: a ViT-L then takes 270 MB more.
        """
        count, height, width = panoramas.shape[:3]
        thresholds = self._thresholds if in_range else 0
        return Inference(
            np.empty((count, height, width), np.float32), np.empty((count, thresholds, height, width), np.float32)
        )

    @contextmanager
    def _single_threaded(self) -> Iterator[ort.InferenceSession]:
        """A session for whoever holds it alone. Made when needed: who has one panorama at a time never needs any."""
        with self._lock:
            session = self._idle.pop() if self._idle else None
        if session is None:
            session = new_session(self._path, 1, [CPU])
        try:
            yield session
        finally:
            with self._lock:
                self._idle.append(session)

    def _side_by_side(self, panoramas: npt.NDArray[np.uint8], in_range: bool) -> Inference:
        """A batch panorama by panorama; each lane takes the next that waits."""
        inference = self._room(panoramas, in_range)

        def run(index: int) -> None:
            part = slice(index, index + 1)
            with self._single_threaded() as session:
                _fill(Inference(inference.depth[part], inference.in_range[part]), session, panoramas[part])

        with ThreadPoolExecutor(self.count, "lane") as callers:
            runs = [callers.submit(run, index) for index in range(len(panoramas))]
        for finished in runs:
            finished.result()
        return inference


def _fill(inference: Inference, session: ort.InferenceSession, panoramas: npt.NDArray[np.uint8]) -> None:
    """Run a session and have it write what it finds into these arrays, with range masks if there is room for any."""
    in_range = inference.in_range.size > 0
    is_wanted = np.array(in_range)  # a binding does not keep what it points to
    binding = session.io_binding()
    binding.bind_cpu_input("panorama", panoramas)
    binding.bind_cpu_input(SWITCH, is_wanted)
    for name in output_names(in_range):
        values = getattr(inference, name)
        binding.bind_output(name, "cpu", 0, np.float32, values.shape, values.ctypes.data)
    session.run_with_iobinding(binding)
