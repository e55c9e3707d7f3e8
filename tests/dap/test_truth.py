"""True depth of every data set's kind, written by hand or by the libraries that the data sets were written with."""

import io
from collections.abc import Callable

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from dap import truth
from dap.depth import DepthMap
from dap.errors import (
    BrokenImage,
    EmptyInput,
    InputError,
    InputTooLarge,
    InvalidParameter,
    NotAPanorama,
    TooManyPixels,
    UnsupportedMediaType,
)
from dap.formats import png16
from dap.headers import png_chunk
from dap.panorama import Limits
from tests.dap.images import with_png_chunks

METRES = np.array([[1, 2, 4, 8], [0, 16, 0.5, 3]], np.float32)


def png(numbers: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(numbers).save(stream, "PNG")
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def exr(**channels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
    OpenEXR.File(header, channels).write(stream)
    return stream.getvalue()


def read(data: bytes, scale: float | None = None) -> np.ndarray:
    return truth.decode(truth.read_header(data, scale))


@pytest.mark.parametrize("scale", [1e-300, 1e-40])
def test_of_a_scale_beyond_float32_nothing_is_known(scale: float) -> None:
    for file in (png((METRES * 512).astype(np.uint16)), npy(METRES), exr(Z=METRES)):
        assert (read(file, scale) == 0).all()


def test_a_double_that_no_float32_holds_is_not_known() -> None:
    assert read(npy(np.where(METRES == 4, 1e300, METRES.astype(np.float64))))[0].tolist() == [1, 2, 0, 8]


class TestPng:
    @pytest.mark.parametrize("scale", [512, 1000, 4000])
    def test_metres_are_numbers_over_the_scale_given(self, scale: int) -> None:
        found = read(png((METRES * scale).astype(np.uint16)), scale)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, METRES, rtol=1e-6)

    def test_the_scale_given_goes_before_what_the_file_says(self) -> None:
        numbers = png((METRES * 1000).astype(np.uint16))
        said = with_png_chunks(numbers, (b"tEXt", b"Scale\x00512"))
        np.testing.assert_allclose(read(said), METRES * (1000 / 512), rtol=1e-6)
        np.testing.assert_allclose(read(said, 1000), METRES, rtol=1e-6)

    def test_what_the_service_itself_wrote_needs_no_scale(self) -> None:
        depth_map = DepthMap(METRES, METRES > 0, range=100.0, range_mask="head", model="dap-s")
        np.testing.assert_array_equal(read(png16.FORMAT.encode(depth_map)), METRES)

    def test_a_file_that_does_not_say_its_scale_is_refused_and_told_what_to_give(self) -> None:
        with pytest.raises(InvalidParameter, match=r"does not say its scale: give .* truth_scale"):
            truth.read_header(png((METRES * 512).astype(np.uint16)))

    def test_the_end_of_16_bits_is_no_depth(self) -> None:
        found = read(png(np.array([[65535, 65534], [0, 1]], np.uint16).repeat(2, axis=1)), 512)
        np.testing.assert_allclose(found[:, ::2], [[0, 65534 / 512], [0, 1 / 512]])

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_a_picture_of_8_bits_is_no_depth(self, mode: str) -> None:
        stream = io.BytesIO()
        Image.new(mode, (8, 4), 7).save(stream, "PNG")
        with pytest.raises(UnsupportedMediaType, match="16-bit grey PNG"):
            read(stream.getvalue(), 512)


class TestNpy:
    @pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2"])
    def test_holds_metres(self, dtype: str) -> None:
        np.testing.assert_array_equal(read(npy(METRES.astype(dtype))), METRES)

    def test_may_hold_other_units(self) -> None:
        np.testing.assert_allclose(read(npy(METRES * 1000), 1000), METRES, rtol=1e-6)

    def test_holes_are_zero(self) -> None:
        holes = np.array([[np.nan, np.inf, -np.inf, -1], [0, 1, 2, 3]], np.float32)
        np.testing.assert_array_equal(read(npy(holes)), [[0, 0, 0, 0], [0, 1, 2, 3]])

    @pytest.mark.parametrize("array", [METRES.astype(np.int32), METRES[None], np.array([["a", "b"]])])
    def test_anything_but_floats_of_two_dimensions_is_refused(self, array: np.ndarray) -> None:
        with pytest.raises(UnsupportedMediaType, match=r"floats of shape \(H, W\)"):
            read(npy(array))

    def test_objects_are_never_unpickled(self) -> None:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (2, 4)})
        with pytest.raises(UnsupportedMediaType):
            read(stream.getvalue() + b"cos\nsystem\n(S'false'\ntR.")

    def test_a_shape_that_lies_costs_nothing(self) -> None:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (400_000_000, 800_000_000)}
        )
        with pytest.raises(TooManyPixels, match="800000000x400000000"):
            truth.read_header(stream.getvalue())


class TestExr:
    @pytest.mark.parametrize("name", ["Z", "Y", "V", "anything"])
    def test_holds_metres_in_a_channel_for_depth_or_in_its_only_one(self, name: str) -> None:
        np.testing.assert_array_equal(read(exr(**{name: METRES})), METRES)

    def test_holes_are_zero(self) -> None:
        np.testing.assert_array_equal(read(exr(Z=np.where(METRES == 2, np.nan, METRES)))[0], [1, 0, 4, 8])


FILES: list[Callable[[], bytes]] = [
    lambda: png((METRES * 512).astype(np.uint16)),
    lambda: npy(METRES),
    lambda: exr(Z=METRES),
]


@pytest.mark.parametrize("make", FILES, ids=["png", "npy", "exr"])
class TestEveryKind:
    def test_is_told_by_its_header_alone(self, make: Callable[[], bytes]) -> None:
        assert truth.read_header(make(), 512).size == (2, 4)

    def test_with_more_pixels_than_the_limit_is_refused(self, make: Callable[[], bytes]) -> None:
        with pytest.raises(TooManyPixels, match="4x2"):
            truth.read_header(make(), 512, Limits(max_pixels=7))

    def test_with_more_bytes_than_the_limit_is_refused(self, make: Callable[[], bytes]) -> None:
        with pytest.raises(InputTooLarge):
            truth.read_header(make(), 512, Limits(max_bytes=20))

    def test_cut_anywhere_is_an_input_error_and_no_crash(self, make: Callable[[], bytes]) -> None:
        whole = make()
        for length in range(len(whole)):
            with pytest.raises(InputError):
                read(whole[:length], 512)

    @pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
    def test_has_a_scale_above_zero(self, make: Callable[[], bytes], scale: float) -> None:
        with pytest.raises(InvalidParameter, match="above 0"):
            truth.read_header(make(), scale)


@pytest.mark.parametrize("array", [np.ones((4, 4), np.float32), np.ones((0, 0), np.float32)])
def test_a_truth_is_a_panorama(array: np.ndarray) -> None:
    with pytest.raises(NotAPanorama, match="twice as wide as high"):
        truth.read_header(npy(array))


def test_nothing_and_anything_else_are_told_apart() -> None:
    with pytest.raises(EmptyInput):
        truth.read_header(b"")
    with pytest.raises(UnsupportedMediaType, match="none of them"):
        truth.read_header(b"\xff\xd8\xff")


def test_a_scale_in_the_file_that_is_no_number_is_broken() -> None:
    file = with_png_chunks(png((METRES * 512).astype(np.uint16)), (b"tEXt", b"Scale\x00-1"))
    assert png_chunk(b"tEXt", b"Scale\x00-1") in file
    with pytest.raises(BrokenImage, match="Scale"):
        truth.read_header(file)
