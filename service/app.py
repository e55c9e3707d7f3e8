"""The application: everything is made in `create_app` and held by what it returns; nothing is global."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service import openapi, problems
from service.keys import Access, RequireKey
from service.memory import give_back_when_idle
from service.middleware import AccessLog, Admission, BodyLimit, RequestHeaders
from service.pipeline import Pipeline
from service.ports import ProbePort
from service.responses import Unsent
from service.routes import admin, depth, evaluate, health, inference, metrics, models, normals, pages, pointcloud, views
from service.routes import problems as problem_kinds
from service.serving import EngineFactory, Serving, open_engine
from service.settings import Settings
from service.telemetry import Telemetry
from service.tracing import open_tracer

_DESCRIPTION = """Metric depth from 360° panoramas.

POST an equirectangular panorama; get the distance of every pixel in metres, or a coloured point cloud. Depth is the
Euclidean distance along the ray of each pixel, never z. Errors are problem details (RFC 9457)."""

# What a page of another origin may read beside the body.
_HEADERS_OF_ANSWERS = (
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Depth-Invalid",
    "X-Depth-Scale",
    "X-Depth-Unit",
    "X-Frame",
    "X-Model",
    "X-Protocol",
    "X-Range",
    "X-Range-Mask",
    "X-Request-Id",
    "X-Resolution",
    "X-Scale-Factor",
)


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The schema, complete with what FastAPI cannot see, and with the resolutions of the model that is served."""
        return openapi.complete(super().openapi(), self.state.settings, self.state.serving.sizes)


def create_app(settings: Settings | None = None, engine_factory: EngineFactory = open_engine) -> FastAPI:
    """The service as an ASGI application.

    Its lifespan loads the model in the background: it answers at once, and is ready when /readyz says so.

    Args:
        settings: from the environment (`DAP_...`) if not given.
        engine_factory: makes the engine of the model that the settings name; called in a thread of its own.

    Raises:
        InvalidParameter: the environment asks for traces (`OTEL_...`) that cannot be sent; a key cannot be one.
    """
    settings = settings or Settings()
    access = Access.of(settings)
    tracer = open_tracer(os.environ)
    telemetry = Telemetry(tracer)
    serving = Serving(settings, telemetry, engine_factory)
    pipeline = Pipeline(settings, telemetry, serving)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        serving.start(pipeline.rehearse)
        giving_back = asyncio.create_task(give_back_when_idle(lambda: serving.begun, lambda: serving.in_progress))
        yield
        giving_back.cancel()
        await serving.stop()
        await pipeline.close()
        await asyncio.to_thread(tracer.close)

    app = _Application(
        title="Depth Any Panoramas",
        description=_DESCRIPTION,
        version="1.0",  # of the API, not of what answers it
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers=problems.HANDLERS,
        # FastAPI's own spans and logs would stand beside ours, and say more of errors than may leave.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings, app.state.telemetry = settings, telemetry
    app.state.serving, app.state.pipeline = serving, pipeline
    app.state.unsent = Unsent(settings.max_answer_bytes_in_progress)
    for module in (admin, depth, pointcloud, normals, views, evaluate, inference):
        app.include_router(module.router)
    for module in (models, health, metrics, problem_kinds, pages):
        app.include_router(module.router)
    # The last one added is the first that a request passes.
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        max_bytes_in_progress=settings.max_bytes_in_progress,
        stall_s=settings.upload_stall_s,
        bytes_per_s=settings.upload_bytes_per_s,
    )
    app.add_middleware(
        Admission,
        max_requests=lambda: serving.max_requests,
        require_room=serving.require_room,
        retry_after_s=lambda: serving.wait_s,
    )
    app.add_middleware(RequireKey, access=access, probe_port=settings.probe_port)
    app.add_middleware(ProbePort, port=settings.probe_port)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in settings.cors_origins.split(",")],
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type", "X-Request-Id", "X-Request-Timeout", "traceparent"),
            expose_headers=_HEADERS_OF_ANSWERS,
        )
    app.add_middleware(AccessLog, telemetry=telemetry)
    app.add_middleware(tracer.requests)
    app.add_middleware(RequestHeaders)
    return app
