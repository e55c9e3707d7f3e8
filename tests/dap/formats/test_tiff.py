"""TIFF, read back by tifffile."""

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import tifffile

from dap.formats import tiff
from dap.formats.base import EncodeOptions
from tests.dap.formats.maps import some_depth


def test_another_reader_finds_zstandard_and_the_floating_point_predictor() -> None:
    source = some_depth()
    with tifffile.TiffFile(BytesIO(tiff.encode(source))) as file:
        page = file.pages[0]
        assert (page.compression, page.predictor) == (tifffile.COMPRESSION.ZSTD, tifffile.PREDICTOR.FLOATINGPOINT)
        found = page.asarray()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.where(source.valid, source.depth, np.nan))


def test_the_file_says_what_it_holds() -> None:
    source = replace(some_depth(), scale_factor=1.25)
    for fill, no_data in (("nan", "nan"), ("range", "100"), ("zero", "0")):
        with tifffile.TiffFile(BytesIO(tiff.encode(source, EncodeOptions(fill=fill)))) as file:
            tags = file.pages[0].tags
            assert tags["GDAL_NODATA"].value == no_data
            said = json.loads(tags["ImageDescription"].value)
        assert float(said.pop("invalid")) == float(no_data) or fill == "nan"
        assert said == {
            "unit": "metre", "range": 100.0, "range_mask": "head", "model": "dap-s", "scale_factor": 1.25,
        }  # fmt: skip


def test_a_model_of_any_name_can_be_said() -> None:
    data = tiff.encode(replace(some_depth(), model="räume №5", range=None, range_mask="none"))
    with tifffile.TiffFile(BytesIO(data)) as file:
        said = json.loads(file.pages[0].tags["ImageDescription"].value)
    assert (said["model"], said["range"]) == ("räume №5", None)
