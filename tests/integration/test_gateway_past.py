"""What memory no longer holds is read from the store, and the seam between them does not show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from gateway.history import PastEvent, PastExecution
from streams.errors import Retryable
from streams.execution.position import Mark, Place
from streams.llm.events import LlmCallCompleted
from streams.messages import Message
from streams.topics import EXECUTIONS, LLM_REQUESTS, LLM_RESPONSES, partition_of
from tests.support.gateway import Stack, broker, gateway, until
from tests.support.story import Story


@pytest.fixture(scope="session")
def kafka() -> str:
    return broker()


TENANT = "acme"


@dataclass
class Recorded:
    """A store that holds what it was given, and can be away."""

    past: list[PastEvent] = field(default_factory=list)
    is_away: bool = False

    def _here(self) -> list[PastEvent]:
        if self.is_away:
            raise Retryable("the store is away", 1000)
        return sorted(self.past, key=lambda p: (p.topic, p.partition, p.offset))

    def _ended(self) -> set[str]:
        return {
            p.message.execution_id
            for p in self.past
            if type(p.message).__name__ in {"ExecutionCompleted", "ExecutionCancelled"}
        }

    async def events(self, tenant: str, execution_id: str) -> Sequence[PastEvent]:
        return [
            p
            for p in self._here()
            if (p.message.tenant, p.message.execution_id) == (tenant, execution_id)
        ]

    async def open_events(self) -> Sequence[PastEvent]:
        return [p for p in self._here() if p.message.execution_id not in self._ended()]

    async def execution_of_approval(self, tenant: str, approval_id: str) -> str:
        return ""

    async def positions(self) -> dict[Place, Mark]:
        return {(p.topic, p.partition): Mark(p.offset, p.message.epoch) for p in self._here()}

    async def executions(self, tenant: str, **_: object) -> Sequence[PastExecution]:
        ids = {p.message.execution_id: p.message.at_ms for p in self._here()}
        return [
            PastExecution(document={"id": i}, created_at_ms=at, execution_id=i)
            for i, at in ids.items()
        ]


async def write(stack: Stack, events: Sequence[Message], store: Recorded | None = None) -> None:
    """Append events; those that the store is to know go there as well."""
    for event in events:
        is_answer = isinstance(event, LlmCallCompleted)
        topic = LLM_RESPONSES if is_answer else EXECUTIONS
        (offset,) = await stack.writer.append(event, topic=topic)
        key = event.call_id if isinstance(event, LlmCallCompleted) else event.execution_id
        partition = partition_of(topic, key)
        if store is not None:
            epoch = stack.writer.epochs[topic.name, partition]
            store.past.append(
                PastEvent(
                    topic=topic.name,
                    partition=partition,
                    offset=offset,
                    message=replace(event, epoch=epoch),
                )
            )


async def frames(
    client: httpx.AsyncClient, execution_id: str, position: str = ""
) -> list[tuple[str, str]]:
    """Event id and position of each event of a stream that ends."""
    headers = {"Last-Event-ID": position} if position else {}
    path = f"/v1/executions/{execution_id}/events"
    text = (await client.get(path, headers=headers)).text
    found = []
    for frame in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line)
        if "data" in lines and lines["event"] != "end":
            found.append((json.loads(lines["data"])["event_id"], lines["id"]))
    return found


def story() -> Story:
    return Story(TENANT, str(uuid4()))


async def test_an_execution_on_both_sides_of_the_seam_is_one(kafka: str, tmp_path: Path) -> None:
    # given an execution whose first half the store has, its second half only the log
    store, s = Recorded(), story()
    events = s.whole()
    async with gateway(kafka, tmp_path, tenant=TENANT) as before:
        await write(before, events[:9], store)
        epochs = dict(before.writer.epochs)

    # when a gateway starts where the store ends
    async with gateway(kafka, tmp_path, tenant=TENANT, history=store) as after:
        after.writer.epochs.update(epochs)
        await write(after, events[9:])
        path = f"/v1/executions/{s.execution_id}"
        live = after.service.context.live

        def is_settled() -> bool:
            entry = live.get(TENANT, s.execution_id)
            return entry is not None and entry.view.is_settled

        await until(is_settled)

        # then
        shown = (await after.client.get(path)).json()
        assert (shown["status"], shown["cost_microusd"], shown["step_count"]) == (
            "completed",
            93,
            3,
        )
        page = (await after.client.get(f"{path}/history")).json()["events"]
        own = [event.event_id for event in events if not isinstance(event, LlmCallCompleted)]
        assert [event["event_id"] for event in page] == own
        assert [event["sequence"] for event in page] == list(range(len(own)))
        whole = await frames(after.client, s.execution_id)
        assert sorted(i for i, _ in whole) == sorted(event.event_id for event in events)
        for cut, (_, position) in enumerate(whole, start=1):
            assert whole[:cut] + await frames(after.client, s.execution_id, position) == whole


async def test_a_deposed_owners_event_behind_the_seam_stays_void(
    kafka: str, tmp_path: Path
) -> None:
    # given: the claim that voids it stands before the point where the gateway begins to read
    store, s = Recorded(), story()
    async with gateway(kafka, tmp_path, tenant=TENANT) as before:
        partition = partition_of(EXECUTIONS, s.execution_id)
        old = await before.writer.claim(EXECUTIONS, partition)
        await before.writer.claim(EXECUTIONS, partition)
        await write(before, [s.queued(), s.started()], store)
        epochs = dict(before.writer.epochs)

    async with gateway(kafka, tmp_path, tenant=TENANT, history=store) as after:
        # when
        late = replace(s.completed(), epoch=old)
        await after.service.context.producer.send(after.writer.wire.encode(late, EXECUTIONS))
        after.writer.epochs.update(epochs)
        step = s.step_started("gather", 1)
        await write(after, [step])

        # then
        live = after.service.context.live
        await until(lambda: step.event_id in live.get(TENANT, s.execution_id).event_ids)
        shown = (await after.client.get(f"/v1/executions/{s.execution_id}")).json()
        assert shown["status"] == "running"


async def test_finished_executions_come_from_the_store(kafka: str, tmp_path: Path) -> None:
    # given a store that also holds what routers wrote, as the real one does
    store, s = Recorded(), story()
    events = s.whole()
    async with gateway(kafka, tmp_path, tenant=TENANT) as before:
        await write(before, events, store)
    for topic, routed in ((LLM_RESPONSES, s.llm_routed()), (LLM_REQUESTS, s.llm_requested())):
        store.past.append(PastEvent(topic=topic.name, partition=0, offset=0, message=routed))

    async with gateway(kafka, tmp_path, tenant=TENANT, history=store) as after:
        # then it is not in memory, and is shown whole all the same
        assert after.service.context.live.get(TENANT, s.execution_id) is None
        path = f"/v1/executions/{s.execution_id}"
        assert (await after.client.get(path)).json()["status"] == "completed"
        whole = await frames(after.client, s.execution_id)
        assert sorted(i for i, _ in whole) == sorted(event.event_id for event in events)
        for cut, (_, position) in enumerate(whole, start=1):
            assert whole[:cut] + await frames(after.client, s.execution_id, position) == whole
        listed = (await after.client.get("/v1/executions")).json()
        assert s.execution_id in {e["id"] for e in listed["executions"]}
        assert listed["is_complete"] is True


async def test_while_the_store_is_away_live_ones_are_shown_and_old_ones_are_not_denied(
    kafka: str, tmp_path: Path
) -> None:
    # given
    store, old, live = Recorded(), story(), story()
    async with gateway(kafka, tmp_path, tenant=TENANT) as before:
        await write(before, old.whole(("gather",)), store)
        await write(before, [live.queued(), live.started()], store)
        epochs = dict(before.writer.epochs)

    async with gateway(kafka, tmp_path, tenant=TENANT, history=store) as after:
        after.writer.epochs.update(epochs)
        # when
        store.is_away = True

        # then
        refused = await after.client.get(f"/v1/executions/{old.execution_id}")
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        shown = await after.client.get(f"/v1/executions/{live.execution_id}")
        assert shown.json()["status"] == "running"
        listed = (await after.client.get("/v1/executions")).json()
        assert listed["is_complete"] is False
        assert live.execution_id in {e["id"] for e in listed["executions"]}
