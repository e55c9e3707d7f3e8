"""What a training step computes and keeps, without computing it: shapes, FLOP and bytes from a pass of fake tensors.

The pass runs the network, the losses and the backward pass as the trainer does, on tensors that have shapes and no
data. So it takes seconds and next to no memory whatever the size of the network, and needs no GPU.

Not in it: what kernels take for themselves, what the allocator loses, how the batch is augmented, and the other
processes. Autocast chooses precisions as it does on a CPU.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dap.model.dap import DapNetwork
from dap.model.dpt import DptHead
from dap.model.flop import Shape, counting
from training.config import DiscriminatorConfig, TrainingConfig
from training.discriminator import Discriminator
from training.losses import Truth, training_loss
from training.losses.fidelity import icosahedral_grid
from training.optimizer import freeze
from training.sphere import solid_angle_weights
from training.trainer import recompute_blocks


@dataclass(frozen=True)
class Parameters:
    """How many numbers a part of the network has.

    Attributes:
        all: of them.
        trained: of these, those that are trained.
    """

    all: int
    trained: int


@dataclass(frozen=True)
class StepBytes:
    """Most bytes that a step has at once, beside parameters, gradients, optimizer state and running mean.

    Attributes:
        once: whatever the batch: copies of the parameters in another precision, mostly.
        per_sample: what the backward pass needs of each sample, and what is computed on the way.
    """

    once: int
    per_sample: int

    def of(self, samples: int) -> int:
        """Of a step with so many samples."""
        return self.once + samples * self.per_sample


@dataclass(frozen=True)
class StepTrace:
    """A training step at one size.

    FLOP are those of matrix products, convolutions and attention: two for each multiplication with its addition.

    Attributes:
        height: of the panoramas, pixels.
        parameters: by part of the network.
        shapes: of what comes out of each layer that matters, for one panorama, in the order in which it is computed.
        forward_flop: of one panorama, by part of the network.
        step_flop: of one panorama forward, through the losses and backward; activations are kept.
        recomputed_flop: the same where they are computed again; None if the network has no transformer blocks.
        kept: bytes where activations are kept.
        recomputed: bytes where they are computed again.
    """

    height: int
    parameters: dict[str, Parameters]
    shapes: tuple[tuple[str, tuple[Shape, ...]], ...]
    forward_flop: dict[str, int]
    step_flop: int
    recomputed_flop: int | None
    kept: StepBytes
    recomputed: StepBytes | None


def trace_step(config: TrainingConfig, height: int, device_type: str) -> StepTrace:
    """Trace a step of a training.

    Args:
        config: of the training.
        height: of the panoramas, a multiple of 16.
        device_type: `cuda` or `cpu`, where it would run; it decides what precision `auto` is.
    """
    bf16 = config.uses_bf16(device_type)
    with FakeTensorMode():
        network = _network(config)
        shapes, forward = _forward(network, height, bf16=bf16)
        step_flop, kept = _both_ways(network, config, height, bf16=bf16)
        recomputed_flop, recomputed = None, None
        if len(network.encoder.blocks):
            recompute_blocks(network)
            recomputed_flop, recomputed = _both_ways(network, config, height, bf16=bf16)
    parameters = {name: parameters_of(part) for name, part in network.named_children()}
    parameters = {name: numbers for name, numbers in parameters.items() if numbers.all}
    return StepTrace(height, parameters, shapes, forward, step_flop, recomputed_flop, kept, recomputed)


def parameters_of(module: nn.Module) -> Parameters:
    """How many numbers a module has."""
    every = list(module.parameters())
    return Parameters(sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad))


def trace_discriminator(config: DiscriminatorConfig) -> tuple[Parameters, int, int]:
    """The discriminator's parameters, and its FLOP for one image: forward, and forward and backward."""
    with FakeTensorMode():
        discriminator = Discriminator(config)
        image = torch.empty(1, config.planes, config.height, 2 * config.height)
        with counting() as counter, torch.no_grad():
            discriminator(image)
        forward = counter.get_total_flops()
        with counting() as counter:
            discriminator(image).sum().backward()
    return parameters_of(discriminator), forward, counter.get_total_flops()


