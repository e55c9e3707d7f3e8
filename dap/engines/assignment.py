"""Which of ONNX Runtime's execution providers runs which nodes of a session, and whether a GPU has the work."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import onnxruntime as ort

from dap.errors import EngineUnavailable

_log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CPU_INSTEAD = "Ask for the device cpu, or cuda,cpu to let the CPU stand in."
RECORDED = "session.record_ep_graph_assignment_info"
"""The entry of a session's configuration, to be "1", without which ONNX Runtime does not tell."""

# Parts of the names of the operators that do the work of a network: ONNX's and ONNX Runtime's own, fused (FusedConv),
# quantised (QLinearMatMul, ConvInteger, QGemm) and of several products (MultiHeadAttention).
_WORK = ("Conv", "MatMul", "Gemm", "Attention")


@dataclass(frozen=True)
class Assignment:
    """The parts that ONNX Runtime has split a graph into.

    Attributes:
        parts: of each the provider, and the operators of its nodes.
    """

    parts: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, session: ort.InferenceSession) -> Self | None:
        """Of a session that was told to record it; None of an ONNX Runtime that cannot (1.23 and older)."""
        if not hasattr(session, "get_provider_graph_assignment_info"):
            return None
        parts = session.get_provider_graph_assignment_info()
        return cls(tuple((part.ep_name, tuple(node.op_type for node in part.get_nodes())) for part in parts))

    def operators(self, provider: str) -> Counter[str]:
        """How many nodes of each operator a provider has."""
        return Counter(operator for name, operators in self.parts if name == provider for operator in operators)

    def __str__(self) -> str:
        """`nodes: 980 by CUDAExecutionProvider, 14 by CPUExecutionProvider (13 Shape, 1 Gather)`."""
        counts = {name: self.operators(name) for name, _ in self.parts}
        shares = [
            f"{nodes.total()} by {name}{f' ({_listed(nodes)})' if name == CPU else ''}"
            for name, nodes in counts.items()
        ]
        return f"nodes: {', '.join(shares)}"


def require_work_on_gpu(session: ort.InferenceSession, path: Path) -> None:
    """Refuse a session on a GPU that leaves convolutions, products or attention to the CPU, and log what it leaves.

    ONNX Runtime gives the CPU whatever the GPU has no kernel for, and says nothing. What it computes of shapes belongs
    there.

    Raises:
        EngineUnavailable: it does; the message says how much of what.
    """
    found = Assignment.of(session)
    if found is None:
        _log.warning(
            "onnx engine: ONNX Runtime %s does not tell what of %s it leaves to the CPU: 1.24 and later do",
            *(ort.__version__, path.name),
        )
        return
    left = found.operators(CPU)
    work = Counter({name: count for name, count in left.items() if any(part in name for part in _WORK)})
    if work:
        raise EngineUnavailable(
            f"ONNX Runtime {ort.__version__} would leave {_listed(work)} of {path.name} to the CPU, since it has no "
            "kernels for them on this GPU: expected a file whose products it runs there, such as one in fp32 or fp16. "
            f"{CPU_INSTEAD}"
        )
    _log.info("onnx engine: %s, %s", path.name, found)


def _listed(operators: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.most_common())
