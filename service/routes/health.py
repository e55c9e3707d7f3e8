"""GET /healthz and /readyz: the probes of an orchestrator. Neither needs a key, and neither waits for anything."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from dap.errors import NotReady
from service.openapi import problem_answers
from service.requests import CurrentServing
from service.serving import State

router = APIRouter(tags=["service"])


class Health(BaseModel):
    """What a probe that is content says."""

    status: Literal["alive", "ready"]


@router.get("/healthz", summary="Whether this process can go on", responses=problem_answers([NotReady]))
async def healthz(serving: CurrentServing) -> Health:
    """Red where only a new process helps: the engine could not be loaded, or the batching task has died."""
    if serving.state is State.FAILED:
        raise NotReady(serving.state.value)
    return Health(status="alive")


@router.get("/readyz", summary="Whether panoramas should be sent here", responses=problem_answers([NotReady]))
async def readyz(serving: CurrentServing) -> Health:
    """Green once the model is loaded and warm, until the service goes down."""
    if serving.state is not State.READY:
        raise NotReady(serving.state.value)
    return Health(status="ready")
