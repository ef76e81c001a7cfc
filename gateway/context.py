"""What the gateway's routes share: settings, clock, ids, producer, codec, keys, and the views they
read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from starlette.requests import HTTPConnection

from gateway.auth import KeyRing, Principal, Scope, authenticate
from gateway.problems import Problem

if TYPE_CHECKING:
    from gateway.history import History
    from gateway.limits import DiskGuard, Slots
    from gateway.live import Live, Workflows
    from gateway.metrics import Metrics
    from producers.kafka import AsyncProducer
    from producers.wire import Wire

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """The settings of the gateway; built by `ops` only."""

    kafka: str
    data_dir: Path
    min_free_mb: int = 512
    worker_allow: tuple[str, ...] = ()
    """Module prefixes whose objects may be registered as workflows."""
    allow_files: bool = True
    """Whether `/absolute/file.py:attr` may be registered (embedded profile)."""
    cors_origins: tuple[str, ...] = ()
    body_bytes_max: int = 4 * MIB
    live_bytes_max: int = 24 * MIB
    live_executions_max: int = 5_000
    queued_max: int = 10_000
    """Executions of one tenant that may wait to be started; more are refused with 429."""
    streams_max: int = 500
    """SSE and WebSocket clients at a time."""
    heartbeat_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One gateway process. `now_ms` is the wall clock, `new_id` draws a random id."""

    config: GatewayConfig
    producer: AsyncProducer
    wire: Wire
    keys: KeyRing
    workflows: Workflows
    live: Live
    history: History
    disk: DiskGuard
    streams: Slots
    metrics: Metrics
    now_ms: Callable[[], int]
    monotonic_ms: Callable[[], int]
    new_id: Callable[[], str]
    is_ready: Callable[[], bool]

    def principal(self, connection: HTTPConnection, scope: Scope) -> Principal:
        """Who asks, by the connection's headers; raises the 401 or 403 problem, or 503 before the
        log was read.
        """
        if not self.is_ready():
            raise Problem(503, "not-ready", "The log is still being read.", retry_after_s=1)
        return authenticate(connection.headers, self.keys, scope)


def context_of(connection: HTTPConnection) -> Context:
    """The context of the app that serves this connection."""
    return cast(Context, connection.app.state.context)
