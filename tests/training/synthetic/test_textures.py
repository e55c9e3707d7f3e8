"""The texture bank and its mip levels."""

import torch

from training.synthetic.textures import FAMILIES, LEVELS, SIZE, TEXTURES, VARIANTS, texture_bank

BANK = texture_bank(torch.device("cpu"))


def look(texture: int, u: float, v: float, level: float) -> torch.Tensor:
    return BANK.look_up(*(torch.tensor([float(value)]) for value in (texture, u, v, level)))[0]


def test_every_family_has_textures_of_its_own() -> None:
    numbers = [number for family in FAMILIES for number in TEXTURES[family]]
    assert numbers == list(range(len(FAMILIES) * VARIANTS))


def test_textures_repeat_in_both_directions() -> None:
    for u, v in ((0.3, 0.7), (0.01, 0.99)):
        assert torch.equal(look(9, u, v, 0), look(9, u + 3, v - 2, 0))


def test_the_coarsest_level_is_the_mean_of_the_finest() -> None:
    texels = BANK.texels[17 * SIZE * SIZE : 18 * SIZE * SIZE]
    torch.testing.assert_close(look(17, 0.5, 0.5, LEVELS - 1), texels.mean(0))


def test_levels_beyond_the_last_are_the_last() -> None:
    assert torch.equal(look(4, 0.2, 0.2, 30), look(4, 0.2, 0.2, LEVELS - 1))


def test_texels_are_shares_of_light() -> None:
    assert BANK.texels.min() >= 0
    assert BANK.texels.max() <= 1
