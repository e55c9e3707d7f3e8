"""An exported model at several input sizes: each has a file, and so an engine, of its own."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from dap.engines.base import Engine, Inference, check_panoramas
from dap.errors import EngineError
from dap.models import Model
from dap.resolutions import Size


class EngineOfSizes:
    """Runs each batch by the engine for its size. See `dap.engines.base.Engine`.

    The engine of the model's own input size is opened at once, each other one when it is first used or warmed: who asks
    for one size only does not pay for the rest.
    """

    def __init__(self, model: Model, open_engine: Callable[[Model], Engine]) -> None:
        """Open the engine of the model's input size.

        Args:
            model: with its siblings.
            open_engine: gives the engine of the model at one size. Raises as `dap.engines.create_engine` does.
        """
        self._open_engine = open_engine
        self._models = {size: model.at(size) for size in model.sizes}
        self._engines: dict[Size, Engine] | None = {}
        self._opening = threading.Lock()
        self.input_size = model.input_size
        self.sizes = model.sizes
        first = self._at(self.input_size)
        self.name, self.device, self.lanes = first.name, first.device, first.lanes
        self.thresholds = first.thresholds

    def infer(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inference:
        """See `dap.engines.base.Engine.infer`."""
        check_panoramas(panoramas, self.sizes)
        return self._at((panoramas.shape[1], panoramas.shape[2])).infer(panoramas, in_range=in_range)

    def warm_up(self, batch_sizes: Sequence[int], size: Size | None = None) -> None:
        """See `dap.engines.base.Engine.warm_up`."""
        self._at(size or self.input_size).warm_up(batch_sizes)

    def close(self) -> None:
        """Close all that were opened."""
        with self._opening:
            engines, self._engines = self._engines or {}, None
        for engine in engines.values():
            engine.close()

    def _at(self, size: Size) -> Engine:
        with self._opening:
            if self._engines is None:
                raise EngineError("The engine is closed.")
            if size not in self._engines:
                self._engines[size] = self._open_engine(self._models[size])
            return self._engines[size]
