import re

import pytest
from pydantic import ValidationError

from dap.postprocess import DepthOptions
from service.parameters import PanoramaQuery, one_of, some_of


def test_what_is_not_asked_for_is_what_the_core_does_by_itself() -> None:
    assert PanoramaQuery().options() == DepthOptions()


def test_what_is_asked_for_reaches_the_core() -> None:
    query = PanoramaQuery(
        range="none", seam="blend", upsample="guided", nadir_mask=12.5, camera_height=1.6, size="400x200"
    )
    assert query.options(keep_in_range=True) == DepthOptions(None, "blend", "guided", 12.5, 1.6, keep_in_range=True)
    assert query.output_size((256, 512), (1000, 2000)) == (200, 400)


@pytest.mark.parametrize(("size", "pixels"), [("model", (256, 512)), ("input", (1000, 2000)), ("2x1", (1, 2))])
def test_a_size_is_height_and_width(size: str, pixels: tuple[int, int]) -> None:
    assert PanoramaQuery(size=size).output_size((256, 512), (1000, 2000)) == pixels


@pytest.mark.parametrize("size", ["", "Model", "512", "x256", "0512x256", "512x255", "512x256x3", "2000000x1000000"])
def test_another_size_is_none(size: str) -> None:
    with pytest.raises(ValidationError, match="expected model, input, or WxH"):
        PanoramaQuery(size=size)


def test_a_parameter_that_does_not_exist_may_be_a_misspelt_one() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        PanoramaQuery(rnage="20")


class TestSchemaOfNames:
    def test_one_is_any_of_them(self) -> None:
        assert one_of({"png": 1, "exr-half": 2}) == {"enum": ["png", "exr-half"]}

    @pytest.mark.parametrize(
        ("value", "fits"), [("png", True), ("png,exr-half", True), ("", False), ("png,", False), ("exrhalf", False)]
    )
    def test_several_have_commas_between(self, value: str, fits: bool) -> None:
        assert bool(re.search(some_of(["png", "exr-half"])["pattern"], value)) == fits
