"""What a pass of fake tensors says of a step, against closed forms and against real tensors."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

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
    counting,
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


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_costs_the_same_forward_and_for_each_gradient(groups: int) -> None:
    """2 x 8 out x (4 / groups) in x 3 x 3 taps at each of 2 x 6 x 10 places."""
    convolution = nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    forward = 2 * 8 * (4 // groups) * 9 * 2 * 6 * 10
    with counting() as counter:
        out = convolution(torch.rand(2, 4, 6, 10, requires_grad=True))
    assert counter.get_total_flops() == forward
    with counting() as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_a_transposed_convolution_is_counted_at_the_places_that_go_in() -> None:
    convolution = nn.ConvTranspose2d(4, 4, 2, 2)
    with counting() as counter:
        convolution(torch.rand(1, 4, 3, 5)).sum().backward()
    assert counter.get_total_flops() == (1 + 1) * 2 * 4 * 4 * 4 * 3 * 5, "the input needs no gradient"


def test_attention_is_two_products_forward_and_five_backward() -> None:
    """Queries, keys and values of 3 heads, 7 tokens, 8 wide; the backward pass computes the weights anew."""
    product = 2 * 3 * 7 * 7 * 8
    query, key, value = (torch.rand(1, 3, 7, 8, requires_grad=True) for _ in range(3))
    with counting() as counter:
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
    assert counter.get_total_flops() == 2 * product
    with counting() as counter:
        mixed.sum().backward()
    assert counter.get_total_flops() == 5 * product


def test_the_official_networks_cost_what_was_counted_for_them() -> None:
    """365 M and 27 M parameters less what is never used, 2544 and 236 GFLOP (facts of the release).

    Our heads do a 1x1 convolution before a resize, which saves it three quarters of 2 x 256 x 256 (64 x 64) at the
    places of the four levels.
    """
    for encoder, features, published in (("vit-s", 64, 236e9), ("vit-l", 256, 2544e9)):
        with FakeTensorMode(), counting() as counter, torch.no_grad():
            network = DapNetwork(NetworkConfig.official(encoder))
            network(torch.empty(1, 3, 512, 1024))
        places = [256 * 512, 128 * 256, 64 * 128, 32 * 64]
        saved = 2 * 2 * features**2 * sum(places) * 3 // 4
        assert counter.get_total_flops() + saved == pytest.approx(published, rel=0.004)


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


@pytest.mark.parametrize(("picture", "planes"), [("none", 1), ("grey", 2)])
def test_a_discriminator_is_counted_in_closed_form(picture: Literal["none", "grey"], planes: int) -> None:
    """4x4 convolutions at strides 2 2 2 1 1; forward and both gradients, but that of the image."""
    config = DiscriminatorConfig(height=32, picture=picture, channels=(4, 4, 8, 8))
    numbers, forward, both = trace_discriminator(config)
    sizes = (planes, 4, 4, 8, 8, 1)
    places = [16 * 32, 8 * 16, 4 * 8, 4 * 8, 4 * 8]
    each = [2 * 16 * a * b * n for a, b, n in zip(sizes[:-1], sizes[1:], places, strict=True)]
    assert forward == sum(each)
    assert both == 3 * sum(each) - each[0]
    weights = sum(16 * a * b for a, b in pairwise(sizes))
    assert numbers.all == numbers.trained == weights + 4 + 1
