"""NumPy's format, read back by numpy."""

from io import BytesIO

import numpy as np
import pytest

from dap.errors import BrokenImage, UnsupportedMediaType
from dap.formats import npy
from tests.dap.formats.maps import some_depth


def written(array: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def test_numpy_reads_float32_metres_with_nan_where_not_valid() -> None:
    source = some_depth()
    found = np.load(BytesIO(npy.encode(source)), allow_pickle=False)
    assert (found.dtype, found.shape) == (np.dtype("<f4"), (40, 80))
    np.testing.assert_array_equal(np.isnan(found), ~source.valid)
    np.testing.assert_array_equal(found[source.valid], source.depth[source.valid])


def test_what_was_written_is_read_back() -> None:
    source = some_depth()
    found = npy.decode(npy.encode(source))
    np.testing.assert_array_equal(found.valid, source.valid)
    np.testing.assert_array_equal(found.depth[found.valid], source.depth[source.valid])
    assert not found.depth[~found.valid].any()
    assert (found.range, found.range_mask, found.model) == (None, "none", "")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_of_any_size_and_order_are_taken(dtype: str, order: str) -> None:
    array = np.array([[1, 2, 0], [-4, np.inf, 6]], dtype, order=order)
    found = npy.decode(written(array))
    np.testing.assert_array_equal(found.valid, [[True, True, False], [False, False, True]])
    np.testing.assert_array_equal(found.depth, [[1, 2, 0], [0, 0, 6]])
    assert found.depth.dtype == np.float32


@pytest.mark.parametrize(
    "array",
    [np.zeros(4), np.zeros((2, 2, 2)), np.zeros((2, 2), int), np.array([[{}]], object)],
    ids=["one dimension", "three dimensions", "integers", "pickled objects"],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"floats of shape \(H, W\)"):
        npy.decode(written(array))


def test_a_file_shorter_than_its_header_says_is_broken() -> None:
    data = npy.encode(some_depth())
    with pytest.raises(BrokenImage, match="40x80"):
        npy.decode(data[:-1])
    with pytest.raises(BrokenImage, match="999999999x80"):
        npy.decode(data.replace(b"(40, 80)", b"(999999999, 80)"))


def test_another_file_is_refused() -> None:
    for data in (b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'descr': nonsense", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(UnsupportedMediaType, match="this is none"):
            npy.decode(data)
