import io
import json

import numpy as np
import pytest
from PIL import Image

from dap.depth import DepthMap
from dap.evaluation import PROTOCOLS, Comparison
from dap.formats.evaluations import EVALUATION_FORMATS


def comparison(protocol: str = "dap") -> Comparison:
    """A prediction that is a quarter too far everywhere, of truth in the upper half."""
    truth = np.full((64, 128), 4, np.float32)
    truth[32:] = 0
    depth = np.full((64, 128), 5, np.float32)
    prediction = DepthMap(depth, np.ones(depth.shape, np.bool_), range=100.0, range_mask="head", model="dap-s")
    return Comparison(prediction, truth, PROTOCOLS[protocol])


def test_json_says_what_was_compared_and_how_far_off_it_was() -> None:
    said = json.loads(EVALUATION_FORMATS["json"].encode(comparison()), parse_constant=pytest.fail)
    assert (said["protocol"], said["model"], said["range"], said["range_mask"]) == ("dap", "dap-s", 100, "head")
    assert (said["width"], said["height"], said["pixels"], said["max_truth"]) == (128, 64, 32 * 128, 100)
    assert (said["compared_share"], said["scale"]) == (0.5, 0.8)
    assert said["metrics"] == said["raw"]["unweighted"]
    assert said["metrics"]["absrel"] == said["raw"]["weighted"]["absrel"] == 0.25
    assert said["metrics"]["delta1"] == 0
    assert said["aligned"]["unweighted"]["delta1"] == said["aligned"]["weighted"]["delta1"] == 1


@pytest.mark.parametrize(("protocol", "of"), [("da2", ("aligned", "unweighted")), ("pano3d", ("raw", "weighted"))])
def test_the_protocols_own_numbers_stand_alone(protocol: str, of: tuple[str, str]) -> None:
    said = json.loads(EVALUATION_FORMATS["json"].encode(comparison(protocol)))
    assert said["metrics"] == said[of[0]][of[1]]


@pytest.mark.parametrize(("name", "kind"), [("jpeg", "JPEG"), ("png", "PNG")])
def test_pictures_show_the_error_at_the_size_of_the_truth(name: str, kind: str) -> None:
    with Image.open(io.BytesIO(EVALUATION_FORMATS[name].encode(comparison()))) as picture:
        assert (picture.format, picture.mode, picture.size) == (kind, "RGB", (128, 64))
        red, _, blue = picture.getpixel((64, 16))
        below = picture.getpixel((64, 48))
    assert red > blue + 40
    assert max(below) - min(below) < 12
    assert max(below) < 80
