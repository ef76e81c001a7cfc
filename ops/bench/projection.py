"""`bench projection`: log to rows on a Kafka and a ClickHouse of its own: rate, delay, reading."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypedDict

from confluent_kafka import Producer

from ops import clock, credentials
from ops.bench.steps import percentile
from ops.embedded import throwaway
from ops.settings import Settings, child_environment
from ops.store import owner_endpoint, queries_of
from producers.registry import register_all
from producers.topology import create_topics
from producers.wire import Wire
from projections.clickhouse import ClickHouseStore
from projections.http import ClickHouse
from streams import topics
from streams.execution import events as e
from streams.llm import events as llm
from streams.messages import Event, call_id, event_id

TENANT: Final = "local"
STEPS: Final = 8
EVENTS_PER_EXECUTION: Final = 3 + STEPS + 2
EXECUTIONS_MIN: Final = 400
EXECUTIONS_PER_S: Final = 150
"""How long a backlog is made per second of budget: projected in a tenth of it."""
DELAYS_MAX: Final = 60
LOOKUPS: Final = 200
ROLLUPS: Final = 50
VISIBLE_WAIT_S: Final = 120.0
POLL_S: Final = 0.005
OUTPUT_BYTES: Final = 1000

Say = Callable[[str], None]


class Identity(TypedDict):
    """The fields every record has."""

    event_id: str
    tenant: str
    execution_id: str
    at_ms: int


def measure(settings: Settings, budget_s: float, say: Say) -> dict[str, float]:
    """The figures, with the projector running in a process of its own as in a stack."""
    with servers(settings) as ours:
        executions = max(EXECUTIONS_MIN, int(budget_s * EXECUTIONS_PER_S))
        log = Log(ours.kafka)
        say(f"writing {executions * EVENTS_PER_EXECUTION} events …")
        log.append_backlog(executions)
        tables = ClickHouse(owner_endpoint(ours))
        ClickHouseStore(tables).migrate()
        with projector(ours) as process:
            say("projecting them …")
            rate = _ingest_rate(tables, executions * EVENTS_PER_EXECUTION)
            say("one at a time …")
            delays = _delays(tables, log, executions, budget_s / 4)
            rss_mb = _rss_mb(process.pid)
        tables.close()
        say("reading …")
        lookups, rollups = asyncio.run(_reading(ours, executions))
    return {
        "ingest_events_per_s": rate,
        "row_delay_ms_p50": percentile(delays, 0.5),
        "row_delay_ms_p95": percentile(delays, 0.95),
        "lookup_ms_p50": percentile(lookups, 0.5),
        "lookup_ms_p95": percentile(lookups, 0.95),
        "rollup_ms_p50": percentile(rollups, 0.5),
        "rollup_ms_p95": percentile(rollups, 0.95),
        "projector_rss_mb": rss_mb,
    }


@contextmanager
def servers(settings: Settings) -> Iterator[Settings]:
    """The settings of a fresh Kafka and ClickHouse, gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="omium-bench-"))
    try:
        kafka = throwaway.kafka_in(root, settings.cache_dir)
        store = throwaway.clickhouse_in(root)
        create_topics(kafka.address)
        register_all(kafka.address)
        credentials.ensure(root)
        yield Settings(
            data_dir=root,
            kafka=kafka.address,
            clickhouse_url=store.address,
            stack_id="",
            cache_dir=settings.cache_dir,
        )
    finally:
        throwaway.stop_all(root)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def projector(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A projector over these servers."""
    environment = child_environment(
        data_dir=str(settings.data_dir),
        kafka=settings.kafka,
        clickhouse_url=settings.clickhouse_url,
        stack_id="",
        log_level="WARNING",
    )
    command = [sys.executable, "-m", "ops.main", "worker", "projector"]
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


class Log:
    """Writes executions to the log as their owner would."""

    def __init__(self, bootstrap: str) -> None:
        self._wire = Wire.load(bootstrap)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,  # The broker goes before this producer does.
            }
        )

    def append_backlog(self, executions: int) -> None:
        """Whole executions, acknowledged."""
        for number in range(executions):
            for topic, event in story(f"bench-{number}"):
                self._produce(topic, event)
            self._producer.poll(0)
        self._producer.flush(VISIBLE_WAIT_S)

    def append_one(self, event: Event) -> None:
        """One event, acknowledged."""
        self._produce(topics.EXECUTIONS, event)
        self._producer.flush(VISIBLE_WAIT_S)

    def _produce(self, topic: topics.Topic, event: Event) -> None:
        record = self._wire.encode(event, topic)
        self._producer.produce(
            record.topic, value=record.value, key=record.key, partition=record.partition
        )


def story(execution: str) -> Iterator[tuple[topics.Topic, Event]]:
    """One execution of eight steps of 1 KB, with one call."""
    now_ms = clock.now_ms()

    def identity(kind: str, ordinal: int = 0) -> Identity:
        made = event_id(TENANT, execution, "", 0, kind, ordinal)
        return {"event_id": made, "tenant": TENANT, "execution_id": execution, "at_ms": now_ms}

    yield (
        topics.EXECUTIONS,
        e.ExecutionQueued(
            **identity("queued"),
            workflow="bench",
            workflow_version="1",
            framework="langgraph",
            entrypoint="bench:graph",
            input_json="{}",
            options_json="{}",
            labels_json="{}",
            deadline_at_ms=None,
            command_offset=0,
        ),
    )
    yield (
        topics.EXECUTIONS,
        e.ExecutionStarted(**identity("started"), worker_id="b", incarnation=0),
    )
    for ordinal in range(STEPS):
        yield topics.EXECUTIONS, _step(identity("step", ordinal), ordinal)
    call = call_id(TENANT, execution)
    yield (
        topics.LLM_REQUESTS,
        llm.LlmCallRequested(
            **identity("requested"),
            call_id=call,
            idempotency_key=execution,
            step="s0",
            agent="bench",
            api="chat_completions",
            model="gpt-oss-20b",
            is_stream=False,
            request=b"x" * OUTPUT_BYTES,
        ),
    )
    yield topics.LLM_RESPONSES, _answer(identity("answered"), call)
    yield (
        topics.EXECUTIONS,
        e.ExecutionCompleted(**identity("ended"), output_json='"done"'),
    )


def _step(identity: Identity, ordinal: int) -> e.StepCompleted:
    return e.StepCompleted(
        **identity,
        step=f"s{ordinal}",
        step_key=f"s{ordinal}#0",
        agent="bench",
        attempt=0,
        ordinal=ordinal,
        incarnation=0,
        output_json='{"text": "' + "x" * OUTPUT_BYTES + '"}',
        duration_ms=1,
        record=b"x" * OUTPUT_BYTES,
        effects=(),
    )


def _answer(identity: Identity, call: str) -> llm.LlmCallCompleted:
    return llm.LlmCallCompleted(
        **identity,
        call_id=call,
        step="s0",
        agent="bench",
        route="local",
        provider="triton",
        model="gpt-oss-20b",
        is_stream=False,
        response=b"x" * OUTPUT_BYTES,
        input_tokens=100,
        cached_tokens=0,
        output_tokens=20,
        reasoning_tokens=0,
        usage_source="provider",
        cost_microusd=12,
        price_book="bench",
        status="settled",
        first_token_ms=1,
        latency_ms=2,
        try_number=1,
    )


def _ingest_rate(tables: ClickHouse, wanted: int) -> float:
    """Rows a second from the first rows seen to the last: the process's start is not counted."""
    first_rows, first_s = 0, 0.0
    deadline = time.monotonic() + VISIBLE_WAIT_S * 5
    while (rows := _count(tables, "SELECT count() FROM events")) < wanted:
        if not first_s and rows:
            first_rows, first_s = rows, time.monotonic()
        assert time.monotonic() < deadline, "the projector does not come to the end of the log"
        time.sleep(POLL_S * 10)
    elapsed_s = time.monotonic() - first_s if first_s else 0.0
    return (wanted - first_rows) / elapsed_s if elapsed_s else 0.0


def _delays(tables: ClickHouse, log: Log, executions: int, seconds: float) -> list[float]:
    """From the acknowledgement of an event to its row, one event at a time at odd moments."""
    rng, delays = random.Random(1), list[float]()
    until = time.monotonic() + seconds
    while len(delays) < DELAYS_MAX and time.monotonic() < until:
        name = f"late-{len(delays)}"
        _, event = next(iter(story(name)))
        log.append_one(event)
        acked = time.monotonic()
        statement = f"SELECT count() FROM events WHERE tenant = '{TENANT}' AND execution = '{name}'"
        while not _count(tables, statement):
            assert time.monotonic() < acked + VISIBLE_WAIT_S, "the row does not come"
            time.sleep(POLL_S)
        delays.append((time.monotonic() - acked) * 1000)
        time.sleep(rng.uniform(0, 0.3))
    return delays


async def _reading(settings: Settings, executions: int) -> tuple[list[float], list[float]]:
    """Milliseconds of looking one execution up, and of rolling a tenant's costs up."""
    rng, queries = random.Random(2), queries_of(settings)
    lookups, rollups = list[float](), list[float]()
    for _ in range(LOOKUPS):
        name = f"bench-{rng.randrange(executions)}"
        lookups.append(await _timed(queries.execution_events(TENANT, name)))
    for number in range(ROLLUPS):
        group = ("model", "day", "workflow", "agent")[number % 4]
        rollups.append(await _timed(queries.costs(TENANT, group)))
    await queries.close()
    return lookups, rollups


async def _timed(asking: Awaitable[object]) -> float:
    begun = time.perf_counter_ns()
    await asking
    return (time.perf_counter_ns() - begun) / 1e6


def _count(tables: ClickHouse, statement: str) -> int:
    return int(str(tables.query(statement).rows[0][0]))


def _rss_mb(pid: int) -> float:
    import psutil

    return float(psutil.Process(pid).memory_info().rss) / (1024 * 1024)


def conditions() -> dict[str, object]:
    """What the figures were measured under."""
    return {"cores": os.cpu_count(), "load_1min": os.getloadavg()[0], "events_per_execution": 13}
