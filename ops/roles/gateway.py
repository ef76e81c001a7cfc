"""The gateway's process: uvicorn on a loopback port, uvloop, one app."""

from __future__ import annotations

import logging
import socket
from contextlib import AsyncExitStack

import uvicorn
import uvloop

from gateway import data_plane, registry, sql
from gateway.app import create_app
from gateway.auth import ALL_SCOPES, LOCAL_TENANT, Principal
from gateway.context import GatewayConfig
from gateway.llm_answers import LlmAnswers
from gateway.registry import SchemaRegistry
from gateway.service import Clocks, Service
from ops import clock
from ops.embedded.triton import MODEL
from ops.past import SqlDeps, TableHistory
from ops.readiness import mark_ready
from ops.settings import Settings
from ops.store import queries_of
from producers.wire import Wire

ROLE = "gateway"
SHUTDOWN_S = 2
BACKLOG = 512


def run(settings: Settings) -> int:
    """Serve until SIGTERM."""
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    # One line per query of the tables would be most of the log.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    uvloop.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    tables = queries_of(settings)
    service = Service(
        config_of(settings),
        wire=Wire.load(settings.kafka),
        history=TableHistory(tables),
        clocks=Clocks(now_ms=clock.now_ms, monotonic_ms=clock.monotonic_ms, new_id=clock.new_id),
        bootstrap_keys=bootstrap_keys(settings),
    )
    answers = LlmAnswers(
        bootstrap=settings.kafka, wire=service.context.wire, monotonic_ms=clock.monotonic_ms
    )
    schemas = SchemaRegistry(settings.kafka)
    routes = [
        *data_plane.routes(service.context, answers, models=models_of(settings)),
        *registry.routes(schemas),
    ]
    server = Server(
        settings,
        uvicorn.Config(
            create_app(service.context, routers=[sql.router(SqlDeps(tables))], routes=routes),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            lifespan="off",
            timeout_graceful_shutdown=SHUTDOWN_S,
            backlog=BACKLOG,
        ),
    )
    async with AsyncExitStack() as started:
        started.push_async_callback(tables.close)
        for part in (service, answers, schemas):
            # Registered first: a part that fails half-way is stopped as well.
            started.push_async_callback(part.stop)
            await part.start()
        await service.ready()
        await server.serve()


class Server(uvicorn.Server):
    """Says that it is ready once its port is open."""

    def __init__(self, settings: Settings, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, then say so."""
        await super().startup(sockets)
        if self.started:
            mark_ready(self._settings, ROLE)


def config_of(settings: Settings) -> GatewayConfig:
    """The gateway's share of the settings."""
    return GatewayConfig(
        kafka=settings.kafka,
        data_dir=settings.data_dir,
        min_free_mb=settings.min_free_mb,
        worker_allow=listed(settings.worker_allow),
        allow_files=settings.allow_files,
        cors_origins=listed(settings.cors_origins),
    )


def listed(text: str) -> tuple[str, ...]:
    """The parts of a setting that are separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def models_of(settings: Settings) -> tuple[str, ...]:
    """The models that `GET /v1/models` lists; others are passed to the upstream by their name."""
    return (MODEL,) if settings.has_triton else ()


def bootstrap_keys(settings: Settings) -> dict[str, Principal]:
    """The keys of the data directory: one for clients, one for runners' LLM calls."""
    secrets = settings.secrets
    return {
        settings.client_api_key: Principal(tenant=LOCAL_TENANT, key_id="local", scopes=ALL_SCOPES),
        secrets.runner_key: Principal(
            tenant=LOCAL_TENANT, key_id="runner", scopes=frozenset({"llm"})
        ),
    }
