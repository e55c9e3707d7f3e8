"""What a machine can do at most: its rate of matrix products and of copies, measured like everything else here.

The rate of one large square product is what a network's share of it is a share of: products with parameters, attention
and convolutions can be no faster. A copy of more than any cache holds gives the bandwidth of the memory.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Work = Callable[[], None]

_PRODUCT = {"cpu": 2048, "cuda": 8192}
_COPIED = {"cpu": 2**28, "cuda": 2**31}
TYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Precisions that a large product has a rate in."""


@dataclass(frozen=True)
class Ceilings:
    """Of one machine.

    Attributes:
        gemm: FLOP a second of a large matrix product.
        bandwidth: bytes a second of a large copy, those read and those written.
    """

    gemm: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """FLOP for each byte moved above which products are the limit, and below which memory is."""
        return self.gemm / self.bandwidth


def use_threads(count: int) -> None:
    """Let torch use so many threads, if it does not already."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def product(precision: str, device: str) -> tuple[Work, int]:
    """One large product, and its FLOP.

    Args:
        precision: one of `TYPES`. On a GPU float32 is float32, not TF32, as torch has it by default.
        device: as torch names it.
    """
    on = torch.device(device)
    width = _PRODUCT[on.type]
    flop = 2 * width**3
    if on.type == "cpu" and precision == "fp32":
        a, b = np.random.default_rng(0).random((2, width, width), np.float32)
        out = np.empty_like(a)

        def multiply() -> None:
            # numpy's OpenBLAS is the faster one here: 104 GFLOP/s of a core of Zen 4, torch's MKL 90.
            np.matmul(a, b, out=out)

        return multiply, flop
    left, right = torch.rand(2, width, width, device=on).to(TYPES[precision])
    result = torch.empty_like(left)

    def multiply_there() -> None:
        torch.mm(left, right, out=result)
        wait_for(on)

    return multiply_there, flop


def copy(device: str) -> tuple[Work, int]:
    """One large copy within the memory of the device, and the bytes that it reads and writes."""
    on = torch.device(device)
    source = torch.ones(_COPIED[on.type], dtype=torch.uint8, device=on)
    target = torch.zeros_like(source)

    def copy_there() -> None:
        target.copy_(source)
        wait_for(on)

    return copy_there, 2 * source.nbytes


def transfer(device: str, pixels: int) -> tuple[Work, int]:
    """What must cross to a GPU and back for one panorama, through page-locked memory, and its bytes.

    Up goes a byte for each colour of each of so many pixels, down comes depth, float32.
    """
    on = torch.device(device)
    is_gpu = on.type == "cuda"
    colours = torch.zeros(pixels, 3, dtype=torch.uint8, pin_memory=is_gpu)
    depth = torch.zeros(pixels, device=on)
    here = torch.zeros(pixels, pin_memory=is_gpu)

    def transfer_there_and_back() -> None:
        colours.to(on, non_blocking=True, copy=True)
        here.copy_(depth, non_blocking=True)
        wait_for(on)

    return transfer_there_and_back, colours.nbytes + depth.nbytes


def wait_for(device: torch.device) -> None:
    """Until it has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
