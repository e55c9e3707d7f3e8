"""What is trained, and how fast: frozen parameters, groups by name, AdamW."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from dap.errors import TrainingError
from dap.model.dap import DapNetwork
from training.config import OptimizerConfig, ParameterGroup, TrainingConfig
from training.losses import LOSSES, Label
from training.pretrained import pretrained_parameters

_HEADS: dict[Label, str] = {"depth": r"depth_head\.", "range": r"(added_)?mask_heads?\."}


def freeze(network: DapNetwork, config: TrainingConfig) -> None:
    """Stop training what the configuration freezes, and a head that none of its losses reaches.

    Raises:
        TrainingError: a pattern fits no parameter.
    """
    unreached = [
        pattern
        for label, pattern in _HEADS.items()
        if not any(getattr(config.loss, name) for name, loss in LOSSES.items() if loss.needs == label)
    ]
    for pattern in (*config.optimizer.frozen, *unreached):
        chosen = [parameter for name, parameter in network.named_parameters() if re.match(pattern, name)]
        if not chosen:
            raise TrainingError(f"{pattern!r} should freeze something; no parameter has a name that begins so")
        for parameter in chosen:
            parameter.requires_grad = False


def make_optimizer(network: DapNetwork, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW in groups. What is at least a matrix decays; biases, norms and scales do not.

    Each group has a `scale`, the factor on its learning rate.

    Raises:
        TrainingError: a parameter that is trained fits no group, or a group no such parameter.
    """
    optimizer = config.optimizer
    groups = _groups_by_name(network, optimizer) if optimizer.groups else _groups_by_origin(network, config)
    return torch.optim.AdamW(groups, lr=optimizer.learning_rate, betas=optimizer.betas, fused=True)


def _groups_by_name(network: DapNetwork, optimizer: OptimizerConfig) -> list[dict[str, Any]]:
    members: dict[ParameterGroup, list[nn.Parameter]] = {group: [] for group in optimizer.groups}
    homeless = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            group = next((group for group in optimizer.groups if re.match(group.pattern, name)), None)
            homeless.append(name) if group is None else members[group].append(parameter)
    if homeless:
        raise TrainingError(f"{len(homeless)} parameters are trained and in no group: {', '.join(homeless[:4])}, ...")
    groups = []
    for group, parameters in members.items():
        if not parameters:
            raise TrainingError(f"the group {group.pattern!r} is empty: no trained parameter has a name that begins so")
        groups += _by_decay(parameters, optimizer.weight_decay, group.lr_scale)
    return groups


def _groups_by_origin(network: DapNetwork, config: TrainingConfig) -> list[dict[str, Any]]:
    """Fresh parameters, and those that were learnt before."""
    learnt = [p for p in pretrained_parameters(network, config.initial) if p.requires_grad]
    known = {id(parameter) for parameter in learnt}
    fresh = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    groups = _by_decay(fresh, config.optimizer.weight_decay, 1.0)
    if learnt:
        groups.append({"params": learnt, "weight_decay": 0.0, "scale": config.optimizer.pretrained_lr_scale})
    return groups


def _by_decay(parameters: Iterable[nn.Parameter], weight_decay: float, scale: float) -> list[dict[str, Any]]:
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay, "scale": scale},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "scale": scale},
    ]
