"""GET /models: what is known, and which of it is served."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from dap.models import Model, known_models
from dap.resolutions import resolution_text
from service.requests import CurrentServing

router = APIRouter(tags=["service"])


class ModelDescription(BaseModel):
    """A model as the service describes it."""

    name: str
    description: str
    licence: str = Field(description="Of the weights.")
    source: str = Field(description="Where the weights come from.")
    input_width: int = Field(description="Pixels that the network sees unless asked otherwise.")
    input_height: int
    resolutions: list[str] = Field(description="WxH: what `resolution` may ask for, the first if it does not.")
    thresholds: list[float] = Field(description="Metres: the ranges that the model has a channel for.")
    state: Literal["serving", "bundled", "downloaded", "not downloaded", "local file", "missing"]


class ModelList(BaseModel):
    """Every model that the service knows."""

    models: list[ModelDescription]


@router.get("/models", summary="Models known here, and the one that is served")
async def models(serving: CurrentServing) -> ModelList:
    """The model that is served, first, and then all that have a name."""
    served = serving.model
    others = [model for model in known_models() if served is None or model.name != served.name]
    return ModelList(
        models=[describe(model, is_served=model is served) for model in ([served] if served else []) + others]
    )


def describe(model: Model, *, is_served: bool) -> ModelDescription:
    """What the service says of a model."""
    height, width = model.input_size
    return ModelDescription(
        name=model.name,
        description=model.description,
        licence=model.licence,
        source=model.source,
        input_width=width,
        input_height=height,
        resolutions=[resolution_text(size) for size in model.sizes],
        thresholds=list(model.thresholds),
        state="serving" if is_served else model.state,
    )
