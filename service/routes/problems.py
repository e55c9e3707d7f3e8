"""GET /problems/{slug}: what a problem's type means (RFC 9457 would have the type's URI lead somewhere)."""

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from dap.errors import InvalidParameter, kinds
from service.openapi import problem_answer, problem_answers
from service.problems import type_of

router = APIRouter(tags=["service"])


class ProblemKind(BaseModel):
    """One kind of problem."""

    type: str = Field(description="As in the problems of this kind.")
    title: str
    status: int


@router.get(
    "/problems/{slug}",
    summary="One kind of problem",
    responses={404: problem_answer("No problem has this slug."), **problem_answers([InvalidParameter])},
)
async def problem_kind(slug: str) -> ProblemKind:
    """Where the `type` of a problem leads."""
    error = kinds().get(slug)
    if error is None:
        raise HTTPException(404)
    return ProblemKind(type=type_of(error), title=error.title, status=error.status)
