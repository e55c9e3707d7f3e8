"""OpenEXR: what the file says of itself, files of other writers, and hostile bytes."""

import random
import struct
from dataclasses import replace
from io import BytesIO

import numpy as np
import OpenEXR
import pytest

from dap.depth import DepthMap
from dap.errors import BrokenImage, InputError, TooManyPixels, UnsupportedMediaType
from dap.formats import exr
from dap.formats.base import EncodeOptions
from dap.panorama import Limits
from tests.dap.formats.maps import some_depth


def written(channels: dict[str, np.ndarray], **header: object) -> bytes:
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION} | header
    stream = BytesIO()
    OpenEXR.File(header, channels, num_threads=0).write(stream)
    return stream.getvalue()


def opened(data: bytes) -> OpenEXR.File:
    return OpenEXR.File(BytesIO(data), separate_channels=True)


METRES = np.array([[1, 2.5, 0], [-4, np.inf, np.nan]], np.float32)


def test_depth_is_z_and_the_mask_lies_beside_it() -> None:
    source = some_depth()
    channels = opened(exr.EXR.encode(source)).channels()
    assert {name: channel.pixels.dtype for name, channel in channels.items()} == {"Z": np.float32, "valid": np.float16}
    np.testing.assert_array_equal(channels["Z"].pixels, np.where(source.valid, source.depth, np.nan))
    np.testing.assert_array_equal(channels["valid"].pixels, source.valid)


def test_half_is_half_in_every_channel() -> None:
    channels = opened(exr.EXR_HALF.encode(some_depth())).channels()
    assert {channel.pixels.dtype for channel in channels.values()} == {np.dtype(np.float16)}


def test_half_ends_at_its_largest_number_and_not_at_infinity() -> None:
    far = DepthMap(np.full((2, 4), 1e6, np.float32), np.ones((2, 4), np.bool_), None, "none", "")
    assert exr.decode(exr.EXR_HALF.encode(far)).depth.max() == 65504


def test_the_header_says_what_the_numbers_are() -> None:
    source = replace(some_depth(), scale_factor=1.25)
    header = opened(exr.encode(source, EncodeOptions(fill="range"))).header()
    said = {key: header[key] for key in ("unit", "invalid", "range", "rangeMask", "model", "scaleFactor")}
    assert said == {
        "unit": "metre", "invalid": "100", "range": 100.0, "rangeMask": "head", "model": "dap-s", "scaleFactor": 1.25,
    }  # fmt: skip
    assert (header["compression"], header["envmap"]) == (OpenEXR.ZIP_COMPRESSION, OpenEXR.ENVMAP_LATLONG)
    no_range = exr.encode(replace(source, range=None, range_mask="none"))
    assert "range" not in opened(no_range).header()


def test_what_was_written_is_read_back_with_what_is_known_of_it() -> None:
    source = replace(some_depth(), scale_factor=1.25)
    for options in (EncodeOptions("nan"), EncodeOptions("zero"), EncodeOptions("range")):
        found = exr.decode(exr.encode(source, options))
        np.testing.assert_array_equal(found.valid, source.valid)
        np.testing.assert_array_equal(found.depth, np.where(source.valid, source.depth, 0))
        assert (found.range, found.range_mask, found.model, found.scale_factor) == (100.0, "head", "dap-s", 1.25)


