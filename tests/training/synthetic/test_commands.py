"""`dap render` leaves on disk what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dap.formats import png16
from training.synthetic.commands import render
from training.synthetic.render import render_batch


def test_samples_and_a_contact_sheet_are_written(tmp_path: Path) -> None:
    arguments = ["--count", "2", "--seed", "5", "--size", "64x32", "--kind", "outdoor", "--output", str(tmp_path)]
    result = CliRunner().invoke(render, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    kinds = ("rgb.png", "depth.npy", "depth.png", "sky.png")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{seed}.{kind}" for seed in ("000005", "000006") for kind in kinds
    } | {"contact_sheet.png"}
    expected = render_batch([5, 6], 32, 64, "outdoor")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "000006.rgb.png")), expected.rgb[1].numpy())
    depth = np.load(tmp_path / "000006.depth.npy")
    np.testing.assert_array_equal(np.isinf(depth), np.asarray(Image.open(tmp_path / "000006.sky.png")))
    coded = png16.decode((tmp_path / "000006.depth.png").read_bytes())
    np.testing.assert_array_equal(coded.valid, np.isfinite(depth) & (np.nan_to_num(depth) <= 100))
    np.testing.assert_allclose(coded.depth[coded.valid], depth[coded.valid], atol=1 / 512)


@pytest.mark.parametrize("size", ["256", "500x256", "256x512", "x", "8x4"])
def test_a_size_that_is_no_panorama_is_refused(size: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(render, ["--size", size, "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert re.search(r"is not one of: WxH in pixels with W = 2 H|expected at least 16x8", result.output)
    assert not list(tmp_path.iterdir())
