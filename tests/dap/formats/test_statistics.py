"""The statistics as JSON."""

import json

import numpy as np
import pytest

from dap.depth import DepthMap
from dap.formats import statistics


def test_the_document_holds_what_the_map_holds() -> None:
    depth = np.full((6, 12), 2.0, np.float32)
    valid = np.ones((6, 12), np.bool_)
    valid[3:] = False
    source = DepthMap(
        depth, valid, 20.0, range_mask="depth", model="dap-official-l", scale_factor=1.25, resolution=(512, 1024)
    )
    document = json.loads(statistics.encode(source))
    bands = document.pop("bands")
    assert document == {
        "model": "dap-official-l", "resolution": "1024x512",
        "range": 20.0, "range_mask": "depth", "unit": "metre", "scale_factor": 1.25,
        "width": 12, "height": 6,
        "valid_share": pytest.approx(0.5), "min": 2.0, "max": 2.0, "mean": 2.0, "median": 2.0,
        "percentiles": {"1": 2.0, "5": 2.0, "25": 2.0, "50": 2.0, "75": 2.0, "95": 2.0, "99": 2.0},
    }  # fmt: skip
    assert bands[0] == {"top_deg": 90, "bottom_deg": 60, "valid_share": pytest.approx(1), "median": 2.0}
    assert bands[5] == {"top_deg": -60, "bottom_deg": -90, "valid_share": 0.0, "median": None}


def test_nothing_valid_is_null_and_never_nan() -> None:
    nothing = DepthMap(np.full((6, 12), np.nan, np.float32), np.zeros((6, 12), np.bool_), None, "none", "dap-s")
    data = statistics.encode(nothing)
    assert b"NaN" not in data
    document = json.loads(data)
    assert (document["valid_share"], document["min"], document["median"], document["percentiles"]) == (
        0.0,
        None,
        None,
        {},
    )
    assert document["resolution"] is None
