"""What a peer does for one panorama: our decoding, ONNX Runtime on the same file, our encoding."""

import os

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from dap.depth import apply_range
from dap.engines.base import Inference
from dap.formats.depth import DEPTH_FORMATS
from dap.models import find_model, model_file
from dap.panorama import decode

RANGE_M = 100.0


class Work:
    """The model that BENCH_MODEL names, and the way in and out of it.

    Args:
        threads: of ONNX Runtime; its other options are those of our own engine, the best that were found here.
    """

    def __init__(self, threads: int) -> None:
        self._model = find_model(os.environ["BENCH_MODEL"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False
        self._session = ort.InferenceSession(model_file(self._model), options, providers=["CPUExecutionProvider"])
        self.infer(np.zeros((1, *self._model.input_size, 3), np.uint8))

    def decode(self, image: bytes) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        """Pixels for the model, and the (h, w) of the panorama."""
        panorama = decode(image, size=self._model.input_size)
        return panorama.pixels, panorama.source_size

    def infer(self, panoramas: npt.NDArray[np.uint8]) -> Inference:
        return Inference(*self._session.run(["depth", "in_range"], {"panorama": panoramas}))

    def encode(
        self,
        depth: npt.NDArray[np.float32],
        in_range: npt.NDArray[np.float32],
        size: tuple[int, int],
        answer_format: str,
    ) -> bytes:
        depth_map = apply_range(depth, in_range, self._model.thresholds, RANGE_M, self._model.name)
        return DEPTH_FORMATS[answer_format].encode(depth_map.resize(size))

    def answer(self, image: bytes, answer_format: str) -> bytes:
        """All of it, for one panorama."""
        pixels, size = self.decode(image)
        inference = self.infer(pixels[None])
        return self.encode(inference.depth[0], inference.in_range[0], size, answer_format)
