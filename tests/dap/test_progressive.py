"""What is left out of a progressive JPEG is not seen at an eighth: against libjpeg on the whole file."""

from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dap.progressive import for_an_eighth

SIZES = [(512, 256), (1024, 512), (520, 264), (8, 8)]


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(7).normal(0, 20, (height, width))
    bands = [128 + 100 * np.sin(columns / 9) + noise, 128 + 90 * np.cos(rows / 5), 255.0 * columns / width, noise * 3]
    pixels = np.clip(np.stack(bands[: len(mode)], axis=-1), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=92, **{"progressive": True, **options})
    return stream.getvalue()


def eighth(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        image.draft(None, (image.width // 8, image.height // 8))
        return np.array(image)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("RGB", {"subsampling": "4:4:4"}),
        ("RGB", {"subsampling": "4:2:2"}),
        ("RGB", {"subsampling": "4:2:0"}),
        ("RGB", {"subsampling": "4:2:0", "restart_marker_rows": 1}),
        ("CMYK", {}),
    ],
    ids=str,
)
def test_an_eighth_of_what_is_left_is_an_eighth_of_the_picture(
    mode: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    whole = jpeg(picture(mode, size), **options)
    cut = for_an_eighth(whole)
    np.testing.assert_array_equal(eighth(cut), eighth(whole))


def test_most_of_the_file_is_left_out() -> None:
    whole = jpeg(picture("RGB", (1024, 512)), subsampling="4:2:0")
    assert len(for_an_eighth(whole)) < len(whole) / 3


def test_a_file_that_is_not_progressive_is_left_alone() -> None:
    whole = jpeg(picture("RGB", (512, 256)), progressive=False)
    assert for_an_eighth(whole) is whole


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_left_to_the_decoder(share: float) -> None:
    whole = jpeg(picture("RGB", (512, 256)))
    truncated = whole[: int(share * len(whole))]
    assert for_an_eighth(truncated) is truncated


def test_a_scan_of_no_components_is_left_to_the_decoder() -> None:
    whole = jpeg(picture("RGB", (512, 256)))
    at = whole.rindex(b"\xff\xda")
    odd = whole[:at] + b"\xff\xda\x00\x02" + b"\xff\xd9"
    assert for_an_eighth(odd) is odd
