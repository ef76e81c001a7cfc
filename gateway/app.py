"""The HTTP face as one ASGI app: control plane, data plane, registry, live streams and page."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

from gateway import commands, events, keys, metrics, page, problems, queries, websocket, workflows
from gateway.context import Context, context_of
from gateway.middleware import BodyLimit, Measured
from gateway.models import json_answer
from gateway.problems import Problem

VERSION = "1.0.0"
CORS_METHODS = ("GET", "POST", "DELETE", "OPTIONS")
CORS_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")

probes = APIRouter(include_in_schema=False)


def create_app(
    context: Context, routers: Sequence[APIRouter] = (), routes: Sequence[BaseRoute] = ()
) -> FastAPI:
    """The app over a context. `routers` and `routes` are those of the neighbours: SQL, registry,
    LLM data plane.
    """
    # FastAPI's own docs page loads scripts from elsewhere; ours does not (`/docs`).
    app = FastAPI(
        title="Omium", version=VERSION, docs_url=None, redoc_url=None, strict_content_type=False
    )
    app.state.context = context
    problems.install(app)
    # The data plane first: its route is matched before the control plane's are tried.
    app.router.routes[:0] = list(routes)
    ours = (workflows, commands, queries, events, websocket, keys, page)
    for router in (probes, *(module.router for module in ours), *routers):
        app.include_router(router)
    app.add_middleware(BodyLimit, bytes_max=context.config.body_bytes_max)
    if context.config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(context.config.cors_origins),
            allow_methods=list(CORS_METHODS),
            allow_headers=list(CORS_HEADERS),
        )
    app.add_middleware(Measured, metrics=context.metrics, monotonic_ns=time.perf_counter_ns)
    _describe(app)
    _watch(context)
    return app


@probes.get("/livez")
async def livez() -> Response:
    """Whether the process serves at all."""
    return json_answer({"status": "ok"})


@probes.get("/readyz")
async def readyz(request: Request) -> Response:
    """Whether it knows the log up to where it stood at the start."""
    if not context_of(request).is_ready():
        raise Problem(503, "not-ready", "The log is still being read.", retry_after_s=1)
    return json_answer({"status": "ready"})


@probes.get("/metrics")
async def prometheus(request: Request) -> Response:
    """Figures for Prometheus; loopback only in the embedded profile, so without a key."""
    return Response(
        context_of(request).metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE}
    )


def _watch(context: Context) -> None:
    live, figures = context.live, context.metrics
    figures.gauge("omium_gateway_live_executions", lambda: len(live))
    figures.gauge("omium_gateway_live_bytes", lambda: live.size_bytes)
    figures.gauge("omium_gateway_evicted_total", lambda: live.evicted)
    figures.gauge("omium_gateway_streams", lambda: context.streams.taken)
    figures.gauge("omium_gateway_free_disk_mb", context.disk.free_mb)
    figures.gauge("omium_gateway_ready", lambda: int(context.is_ready()))


def _describe(app: FastAPI) -> None:
    """OpenAPI 3.1 with the bearer key and the problem type that every route may answer."""

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, routes=app.routes, openapi_version="3.1.0"
            )
            components = document.setdefault("components", {})
            components["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer", "bearerFormat": "omk_…"}
            }
            components.setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
            document["security"] = [{"key": []}]
            for operations in document.get("paths", {}).values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = PROBLEM_ANSWER
            components["schemas"].pop("HTTPValidationError", None)
            components["schemas"].pop("ValidationError", None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document.


PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "The part of the request that it is about."},
        "limit": {"type": "integer", "description": "The limit that was met."},
    },
}
PROBLEM_ANSWER = {
    "description": "A problem (RFC 9457).",
    "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
