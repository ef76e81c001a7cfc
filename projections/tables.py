"""The tables that rows go to, their columns in insert order, and what a tenant may read."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import orjson

Value = str | int | bool | tuple[int, str] | None
Row = tuple[Value, ...]
PackedRow = bytes
"""A row as the JSON array that ClickHouse takes. Rows are packed one by one as they are made: a
batch of tuples held until the insert costs the garbage collector and the page tables more than the
packing (measured: 20 us a record)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands on the log."""

    topic: str
    partition: int
    offset: int

    def columns(self) -> Row:
        """The last three columns of every row."""
        return (self.topic, self.partition, self.offset)


def pack(row: Row) -> PackedRow:
    """The row on its way to the store."""
    return orjson.dumps(row)


def unpack(packed: PackedRow) -> Row:
    """The row again; its pairs are tuples."""
    values = orjson.loads(packed)
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


EVENTS: Final = "events"
EVENTS_VOID: Final = "events_void"
EXECUTION_CHANGES: Final = "execution_changes"
LLM_CALL_CHANGES: Final = "llm_call_changes"
TOOL_CALL_CHANGES: Final = "tool_call_changes"
USAGE: Final = "usage"

PLACE: Final = ("kafka_topic", "kafka_partition", "kafka_offset")
"""Where on the log a row comes from; the last three columns of every table."""

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    EVENTS: (
        "tenant", "execution", "event_id", "type", "at_ms", "epoch", "workflow", "step", "step_key",
        "agent", "attempt", "ordinal", "incarnation", "call_id", "tool", "route", "provider",
        "model", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
        "cost_microusd", "duration_ms", "error_class", "error_type", "error_message", "payload",
        "payload_is_cut", *PLACE,
    ),
    EVENTS_VOID: (
        "tenant", "execution", "event_id", "type", "at_ms", "epoch", "highest_claim", "payload",
        "payload_is_cut", *PLACE,
    ),
    EXECUTION_CHANGES: (
        "tenant", "execution", "at_ms", "state", "last_step", "workflow", "workflow_version",
        "framework", "labels_json", "input_json", "output_json", "queued_at_ms", "started_at_ms",
        "finished_at_ms", "deadline_at_ms", "incarnation", "error_class", "error_type",
        "error_message", "error_step", "steps", "steps_failed", "tool_calls", "llm_calls",
        "approvals", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
        "cost_microusd", *PLACE,
    ),
    LLM_CALL_CHANGES: (
        "tenant", "execution", "call_id", "at_ms", "state", "step", "agent", "api",
        "model_requested", "is_stream", "requested_at_ms", "finished_at_ms", "route", "provider",
        "model", "tries", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
        "cost_microusd", "usage_status", "first_token_ms", "latency_ms", "error_class",
        "error_message", "http_status", *PLACE,
    ),
    TOOL_CALL_CHANGES: (
        "tenant", "execution", "call_id", "at_ms", "state", "step", "step_key", "agent", "tool",
        "policy", "arguments_json", "result_json", "resolution", "error_type", "error_message",
        "intended_at_ms", "finished_at_ms", "intents", "duration_ms", *PLACE,
    ),
    USAGE: (
        "tenant", "execution", "step", "agent", "call_id", "provider", "model", "input_tokens",
        "cached_tokens", "output_tokens", "reasoning_tokens", "cost_microusd", "price_book",
        "status", "route", "event_id", "at_ms", *PLACE,
    ),
}  # fmt: skip
"""Every table the sink inserts into. The order of tables is the order of inserts: money last, after
what explains it."""

VIEWS: Final = ("executions", "llm_calls", "tool_calls", "costs_daily")
"""Answers folded from the tables above; they run with the rights, and so the row filters, of
whoever asks."""

TABLES: Final[tuple[str, ...]] = (*COLUMNS, *VIEWS)
"""All that a tenant's own user may read, filtered by `tenant`. The ledger is not among them."""

LEDGER: Final = ("batches", "batches_done")

MIGRATIONS_DIR: Final = Path(__file__).parent / "migrations"
STATEMENT_END: Final = ";\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered file of statements; its checksum tells when somebody edits what was already
    applied."""

    number: int
    name: str
    sha256: str
    statements: tuple[str, ...]


def migrations() -> tuple[Migration, ...]:
    """All migrations in order. They name no database: the one they are applied to is the
    caller's."""
    return tuple(_migration(path) for path in sorted(MIGRATIONS_DIR.glob("[0-9]*.sql")))


def _migration(path: Path) -> Migration:
    text = path.read_text("utf-8")
    number, _, name = path.stem.partition("_")
    parts = (part.strip() for part in text.split(STATEMENT_END))
    return Migration(
        number=int(number),
        name=name,
        sha256=sha256(text.encode()).hexdigest(),
        statements=tuple(part for part in parts if part),
    )
