"""npz of clouds, as numpy reads it without unpickling."""

from io import BytesIO

import numpy as np
import pytest

from dap.formats import cloud_npz
from tests.dap.formats.some_clouds import some_cloud


@pytest.mark.parametrize("normals", [False, True])
def test_the_file_says_what_is_in_it(normals: bool) -> None:
    arrays = np.load(BytesIO(cloud_npz.encode(some_cloud(frame="opengl", normals=normals))), allow_pickle=False)
    expected = {"points", "colors", "frame", "axes", "model"} | ({"normals"} if normals else set())
    assert set(arrays) == expected
    assert (str(arrays["frame"]), str(arrays["model"])) == ("opengl", "dap-s")
    assert str(arrays["axes"]) == "x right, y up, looking along -z"
    assert (arrays["points"].dtype, arrays["colors"].dtype) == (np.float32, np.uint8)
