"""Range mask heads for thresholds that a trained model lacks: everything else of it stays as it is, bit for bit.

The paper (arXiv 2512.16913) calls its range mask head plug-and-play and has one for each of 10, 20, 50 and 100 m; the
release holds the one for 100 m. How more of them go into one network is a choice made here: thresholds that are added
together share a further DPT head on the encoder's features, with a channel for each, and the old head stays as it is.
More channels of the old head's last convolution would cost next to nothing, but the 32 features before it were learnt
for another question, and whoever teaches them a new one changes the old answer. With ViT-L a head more costs 443 GFLOP
a panorama, of 2544.

The new head starts as a copy of the old one, each of its channels as the one of the nearest threshold.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dap.errors import InvalidParameter
from dap.model.checkpoints import load_network, save_network
from dap.model.dap import DapNetwork
from dap.model.dpt import DptHead
from dap.models import Model, find_model, model_file
from training.config import LOSS_PRESETS, LossWeights, OptimizerConfig, Phase, TrainingConfig
from training.losses import LOSSES

START_FILE = "start.safetensors"
MODEL_FILE = "model.safetensors"

DEFAULTS = TrainingConfig(
    phases=(Phase(height=512, steps=2000, batch=4),),
    optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=100, cooldown_steps=500),
)
"""How long and how fast: choices, since the paper publishes neither. The height becomes that of the model's input."""

_LAST_CONVOLUTION = ("output_conv2.2.weight", "output_conv2.2.bias")


def prepare(model: Model, thresholds: tuple[float, ...], folder: Path) -> TrainingConfig:
    """Write what a run starts from into its folder.

    Args:
        model: trained: the official release, or one of ours.
        thresholds: metres, ascending, of the new head.
        folder: the run's.

    Returns:
        A configuration that trains the new head and nothing else, at the size of the model's input.

    Raises:
        InvalidParameter: thresholds that are none; or an exported model, which cannot be trained.
        ModelFileMissing, ModelFileInvalid: the model's file is not here, or is none.
    """
    if model.path.suffix == ".onnx":
        raise InvalidParameter(f"{model.name} is exported: expected a checkpoint, .pth or .safetensors")
    network = with_new_head(load_network(model_file(model)), thresholds)
    folder.mkdir(parents=True, exist_ok=True)
    _save(network, folder / START_FILE, model.name, model)
    earlier = ["mask_head", *(f"added_mask_heads.{index}" for index in range(len(network.added_mask_heads)))][:-1]
    return replace(
        DEFAULTS,
        network=network.config,
        phases=tuple(replace(phase, height=model.input_size[0]) for phase in DEFAULTS.phases),
        loss=range_losses("paper"),
        optimizer=replace(
            DEFAULTS.optimizer, frozen=tuple(rf"{part}\." for part in ("encoder", "depth_head", *earlier))
        ),
        initial="model",
        weights=str(folder / START_FILE),
    )


def finish(folder: Path, trained: DapNetwork) -> Path:
    """Put the trained head into what the run started from, and write that as the run's model: nothing else changes.

    Its licence and input size are those of the model that it was; its name is that of the run.

    Args:
        folder: the run's.
        trained: what came out of it.

    Returns:
        The model's file.
    """
    network = load_network(folder / START_FILE)
    network.mask_heads[-1].load_state_dict(trained.mask_heads[-1].state_dict())
    return _save(network, folder / MODEL_FILE, folder.name, find_model(folder / START_FILE))


def range_losses(preset: str) -> LossWeights:
    """The losses of the range mask alone, of one of `LOSS_PRESETS`."""
    depth: dict[str, Any] = {name: 0.0 for name, loss in LOSSES.items() if loss.needs == "depth"}
    return replace(LOSS_PRESETS[preset], **depth)


def with_new_head(network: DapNetwork, thresholds: tuple[float, ...]) -> DapNetwork:
    """A copy of the network that has one more range mask head, not yet trained.

    Args:
        network: trained.
        thresholds: metres, ascending. One that the network has already moves to the new head, to be learnt anew.

    Raises:
        InvalidParameter: no thresholds, or not ascending from above zero.
    """
    if not thresholds or any(a >= b for a, b in zip((0.0, *thresholds), thresholds, strict=False)):
        raise InvalidParameter(f"thresholds of a range mask ascend from above 0 m; got {list(thresholds)}")
    heads = list(zip(network.mask_heads, network.config.mask_heads, strict=True))
    groups, states = [], []
    for head, own in heads:
        kept = [channel for channel, threshold in enumerate(own) if threshold not in thresholds]
        if kept:
            groups.append(tuple(own[channel] for channel in kept))
            states.append(_channels(head, kept))
    head, own = heads[0]
    groups.append(thresholds)
    states.append(_channels(head, [_nearest(threshold, own) for threshold in thresholds]))
    every = tuple(sorted(threshold for group in groups for threshold in group))
    grown = DapNetwork(replace(network.config, thresholds=every, added_thresholds=tuple(groups[1:])))
    grown.encoder.load_state_dict(network.encoder.state_dict())
    grown.depth_head.load_state_dict(network.depth_head.state_dict())
    for new, state in zip(grown.mask_heads, states, strict=True):
        new.load_state_dict(state)
    return grown.train(network.training)


def _channels(head: DptHead, channels: Sequence[int]) -> dict[str, Tensor]:
    """The state of a head that has these of its channels, in this order."""
    state = head.state_dict()
    return state | {name: state[name][list(channels)] for name in _LAST_CONVOLUTION}


def _nearest(threshold: float, others: Sequence[float]) -> int:
    return min(range(len(others)), key=lambda k: abs(math.log(others[k] / threshold)))


def _save(network: DapNetwork, path: Path, name: str, like: Model) -> Path:
    """The file appears whole or not at all, also where several processes write the same."""
    described = {"dap.name": name, "dap.licence": like.licence, "dap.input_size": json.dumps(like.input_size)}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    save_network(network, unfinished, described)
    return unfinished.replace(path)
