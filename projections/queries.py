"""What the gateway asks of the tables: one file per query, each asked as the tenant's own user
where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import orjson

from projections.http import Answer, AsyncClickHouse, ClickHouseError, Endpoint
from projections.ledger import PartitionKey
from streams.codec import TYPES, from_record
from streams.errors import Rejected
from streams.messages import Message

STATEMENTS_DIR: Final = Path(__file__).parent / "sql"
COST_GROUPS: Final = (
    "tenant",
    "workflow",
    "agent",
    "step",
    "model",
    "day",
    "provider",
    "route",
    "execution",
)
"""What costs can be told by."""
EVENTS_MAX: Final = 200_000
"""Events in one answer: of the longest history, or of all open executions at a gateway's start."""
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
READ_TIMEOUT_S: Final = 30.0
SQL_SECONDS_MAX: Final = 10
SQL_ROWS_MAX: Final = 10_000
SQL_BYTES_MAX: Final = 16 * 1024 * 1024
SQL_MEMORY_BYTES_MAX: Final = 400_000_000
SQL_LIMITS: Final = {
    "max_execution_time": str(SQL_SECONDS_MAX),
    "max_result_rows": str(SQL_ROWS_MAX),
    "max_result_bytes": str(SQL_BYTES_MAX),
    "result_overflow_mode": "throw",
    "max_memory_usage": str(SQL_MEMORY_BYTES_MAX),
    "cancel_http_readonly_queries_on_client_close": "1",
}
END_OF_TIME_MS: Final = (1 << 62) - 1
LAST_ID: Final = "\U0010ffff"

# ClickHouse's codes for what the asker did, by the code of ours.
LIMIT_CODES: Final = frozenset({158, 159, 160, 241, 307, 396})
DENIED_CODES: Final = frozenset({164, 452, 497})
UNAVAILABLE_CODES: Final = frozenset({0, 202, 209, 210, 516})


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingEvent:
    """A row of `events` as a message again. Bytes come back as as many zeros: their content is only
    on the log."""

    topic: str
    partition: int
    offset: int
    message: Message
    is_cut: bool


