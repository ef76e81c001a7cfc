"""A process with the LLM data plane alone: `python -m tests.support.llm_gateway --kafka … --port …
--wait-ms …`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from gateway.auth import ALL_SCOPES, KeyRing, Principal, Scope, authenticate
from gateway.data_plane import LlmLimits, routes
from gateway.llm_answers import LlmAnswers
from ops import clock
from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.messages import TenantId

KEY_PREFIX = "omk_"


@dataclass(frozen=True, kw_only=True)
class TestContext:
    """What the data plane needs, with keys `omk_<tenant>` for the tenants named."""

    __test__ = False

    producer: AsyncProducer
    wire: Wire
    keys: KeyRing
    now_ms: Callable[[], int] = clock.now_ms
    monotonic_ms: Callable[[], int] = clock.monotonic_ms
    new_id: Callable[[], str] = clock.new_id

    def principal(self, connection: HTTPConnection, scope: Scope) -> Principal:
        return authenticate(connection.headers, self.keys, scope)


async def serve(kafka: str, port: int, wait_ms: int, tenants: list[str]) -> None:
    wire = Wire.load(kafka)
    producer = AsyncProducer(kafka, client_id="llm-gateway")
    await producer.start()
    keys = KeyRing()
    for tenant in tenants:
        keys.add(
            KEY_PREFIX + tenant,
            Principal(tenant=TenantId(tenant), key_id=tenant, scopes=ALL_SCOPES),
        )
    context = TestContext(producer=producer, wire=wire, keys=keys)
    answers = LlmAnswers(bootstrap=kafka, wire=wire, monotonic_ms=clock.monotonic_ms)
    await answers.start()
    app = Starlette(
        routes=list(
            routes(context, answers, limits=LlmLimits(wait_ms=wait_ms), models=["gpt-oss-20b"])
        )
    )
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="warning", access_log=False, lifespan="off"
    )
    await uvicorn.Server(config).serve()
    await answers.stop()
    await producer.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--wait-ms", type=int, default=60_000)
    parser.add_argument("--tenants", nargs="+", default=["acme", "globex"])
    options = parser.parse_args()
    uvloop.install()
    asyncio.run(serve(options.kafka, options.port, options.wait_ms, options.tenants))


if __name__ == "__main__":
    main()
