"""What a pass of fake tensors says of a step, against closed forms and against real tensors."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from training.config import DiscriminatorConfig, LossWeights, TrainingConfig
from training.distributed import Process
from training.losses import Truth, training_loss
from training.step_timing import noise
from training.step_trace import (
    LiveBytes,
    Parameters,
    StepTrace,
    parameters_of,
    trace_discriminator,
    trace_step,
)
from training.trainer import descend, start

TINY = TrainingConfig(
    network=NetworkConfig("hybrid-xs"), loss=replace(LossWeights(), dense_fidelity=0.4, fidelity_size=8)
)


@pytest.fixture(scope="module")
def tiny() -> StepTrace:
    return trace_step(TINY, 32, "cpu")


def test_live_bytes_are_those_that_the_backward_pass_needs() -> None:
    """Each layer keeps its input, 4 bytes a number; a ReLU keeps what it gives, which is the next layer's input."""
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU()) for _ in range(5)))
    live = LiveBytes(layers.parameters())
    with live:
        out = layers(torch.rand(32, 64))
        assert live.now == 4 * 32 * 64 * (1 + 5)
        del out
    assert live.now == 0


def test_fake_tensors_take_what_real_ones_take(tiny: StepTrace) -> None:
    network = DapNetwork(TINY.network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    there = [*network.parameters(), *network.buffers(), *(p.grad for p in network.parameters() if p.grad is not None)]
    live = LiveBytes(there)
    with live:
        depth = torch.rand(3, 32, 64) * 90 + 1
        truth = Truth(depth, depth > 2, torch.ones(3, dtype=torch.bool))
        images = torch.rand(3, 3, 32, 64)  # held to the end, as the trainer holds them
        loss, _ = training_loss(network(images), truth, TINY.network.thresholds, TINY.loss)
        loss.backward()  # type: ignore[no-untyped-call]
    # The tables of the losses may have been there before.
    assert live.peak == pytest.approx(tiny.kept.of(3), rel=0.005)


def test_parameters_and_flop_add_up(tiny: StepTrace) -> None:
    network = DapNetwork(TINY.network)
    assert sum(part.all for part in tiny.parameters.values()) == sum(p.numel() for p in network.parameters())
    assert [*tiny.parameters] == [*tiny.forward_flop] == ["encoder", "depth_head", "mask_head"]
    assert tiny.step_flop > 2.5 * sum(tiny.forward_flop.values()), "two gradients for each product, but of the first"


def test_shapes_are_those_of_one_panorama(tiny: StepTrace) -> None:
    shapes = dict(tiny.shapes)
    assert shapes["depth_head"] == ((1, 32, 64),)
    assert shapes["mask_head"] == ((4, 32, 64),)
    assert [rows for _, rows, _ in shapes["encoder"]] == [8, 4, 2, 2]
    assert "encoder.blocks.0" not in shapes


def test_computing_again_takes_the_flop_of_the_blocks_and_less_memory(tiny: StepTrace) -> None:
    """Two blocks, 32 wide, of 8 tokens: 12 x 32^2 weights, two products of attention."""
    blocks = 2 * (2 * 12 * 32**2 * 8 + 2 * 2 * 8**2 * 32)
    assert tiny.recomputed_flop == tiny.step_flop + blocks
    assert tiny.recomputed is not None
    assert tiny.recomputed.per_sample < tiny.kept.per_sample


def test_more_pixels_take_more_and_bf16_takes_less(tiny: StepTrace) -> None:
    larger = trace_step(TINY, 64, "cuda")
    assert sum(larger.forward_flop.values()) > 4 * sum(tiny.forward_flop.values()), "attention grows by more than four"
    assert tiny.kept.per_sample < larger.kept.per_sample < 4 * tiny.kept.per_sample, "`auto` is bf16 on a GPU"


def test_what_is_frozen_is_not_trained() -> None:
    linear = nn.Linear(3, 2)
    linear.bias.requires_grad = False
    assert parameters_of(linear) == Parameters(all=8, trained=6)


def test_a_trace_leaves_nothing_behind(tiny: StepTrace, tmp_path: Path) -> None:
    """The losses keep tables: a real step after a traced one must find none of fake tensors."""
    config = replace(TINY, phases=(replace(TINY.phases[0], height=32, batch=1),))
    learner, _ = start(config, tmp_path, Process())
    assert math.isfinite(descend(config, learner, noise(1, 32, 0), 0, Process())["loss"])


@pytest.mark.parametrize(("picture", "planes"), [("none", 2), ("grey", 3)])
def test_a_discriminator_is_counted_in_closed_form(picture: Literal["none", "grey"], planes: int) -> None:
    """4x4 convolutions at strides 2 2 2 1 1; forward and both gradients, but that of the image, which shows the sky."""
    config = DiscriminatorConfig(height=32, picture=picture, channels=(4, 4, 8, 8))
    numbers, forward, both = trace_discriminator(config)
    sizes = (planes, 4, 4, 8, 8, 1)
    places = [16 * 32, 8 * 16, 4 * 8, 4 * 8, 4 * 8]
    each = [2 * 16 * a * b * n for a, b, n in zip(sizes[:-1], sizes[1:], places, strict=True)]
    assert forward == sum(each)
    assert both == 3 * sum(each) - each[0]
    weights = sum(16 * a * b for a, b in pairwise(sizes))
    assert numbers.all == numbers.trained == weights + 4 + 1
