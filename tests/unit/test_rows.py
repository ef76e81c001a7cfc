"""The laws of `projections.rows`: an event's rows are a pure function of the event and its
place."""

from __future__ import annotations

import inspect
from dataclasses import replace

import orjson
import pytest

from projections import rows
from projections.changes import RULES, TIME_MS_MAX, TIME_MS_MIN
from projections.rows import PAYLOAD_BYTES_MAX, rows_of, void_row
from projections.tables import (
    COLUMNS,
    EVENTS,
    EVENTS_VOID,
    EXECUTION_CHANGES,
    USAGE,
    Place,
    pack,
    unpack,
)
from streams.execution import events as execution_events
from streams.execution.events import PartitionMarked
from streams.llm import events as llm_events
from streams.llm.events import LlmCallChunk
from streams.messages import Event, Message
from tests.support.projection import AT_MS, answered, claim, completed, queued, requested, step

PLACE = Place("omium.executions.v1", 2, 41)
NOT_PROJECTED = {PartitionMarked, LlmCallChunk}
"""They stand on topics that are not projected: snapshots, and chunks that live for an hour."""


def record_types(module: object) -> set[type[Message]]:
    """The concrete event types that a module declares."""
    return {
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Event) and "__dataclass_fields__" in vars(kind) and kind is not Event
    } - {Message}


def named(table: str, row: tuple[object, ...]) -> dict[str, object]:
    """A row by column name."""
    return dict(zip(COLUMNS[table], row, strict=True))


def only(event: Message, table: str, place: Place = PLACE) -> dict[str, object]:
    """The one row of an event in a table, by column name."""
    found = [row for name, row in rows_of(event, place) if name == table]
    assert len(found) == 1
    return named(table, found[0])


def test_every_event_type_of_the_core_has_a_rule() -> None:
    declared = record_types(execution_events) | record_types(llm_events)
    assert set(RULES) == declared - NOT_PROJECTED


def test_every_row_fits_its_table() -> None:
    for table, neutral in rows._NEUTRAL.items():
        assert len(neutral) == len(COLUMNS[table])
    assert len(void_row(claim(), 0, PLACE)) == len(COLUMNS[EVENTS_VOID])


def test_the_wide_row_of_a_finished_step_is_this() -> None:
    event = step("x1", 1, epoch=7)
    assert only(event, EVENTS) == {
        "tenant": "acme", "execution": "x1", "event_id": event.event_id, "type": "StepCompleted",
        "at_ms": AT_MS + 11, "epoch": 7, "workflow": "", "step": "s1", "step_key": "s1#0",
        "agent": "clerk",
        "attempt": 0, "ordinal": 1, "incarnation": 0, "call_id": "", "tool": "", "route": "",
        "provider": "",
        "model": "", "input_tokens": 0, "cached_tokens": 0, "output_tokens": 0,
        "reasoning_tokens": 0,
        "cost_microusd": 0, "duration_ms": 3, "error_class": "", "error_type": "",
        "error_message": "",
        "payload": '{"step":"s1","step_key":"s1#0","agent":"clerk","attempt":0,"ordinal":1,'
        '"incarnation":0,'
        '"output_json":"{\\"ok\\": true}","duration_ms":3,"record":{"bytes":6,"sha256":'
        '"ed8ca5365d0895fef60331aa9a08f80b0f5c8e4852109ea9c63bc8a705db6fe2"},"effects":["a","b"]}',
        "payload_is_cut": False,
        "kafka_topic": "omium.executions.v1", "kafka_partition": 2, "kafka_offset": 41,
    }  # fmt: skip


def test_a_settled_call_is_one_usage_row_with_the_columns_of_the_design() -> None:
    event = answered("x1", 0, epoch=3, cost_microusd=19)
    row = only(event, USAGE)
    assert row == {
        "tenant": "acme", "execution": "x1", "step": "s0", "agent": "clerk",
        "call_id": event.call_id,
        "provider": "triton", "model": "SmolLM2", "input_tokens": 11, "cached_tokens": 1,
        "output_tokens": 5,
        "reasoning_tokens": 0, "cost_microusd": 19, "price_book": "2026-11", "status": "settled",
        "route": "local", "event_id": event.event_id, "at_ms": AT_MS + 3,
        "kafka_topic": "omium.executions.v1", "kafka_partition": 2, "kafka_offset": 41,
    }  # fmt: skip


def test_a_call_outside_any_execution_changes_no_execution() -> None:
    event = replace(answered("x1", 0, epoch=3), execution_id="")
    assert EXECUTION_CHANGES not in [table for table, _ in rows_of(event, PLACE)]


def test_the_first_terminal_state_outranks_all_others() -> None:
    first = only(completed("x1", 0), EXECUTION_CHANGES, Place("t", 0, 10))["state"]
    later = only(completed("x1", 0), EXECUTION_CHANGES, Place("t", 0, 11))["state"]
    running = only(queued("x1", 0), EXECUTION_CHANGES, Place("t", 0, 10**15))["state"]
    assert max([running, later, first]) == first


def test_content_of_bytes_is_told_by_length_and_digest_only() -> None:
    event = replace(requested("x1", 0), request=b"secret words")
    payload = orjson.loads(str(only(event, EVENTS)["payload"]))
    assert payload["request"]["bytes"] == 12
    assert "secret" not in str(payload)


@pytest.mark.parametrize("letter", ["x", "\n", "é", "\x00"])
def test_a_payload_over_the_limit_is_cut_and_still_json(letter: str) -> None:
    event = replace(queued("x1", 0), input_json=letter * (2 * PAYLOAD_BYTES_MAX))
    row = only(event, EVENTS)
    assert row["payload_is_cut"] is True
    assert len(str(row["payload"]).encode()) <= PAYLOAD_BYTES_MAX
    assert orjson.loads(str(row["payload"]))["workflow"] == "loan"


def test_a_writer_with_a_broken_clock_scatters_no_partitions() -> None:
    assert only(replace(queued("x1", 0), at_ms=-5), EVENTS)["at_ms"] == TIME_MS_MIN
    assert only(replace(queued("x1", 0), at_ms=1 << 60), EVENTS)["at_ms"] == TIME_MS_MAX


def test_a_packed_row_is_the_row() -> None:
    for _, row in rows_of(answered("x1", 0, epoch=3), PLACE):
        assert unpack(pack(row)) == row
