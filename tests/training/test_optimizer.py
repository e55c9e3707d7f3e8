import re

import pytest
import torch

from dap.errors import TrainingError
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from training.config import (
    LOSS_PRESETS,
    OPTIMIZER_PRESETS,
    LossWeights,
    OptimizerConfig,
    ParameterGroup,
    TrainingConfig,
)
from training.optimizer import freeze, make_optimizer


def network(encoder: str = "hybrid-xs") -> DapNetwork:
    return DapNetwork(NetworkConfig(encoder=encoder))  # type: ignore[arg-type]


def grouped(*groups: tuple[str, float], frozen: tuple[str, ...] = ()) -> TrainingConfig:
    optimizer = OptimizerConfig(groups=tuple(ParameterGroup(*group) for group in groups), frozen=frozen)
    return TrainingConfig(optimizer=optimizer)


def test_matrices_decay_and_norms_and_biases_do_not_and_nothing_is_left_out() -> None:
    student = network()
    decaying, free = make_optimizer(student, TrainingConfig(optimizer=OptimizerConfig(weight_decay=0.1))).param_groups
    assert decaying["weight_decay"] == 0.1
    assert free["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decaying["params"])
    assert all(p.ndim == 1 for p in free["params"])
    assert len(decaying["params"]) + len(free["params"]) == len(list(student.parameters()))


def test_what_was_learnt_on_photographs_moves_slowly_and_does_not_decay() -> None:
    student = network("efficientnet-lite0")
    config = TrainingConfig(initial="imagenet", optimizer=OptimizerConfig(pretrained_lr_scale=0.25))
    optimizer = make_optimizer(student, config)
    learnt = optimizer.param_groups[-1]
    assert (learnt["scale"], learnt["weight_decay"]) == (0.25, 0)
    groups = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(list(student.parameters()))


def test_the_paper_trains_the_encoder_at_5e_6_and_the_heads_at_5e_5() -> None:
    with torch.device("meta"):
        student = network("vit-l")
    paper = OPTIMIZER_PRESETS["paper"]
    optimizer = make_optimizer(student, TrainingConfig(optimizer=paper, loss=LOSS_PRESETS["paper"]))
    rates = {id(p): paper.learning_rate * group["scale"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in student.named_parameters():
        assert rates[id(parameter)] == pytest.approx(5e-6 if name.startswith("encoder.") else 5e-5), name
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    assert len({id(p) for p in student.parameters()}) == len(rates)


def test_a_parameter_belongs_to_the_first_group_that_its_name_fits() -> None:
    student = network()
    config = grouped((r"encoder\.blocks\.", 0.1), (r"encoder\.", 0.5), ("", 1.0))
    scales = {id(p): g["scale"] for g in make_optimizer(student, config).param_groups for p in g["params"]}
    assert scales[id(student.encoder.blocks[0].norm1.weight)] == 0.1
    assert scales[id(next(student.encoder.parameters()))] == 0.5
    assert scales[id(next(student.depth_head.parameters()))] == 1.0


def test_a_trained_parameter_that_no_group_has_is_named() -> None:
    with pytest.raises(TrainingError, match=r"trained and in no group: depth_head\."):
        make_optimizer(network(), grouped((r"encoder\.", 0.1), (r"mask_head\.", 1.0)))


@pytest.mark.parametrize("pattern", ["decoder", r"x?head\."])
def test_a_group_or_a_freeze_that_nothing_fits_is_an_error(pattern: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(repr(pattern))):
        make_optimizer(network(), grouped(("encoder|depth_head|mask_head", 0.1), (pattern, 1.0)))
    with pytest.raises(TrainingError, match=re.escape(repr(pattern))):
        freeze(network(), grouped(frozen=(pattern,)))


def test_frozen_parameters_are_in_no_group_and_need_none() -> None:
    student = network()
    config = grouped((r"mask_head\.", 1.0), frozen=(r"encoder\.", r"depth_head\."))
    freeze(student, config)
    trained = {id(p) for group in make_optimizer(student, config).param_groups for p in group["params"]}
    assert trained == {id(p) for p in student.mask_head.parameters()}
    assert not any(p.requires_grad for p in student.encoder.parameters())


@pytest.mark.parametrize(
    ("loss", "idle"),
    [
        (LossWeights(), set()),
        (LossWeights(range_cross_entropy=0, range_dice=0), {"mask_head"}),
        (LossWeights(silog=0, log_l1=0, gradient=0), {"depth_head"}),
    ],
)
def test_a_head_that_no_loss_reaches_is_not_trained(loss: LossWeights, idle: set[str]) -> None:
    student = network()
    freeze(student, TrainingConfig(loss=loss))
    assert {name.split(".")[0] for name, p in student.named_parameters() if not p.requires_grad} == idle
