"""PCD, read from its description."""

from dataclasses import replace

import numpy as np
import pytest

from dap.formats import pcd
from tests.dap.formats.some_clouds import pcd_fields, pcd_header, some_cloud


@pytest.mark.parametrize("normals", [False, True])
def test_the_header_has_all_entries_in_their_order(normals: bool) -> None:
    header, _ = pcd_header(pcd.encode(some_cloud(7, normals=normals)))
    fields = ["x", "y", "z", "rgb", *(["normal_x", "normal_y", "normal_z"] if normals else [])]
    assert list(header.items()) == [
        ("VERSION", ["0.7"]),
        ("FIELDS", fields),
        ("SIZE", ["4"] * len(fields)),
        ("TYPE", ["F"] * len(fields)),
        ("COUNT", ["1"] * len(fields)),
        ("WIDTH", ["7"]),
        ("HEIGHT", ["1"]),
        ("VIEWPOINT", ["0", "0", "0", "1", "0", "0", "0"]),
        ("POINTS", ["7"]),
        ("DATA", ["binary"]),
    ]


def test_rgb_is_packed_as_pcl_packs_it() -> None:
    orange = replace(some_cloud(1), colors=np.array([[255, 128, 7]], np.uint8))
    assert pcd_fields(pcd.encode(orange))["rgb"].view("<u4").tolist() == [0x00FF8007]


def test_comments_say_unit_frame_and_model() -> None:
    data = pcd.encode(replace(some_cloud(frame="opencv"), model="x\nPOINTS 9"))
    comments = [line for line in data.split(b"\n") if line.startswith(b"#")]
    assert comments == [
        b"# .PCD v0.7 - Point Cloud Data file format",
        b"# unit metre",
        b"# frame opencv: x right, y down, z forward",
        b"# model x POINTS 9",
    ]
