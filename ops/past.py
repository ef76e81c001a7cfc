"""The tables as the gateway's routes want them: its history port, and what the SQL routes ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from gateway.auth import Principal, Scope
from gateway.context import context_of
from gateway.envelope import parsed
from gateway.history import PastEvent, PastExecution
from gateway.models import links_of
from projections.queries import Queries, StandingEvent
from streams.execution.position import Mark, Place


@dataclass(frozen=True, slots=True)
class SqlDeps:
    """What `gateway.sql.router` needs."""

    tables: Queries

    def authenticate(self, connection: HTTPConnection, scope: Scope) -> Principal:
        """Who asks, by the gateway's keys."""
        return context_of(connection).principal(connection, scope)


class TableHistory:
    """The gateway's `History` over the tables."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def events(self, tenant: str, execution_id: str) -> Sequence[PastEvent]:
        """All standing events of an execution, in log order per partition."""
        found = await self._queries.execution_events(tenant, execution_id)
        return [_past(event) for event in found]

    async def open_events(self) -> Sequence[PastEvent]:
        """All standing events of every execution that has not ended, in log order per partition."""
        return [_past(event) for event in await self._queries.open_events()]

    async def execution_of_approval(self, tenant: str, approval_id: str) -> str:
        """The id of the execution that asked a question, empty if there is none."""
        return await self._queries.execution_of_approval(tenant, approval_id)

    async def positions(self) -> dict[Place, Mark]:
        """The last record of each partition that stands in the store, with the highest claim up to
        it."""
        found = await self._queries.ledger_positions()
        return {place: Mark(*mark) for place, mark in found.items() if mark[0] >= 0}

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
        rows = await self._queries.executions_page(tenant, before, limit, status, workflow, label)
        return [
            PastExecution(
                document=_document(row),
                created_at_ms=int(str(row["queued_at_ms"])),
                execution_id=str(row["execution"]),
            )
            for row in rows
        ]


def _past(event: StandingEvent) -> PastEvent:
    return PastEvent(
        topic=event.topic,
        partition=event.partition,
        offset=event.offset,
        message=event.message,
    )


def _document(row: dict[str, object]) -> dict[str, object]:
    kinds = ("input", "cached", "output", "reasoning")
    return {
        "id": row["execution"],
        "workflow": row["workflow"],
        "workflow_version": row["workflow_version"],
        "framework": row["framework"],
        "status": row["status"],
        "created_at_ms": row["queued_at_ms"],
        "started_at_ms": row["started_at_ms"],
        "ended_at_ms": row["finished_at_ms"] or None,
        "step_count": row["steps"],
        "llm_calls": row["llm_calls"],
        "tool_calls": row["tool_calls"],
        "tokens": {kind: row[f"{kind}_tokens"] for kind in kinds},
        "cost_microusd": row["cost_microusd"],
        "labels": parsed(str(row["labels_json"])),
        "links": links_of(str(row["execution"])),
    }
