"""An ONNX Runtime that is built for CUDA, played by the one that is here over the double of CUDA."""

import threading
from typing import Any

import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as native

from tests.dap.engines.cuda_doubles import install_cuda

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]


class _Binding(onnxruntime.IOBinding):
    """Binds what is said to be on the GPU to the memory that plays it."""

    def bind_input(self, name: str, device: str, number: int, *array: Any) -> None:
        assert (device, number) == ("cuda", 0)
        super().bind_input(name, "cpu", 0, *array)

    def bind_output(self, name: str, device: str, number: int, *array: Any) -> None:
        assert (device, number) == ("cuda", 0)
        super().bind_output(name, "cpu", 0, *array)


class CudaBuild:
    """ONNX Runtime on a machine where CUDA starts or does not, and records graphs or does not.

    Attributes:
        cuda: the runtime under it.
        asked: the providers that each session was asked for.
        options: those of CUDA among them.
        sources: the graph that each session was opened of.
        graphs: the number of the graph of each run.
        threads: that a run was in.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, starts: bool, records: bool = True) -> None:
        self.cuda = install_cuda(monkeypatch)
        self.asked: list[list[object]] = []
        self.options: list[dict[str, object]] = []
        self.sources: list[bytes] = []
        self.graphs: list[str] = []
        self.threads: set[int] = set()
        real = onnxruntime.InferenceSession

        def session(source: bytes, options: object, providers: list[object], **rest: object) -> object:
            self.asked.append(providers)
            if isinstance(providers[0], tuple):
                self.options.append(providers[0][1])
                if not records and providers[0][1].get("enable_cuda_graph"):
                    raise native.Fail("This session cannot use the graph capture feature as requested")
            self.sources.append(source)
            opened = real(source, options, providers=["CPUExecutionProvider"], **rest)
            if starts:
                monkeypatch.setattr(opened, "get_providers", lambda: PROVIDERS)
            run = opened.run_with_iobinding

            def bound(binding: object, run_options: Any) -> None:
                self.graphs.append(run_options.get_run_config_entry("gpu_graph_id"))
                self.threads.add(threading.get_ident())
                run(binding, run_options)

            monkeypatch.setattr(opened, "run_with_iobinding", bound)
            monkeypatch.setattr(opened, "io_binding", lambda: _Binding(opened))
            return opened

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: PROVIDERS)
