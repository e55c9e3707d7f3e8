import pytest
import torch

from dap.errors import TrainingError
from training.config import TrainingConfig
from training.pipeline_config import PIPELINES
from training.step_timing import time_steps

CPU = torch.device("cpu")


def test_a_step_is_timed_in_the_parts_that_it_is_configured_for(tiny: TrainingConfig) -> None:
    timing = time_steps(tiny, height=32, samples=2, step_flop=10**6, device=CPU, steps=3)
    assert (timing.height, timing.samples, timing.steps, timing.threads) == (32, 2, 3, torch.get_num_threads())
    assert timing.tflops == pytest.approx(2 * 1e6 / timing.seconds / 1e12)


def test_what_would_take_a_cpu_hours_is_refused() -> None:
    with pytest.raises(TrainingError, match="4 x 512x1024 would take this CPU about 878 minutes: measure on a GPU"):
        time_steps(PIPELINES["paper"].stage_1, 512, samples=4, step_flop=9_410_000_000_000, device=CPU)