def _network(config: TrainingConfig) -> DapNetwork:
    """The network as a step finds it, gradients included: those of another part of the batch, say."""
    network = DapNetwork(config.network)
    freeze(network, config)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    return network.train()


def _forward(
    network: DapNetwork, height: int, *, bf16: bool
) -> tuple[tuple[tuple[str, tuple[Shape, ...]], ...], dict[str, int]]:
    """Shapes, and FLOP by part, of one panorama."""
    shapes: list[tuple[str, tuple[Shape, ...]]] = []

    def noted(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: shapes.append((name, _shapes(output)))

    hooks = [module.register_forward_hook(noted(name)) for name, module in _that_matter(network)]
    with counting() as counter, torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        network(torch.empty(1, 3, height, 2 * height))
    for hook in hooks:
        hook.remove()
    root = type(network).__name__
    by_module = counter.get_flop_counts()
    flop = {
        name: sum(by_module[f"{root}.{name}"].values())
        for name, _ in network.named_children()
        if f"{root}.{name}" in by_module
    }
    return tuple(shapes), flop


def _that_matter(network: DapNetwork) -> Iterator[tuple[str, nn.Module]]:
    """The parts of the network, and the levels of its heads."""
    for name, module in network.named_modules():
        parent = name.rpartition(".")[0]
        in_head = "." in name and isinstance(network.get_submodule(parent.partition(".")[0]), DptHead)
        level = in_head and (name.count(".") == 1 or parent.endswith((".to_features", ".fusions")))
        if name and (level or "." not in name):
            yield name, module


def _shapes(output: object) -> tuple[Shape, ...]:
    """Without the axis of the batch."""
    return tuple(tuple(leaf.shape[1:]) for leaf in tree_leaves(output) if isinstance(leaf, Tensor))


def _both_ways(network: DapNetwork, config: TrainingConfig, height: int, *, bf16: bool) -> tuple[int, StepBytes]:
    """FLOP of one panorama, and bytes of any number of them, forward and backward."""
    with counting() as counter:
        _step(network, config, height, 1, bf16=bf16)
    one, two = (_peak(network, config, height, samples, bf16=bf16) for samples in (1, 2))
    return int(counter.get_total_flops()), StepBytes(2 * one - two, two - one)


def _peak(network: DapNetwork, config: TrainingConfig, height: int, samples: int, *, bf16: bool) -> int:
    # What is there before is counted elsewhere.
    there = [*network.parameters(), *network.buffers()]
    there += [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    live = LiveBytes(there)
    with live:
        _step(network, config, height, samples, bf16=bf16)
    return live.peak


def _step(network: DapNetwork, config: TrainingConfig, height: int, samples: int, *, bf16: bool) -> None:
    """Forward, losses and backward, as `training.trainer.descend` has it."""
    size = (samples, height, 2 * height)
    truth = Truth(torch.empty(size), torch.empty(size, dtype=torch.bool), torch.empty(samples, dtype=torch.bool))
    images = torch.empty(samples, 3, *size[1:])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = network(images)
    with _tables_of_its_own():
        loss, _ = training_loss(output, truth, config.network.thresholds, config.loss)
    loss.backward()  # type: ignore[no-untyped-call]


@contextmanager
def _tables_of_its_own() -> Iterator[None]:
    """Let no fake tensor stay in the tables that the losses keep, and no real one come from there."""
    tables = (icosahedral_grid, solid_angle_weights)
    for table in tables:
        table.cache_clear()
    yield
    for table in tables:
        table.cache_clear()


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors made inside it that are still in use, and their peak; real or fake ones."""

    def __init__(self, there: Iterable[Tensor] = ()) -> None:
        """Nothing is counted of tensors that are there already."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        # By identity: a storage keeps its Python object, and with it its id, as long as any tensor uses it.
        self._known = {id(tensor.untyped_storage()) for tensor in there}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._known:
            return
        self._known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, storage.nbytes()).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
