"""Ownership on a real broker: what stands, what a gap says, and who is deposed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from ops import clock
from ops.embedded import throwaway
from ops.settings import Settings
from processors.lane import Lane
from producers.kafka import AsyncProducer
from producers.registry import register_all
from producers.topology import create_topics
from producers.wire import Wire
from streams.errors import Deposed
from streams.execution.events import ExecutionCompleted
from streams.messages import Message
from streams.topics import EXECUTIONS, partition_of

EXECUTION = "lane-test"
PARTITION = partition_of(EXECUTIONS, EXECUTION)


@dataclass(frozen=True)
class Broker:
    bootstrap: str
    wire: Wire


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of its own: these tests claim partitions, which deposes everybody else's owners."""
    root: Path = tmp_path_factory.mktemp("lane")
    server = throwaway.kafka_in(root, Settings().cache_dir)
    create_topics(server.address)
    register_all(server.address)
    yield Broker(server.address, Wire.load(server.address))
    throwaway.stop_all(root)


@pytest.fixture
async def producer(broker: Broker) -> AsyncIterator[AsyncProducer]:
    started = AsyncProducer(broker.bootstrap, client_id="lane-test")
    await started.start()
    yield started
    await started.stop()


def a_lane(broker: Broker, producer: AsyncProducer, worker: str) -> Lane:
    return Lane(
        bootstrap=broker.bootstrap, topic=EXECUTIONS, partition=PARTITION, worker_id=worker,
        generation=clock.now_ms(), wire=broker.wire, producer=producer, clock=clock,
    )  # fmt: skip


def an_event(name: str) -> ExecutionCompleted:
    return ExecutionCompleted(event_id=name, tenant="t", execution_id=EXECUTION, output_json="{}")


async def folded(lane: Lane) -> list[str]:
    seen: list[str] = []

    def fold(_: int, message: Message) -> None:
        seen.append(message.event_id)

    await lane.claim(fold)
    return seen


async def test_an_owner_reads_back_what_stood_before_its_claim(
    broker: Broker, producer: AsyncProducer
) -> None:
    first, second = a_lane(broker, producer, "a"), a_lane(broker, producer, "b")
    await folded(first)
    await first.append(an_event("one"), an_event("two"))

    seen = await folded(second)

    assert seen[-2:] == ["one", "two"]


async def test_a_foreign_claim_deposes_and_voids_what_comes_after_it(
    broker: Broker, producer: AsyncProducer
) -> None:
    old, new, reader = (a_lane(broker, producer, name) for name in ("a", "b", "c"))
    await folded(old)
    await folded(new)

    with pytest.raises(Deposed):
        await old.append(an_event("void"))

    await new.append(an_event("standing"))
    seen = await folded(reader)
    assert seen[-1] == "standing"
    assert "void" not in seen


async def test_a_foreign_record_that_is_no_claim_changes_nothing(
    broker: Broker, producer: AsyncProducer
) -> None:
    lane = a_lane(broker, producer, "a")
    await folded(lane)
    stranger = Producer({"bootstrap.servers": broker.bootstrap})
    stranger.produce(EXECUTIONS.name, value=b"by hand", partition=PARTITION)
    stranger.flush(10)

    offsets = await lane.append(an_event("after the gap"))

    assert offsets[0] > lane.epoch + 1


async def test_to_confirm_finds_a_claim_that_no_append_has_met(
    broker: Broker, producer: AsyncProducer
) -> None:
    old, new = a_lane(broker, producer, "a"), a_lane(broker, producer, "b")
    await folded(old)
    await old.confirm()
    await folded(new)

    with pytest.raises(Deposed):
        await old.confirm()

    await new.confirm()
    assert old.deposed.is_set()


async def test_a_post_is_all_or_nothing(broker: Broker, producer: AsyncProducer) -> None:
    lane, reader = a_lane(broker, producer, "a"), a_lane(broker, producer, "b")
    await folded(lane)
    broken = ExecutionCompleted(
        event_id="broken",
        tenant="t",
        execution_id=EXECUTION,
        output_json=None,  # type: ignore[arg-type]  # The point of it.
    )

    with pytest.raises(ValueError, match="breaks its schema"):
        await lane.append(an_event("good"), broken)

    assert "good" not in await folded(reader)
