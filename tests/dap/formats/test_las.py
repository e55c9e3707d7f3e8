"""LAS and LAZ, as laspy reads them."""

from io import BytesIO

import laspy
import numpy as np
import pytest

from dap.formats import las
from dap.formats.clouds import CLOUD_FORMATS
from tests.dap.formats.some_clouds import some_cloud


def read(name: str, **asked: object) -> laspy.LasData:
    return laspy.read(BytesIO(CLOUD_FORMATS[name].encode(some_cloud(**asked))))


@pytest.mark.parametrize("name", ["las", "laz"])
def test_the_header_says_what_it_is_and_no_place_on_the_earth(name: str) -> None:
    header = read(name, frame="opengl").header
    assert (str(header.version), header.point_format.id) == ("1.2", 2)
    assert (header.scales.tolist(), header.offsets.tolist()) == ([0.001] * 3, [0.0] * 3)
    assert header.generating_software == "Depth Any Panoramas"
    assert header.parse_crs() is None
    text = next(vlr for vlr in header.vlrs if vlr.user_id == "LASF_Spec" and vlr.record_id == 3)
    assert text.record_data == b"unit metre\nframe opengl: x right, y up, looking along -z\nmodel dap-s\0"


@pytest.mark.parametrize("name", ["las", "laz"])
def test_the_header_has_the_bounds_of_the_points(name: str) -> None:
    header = read(name).header
    points = some_cloud().points
    np.testing.assert_allclose(header.mins, points.min(axis=0), atol=0.00051)
    np.testing.assert_allclose(header.maxs, points.max(axis=0), atol=0.00051)
    assert header.point_count == header.number_of_points_by_return[0] == 100


def test_every_point_is_the_only_return_of_its_ray() -> None:
    found = read("las")
    assert set(found.return_number) == set(found.number_of_returns) == {1}


def test_normals_are_extra_bytes_that_are_named() -> None:
    assert list(read("laz", normals=True).point_format.extra_dimension_names) == ["NormalX", "NormalY", "NormalZ"]
    assert list(read("laz").point_format.extra_dimension_names) == []


def test_laz_is_las_compressed() -> None:
    cloud = some_cloud(10_000)
    plain, compressed = las.encode(cloud), las.encode(cloud, compressed=True)
    assert len(compressed) < 0.8 * len(plain)
    np.testing.assert_array_equal(laspy.read(BytesIO(compressed)).xyz, laspy.read(BytesIO(plain)).xyz)
