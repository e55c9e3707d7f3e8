"""A transformer's blocks with less to do between products: the same function, for ONNX Runtime on a CPU in float32.

A LayerScale is a factor for each row of the weight before it. Queries, keys and values that are three products need not
be cut apart. Keys have no bias, and that of the values goes through attention as it is, since the weights of each mean
are one in sum: it is added once to the bias of what comes after.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dap.model.attention import Attention, Block, LayerScale, Rotation
from model_export.folding import loaded


class LeanAttention(nn.Module):
    """What `LayerScale(Attention(tokens))` says, to rounding."""

    def __init__(self, attention: Attention, scale: LayerScale) -> None:
        super().__init__()
        self.heads = attention.heads
        qkv = attention.qkv
        query, key, value = qkv.weight.detach().chunk(3)
        of_query, _, of_value = (qkv.bias * qkv.bias_mask).detach().chunk(3)
        self.query, self.key, self.value = (
            _linear(weight, bias) for weight, bias in ((query, of_query), (key, None), (value, None))
        )
        self.proj = _scaled(attention.proj, scale, of_value)

    def forward(self, tokens: Tensor, rotation: Rotation) -> Tensor:
        batch, count, width = tokens.shape
        apart = (batch, count, 1, self.heads, width // self.heads)
        query, key = (rotation.turn(part(tokens).reshape(apart)) for part in (self.query, self.key))
        value = self.value(tokens).reshape(apart)
        query, key, value = (part[:, :, 0].transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))  # type: ignore[no-any-return]


class LeanBlock(nn.Module):
    """What a `Block` says, to rounding."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attn = LeanAttention(block.attn, block.ls1)
        self.fc1, self.fc2 = block.mlp.fc1, _scaled(block.mlp.fc2, block.ls2)

    def forward(self, tokens: Tensor, rotation: Rotation) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens), rotation)
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))  # type: ignore[no-any-return]


def _scaled(linear: nn.Linear, scale: LayerScale, constant: Tensor | None = None) -> nn.Linear:
    """`scale(linear(x + constant))` as one layer of x."""
    weight, bias, gamma = (tensor.detach().double() for tensor in (linear.weight, linear.bias, scale.gamma))
    if constant is not None:
        bias = bias + weight @ constant.double()
    return _linear((gamma[:, None] * weight).to(linear.weight.dtype), (gamma * bias).to(linear.bias.dtype))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    return loaded(nn.Linear(inputs, outputs, device="meta"), weight, bias)
