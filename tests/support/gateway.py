"""A gateway in the test's own event loop on a real port, and a writer that puts events on the log
by hand.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import uvicorn

from gateway.app import create_app
from gateway.auth import ALL_SCOPES, Principal
from gateway.context import GatewayConfig
from gateway.history import History, NoHistory
from gateway.service import Clocks, Service
from ops.embedded.throwaway import kafka_in
from ops.settings import Settings
from producers.kafka import AsyncProducer
from producers.registry import register_all
from producers.topology import create_topics
from producers.wire import Wire
from streams.execution.events import OwnerClaimed
from streams.messages import Message, TenantId
from streams.topics import EXECUTIONS, LLM_RESPONSES, Topic, partition_of

KEY = "omk_test_key"
OTHER_KEY = "omk_other_key"
LLM_KEY = "omk_llm_key"
DEADLINE_S = 30.0


@dataclass(kw_only=True)
class Stack:
    """A serving gateway, a client that holds the key of `tenant`, and the writer."""

    service: Service
    client: httpx.AsyncClient
    url: str
    tenant: str
    other_tenant: str
    writer: Writer


@cache
def broker() -> str:
    """Bootstrap of a broker of this test process alone; `OMIUM_TEST_KAFKA` names one that runs.

    Each partition has one claimed writer: tests that play the owner would depose those of other
    tests, and be deposed by them, if they shared the session's broker.
    """
    given = os.environ.get("OMIUM_TEST_KAFKA")
    if given:
        return given
    root = Path(os.environ["OMIUM_TEST_ROOT"])
    own = root / f"gateway-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    own.mkdir(exist_ok=True)
    server = kafka_in(own, Settings().cache_dir)
    # The session stops what is on record in its own folder.
    (root / f"{own.name}.server.json").write_text(json.dumps(asdict(server)))
    return server.address


@cache
def wire_on(bootstrap: str) -> Wire:
    """A wire on a broker that may be empty."""
    create_topics(bootstrap)
    register_all(bootstrap)
    return Wire.load(bootstrap)


@asynccontextmanager
async def gateway(
    bootstrap: str,
    data_dir: Path,
    *,
    history: History | None = None,
    tenant: str = "",
    port: int = 0,
    **config: Any,
) -> AsyncIterator[Stack]:
    """A gateway with three keys: all scopes, another tenant's, and LLM calls only."""
    wire = wire_on(bootstrap)
    tenant, other = tenant or f"t-{uuid4()}", f"t-{uuid4()}"
    service = Service(
        GatewayConfig(kafka=bootstrap, data_dir=data_dir, **({"min_free_mb": 1} | config)),
        wire=wire,
        history=history or NoHistory(),
        clocks=Clocks(
            now_ms=lambda: time.time_ns() // 1_000_000,
            monotonic_ms=lambda: time.monotonic_ns() // 1_000_000,
            new_id=lambda: str(uuid4()),
        ),
        bootstrap_keys={
            KEY: Principal(tenant=TenantId(tenant), key_id="local", scopes=ALL_SCOPES),
            OTHER_KEY: Principal(tenant=TenantId(other), key_id="other", scopes=ALL_SCOPES),
            LLM_KEY: Principal(tenant=TenantId(tenant), key_id="llm", scopes=frozenset({"llm"})),
        },
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service.context),
            host="127.0.0.1",
            port=port,
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    await service.start()
    await asyncio.wait_for(service.ready(), DEADLINE_S)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    writer = Writer(wire=wire, producer=service.context.producer, tenant=tenant)
    try:
        async with httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=DEADLINE_S
        ) as client:
            yield Stack(
                service=service,
                client=client,
                url=url,
                tenant=tenant,
                other_tenant=other,
                writer=writer,
            )
    finally:
        server.should_exit = True
        await serving
        await service.stop()


@dataclass(kw_only=True)
class Writer:
    """Appends events as an owner would: a claim first, then events of its epoch."""

    wire: Wire
    producer: AsyncProducer
    tenant: str
    epochs: dict[tuple[str, int], int] = field(default_factory=dict)
    _generation: itertools.count[int] = field(default_factory=itertools.count)

    async def claim(self, topic: Topic, partition: int) -> int:
        """The offset of a new claim, which later events of this writer carry."""
        claim = OwnerClaimed(
            event_id=str(uuid4()),
            tenant="",
            execution_id="",
            at_ms=1,
            worker_id="test",
            generation=next(self._generation),
            topic=topic.name,
            partition=partition,
        )
        offset = await self.producer.send(self.wire.encode(claim, topic, partition=partition))
        self.epochs[topic.name, partition] = offset
        return offset

    async def append(self, *events: Message, topic: Topic = EXECUTIONS) -> list[int]:
        """The offsets of the events, written under the newest claim of this writer (made if there
        is none).
        """
        offsets = []
        for event in events:
            key = event.execution_id if topic is not LLM_RESPONSES else str(event.call_id)
            partition = partition_of(topic, key)
            if (topic.name, partition) not in self.epochs:
                await self.claim(topic, partition)
            stamped = replace(event, epoch=self.epochs[topic.name, partition])
            offsets.append(await self.producer.send(self.wire.encode(stamped, topic)))
        return offsets

    async def append_void(self, event: Message) -> int:
        """The offset of an event whose writer was deposed before it arrived."""
        partition = partition_of(EXECUTIONS, event.execution_id)
        old = await self.claim(EXECUTIONS, partition)
        await self.claim(EXECUTIONS, partition)
        return await self.producer.send(self.wire.encode(replace(event, epoch=old), EXECUTIONS))


async def until(condition: Any, deadline_s: float = DEADLINE_S) -> None:
    """Returns once the condition (a function, perhaps async) holds."""
    deadline = time.monotonic() + deadline_s
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)
