"""Self-attention over patch tokens with axial rotary embedding, and the transformer block of DINOv3 around it."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rotation(NamedTuple):
    """How the rotary embedding turns each token: the same for queries and keys, for every head and block.

    Attributes:
        cosine: float32 (N, 1, 1, head_width).
        sine: the same, the first half of the components with the other sign, so that turning is `x * cosine + (x with
            its halves exchanged) * sine`.
    """

    cosine: Tensor
    sine: Tensor

    def turn(self, tokens: Tensor) -> Tensor:
        """Turn the component pairs (i, i + width/2) of (..., N, parts, heads, head_width)."""
        first, second = tokens.chunk(2, dim=-1)
        return tokens * self.cosine + torch.cat([second, first], dim=-1) * self.sine


class RotaryAngles(nn.Module):
    """The axial rotary embedding of a grid of patches, and of the tokens before them.

    Half of each head's angles follow the row, half the column.

    Plain (DINOv3, arXiv 2508.10104): coordinates in [-1, 1] at patch centres of each axis, angle = 2 pi coordinate /
    period, with the periods as a buffer since they are in the checkpoint. Not periodic in longitude.

    Spherical: angle = latitude or longitude in radians times a whole number, so a full turn changes nothing, and
        attention sees only the difference of
    two longitudes: rolling the patches rolls the output.
    """

    periods: Tensor
    frequencies: Tensor

    def __init__(self, head_width: int, *, spherical: bool, base: float = 100.0) -> None:
        super().__init__()
        count = head_width // 4
        self.spherical = spherical
        if spherical:
            frequencies = torch.tensor(whole_frequencies(count), dtype=torch.float32)
            self.register_buffer("frequencies", frequencies, persistent=False)
        else:
            self.register_buffer("periods", base ** (torch.arange(count, dtype=torch.float32) / count))

    def forward(self, rows: int, columns: int, prefix: int = 0) -> Rotation:
        """Of `prefix` tokens and rows x columns patches in raster order."""
        angles = F.pad(self._angles(rows, columns), (0, 0, prefix, 0))
        half = angles.shape[-1] // 2
        component = torch.arange(2 * half, device=angles.device)
        cosine = angles.cos()
        if self.spherical and prefix:
            by_latitude = (component % half < half // 2).to(cosine.dtype)
            cosine = torch.cat([by_latitude.expand(prefix, -1), cosine[prefix:]])
        sine = angles.sin() * torch.where(component < half, -1.0, 1.0)
        return Rotation(cosine[:, None, None], sine[:, None, None])

    def _angles(self, rows: int, columns: int) -> Tensor:
        """float32 (rows x columns, head_width): the angle of each component; the second half repeats the first."""
        scale = self.frequencies if self.spherical else 2 * math.pi / self.periods
        y = (torch.arange(rows, dtype=torch.float32, device=scale.device) + 0.5) / rows * 2 - 1
        x = (torch.arange(columns, dtype=torch.float32, device=scale.device) + 0.5) / columns * 2 - 1
        if self.spherical:
            y, x = y * (math.pi / 2), x * math.pi
        by_row = (y[:, None] * scale)[:, None].expand(rows, columns, -1)
        by_column = (x[:, None] * scale)[None].expand(rows, columns, -1)
        return torch.cat([by_row, by_column], dim=-1).flatten(0, 1).tile(2)


def whole_frequencies(count: int, highest: int = 32) -> list[int]:
    """`count` different whole numbers from 1 on, as nearly geometric up to `highest` as whole numbers allow."""
    numbers: list[int] = []
    for k in range(count):
        wanted = highest ** (k / max(count - 1, 1))
        numbers.append(max(round(wanted), numbers[-1] + 1 if numbers else 1))
    return numbers


class MaskedBiasLinear(nn.Linear):
    """A linear layer with a masked bias: DINOv3 keeps the keys' third of the qkv bias in the file, unused."""

    bias_mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        mask = torch.ones(outputs)
        mask[outputs // 3 : 2 * outputs // 3] = 0
        self.register_buffer("bias_mask", mask)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(tokens, self.weight, self.bias * self.bias_mask)


class Attention(nn.Module):
    """Multi-head self-attention; the rotary embedding turns queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = MaskedBiasLinear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, rotation: Rotation) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key = rotation.turn(qkv[:, :, :2].float()).to(qkv.dtype).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in (query, key, qkv[:, :, 2]))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    """A learnt factor for each channel of a residual branch."""

    def __init__(self, width: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class Mlp(nn.Module):
    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """The pre-norm transformer block of DINOv3: attention and MLP, each behind a LayerNorm and a LayerScale."""

    def __init__(self, width: int, heads: int, *, layer_scale: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width, layer_scale)

    def forward(self, tokens: Tensor, rotation: Rotation) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), rotation))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))  # type: ignore[no-any-return]
