"""An ONNX Runtime that is built for CUDA and TensorRT, played by the one that is here over the double of CUDA."""

import hashlib
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
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


class TensorrtProvider:
    """What ONNX Runtime does of a session that is asked for its TensorRT provider, and what TensorRT does for it.

    Attributes:
        fits: the installed TensorRT is of the version that the provider is linked with.
        starts: whether it does.
        takes: TensorRT takes nodes, all but those that are left to the CPU.
        builds: the bytes of the graphs that plans were built of.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path, version: str = "10.13.3.9") -> None:
        self.fits = self.starts = self.takes = True
        self.builds: list[bytes] = []
        monkeypatch.setenv("DAP_HOME", str(home))
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
        monkeypatch.setattr("dap.engines.cuda._KERNEL_MODULE", home / "nowhere")
        self.library = ModuleType("tensorrt")
        vars(self.library)["__version__"] = version
        monkeypatch.setitem(sys.modules, "tensorrt", self.library)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", *PROVIDERS])

    def open(self, opened: Any, source: bytes, options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
        if not self.fits:
            raise RuntimeError("RegisterTensorRTPluginsAsCustomOps Please install TensorRT libraries as mentioned in")
        names = ["TensorrtExecutionProvider", *PROVIDERS] if self.starts else PROVIDERS
        monkeypatch.setattr(opened, "get_providers", lambda: names)
        plan = Path(str(options["trt_engine_cache_path"])) / f"{hashlib.sha256(source).hexdigest()}.engine"
        if not plan.exists():
            self.builds.append(source)
            plan.write_bytes(b"a program")


class CudaBuild:
    """ONNX Runtime on a machine where CUDA starts or does not, and records graphs or does not.

    Attributes:
        cuda: the runtime under it.
        asked: the providers that each session was asked for.
        options: those of CUDA among them.
        sources: the graph that each session was opened of.
        graphs: the number of the graph of each run.
        threads: that a run was in.
        left: operators that no GPU here has a kernel for.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        starts: bool,
        records: bool = True,
        tensorrt: TensorrtProvider | None = None,
    ) -> None:
        self.cuda = install_cuda(monkeypatch)
        self.asked: list[list[object]] = []
        self.options: list[dict[str, object]] = []
        self.sources: list[bytes] = []
        self.graphs: list[str] = []
        self.threads: set[int] = set()
        self.left: set[str] = set()
        real = onnxruntime.InferenceSession

        def session(source: bytes, options: object, providers: list[Any], **rest: object) -> object:
            self.asked.append(providers)
            if isinstance(providers[0], tuple):
                self.options.append(providers[0][1])
                if not records and providers[0][1].get("enable_cuda_graph"):
                    raise native.Fail("This session cannot use the graph capture feature as requested")
            self.sources.append(source)
            opened = real(source, options, providers=["CPUExecutionProvider"], **rest)
            if starts:
                monkeypatch.setattr(opened, "get_providers", lambda: PROVIDERS)
            if isinstance(providers[0], tuple):
                taker = providers[0][0] if tensorrt is None or tensorrt.takes else PROVIDERS[0]
                parts = self._parts(opened, taker)
                monkeypatch.setattr(opened, "get_provider_graph_assignment_info", lambda: parts)
            if tensorrt and providers[0][0] == "TensorrtExecutionProvider":
                tensorrt.open(opened, source, providers[0][1], monkeypatch)
            run = opened.run_with_iobinding

            def bound(binding: object, run_options: Any) -> None:
                self.graphs.append(run_options.get_run_config_entry("gpu_graph_id"))
                self.threads.add(threading.get_ident())
                run(binding, run_options)

            monkeypatch.setattr(opened, "run_with_iobinding", bound)
            monkeypatch.setattr(opened, "io_binding", lambda: _Binding(opened))
            return opened

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        if tensorrt is None:
            monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: PROVIDERS)

    def _parts(self, opened: Any, taker: str) -> list[SimpleNamespace]:
        """One of all nodes that the GPU runs, one of those that are left to the CPU."""
        nodes = [node for part in opened.get_provider_graph_assignment_info() for node in part.get_nodes()]
        taken, left = ([node for node in nodes if (node.op_type in self.left) == is_left] for is_left in (False, True))
        parts = ((taker, taken), (PROVIDERS[1], left))
        return [SimpleNamespace(ep_name=name, get_nodes=lambda its=its: its) for name, its in parts if its]