@pytest.mark.parametrize("name", ["Z", "depth", "Depth.Z", "V", "Y", "anything"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_depth_of_other_writers_is_taken(name: str, dtype: type) -> None:
    found = exr.decode(written({name: METRES.astype(dtype)}))
    np.testing.assert_array_equal(found.depth, [[1, 2.5, 0], [0, 0, 0]])
    np.testing.assert_array_equal(found.valid, [[True, True, False], [False, False, False]])
    assert (found.range, found.range_mask, found.model, found.scale_factor) == (None, "none", "", 1.0)


def test_depth_is_found_beside_colours() -> None:
    colours = {name: np.zeros_like(METRES) for name in "RGBA"}
    assert exr.decode(written({**colours, "Z": METRES})).depth[0, 1] == 2.5


def test_attributes_of_other_writers_that_mean_something_else_are_passed_over() -> None:
    found = exr.decode(written({"Z": METRES}, range="far", rangeMask="soft", model=7, scaleFactor=-1.0))
    assert (found.range, found.range_mask, found.model, found.scale_factor) == (None, "none", "", 1.0)


@pytest.mark.parametrize("kind", [OpenEXR.scanlineimage, OpenEXR.tiledimage])
@pytest.mark.parametrize("compression", [OpenEXR.NO_COMPRESSION, OpenEXR.PIZ_COMPRESSION, OpenEXR.ZIPS_COMPRESSION])
def test_tiles_and_other_compressions_are_taken(kind: object, compression: object) -> None:
    depth = some_depth().filled("zero")
    tiles = {"tiles": OpenEXR.TileDescription()} if kind == OpenEXR.tiledimage else {}
    np.testing.assert_array_equal(
        exr.decode(written({"Z": depth}, type=kind, compression=compression, **tiles)).depth, depth
    )


@pytest.mark.parametrize("compression", [OpenEXR.DWAA_COMPRESSION, OpenEXR.B44_COMPRESSION])
def test_a_compression_that_loses_depth_is_refused(compression: object) -> None:
    with pytest.raises(UnsupportedMediaType, match="RLE, ZIP, PIZ, PXR24 or ZSTD"):
        exr.decode(written({"Z": METRES.astype(np.float16)}, compression=compression))


def test_a_tile_that_is_larger_than_any_picture_needs_is_refused() -> None:
    tiles = OpenEXR.TileDescription()
    data = written({"Z": METRES}, type=OpenEXR.tiledimage, tiles=tiles)
    described = struct.pack("<2I", tiles.xSize, tiles.ySize)
    assert data.count(described) == 1
    with pytest.raises((TooManyPixels, BrokenImage)):
        exr.decode(data.replace(described, struct.pack("<2I", 32, 8_000_000)))


def test_the_size_is_read_from_the_header_alone() -> None:
    data = exr.encode(some_depth())
    assert exr.read_size(data) == (40, 80)
    assert exr.read_size(data[:-1000]) == (40, 80)


def test_a_picture_over_the_limit_is_refused_by_its_header() -> None:
    data = exr.encode(some_depth())
    assert exr.decode(data, Limits(max_pixels=3200)).size == (40, 80)
    with pytest.raises(TooManyPixels, match="at most 3199 pixels"):
        exr.decode(data[:-1000], Limits(max_pixels=3199))
    many = written({name: np.ones((40, 80), np.float32) for name in "ABCDZ"})
    with pytest.raises(TooManyPixels, match="80x40 with 5"):
        exr.decode(many, Limits(max_pixels=3200))


def test_a_bomb_is_refused_by_its_header() -> None:
    # A file of 4 x 8 pixels that says it has 2^30 x 2^30.
    data = written({"Z": np.ones((4, 8), np.float32)})
    window = struct.pack("<4i", 0, 0, 7, 3)
    assert data.count(window) == 2
    for side in (100_000, 2**30, 2**31 - 1):
        with pytest.raises((TooManyPixels, BrokenImage)):
            exr.decode(data.replace(window, struct.pack("<4i", 0, 0, side - 1, side - 1)))


def attribute(name: bytes, kind: bytes, value: bytes) -> bytes:
    return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value


def test_a_header_of_very_many_attributes_is_refused() -> None:
    honest = written({"Z": METRES})
    many = b"".join(attribute(b"a%d" % number, b"int", bytes(4)) for number in range(1000))
    assert exr.read_size(honest[:8] + many + honest[8:]) == (2, 3)
    with pytest.raises(UnsupportedMediaType, match="at most 1024 attributes"):
        exr.read_size(honest[:8] + many + many + honest[8:])


def test_very_many_parts_are_refused() -> None:
    part = attribute(b"name", b"string", b"x") + b"\0"
    with pytest.raises(UnsupportedMediaType, match="at most 1024 attributes"):
        exr.read_size(exr.MAGIC + b"\x02\x10\0\0" + part * 1000 + b"\0")


def test_very_many_channels_are_refused() -> None:
    honest = written({"Z": METRES})
    names = b"".join(b"c%05d\0" % number + struct.pack("<iIii", 2, 0, 1, 1) for number in range(5000)) + b"\0"
    start = honest.index(b"channels\0chlist\0")
    end = start + 17 + 4 + struct.unpack_from("<i", honest, start + 17)[0]
    with pytest.raises(UnsupportedMediaType, match="channels"):
        exr.read_size(honest[:start] + attribute(b"channels", b"chlist", names) + honest[end:])


def test_other_pictures_are_refused() -> None:
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"\x76\x2f\x31"):
        with pytest.raises(UnsupportedMediaType, match="by its first bytes"):
            exr.decode(data)
    with pytest.raises(UnsupportedMediaType, match="this has B, G, R"):
        exr.decode(written(dict.fromkeys("RGB", METRES)))


def test_a_file_of_two_parts_is_refused() -> None:
    parts = [OpenEXR.Part({"name": name, "type": OpenEXR.scanlineimage}, {"Z": METRES}) for name in ("left", "right")]
    stream = BytesIO()
    OpenEXR.File(parts, num_threads=0).write(stream)
    with pytest.raises(UnsupportedMediaType, match="one part was expected; this has 2"):
        exr.decode(stream.getvalue())


@pytest.mark.parametrize("entry", [exr.EXR, exr.EXR_HALF])
def test_a_truncated_file_is_broken_wherever_it_ends(entry: object) -> None:
    data = entry.encode(some_depth())
    for end in [*range(4, 700, 7), *range(700, len(data), 97), len(data) - 1]:
        with pytest.raises(BrokenImage, match="truncated or corrupt"):
            exr.decode(data[:end])


def test_flipped_bytes_are_an_input_error_or_a_depth_map_of_the_size_that_is_said() -> None:
    data, flip = exr.encode(some_depth()), random.Random(0)
    refused = 0
    for _ in range(600):
        bad = bytearray(data)
        for _ in range(flip.choice((1, 2, 8))):
            bad[flip.randrange(4, 600 if flip.random() < 0.7 else len(bad))] = flip.randrange(256)
        try:
            found = exr.decode(bytes(bad), Limits(max_pixels=10_000))
            assert found.size == exr.read_size(bytes(bad))
            assert np.isfinite(found.depth).all()
        except InputError:
            refused += 1
    assert refused > 200
