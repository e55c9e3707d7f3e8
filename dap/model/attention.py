"""Self-attention over patch tokens with axial rotary embedding, and the transformer block of DINOv3 around it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RotaryAngles(nn.Module):
    """Angles of the axial rotary embedding for a grid of patches.

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

    def forward(self, rows: int, columns: int) -> Tensor:
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


def rotate(tokens: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the component pairs (i, i + width/2) of (..., N, width)."""
    first, second = tokens.chunk(2, dim=-1)
    return tokens * cosine + torch.cat([-second, first], dim=-1) * sine


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
    """Multi-head self-attention; the rotary embedding turns queries and keys of the patch tokens, which come last.

    The tokens before them (class, storage) stand at no longitude. Compared with a turned patch they would tell where
    longitude 0 is, so when `spherical` they are compared only in the components that follow the latitude.
    """

    def __init__(self, width: int, heads: int, *, spherical: bool) -> None:
        super().__init__()
        self.heads = heads
        self.spherical = spherical
        self.qkv = MaskedBiasLinear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, angles: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = self._rotated(query, angles), self._rotated(key, angles)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))  # type: ignore[no-any-return]

    def _rotated(self, tokens: Tensor, angles: Tensor) -> Tensor:
        count = tokens.shape[-2] - angles.shape[0]
        patches = rotate(tokens[..., count:, :].float(), angles.cos(), angles.sin()).to(tokens.dtype)
        if not count:
            return patches
        prefix = tokens[..., :count, :]
        if self.spherical:
            by_latitude = torch.arange(tokens.shape[-1], device=tokens.device) % (tokens.shape[-1] // 2)
            prefix = prefix * (by_latitude < tokens.shape[-1] // 4)
        return torch.cat([prefix, patches], dim=-2)


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

    def __init__(self, width: int, heads: int, *, spherical: bool, layer_scale: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attn = Attention(width, heads, spherical=spherical)
        self.ls1 = LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width, layer_scale)

    def forward(self, tokens: Tensor, angles: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), angles))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))  # type: ignore[no-any-return]
