"""Bytes to panoramas: colours, orientation, sizes, crops; and that nothing but our errors comes out of bad bytes."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dap.errors import BrokenImage, DapError, EmptyInput, InputTooLarge, NotAPanorama, TooManyPixels
from dap.panorama import Limits, decode, read_header, resize_pixels
from tests.dap.images import exif, gpano, picture, saved, with_png_chunks, xmp

PIXELS = picture()


def close(found: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8], by: int) -> bool:
    return found.shape == expected.shape and int(np.abs(found.astype(int) - expected).max()) <= by


def test_lossless_files_come_back_as_they_were() -> None:
    for data in (saved(PIXELS, "PNG"), saved(PIXELS, "WEBP", lossless=True)):
        panorama = decode(data)
        np.testing.assert_array_equal(panorama.pixels, PIXELS)
        assert panorama.pixels.dtype == np.uint8
        assert panorama.pixels.flags.writeable
        assert (panorama.source_size, panorama.covered) == ((32, 64), None)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_comes_back_as_close_as_its_quality(options: dict[str, object]) -> None:
    assert close(decode(saved(PIXELS, "JPEG", quality=95, subsampling=0, **options)).pixels, PIXELS, by=6)


def test_grey_becomes_rgb() -> None:
    grey = PIXELS[..., 0]
    for data in (saved(grey, "PNG"), saved(grey, "JPEG", quality=100)):
        assert close(decode(data).pixels, np.stack([grey] * 3, axis=-1), by=1)


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.tile(np.array([0, 128, 129, 257, 32896, 65535], np.uint16), (32, 11))[:, :64]
    data = saved(Image.frombytes("I;16", (64, 32), values.tobytes()), "PNG")
    np.testing.assert_array_equal(decode(data).pixels[0, :6, 0], [0, 0, 1, 1, 128, 255])


def test_a_palette_becomes_the_colours_it_stands_for() -> None:
    image = Image.new("P", (64, 32), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert (decode(saved(image, "PNG")).pixels == (10, 200, 30)).all()


def test_black_and_white_become_black_and_white() -> None:
    image = Image.new("1", (64, 32), 1)
    image.putpixel((5, 6), 0)
    pixels = decode(saved(image, "PNG")).pixels
    assert (pixels[6, 5].tolist(), pixels[6, 6].tolist()) == ([0, 0, 0], [255, 255, 255])


def test_cmyk_is_ink_on_white() -> None:
    inks = Image.new("CMYK", (64, 32), (255, 0, 0, 0))
    assert close(decode(saved(inks, "JPEG", quality=100)).pixels[:1, :1], np.array([[[0, 255, 255]]], np.uint8), by=3)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_what_is_transparent_lies_over_black(image_format: str) -> None:
    rgba = np.full((32, 64, 4), 200, np.uint8)
    rgba[:, :20, 3], rgba[:, 20:40, 3], rgba[:, 40:, 3] = 0, 51, 255
    pixels = decode(saved(rgba, image_format, lossless=True)).pixels
    assert [pixels[5, column].tolist() for column in (5, 25, 50)] == [[0] * 3, [40] * 3, [200] * 3]


def test_a_transparent_colour_of_a_palette_or_of_rgb_lies_over_black() -> None:
    palette = Image.new("P", (64, 32), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    rgb = Image.new("RGB", (64, 32), (10, 200, 30))
    for data in (saved(palette, "PNG", transparency=1), saved(rgb, "PNG", transparency=(10, 200, 30))):
        assert not decode(data).pixels.any()


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(image_format: str) -> None:
    frames = [Image.new("RGB", (64, 32), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = saved(frames[0], image_format, save_all=True, append_images=frames[1:], lossless=True)
    assert (decode(data).pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_undone(orientation: int) -> None:
    # How each orientation is stored (CIPA DC-008, table 6): the operation that a viewer has to undo.
    upright = np.arange(32 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 64, 3)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    data = with_png_chunks(saved(np.ascontiguousarray(stored), "PNG"), (b"eXIf", exif(orientation)[6:]))
    panorama = decode(data)
    np.testing.assert_array_equal(panorama.pixels, upright)
    assert panorama.source_size == (32, 64)
    np.testing.assert_array_equal(decode(data, size=(16, 32)).pixels, resize_pixels(upright, (16, 32)))


@pytest.mark.parametrize("size", [(16, 32), (32, 64), (48, 96), (50, 100), (256, 512)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_the_result_has_exactly_the_size_asked_for_and_remembers_that_of_the_source(
    image_format: str, size: tuple[int, int]
) -> None:
    panorama = decode(saved(picture(128, 256), image_format), size=size)
    assert panorama.pixels.shape == (*size, 3)
    assert panorama.source_size == (128, 256)


@pytest.mark.parametrize("size", [(16, 32), (24, 48), (32, 64), (64, 128)])
def test_a_jpeg_decoded_at_reduced_scale_looks_like_one_reduced_afterwards(size: tuple[int, int]) -> None:
    pixels = picture(256, 512)
    # Smooth around the circle, as a panorama is: the ramp of red goes up and down.
    pixels[..., 0] = np.abs(pixels[..., 0].astype(int) * 2 - 255)
    data = saved(pixels, "JPEG", quality=95)
    assert close(decode(data, size=size).pixels, resize_pixels(pixels, size), by=8)


def test_a_panorama_of_an_odd_width_has_no_seam_when_reduced() -> None:
    turn = np.linspace(0, 2 * np.pi, 1021, endpoint=False)
    pixels = np.repeat(np.rint(127 + 120 * np.cos(turn)).astype(np.uint8)[None, :, None], 511, axis=0).repeat(3, axis=2)
    reduced = decode(saved(pixels, "JPEG", quality=95), size=(64, 128)).pixels[32, :, 0].astype(int)
    expected = 127 + 120 * np.cos((np.arange(128) + 0.5) / 128 * 2 * np.pi)
    assert np.abs(reduced - expected).max() < 4


def test_reducing_by_a_whole_factor_is_the_mean_over_the_area() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    means = pixels.reshape(4, 4, 8, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_pixels(pixels, (4, 8)), means, atol=0.5)


@given(st.sampled_from([(16, 32), (24, 48), (32, 64), (64, 128), (96, 192)]), st.integers(0, 32))
def test_resizing_commutes_with_turning_the_camera(size: tuple[int, int], turn: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    # An even number of old columns is a whole number of new ones in each of these sizes.
    turned = resize_pixels(np.roll(pixels, 2 * turn, axis=1), size)
    expected = np.roll(resize_pixels(pixels, size), 2 * turn * size[1] // 64, axis=1)
    if 2 * turn * size[1] % 64 == 0:
        assert close(turned, expected, by=1)


def test_the_header_alone_tells_size_and_place() -> None:
    header = read_header(saved(PIXELS, "JPEG"))
    assert (header.image.format, header.image.size, header.crop.sphere_size) == ("JPEG", (32, 64), (32, 64))


def cropped(fields: dict[str, int], pixels: npt.NDArray[np.uint8]) -> bytes:
    packet = b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + xmp(**fields)
    return with_png_chunks(saved(pixels, "PNG"), (b"iTXt", packet))


def test_a_header_that_was_read_decodes_like_the_file_and_more_than_once() -> None:
    data = saved(picture(), "JPEG", exif=exif(3))
    header = read_header(data)
    for size in (None, (16, 32)):
        np.testing.assert_array_equal(decode(header, size=size).pixels, decode(data, size=size).pixels)


def test_a_crop_is_padded_to_the_sphere_and_the_padding_is_not_covered() -> None:
    pixels = picture(20, 40)
    panorama = decode(cropped(gpano(full=(50, 100), crop=(20, 40), at=(10, 30)), pixels))
    assert panorama.pixels.shape == (50, 100, 3)
    assert panorama.source_size == (50, 100)
    assert panorama.covered is not None
    expected = np.zeros((50, 100), np.bool_)
    expected[10:30, 30:70] = True
    np.testing.assert_array_equal(panorama.covered, expected)
    np.testing.assert_array_equal(panorama.pixels[10:30, 30:70], pixels)
    assert not panorama.pixels[~panorama.covered].any()


def test_of_a_reduced_crop_only_whole_pixels_are_covered() -> None:
    # In a sphere of 8x16 pixels, each 10 of the original, the crop reaches from 1.5 to 5.5 and from 2.5 to 8.0.
    pixels = np.full((40, 55, 3), 90, np.uint8)
    panorama = decode(cropped(gpano(full=(80, 160), crop=(40, 55), at=(15, 25)), pixels), size=(8, 16))
    expected = np.zeros((8, 16), np.bool_)
    expected[2:5, 3:8] = True
    assert panorama.covered is not None
    np.testing.assert_array_equal(panorama.covered, expected)
    assert (panorama.pixels[expected] == 90).all()
    assert panorama.source_size == (80, 160)


def test_a_crop_that_goes_all_the_way_round_has_no_seam() -> None:
    pixels = np.zeros((20, 64, 3), np.uint8)
    pixels[:, 0] = 240
    panorama = decode(cropped(gpano(full=(32, 64), crop=(20, 64), at=(6, 0)), pixels), size=(64, 128))
    np.testing.assert_array_equal(panorama.pixels[32, [126, 127, 0, 1, 2], 0], [0, 60, 180, 180, 60])


def test_a_scaled_crop_in_a_jpeg_is_placed_where_it_belongs() -> None:
    pixels = picture(200, 300)
    packet = xmp(**gpano(full=(1200, 2400), crop=(400, 600), at=(600, 1200)))
    panorama = decode(saved(pixels, "JPEG", quality=95, xmp=packet), size=(60, 120))
    assert panorama.source_size == (600, 1200)
    assert panorama.covered is not None
    assert panorama.covered[30:50, 60:90].all()
    assert panorama.covered.sum() == 20 * 30
    assert close(panorama.pixels[30:50, 60:90], np.array(Image.fromarray(pixels).reduce(10)), by=6)


@pytest.mark.parametrize("size", [(32, 63 + 4), (31, 59), (1, 1), (64, 32)])
def test_a_picture_that_is_no_panorama_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(NotAPanorama, match=f"has {size[1]}x{size[0]} pixels|at least 16 pixels high"):
        decode(saved(picture(*size), "PNG"))


def test_a_crop_of_less_than_a_pixel_is_refused() -> None:
    data = cropped(gpano(full=(500, 1000), crop=(2, 2), at=(1, 1)), picture(2, 2))
    with pytest.raises(NotAPanorama, match="less than a pixel of the sphere at 32x16"):
        decode(data, size=(16, 32))


def test_nothing_is_refused_as_nothing() -> None:
    with pytest.raises(EmptyInput):
        decode(b"")


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(InputTooLarge, match="at most 10 bytes; this one has 11"):
        decode(b"x" * 11, Limits(max_bytes=10))


def bomb(height: int, width: int) -> bytes:
    """A JPEG whose header says that size, and whose pixels are not worth reading."""
    data = saved(PIXELS, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2) + width.to_bytes(2) + data[at + 4 :]


def test_too_many_pixels_are_refused_by_the_header() -> None:
    with pytest.raises(TooManyPixels, match="at most 134217728 pixels are taken; the picture has 65534x32767"):
        decode(bomb(32767, 65534))
    with pytest.raises(TooManyPixels, match="at most 2047 pixels are taken; the picture has 64x32"):
        decode(saved(PIXELS, "PNG"), Limits(max_pixels=2047))
    assert decode(saved(PIXELS, "PNG"), Limits(max_pixels=2048)).source_size == (32, 64)


def test_a_picture_within_our_limit_but_over_the_decoders_makes_no_warning() -> None:
    # Pillow warns from 89 million pixels on; this header is within the limit, so the pixels are what fails.
    with pytest.raises(BrokenImage, match="its data end before the picture does"):
        decode(bomb(8192, 16384), size=(16, 32))


def test_a_small_crop_of_an_enormous_sphere_counts_as_the_sphere() -> None:
    fields = gpano(full=(500_000, 1_000_000), crop=(20, 40), at=(10, 30))
    with pytest.raises(TooManyPixels, match=r"the full sphere .* has 1000000x500000"):
        decode(cropped(fields, picture(20, 40)))


FILES = {
    "jpeg": saved(picture(64, 128), "JPEG"),
    "progressive": saved(picture(64, 128), "JPEG", progressive=True, exif=exif(3)),
    "cmyk": saved(Image.fromarray(picture(64, 128)).convert("CMYK"), "JPEG"),
    "png": saved(picture(64, 128), "PNG"),
    "palette": saved(Image.fromarray(picture(64, 128)).convert("P"), "PNG", transparency=3),
    "webp": saved(picture(64, 128), "WEBP"),
    "lossless webp": saved(picture(64, 128), "WEBP", lossless=True, xmp=xmp(UsePanoramaViewer="True")),
    "animated webp": saved(picture(64, 128), "WEBP", save_all=True, append_images=[Image.new("RGB", (128, 64))]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_never_gives_a_picture(name: str) -> None:
    data = FILES[name]
    # From its magic on, so that it is known for what it is; up to the end marker, without which a JPEG is complete.
    for length in [*range(16, len(data) - 2, 31), *range(len(data) - 8, len(data) - 2)]:
        with pytest.raises(BrokenImage):
            decode(data[:length])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("size", [None, (16, 32)])
def test_a_truncated_jpeg_that_claims_to_be_at_its_end_never_gives_a_half_grey_picture(
    options: dict[str, object], size: tuple[int, int] | None
) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (128, 256, 3), dtype=np.uint8)
    data = saved(noise, "JPEG", **options)
    first_scan = data[: data.index(b"\xff\xda") + 300]
    assert len(first_scan) < len(data) / 4
    with pytest.raises(BrokenImage, match="its data end before the picture does"):
        decode(first_scan + b"\xff\xd9", size=size)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_that_is_grey_is_no_truncated_one(mode: str, options: dict[str, object]) -> None:
    grey = Image.new("RGB", (256, 128), (128, 128, 128)).convert(mode)
    assert close(decode(saved(grey, "JPEG", **options)).pixels, np.full((128, 256, 3), 128, np.uint8), by=2)


@pytest.mark.parametrize("name", FILES)
def test_of_a_corrupt_file_nothing_comes_but_our_errors(name: str) -> None:
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(200):
        data = bytearray(FILES[name])
        for position in random.integers(0, len(data), random.integers(1, 9)):
            data[position] = random.integers(0, 256)
        try:
            assert decode(bytes(data), Limits(max_pixels=1_000_000)).pixels.shape[2] == 3
        except DapError:
            refused += 1
    assert refused > 0
