"""How the onnx engine runs batches on a CUDA device: through buffers that stay there."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from dap.engines.base import Inference, no_range
from dap.engines.sessions import output_names


@dataclass(frozen=True)
class _Bound:
    """Of one batch size: the buffers, and the session that has them bound."""

    session: ort.InferenceSession
    binding: ort.IOBinding
    options: ort.RunOptions
    pixels: ort.OrtValue
    outputs: list[ort.OrtValue]


class Bindings:
    """Runs batches on one CUDA device, one at a time.

    Each batch size has buffers of its own on the device, made when it comes first: pixels are copied up into one, depth
    and probabilities down from the others, each once. Since they never move, ONNX Runtime can record the whole run as a
    CUDA graph and launch it at once from then on (its execution provider's page on CUDA graphs).

    Args:
        open_session: gives a session with range masks or without.
        session: with range masks, open already.
        device: as ONNX Runtime names it, and its number.
        input_size: (H, W) in pixels.
        thresholds: how many channels `in_range` has.

    Attributes:
        count: 1, runs that may be in progress at a time.
    """

    count = 1

    def __init__(
        self,
        open_session: Callable[[bool], ort.InferenceSession],
        session: ort.InferenceSession,
        device: tuple[str, int],
        input_size: tuple[int, int],
        thresholds: int,
    ) -> None:
        self._open_session = open_session
        self._sessions = {True: session}
        self._device = device
        self._shapes = {"depth": input_size, "in_range": (thresholds, *input_size)}
        self._bound: dict[tuple[int, bool], _Bound] = {}

    def run(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool) -> Inference:
        """See `dap.engines.base.Engine.infer`; raises what ONNX Runtime raises."""
        key = len(panoramas), in_range
        if key not in self._bound:
            self._bound[key] = self._bind(panoramas.shape, in_range)
        bound = self._bound[key]
        bound.pixels.update_inplace(panoramas)
        bound.session.run_with_iobinding(bound.binding, bound.options)
        depth, *rest = (value.numpy() for value in bound.outputs)
        return Inference(depth, *(rest or [no_range(depth)]))

    def _bind(self, shape: tuple[int, ...], in_range: bool) -> _Bound:
        if in_range not in self._sessions:
            self._sessions[in_range] = self._open_session(in_range)
        session = self._sessions[in_range]
        pixels = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, *self._device)
        outputs = [
            ort.OrtValue.ortvalue_from_shape_and_type((shape[0], *self._shapes[name]), np.float32, *self._device)
            for name in output_names(in_range)
        ]
        binding = session.io_binding()
        binding.bind_ortvalue_input("panorama", pixels)
        for name, value in zip(output_names(in_range), outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(shape[0]))  # a graph is for one shape; 0 is ONNX Runtime's own
        return _Bound(session, binding, options, pixels, outputs)
