"""What is counted of a network, part by part, and what follows from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import roofline
from benchmarks.ceiling import Ceilings
from benchmarks.roofline import Call, Part, Roofline, as_markdown, looking, part_of, parts_of
from dap.model.checkpoints import save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, PixelNetwork
from dap.model.flop import network_flop

CPU = torch.device("cpu")
CEILINGS = Ceilings(gemm=1000.0, bandwidth=100.0)


def noted(module: nn.Module, *inputs: torch.Tensor, passes: int = 1) -> list[Call]:
    calls: list[Call] = []
    for _ in range(passes):
        with torch.no_grad(), looking(module, CPU, calls):
            module(*inputs)
    return calls


def test_a_convolution_is_counted_by_its_closed_form() -> None:
    """2 x 8 out x 4 in x 3 x 3 taps at 6 x 10 places; float32 in, out, weights and biases."""
    (call,) = noted(nn.Conv2d(4, 8, 3, padding=1), torch.rand(1, 4, 6, 10))
    assert call.flop == 2 * 8 * 4 * 9 * 6 * 10
    assert call.moved == 4 * (4 * 60 + 8 * 60 + 8 * 4 * 9 + 8)


def test_views_are_not_work_and_what_is_written_in_place_is() -> None:
    class Turned(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values.reshape(2, 6).transpose(0, 1)[1:].add_(1)

    (call,) = noted(Turned(), torch.zeros(3, 4))
    assert call.flop == 0
    assert call.moved == 2 * 4 * 10, "ten float32, read and written"


def test_of_later_passes_the_seconds_are_kept() -> None:
    calls = noted(nn.Linear(3, 5, bias=False), torch.rand(2, 3), passes=3)
    assert [len(call.seconds) for call in calls] == [3]
    assert all(seconds > 0 for seconds in calls[0].seconds)


@pytest.mark.parametrize("encoder", ["hybrid-xs", "vit-s"])
def test_the_parts_have_all_of_the_network_and_nothing_twice(encoder: str) -> None:
    config = NetworkConfig(encoder)  # type: ignore[arg-type]
    calls = noted(PixelNetwork(DapNetwork(config).eval()), torch.zeros((1, 32, 64, 3), dtype=torch.uint8))
    assert sum(call.flop for call in calls) == network_flop(config, (32, 64))
    names = {call.part for call in calls}
    assert {"depth head: resizes", "mask head: output convolutions", "blocks: MLP"} <= names
    assert ("patch embedding" in names) == (encoder == "vit-s")
    assert ("encoder: convolutions" in names) == (encoder == "hybrid-xs")


@pytest.mark.parametrize(
    ("module", "operator", "part"),
    [
        ("network.encoder.patch_embed", "aten::convolution", "patch embedding"),
        ("network.encoder.blocks.11.attn.qkv", "aten::addmm", "blocks: products to and from attention"),
        ("network.encoder.blocks.11.attn", "aten::cat", "blocks: attention, rotary embedding"),
        ("network.encoder.blocks.11.mlp.fc1", "aten::addmm", "blocks: MLP"),
        ("network.encoder.blocks.11.norm1", "aten::native_layer_norm", "encoder: norms, scales, sums, taps"),
        ("network.encoder", "aten::cat", "encoder: norms, scales, sums, taps"),
        ("network.depth_head.resize_layers.0", "aten::convolution", "depth head: reassemble"),
        ("network.depth_head.fusions.2", "aten::upsample_bilinear2d", "depth head: resizes"),
        ("network.mask_head.fusions.2.out_conv", "aten::convolution", "mask head: fusion"),
        ("network.added_mask_heads.0.output_conv2.0", "aten::convolution", "mask head: output convolutions"),
        ("network", "aten::sigmoid", "pixels to input, logits to metres"),
        ("", "aten::div", "pixels to input, logits to metres"),
    ],
)
def test_each_operator_has_its_part(module: str, operator: str, part: str) -> None:
    assert part_of(module, operator) == part


def test_a_part_is_bound_by_what_takes_its_operators_longest() -> None:
    """At 1000 FLOP and 100 bytes a second. Seconds of a call are the median of its passes."""
    products, copies = parts_of(
        [
            Call("products", flop=4000, moved=100, seconds=[9.0, 5.0, 4.0]),
            Call("copies", flop=0, moved=300, seconds=[4.0]),
            Call("products", flop=1000, moved=200, seconds=[1.0]),
            Call("copies", flop=2000, moved=0, seconds=[2.0]),
        ],
        CEILINGS,
    )
    assert products == Part("products", 5000, 300, 6.0, 5.0, 3.0, 4.0 + 2.0)
    assert (products.bound, products.attained) == ("products", 1.0)
    assert copies == Part("copies", 2000, 300, 6.0, 2.0, 3.0, 3.0 + 2.0)
    assert (copies.bound, copies.attained) == ("memory", pytest.approx(5 / 6))
    assert CEILINGS.ridge == 10


def test_the_table_has_the_slowest_part_first_and_their_sum_last() -> None:
    parts = parts_of([Call("few", 10, 10, [1.0]), Call("many", 10, 10, [3.0])], CEILINGS)
    lines = as_markdown(Roofline(CEILINGS, parts, whole_seconds=3.5)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["many", "few", "all"]
    assert "| 4000.0 | 100% |" in lines[-1]


def test_parts_that_take_hardly_any_time_are_one_line() -> None:
    parts = parts_of([Call("much", 10, 10, [9.98]), *(Call(name, 10, 10, [0.01]) for name in "ab")], CEILINGS)
    lines = as_markdown(Roofline(CEILINGS, parts, whole_seconds=10.0)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["much", "2 others", "all"]
    assert "| 20.0 | 0% |" in lines[-2]


def test_the_network_is_run_beside_the_ceilings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(roofline.ceiling, "_PRODUCT", {"cpu": 16})
    monkeypatch.setattr(roofline.ceiling, "_COPIED", {"cpu": 1024})
    told: list[int] = []
    checkpoint = tmp_path / "small.safetensors"
    save_network(DapNetwork(NetworkConfig("hybrid-xs")), checkpoint)
    found = roofline.measure(
        checkpoint,
        np.zeros((1, 32, 64, 3), np.uint8),
        device="cpu",
        precision="fp32",
        rounds=2,
        advance=told.append,
    )
    assert told == [1, 1]
    assert found.ceilings.gemm > 0 < found.ceilings.bandwidth
    assert found.total.seconds > 0 < found.whole_seconds
