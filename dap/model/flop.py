"""What a network costs, counted: FLOP of matrix products, convolutions and attention, without computing them.

Two for each multiplication with its addition. Norms, activations, softmax and resizes are not counted: what they cost
is moving bytes.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork

Shape = tuple[int, ...]


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Count FLOP, with two formulas that torch lacks: of attention on a CPU, and of grouped convolutions backward."""
    with _counter() as counter:
        yield counter


def operator_flop(
    operator: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: object
) -> int:
    """FLOP of one call of an operator of torch, as `counting` has them; 0 where it has no formula."""
    formula = _formulas().get(operator.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result))


@functools.cache
def _formulas() -> dict[Any, Callable[..., int]]:
    return _counter().flop_registry


def _counter() -> FlopCounterMode:
    aten = torch.ops.aten
    added = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flop,
        aten.convolution_backward: _convolution_backward_flop,
    }
    return FlopCounterMode(display=False, custom_mapping=added)


def network_flop(config: NetworkConfig, size: tuple[int, int], *, in_range: bool = True) -> int:
    """FLOP of one panorama through a network. Nothing is computed and nothing allocated.

    Args:
        config: of the network.
        size: (H, W) in pixels of its input.
        in_range: whether its range mask heads run.

    Raises:
        InvalidParameter: the network cannot run at this size.
    """
    with torch.device("meta"), torch.no_grad():
        network = DapNetwork(config).eval()
        with counting() as counter:
            network(torch.empty(1, 3, *size), in_range=in_range)
    return int(counter.get_total_flops())


def _attention_flop(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    """Two products: of queries and keys, of their weights and the values."""
    return 2 * math.prod(query) * (key[-2] + key[-2] * value[-1] // query[-1])


def _attention_backward_flop(_gradient: Shape, query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    """Five: the weights are computed again, and there are the gradients of all three and of the weights."""
    return _attention_flop(query, key, value) * 5 // 2


def _convolution_backward_flop(
    gradient: Shape,
    inputs: Shape,
    weight: Shape,
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    wanted: list[bool],
    **_kwargs: object,
) -> int:
    """Each of the two gradients, of input and weight, costs what forward costs; torch 2.13 multiplies by the groups."""
    places = inputs if transposed else gradient
    return sum(wanted[:2]) * 2 * math.prod(weight) * places[0] * math.prod(places[2:])
