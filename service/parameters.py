"""Parameters of every path that takes a panorama."""

import re
from typing import Annotated, Literal

from fastapi import Header
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

PixelSize = tuple[int, int]

_WIDTH_BY_HEIGHT = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")


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


class PanoramaQuery(BaseModel):
    """What may be asked of any panorama. A parameter that does not exist is an error: it may be a misspelt one."""

    model_config = ConfigDict(extra="forbid")

    range: Literal["10", "20", "50", "100", "none"] = Field(
        default="100", description="Metres within which depth is valid; `none` for no range mask."
    )
    size: SizeParameter = Field(
        default="input",
        description="Pixels of the depth map: `model`, as the network gives it; `input`, as many as the panorama "
        "that is sent; or `WxH` with W = 2 H.",
        examples=["input", "model", "2048x1024"],
    )

    @property
    def range_m(self) -> float | None:
        return None if self.range == "none" else float(self.range)

    def output_size(self, model_size: PixelSize, input_size: PixelSize) -> PixelSize:
        """(h, w) of the depth map asked for."""
        if self.size == "model":
            return model_size
        if self.size == "input":
            return input_size
        width, height = map(int, self.size.split("x"))
        return height, width
