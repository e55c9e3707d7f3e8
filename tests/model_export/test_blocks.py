"""Blocks with less between their products: what a block says, to rounding."""

import torch
from torch import nn

from dap.model.attention import Attention, Block, LayerScale, RotaryAngles
from model_export.blocks import LeanAttention, LeanBlock


def _drawn(module: nn.Module) -> nn.Module:
    """In float64, every parameter drawn, so that none of them is a one or a nought that hides a mistake."""
    torch.manual_seed(0)
    module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


@torch.no_grad()
def test_a_lean_block_says_what_the_block_says() -> None:
    block, angles = _drawn(Block(16, heads=2)), RotaryAngles(8, spherical=False)
    tokens = torch.randn(2, 3 + 4 * 5, 16, dtype=torch.float64)
    rotation = angles(4, 5, prefix=3)
    assert isinstance(block, Block)
    # The block turns queries and keys in float32.
    torch.testing.assert_close(LeanBlock(block)(tokens, rotation), block(tokens, rotation), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_bias_of_the_values_is_in_what_comes_after_attention_and_that_of_the_keys_stays_masked() -> None:
    attention, scale = _drawn(Attention(8, heads=2)), _drawn(LayerScale(8))
    assert isinstance(attention, Attention)
    assert isinstance(scale, LayerScale)
    lean = LeanAttention(attention, scale)
    rotation = RotaryAngles(4, spherical=True)(2, 3)
    tokens = torch.zeros(1, 6, 8, dtype=torch.float64)  # of which nothing but biases comes
    expected = scale.gamma * (attention.proj.weight @ attention.qkv.bias[16:] + attention.proj.bias)
    torch.testing.assert_close(lean(tokens, rotation)[0], expected.expand(6, 8), rtol=1e-12, atol=0)
    assert "key.bias" not in lean.state_dict()
    assert "value.bias" not in lean.state_dict()


def test_a_lean_block_shares_the_weights_that_stay_as_they_are() -> None:
    block = Block(16, heads=2)
    lean = LeanBlock(block)
    for mine, its in ((lean.attn.query, block.attn.qkv), (lean.fc1, block.mlp.fc1), (lean.norm2, block.norm2)):
        assert mine.weight.data_ptr() == its.weight.data_ptr()
