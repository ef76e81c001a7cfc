"""Routes over the tables: read-only SQL, costs and usage, each asked as the tenant's own user of
the store (law 10)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Request, Response
from pydantic import Field
from starlette.requests import HTTPConnection

from gateway.auth import Principal, Scope
from gateway.limits import PAGE_DEFAULT, PAGE_MAX, Slots, page_size
from gateway.models import Request as Body
from gateway.models import json_answer
from gateway.problems import Problem
from streams.errors import Rejected

QUERY_CHARS_MAX: Final = 64 * 1024
CONCURRENT_MAX: Final = 8
"""Statements at a time over all tenants: the store has two cores to share with the projector."""
STATUS_OF: Final = {"query_denied": 403, "query_refused": 400, "query_limit": 422}
TIME_MS_MAX: Final = (1 << 62) - 1


class Rows(Protocol):
    """An answer of the store."""

    @property
    def columns(self) -> Sequence[str]:
        """Names, in order."""
        ...

    @property
    def rows(self) -> Sequence[Sequence[object]]:
        """Values, in the order of the names."""
        ...


class Tables(Protocol):
    """What the store answers a tenant. `Rejected` for what the asker did, `Retryable` while the
    store is away."""

    async def sql(self, tenant: str, query: str) -> Rows:
        """The rows of the tenant's own statement."""
        ...

    async def costs(self, tenant: str, group_by: str, since_ms: int, until_ms: int) -> Rows:
        """Calls, tokens and micro-dollars by a property of the calls."""
        ...

    async def usage(
        self, tenant: str, before: tuple[int, str] | None, limit: int, execution: str
    ) -> Rows:
        """Settled calls, newest first."""
        ...


class Deps(Protocol):
    """What these routes need of the gateway."""

    @property
    def tables(self) -> Tables:
        """The store."""
        ...

    def authenticate(self, connection: HTTPConnection, scope: Scope) -> Principal:
        """Who asks; raises the 401 or 403 problem."""
        ...


class SqlRequest(Body):
    """`POST /v1/sql`."""

    query: Annotated[str, Field(min_length=1, max_length=QUERY_CHARS_MAX)]


def router(deps: Deps) -> APIRouter:
    """The routes, to be mounted by the app."""
    routes = APIRouter(tags=["tables"])
    slots = Slots(CONCURRENT_MAX, "statements")

    @routes.post("/v1/sql")
    async def sql(request: Request, body: SqlRequest) -> Response:
        """One read-only ClickHouse statement over the tenant's own rows; default database
        `omium`."""
        who = deps.authenticate(request, "sql")
        with slots.one():
            found = await _asked(deps.tables.sql(who.tenant, body.query))
        return json_answer({"columns": list(found.columns), "rows": found.rows})

    @routes.get("/v1/costs")
    async def costs(
        request: Request, group_by: str = "model", since_ms: str = "", until_ms: str = ""
    ) -> Response:
        """What calls cost, in integer micro-dollars, by `group_by`."""
        who = deps.authenticate(request, "executions")
        since = _time(since_ms, "since_ms", 0)
        until = _time(until_ms, "until_ms", TIME_MS_MAX)
        with slots.one():
            found = await _asked(deps.tables.costs(who.tenant, group_by, since, until))
        costs = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        totals = {name: sum(_int(cost[name]) for cost in costs) for name in TOTALS}
        return json_answer({"group_by": group_by, "costs": costs, "total": totals})

    @routes.get("/v1/usage")
    async def usage(
        request: Request, execution: str = "", cursor: str = "", limit: str = ""
    ) -> Response:
        """Settled calls, newest first. `next_cursor` leads to the next page."""
        who = deps.authenticate(request, "executions")
        size = page_size(limit, default=PAGE_DEFAULT, page_max=PAGE_MAX)
        before = _cursor(cursor)
        with slots.one():
            found = await _asked(deps.tables.usage(who.tenant, before, size + 1, execution))
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        page = rows[:size]
        more = f"{page[-1]['at_ms']}/{page[-1]['event_id']}" if len(rows) > size else None
        return json_answer({"usage": page, "next_cursor": more})

    return routes


TOTALS: Final = (
    "calls", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost_microusd",
)  # fmt: skip


async def _asked(asking: Awaitable[Rows]) -> Rows:
    try:
        return await asking
    except Rejected as error:
        status = STATUS_OF.get(error.code, 422)
        code = error.code.replace("_", "-")
        raise Problem(status, code, str(error), field=error.field) from error


def _int(value: object) -> int:
    assert isinstance(value, int), "sums of integers are integers"
    return value


def _time(text: str, field: str, default: int) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Problem(422, "invalid-time", f"{field} must be milliseconds UTC.", field=field)
    return int(text)


def _cursor(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    at_ms, separator, event_id = text.partition("/")
    if not separator or not at_ms.isascii() or not at_ms.isdigit() or len(text) > 100:
        message = "cursor is none that this API gave out."
        raise Problem(422, "invalid-cursor", message, field="cursor")
    return int(at_ms), event_id