class Queries:
    """One gateway's access: its own user for what spans tenants, each tenant's for what a tenant
    asks."""

    def __init__(
        self, owner: Endpoint, endpoint_of_tenant: Callable[[str], Endpoint | None]
    ) -> None:
        self._owner = AsyncClickHouse(owner, ANSWER_BYTES_MAX, READ_TIMEOUT_S)
        self._endpoint_of_tenant = endpoint_of_tenant
        self._tenants: dict[str, AsyncClickHouse] = {}

    async def close(self) -> None:
        """Close the connections."""
        for client in (self._owner, *self._tenants.values()):
            await client.close()

    async def sql(self, tenant: str, query: str) -> Answer:
        """The rows of a tenant's own statement. `Rejected` says what is wrong with it, in
        ClickHouse's words."""
        answer = await self._asked(tenant, query, {})
        if len(answer.rows) > SQL_ROWS_MAX:
            # A SETTINGS clause in the statement may have lifted the server's limit.
            raise Rejected("query_limit", f"more than {SQL_ROWS_MAX} rows: add a LIMIT", "query")
        return answer

    async def costs(
        self, tenant: str, group_by: str, since_ms: int = 0, until_ms: int = END_OF_TIME_MS
    ) -> Answer:
        """Calls, tokens and micro-dollars by one of `COST_GROUPS`."""
        if group_by not in COST_GROUPS:
            raise Rejected("invalid_group", f"one of {', '.join(COST_GROUPS)}", "group_by")
        name = "costs_by_workflow" if group_by == "workflow" else "costs"
        parameters = {"since_ms": since_ms, "until_ms": until_ms, "limit": SQL_ROWS_MAX}
        if group_by != "workflow":
            parameters["group"] = group_by  # type: ignore[assignment]  # bound as an identifier
        return await self._asked(tenant, statement(name), parameters)

    async def usage(
        self, tenant: str, before: tuple[int, str] | None, limit: int, execution: str = ""
    ) -> Answer:
        """Settled calls, newest first."""
        before_ms, before_id = before or (END_OF_TIME_MS, LAST_ID)
        parameters = {
            "before_ms": before_ms,
            "before_id": before_id,
            "limit": limit,
            "execution": execution,
        }
        return await self._asked(tenant, statement("usage_page"), parameters)

    async def execution_events(
        self,
        tenant: str,
        execution: str,
        after: tuple[str, int, int] = ("", 0, -1),
        limit: int = EVENTS_MAX,
    ) -> Sequence[StandingEvent]:
        """An execution's standing events after a place, in log order per partition."""
        parameters = {
            "tenant": tenant,
            "execution": execution,
            "after_topic": after[0],
            "after_partition": after[1],
            "after_offset": after[2],
            "limit": limit,
        }
        answer = await self._owner.query(statement("execution_events"), parameters)
        return [event_of(record) for record in answer.records()]

    async def open_events(self) -> Sequence[StandingEvent]:
        """The standing events of every execution that has not ended."""
        answer = await self._owner.query(statement("open_events"), {"limit": EVENTS_MAX})
        return [event_of(record) for record in answer.records()]

    async def execution_of_approval(self, tenant: str, approval: str) -> str:
        """The execution that asked a question, empty if none did."""
        parameters = {"tenant": tenant, "approval": approval}
        answer = await self._owner.query(statement("execution_of_approval"), parameters)
        return str(answer.rows[0][0]) if answer.rows else ""

    async def executions_page(
        self,
        tenant: str,
        before: tuple[int, str] | None,
        limit: int,
        status: str = "",
        workflow: str = "",
        label: tuple[str, str] | None = None,
    ) -> list[dict[str, object]]:
        """Executions, newest first, as the fold of their changes."""
        before_ms, before_id = before or (END_OF_TIME_MS, LAST_ID)
        parameters = {
            "tenant": tenant,
            "before_ms": before_ms,
            "before_id": before_id,
            "limit": limit,
            "status": status,
            "workflow": workflow,
            "label": label[0] if label else "",
            "label_value": label[1] if label else "",
        }
        return (await self._owner.query(statement("executions_page"), parameters)).records()

    async def ledger_positions(self) -> dict[PartitionKey, tuple[int, int]]:
        """The last offset of each partition whose rows stand, and the highest claim up to it."""
        answer = await self._owner.query(statement("ledger_positions"))
        return {
            (str(topic), int(str(partition))): (int(str(last)), int(str(claim)))
            for topic, partition, last, claim in answer.rows
        }

    async def _asked(self, tenant: str, text: str, parameters: Mapping[str, object]) -> Answer:
        try:
            return await self._client(tenant).query(text, parameters, SQL_LIMITS)
        except ClickHouseError as error:
            if error.code in UNAVAILABLE_CODES:
                raise
            raise Rejected(_code_of(error), str(error), "query") from error

    def _client(self, tenant: str) -> AsyncClickHouse:
        if tenant not in self._tenants:
            endpoint = self._endpoint_of_tenant(tenant)
            if endpoint is None:
                raise Rejected("no_store_user", "this tenant has no user in the store", "tenant")
            self._tenants[tenant] = AsyncClickHouse(endpoint, SQL_BYTES_MAX, SQL_SECONDS_MAX * 2.0)
        return self._tenants[tenant]


@cache
def statement(name: str) -> str:
    """The text of one query file."""
    return (STATEMENTS_DIR / f"{name}.sql").read_text("utf-8")


def event_of(record: Mapping[str, object]) -> StandingEvent:
    """The message that a row of `events` was made from."""
    name = _FULL_NAMES[str(record["type"])]
    payload = orjson.loads(str(record["payload"]))
    fields = {key: _revived(value) for key, value in payload.items()}
    frame = {
        "event_id": record["event_id"],
        "tenant": record["tenant"],
        "execution_id": record["execution"],
        "epoch": record["epoch"],
        "at_ms": record["at_ms"],
    }
    return StandingEvent(
        topic=str(record["kafka_topic"]),
        partition=int(str(record["kafka_partition"])),
        offset=int(str(record["kafka_offset"])),
        message=from_record(name, fields | frame),
        is_cut=bool(record["payload_is_cut"]),
    )


_FULL_NAMES: Final = {kind.__name__: name for name, kind in TYPES.items()}


def _revived(value: object) -> object:
    # No field of ours is an object, so this one stands for bytes (`projections.rows`).
    return bytes(int(value["bytes"])) if isinstance(value, dict) else value


def _code_of(error: ClickHouseError) -> str:
    if error.code in LIMIT_CODES:
        return "query_limit"
    return "query_denied" if error.code in DENIED_CODES else "query_refused"
