"""Parameters of every path that takes a panorama."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import Header
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from dap.depth import Seam, Upsample
from dap.postprocess import DepthOptions
from dap.resolutions import PATTERN, Size, parse_resolution

PixelSize = Size

_WIDTH_BY_HEIGHT = re.compile(PATTERN)


def _check_size(value: str) -> str:
    if value not in ("model", "input"):
        match = _WIDTH_BY_HEIGHT.fullmatch(value)
        if match is None or int(match[1]) != 2 * int(match[2]):
            raise PydanticCustomError("size", "expected model, input, or WxH in pixels with W = 2 H")
    return value


SizeParameter = Annotated[
    str,
    AfterValidator(_check_size),
    Field(json_schema_extra={"pattern": f"^(model|input|{_WIDTH_BY_HEIGHT.pattern})$"}),
]


# OpenAPI says the media types of an answer by itself, and would ignore a parameter of this name.
AcceptHeader = Annotated[str | None, Header(alias="Accept", include_in_schema=False)]


def one_of(names: Iterable[str]) -> dict[str, Any]:
    """What a parameter's schema says where its values are told from a registry."""
    return {"enum": list(names)}


def some_of(names: Iterable[str]) -> dict[str, Any]:
    """The same for one or several values with commas between."""
    name = f"({'|'.join(map(re.escape, names))})"
    return {"pattern": f"^{name}(,{name})*$"}


def format_field(formats: Iterable[str], *several: str) -> Any:
    """A parameter `format`: names of a registry.

    Args:
        formats: the names.
        several: examples of several names with commas between; without any, one name is taken.
    """
    names = list(formats)
    described = f"Format of the answer: {', '.join(names)}. Goes before the header Accept."
    if several:
        described += " Several, with commas between, come as application/zip, or as multipart/mixed if the header "
        described += "Accept prefers that."
    schema = some_of(names) if several else one_of(names)
    return Field(default=None, description=described, examples=[*names, *several], json_schema_extra=schema)


def frame_field(of: str) -> Any:
    """A parameter `frame`: the axes of points, normals or poses."""
    return Field(
        default="ros",
        description=f"Axes of the {of}. "
        "`ros`: x forward, y left, z up; `opengl`: x right, y up, -z forward; `opencv`: x right, y down, z forward.",
        examples=["opencv"],
    )


class PredictionQuery(BaseModel):
    """What may be asked of any prediction. A parameter that does not exist is an error: it may be a misspelt one."""

    model_config = ConfigDict(extra="forbid")

    range: Literal["10", "20", "50", "100", "none"] = Field(
        default="100", description="Metres within which depth is valid; `none` for no range mask.", examples=["20"]
    )
    seam: Seam = Field(
        default="none",
        description="`blend`: two predictions half a turn apart, blended by longitude, so that the left and the right "
        "border meet without a step; takes twice the inference. A model that goes round the circle, such as dap-s, has "
        "no step and predicts once.",
        examples=["blend"],
    )
    upsample: Upsample = Field(
        default="bilinear",
        description="How the network's depth becomes larger. `nearest`: no depth that the network did not give; "
        "`bilinear`: smooth; `guided`: with the edges of the photograph. None mixes valid with invalid.",
        examples=["guided"],
    )
    camera_height: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="Metres of the camera above the floor, where known: the floor that is seen below the camera then "
        "fixes the metric scale. The factor is in X-Scale-Factor; where no floor is found the answer is 422.",
        examples=[1.6],
    )

    resolution: Annotated[str, Field(pattern=f"^{PATTERN}$")] | None = Field(
        default=None,
        description="WxH at which the model sees the panorama, one of those that it is offered at (`/models` lists "
        "them); the first of them if not said. More pixels show finer things and take longer, by more than as many "
        "times.",
    )

    @property
    def input_size(self) -> PixelSize | None:
        """(h, w) of the resolution asked for."""
        return None if self.resolution is None else parse_resolution(self.resolution)

    @property
    def range_m(self) -> float | None:
        return None if self.range == "none" else float(self.range)


class PanoramaQuery(PredictionQuery):
    """What may be asked of any panorama that is answered with something of its own depth map."""

    size: SizeParameter = Field(
        default="input",
        description="Pixels of the depth map: `model`, as the network gives it; `input`, as many as the panorama "
        "that is sent; or `WxH` with W = 2 H.",
        examples=["input", "model", "2048x1024"],
    )
    nadir_mask: float = Field(
        default=0.0,
        ge=0,
        le=90,
        description="Degrees around straight down that are not valid: the operator and the tripod.",
        examples=[15],
    )

    def options(self, *, keep_in_range: bool = False) -> DepthOptions:
        """The same as the core takes it."""
        return DepthOptions(
            range=self.range_m,
            seam=self.seam,
            upsample=self.upsample,
            nadir_mask=self.nadir_mask,
            camera_height=self.camera_height,
            keep_in_range=keep_in_range,
        )

    def output_size(self, model_size: PixelSize, input_size: PixelSize) -> PixelSize:
        """(h, w) of the depth map asked for."""
        if self.size == "model":
            return model_size
        if self.size == "input":
            return input_size
        width, height = map(int, self.size.split("x"))
        return height, width
