from collections.abc import Callable, Iterable
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dap.sphere import roll_yaw
from training.curation.duplicates import BITS, distances, duplicates, near_pairs, perceptual_hash

Pixels = npt.NDArray[np.uint8]


def scene(seed: int, size: tuple[int, int] = (128, 256)) -> Pixels:
    """A smooth random picture that wraps: a few waves along each row, of amplitudes that change from row to row."""
    random = np.random.default_rng(seed)
    height, width = size
    longitude = np.arange(width) / width * 2 * np.pi
    waves = np.zeros(size)
    for frequency in range(1, 20):
        anchors = random.normal(size=(2, 12)) / frequency**0.5
        rows = [np.interp(np.linspace(0, 11, height), np.arange(12), one) for one in anchors]
        waves += rows[0][:, None] * np.cos(frequency * longitude) + rows[1][:, None] * np.sin(frequency * longitude)
    grey = np.clip(128 + 30 * waves, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def recompressed(pixels: Pixels, quality: int = 40) -> Pixels:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def halved(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).resize((width // 2, height // 2), Image.Resampling.BOX))


@pytest.mark.parametrize("columns", [1, 64, 101])
def test_a_turned_camera_sees_the_same_panorama(columns: int) -> None:
    for seed in range(5):
        turned = perceptual_hash(roll_yaw(scene(seed), columns))
        assert distances(perceptual_hash(scene(seed)), turned) <= 8


@pytest.mark.parametrize(
    "changed",
    [
        recompressed,
        halved,
        lambda pixels: roll_yaw(recompressed(pixels), 37),
        lambda pixels: (pixels * 0.8).astype("u1"),
    ],
    ids=["recompressed", "half the size", "recompressed and turned", "darker"],
)
def test_a_copy_is_near(changed: Callable[[Pixels], Pixels]) -> None:
    for seed in range(5):
        assert distances(perceptual_hash(scene(seed)), perceptual_hash(changed(scene(seed)))) <= 24


def test_other_panoramas_differ_in_about_half_of_the_bits() -> None:
    hashes = np.stack([perceptual_hash(scene(seed)) for seed in range(12)])
    apart = distances(hashes[:, None], hashes[None])[np.triu_indices(12, 1)]
    assert apart.min() > 64
    assert abs(apart.mean() - BITS / 2) < 24


def random_hashes(count: int, seed: int = 0) -> npt.NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), dtype=np.uint64)


def with_bits_flipped(one: npt.NDArray[np.uint64], bits: Iterable[int]) -> npt.NDArray[np.uint64]:
    unpacked = np.unpackbits(one.view(np.uint8))
    unpacked[list(bits)] ^= 1
    return np.packbits(unpacked).view(np.uint64)


def test_all_pairs_as_near_as_asked_are_found_and_no_other() -> None:
    """Against all distances; every bit count from 0 up, spread evenly and in one lump."""
    base = random_hashes(3)
    spread = [with_bits_flipped(base[0], range(0, 256, 256 // bits)[:bits]) for bits in (1, 16, 25, 31, 32)]
    lumps = [with_bits_flipped(base[1], range(bits)) for bits in (8, 31, 40)]
    hashes = np.stack([*base, *spread, *lumps])
    for distance in (0, 16, 31):
        near = distances(hashes[:, None], hashes[None]) <= distance
        expected = {(int(i), int(j)) for i, j in zip(*np.nonzero(near), strict=True) if i < j}
        assert {tuple(pair) for pair in near_pairs(hashes, distance).tolist()} == expected


def test_the_first_of_near_duplicates_is_kept_and_a_chain_is_not_one_panorama() -> None:
    """Steps of 20 bits: the third is near the second, which is left out, and far from the first."""
    (first,) = random_hashes(1)
    second = with_bits_flipped(first, range(20))
    third = with_bits_flipped(first, range(40))
    other = random_hashes(1, seed=1)[0]
    assert duplicates(np.stack([first, second, other, third, first]), 24).tolist() == [-1, 0, -1, -1, 0]


def test_a_copy_of_what_is_left_out_is_left_out_for_the_same_original() -> None:
    (first,) = random_hashes(1)
    near = with_bits_flipped(first, range(5))
    assert duplicates(np.stack([first, near, near]), 24).tolist() == [-1, 0, 0]
