"""POST /models/{name}:load: another model in place of the one that is served, without a pause."""

from fastapi import APIRouter

from dap.errors import (
    AccessDenied,
    EngineError,
    InvalidParameter,
    LoadInProgress,
    ModelError,
    ModelFileMissing,
    NotReady,
    OutOfMemory,
    Unauthenticated,
    UnknownModel,
)
from service.openapi import problem_answers
from service.requests import CurrentServing
from service.routes.models import ModelDescription, describe

router = APIRouter(tags=["service"])

_ERRORS = (
    Unauthenticated,
    AccessDenied,
    UnknownModel,
    InvalidParameter,
    LoadInProgress,
    ModelError,
    EngineError,
    ModelFileMissing,
    OutOfMemory,
    NotReady,
)


@router.post("/models/{name}:load", summary="Serve another model", responses=problem_answers(_ERRORS))
async def load(name: str, serving: CurrentServing) -> ModelDescription:
    """Load and warm a model that has a name here beside the one that is served, and then serve it instead.

    Needs the admin key. Requests in progress are finished by the old model; a load that fails leaves it serving. It
    goes on if the client leaves.
    """
    return describe(await serving.load(name), is_served=True)
