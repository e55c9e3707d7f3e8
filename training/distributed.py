"""One network, trained by several processes: which one this is, how the network is spread, what they tell each other.

Each process computes the gradient of its share of every batch. DDP gives each all of the parameters and takes the mean
of the gradients; FSDP2 gives each a part of every parameter, as a DTensor. Whatever the spread, what is written is
whole, so that a run may go on with other processes than it began with.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from dap.model.dap import DapNetwork
from dap.model.dpt import DptHead
from training.batches import Share

# The others wait while the leader evaluates and writes.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Process:
    """One of the processes of a run; by default the only one.

    Attributes:
        device: where its network runs.
        share: of each batch.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    share: Share = field(default_factory=Share)

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes, logs and evaluates."""
        return self.share.index == 0

    @property
    def alone(self) -> bool:
        """Whether it is the only one."""
        return self.share.of == 1


@contextmanager
def this_process(device: torch.device) -> Iterator[Process]:
    """Join the others if torchrun started this process (RANK, WORLD_SIZE, LOCAL_RANK): by NCCL on GPUs, else by Gloo.

    Args:
        device: asked for; with several processes a GPU is the one of this process's number on its machine.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield Process(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    yield Process(device, Share(int(os.environ["RANK"]), processes))
    # Not after an error: the others may be waiting for what this one will never send; torchrun ends them.
    dist.destroy_process_group()


def spread(network: DapNetwork, process: Process, *, sharded: bool) -> nn.Module:
    """What to call for a forward pass. With FSDP the network itself changes: its parameters become DTensors."""
    if process.alone:
        return network
    if not sharded:
        devices = [process.device] if process.device.type == "cuda" else None
        return DistributedDataParallel(network, devices, gradient_as_bucket_view=True)
    # It warns of outputs that are views, which matters to who changes them in place; nobody does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    mesh = init_device_mesh(process.device.type, (process.share.of,))
    heads = (module for module in network.modules() if isinstance(module, DptHead))
    for module in (*network.encoder.blocks, *heads, network):
        fully_shard(module, mesh=mesh)
    return network


@contextmanager
def gradients(replica: nn.Module, *, complete: bool) -> Iterator[None]:
    """Forward and backward pass of a part of a step; with the last, the `complete` one, processes join gradients."""
    if isinstance(replica, FSDPModule):
        replica.set_requires_gradient_sync(complete)
    apart: Callable[[], AbstractContextManager[None]] = getattr(replica, "no_sync", nullcontext)
    with nullcontext() if complete else apart():
        yield


def total(values: dict[str, Tensor], process: Process) -> dict[str, Tensor]:
    """The sums of scalars over all processes; the same names everywhere."""
    if process.alone:
        return values
    summed = torch.stack(list(values.values()))
    dist.all_reduce(summed)
    return dict(zip(values, summed, strict=True))


def same_everywhere(number: int, process: Process) -> bool:
    """Whether all processes have this number."""
    if process.alone:
        return True
    bounds = torch.tensor([number, -number], device=process.device)
    dist.all_reduce(bounds, dist.ReduceOp.MAX)
    return bounds.tolist() == [number, -number]


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that is spread; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Every process has to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(network: DapNetwork, process: Process) -> DapNetwork:
    """The whole network: where it is sharded a copy on the leader's device. Every process has to call it.

    In the other processes a sharded network is returned as it is.
    """
    state = network.state_dict()
    if not any(isinstance(tensor, DTensor) for tensor in state.values()):
        return network
    full = {}
    for name, tensor in state.items():
        entire = whole(tensor)
        if process.leads:
            full[name] = entire
    if not process.leads:
        return network
    copy = DapNetwork(network.config).to(process.device)
    copy.load_state_dict(full)
    return copy.train(network.training)


def gathered_state(optimizer: torch.optim.Optimizer, process: Process) -> dict[str, Any]:
    """The optimizer's whole state dict, in the leader; every process has to call it."""
    state = optimizer.state_dict()
    for number, values in state["state"].items():
        entire = {name: whole(value).cpu() for name, value in values.items()}
        state["state"][number] = entire if process.leads else {}
    return state


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Read what `gathered_state` gave, each process its part."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state["state"].items():
        parameter = parameters[number]
        if isinstance(parameter, DTensor):
            for name, value in values.items():
                if value.shape == parameter.shape:
                    there = value.to(parameter.device)
                    values[name] = distribute_tensor(there, parameter.device_mesh, parameter.placements)
    optimizer.load_state_dict(state)
