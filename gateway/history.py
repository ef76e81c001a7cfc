"""Executions that are no longer in memory: their events as ClickHouse holds them, behind a port."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.context import Context
from gateway.envelope import Stored, is_told
from gateway.live import Entry
from gateway.problems import Problem
from streams.execution.position import Mark, Place
from streams.execution.summary import empty
from streams.messages import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEvent:
    """A standing event with its place on the log."""

    topic: str
    partition: int
    offset: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class PastExecution:
    """One row of a list of executions."""

    document: dict[str, object]
    created_at_ms: int
    execution_id: str


class History(Protocol):
    """What the store of past executions answers. Every method raises `Retryable` while the store is
    away.
    """

    async def events(self, tenant: str, execution_id: str) -> Sequence[PastEvent]:
        """All standing events of an execution, in log order per partition."""
        ...

    async def open_events(self) -> Sequence[PastEvent]:
        """All standing events of every execution that has not ended, in log order per partition."""
        ...

    async def execution_of_approval(self, tenant: str, approval_id: str) -> str:
        """The id of the execution that asked a question, empty if there is none."""
        ...

    async def positions(self) -> dict[Place, Mark]:
        """The last record of each partition that stands in the store, with the highest claim up to
        it.
        """
        ...

    async def executions(
        self,
        tenant: str,
        *,
        before: tuple[int, str] | None,
        limit: int,
        status: str,
        workflow: str,
        label: tuple[str, str] | None,
    ) -> Sequence[PastExecution]:
        """Newest first, those created before `(created_at_ms, id)`."""
        ...


class NoHistory:
    """A gateway without ClickHouse: everything it knows is on the log and in memory."""

    async def events(self, tenant: str, execution_id: str) -> Sequence[PastEvent]:
        """None."""
        return ()

    async def open_events(self) -> Sequence[PastEvent]:
        """None."""
        return ()

    async def execution_of_approval(self, tenant: str, approval_id: str) -> str:
        """None."""
        return ""

    async def positions(self) -> dict[Place, Mark]:
        """None."""
        return {}

    async def executions(
        self,
        tenant: str,
        *,
        before: tuple[int, str] | None,
        limit: int,
        status: str,
        workflow: str,
        label: tuple[str, str] | None,
    ) -> Sequence[PastExecution]:
        """None."""
        return ()


async def find(context: Context, tenant: str, execution_id: str) -> Entry:
    """The tenant's execution, from memory or from the store; raises the 404 problem."""
    entry = context.live.get(tenant, execution_id)
    if entry is not None and entry.is_shown:
        return entry
    past = entry_of(tenant, execution_id, await context.history.events(tenant, execution_id))
    if past is not None:
        return past
    if entry is not None and entry.view.workflow:
        context.live.confirm(execution_id)
        return entry
    raise Problem(
        404, "unknown-execution", f"There is no execution {execution_id[:100]!r}.", field="id"
    )


async def entry_with_approval(context: Context, tenant: str, approval_id: str) -> Entry:
    """The tenant's execution that asked this question; raises the 404 problem."""
    entry = context.live.with_approval(tenant, approval_id)
    if entry is None:
        execution_id = await context.history.execution_of_approval(tenant, approval_id)
        entry = await find(context, tenant, execution_id) if execution_id else None
    if entry is None:
        raise Problem(
            404, "unknown-approval", f"There is no approval {approval_id[:100]!r}.", field="id"
        )
    return entry


async def earlier_events(context: Context, entry: Entry) -> list[Stored]:
    """The events of an entry that memory has dropped."""
    if not entry.trimmed:
        return []
    view = entry.view
    past = entry_of(
        view.tenant, view.execution_id, await context.history.events(view.tenant, view.execution_id)
    )
    held = {item.event_id for item in entry.events}
    return [item for item in past.events if item.event_id not in held] if past is not None else []


def entry_of(tenant: str, execution_id: str, events: Iterable[PastEvent]) -> Entry | None:
    """An execution folded from the store's events, as if it had been followed live."""
    entry = Entry(empty(tenant, execution_id))
    for event in events:
        if is_told(event.topic, event.message):
            place = (event.topic, event.partition)
            entry.fold(event.message, *place, event.offset, event.message.epoch)
    return entry if entry.is_on_log else None
