"""Every record type survives the wire: plain Avro, Confluent framing, CloudEvents headers."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from io import BytesIO
from typing import Any, get_type_hints

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schemas
from producers import registry
from producers.dlq import LETTER_BYTES_MAX, dead_letter
from producers.flat import encoder
from producers.subjects import subjects, topics_of
from producers.wire import Wire, key_of
from schemas.log import SchemaLog
from streams import topics
from streams.codec import TYPES, from_record, full_name, to_record
from streams.control.events import ApiKeyIssued, WorkflowRegistered
from streams.errors import Rejected
from streams.execution.events import ExecutionPaused, OwnerClaimed, PartitionMarked
from streams.llm.events import LlmCallRouted
from streams.messages import Message
from streams.topics import MESSAGE_BYTES_MAX, partition_of

LONGS = st.integers(-(2**63), 2**63 - 1)
BY_TYPE: dict[object, st.SearchStrategy[Any]] = {
    int: LONGS,
    str: st.text(max_size=20),
    bytes: st.binary(max_size=20),
    bool: st.booleans(),
    int | None: st.none() | LONGS,
    tuple[str, ...]: st.lists(st.text(max_size=5), max_size=3).map(tuple),
}
NAMES = sorted(TYPES)


def registered() -> SchemaLog:
    """The log of a registry that holds exactly our schemas."""
    log = SchemaLog()
    for key, value in registry.missing(log):
        log.apply(key, value)
    return log


LOG = registered()
WIRE = Wire(LOG)
IDS = registry.ids(LOG)
SCHEMAS = {name: json.loads(text) for name, text in schemas.sources().items()}
PARSED = {name: fastavro.parse_schema(schema) for name, schema in SCHEMAS.items()}
ENCODERS = {name: encoder(schema) for name, schema in SCHEMAS.items()}


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message of any type, with any values its fields may hold."""
    kind = TYPES[draw(st.sampled_from(NAMES))]
    hints = get_type_hints(kind)
    values = {each.name: draw(BY_TYPE[hints[each.name]]) for each in fields(kind)}
    return kind(**{**values, "at_ms": draw(st.integers(0, 4_000_000_000_000))})


def paused(**more: Any) -> ExecutionPaused:
    common = {"event_id": "e-1", "tenant": "acme", "execution_id": "x-1", "reason": "user"}
    return ExecutionPaused(**{**common, **more})


@settings(deadline=None)
@given(messages())
def test_a_message_survives_the_codec(message: Message) -> None:
    record = to_record(message)
    assert record == asdict(message)
    assert from_record(full_name(type(message)), record) == message


@settings(max_examples=300, deadline=None)
@given(messages())
def test_a_message_survives_the_wire_and_reads_as_plain_avro(message: Message) -> None:
    name = full_name(type(message))
    reference = BytesIO()
    fastavro.schemaless_writer(reference, PARSED[name], asdict(message))

    body = ENCODERS[name](message)

    assert body == reference.getvalue()
    assert WIRE.decode(b"\x00" + IDS[name].to_bytes(4, "big") + body) == message


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_foreign_bytes_are_a_value_error(data: bytes, number: int) -> None:
    for value in (data, b"\x00" + number.to_bytes(4, "big") + data):
        try:
            WIRE.decode(value)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "value", [None, b"", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x01", b"{}" * 9]
)
def test_what_is_not_framed_is_refused(value: bytes | None) -> None:
    with pytest.raises(ValueError, match="wire format"):
        WIRE.decode(value)


def test_every_cut_and_every_extra_byte_is_refused() -> None:
    value = WIRE.encode(paused(), topics.EXECUTIONS).value
    for length in range(5, len(value)):
        with pytest.raises(ValueError, match="ExecutionPaused"):
            WIRE.decode(value[:length])
    with pytest.raises(ValueError, match="1 bytes too many"):
        WIRE.decode(value + b"\x00")


def test_an_unknown_id_is_looked_up_once_and_then_refused() -> None:
    reads: list[None] = []

    def refresh() -> SchemaLog:
        reads.append(None)
        return registered()

    wire = Wire(registered(), refresh)
    next_id = registered().id_max + 1
    for number in (next_id, next_id, 10_000_000, next_id):
        with pytest.raises(ValueError, match="unknown schema id"):
            wire.decode(b"\x00" + number.to_bytes(4, "big") + b"xyz")
    assert len(reads) == 1


def test_a_record_of_an_older_schema_is_read_with_defaults() -> None:
    """The writer knew no `at_ms` and no `epoch`, and had a field that is gone."""
    old = json.loads(schemas.sources()["omium.execution.ExecutionPaused"])
    old["fields"] = [f for f in old["fields"] if f["name"] not in ("at_ms", "epoch")]
    old["fields"].append({"name": "gone", "type": "string", "default": ""})
    log = registered()
    log.texts[999] = json.dumps(old)
    body = BytesIO()
    values = {"event_id": "e-1", "tenant": "acme", "execution_id": "x-1", "reason": "user"}
    fastavro.schemaless_writer(body, fastavro.parse_schema(old), {**values, "gone": "x"})

    assert Wire(log).decode(b"\x00" + (999).to_bytes(4, "big") + body.getvalue()) == paused()


def test_headers_are_a_cloud_event() -> None:
    message = paused(at_ms=1_790_000_000_007)
    record = WIRE.encode(message, topics.EXECUTIONS, traceparent="00-ab-cd-01")
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"e-1",
        "ce_type": b"omium.execution.ExecutionPaused",
        "ce_source": b"/omium/execution",
        "ce_time": b"2026-09-21T14:13:20.007Z",
        "ce_subject": b"x-1",
        "omium_tenant": b"acme",
        "traceparent": b"00-ab-cd-01",
    }
    assert "traceparent" not in dict(WIRE.encode(message, topics.EXECUTIONS).headers)


def test_the_execution_decides_the_partition() -> None:
    record = WIRE.encode(paused(), topics.EXECUTIONS)
    assert (record.topic, record.key) == ("omium.executions.v1", b"x-1")
    assert record.partition == partition_of(topics.EXECUTIONS, "x-1")


def test_keys_follow_the_catalogue() -> None:
    common = {"event_id": "e", "tenant": "acme", "execution_id": "x-1"}
    call = LlmCallRouted(**common, call_id="c-1", route="local", provider="triton", model="m",
                         reason="", try_number=1)  # fmt: skip
    workflow = WorkflowRegistered(**common, name="loan", version="v", framework="langgraph",
                                  entrypoint="a:b", definition_json="")  # fmt: skip
    api_key = ApiKeyIssued(**common, key_id="k", key_sha256="", scopes=(), is_revoked=False)
    assert key_of(call, topics.LLM_RESPONSES) == "c-1"
    assert key_of(workflow, topics.CONTROL) == "workflow/acme/loan"
    assert key_of(api_key, topics.CONTROL) == "key/acme/k"


def test_claims_and_marks_go_where_they_are_told() -> None:
    common = {"event_id": "e", "tenant": "", "execution_id": ""}
    claim = OwnerClaimed(**common, worker_id="w", generation=1, topic="t", partition=3)
    mark = PartitionMarked(**common, topic="omium.executions.v1", partition=2, position=0,
                           highest_claim=-1, command_offset=-1)  # fmt: skip
    assert WIRE.encode(claim, topics.EXECUTIONS, partition=3).partition == 3
    assert WIRE.encode(mark, topics.SNAPSHOTS, partition=2).key == b"mark/omium.executions.v1/2"
    for wrong in (None, 99, -1):
        with pytest.raises(ValueError, match="needs the partition"):
            WIRE.encode(claim, topics.EXECUTIONS, partition=wrong)
    with pytest.raises(ValueError, match="where its key belongs"):
        WIRE.encode(paused(), topics.EXECUTIONS, partition=1)


@pytest.mark.parametrize(
    "broken",
    [
        {"reason": None},
        {"reason": b"bytes"},
        {"at_ms": "soon"},
        {"at_ms": 1.5},
        {"epoch": 2**63},
        {"epoch": 10**9 + 0.5},
        {"reason": "\ud800"},
    ],
)
def test_a_message_that_breaks_its_schema_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ExecutionPaused"):
        WIRE.encode(paused(**broken), topics.EXECUTIONS)


@pytest.mark.parametrize("at_ms", [2**62, -(2**62)])
def test_a_time_beyond_the_calendar_is_refused(at_ms: int) -> None:
    with pytest.raises(ValueError, match="at_ms"):
        WIRE.encode(paused(at_ms=at_ms), topics.EXECUTIONS)


def test_a_message_without_place_or_key_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        WIRE.encode(paused(), topics.USAGE)
    with pytest.raises(ValueError, match="without execution id"):
        WIRE.encode(paused(execution_id=""), topics.EXECUTIONS)


def test_a_record_is_bounded() -> None:
    WIRE.encode(paused(reason="x" * (MESSAGE_BYTES_MAX - 200)), topics.EXECUTIONS)
    with pytest.raises(Rejected) as refused:
        WIRE.encode(paused(reason="x" * MESSAGE_BYTES_MAX), topics.EXECUTIONS)
    assert refused.value.code == "record_too_large"


def test_a_record_with_a_foreign_field_is_refused() -> None:
    record = to_record(paused())
    name = "omium.execution.ExecutionPaused"
    for broken in ({**record, "x": 1}, {k: record[k] for k in list(record)[1:]}, {}):
        with pytest.raises(ValueError, match="ExecutionPaused"):
            from_record(name, broken)
    with pytest.raises(ValueError, match="unknown record type"):
        from_record("omium.execution.Nothing", record)


def test_every_type_has_a_topic_a_key_and_a_subject() -> None:
    named = {name for _, name in subjects()}
    assert named == {*TYPES}
    for kind in TYPES.values():
        for topic in topics_of(kind):
            values = {each.name: "x" for each in fields(kind)}
            assert key_of(kind(**values), topic)  # type: ignore[arg-type]  # Only keys matter.


def test_ids_are_given_by_position_and_never_twice() -> None:
    log = registered()
    assert registry.ids(log) == registry.ids(registered())
    assert sorted(log.texts) == list(range(1, len(TYPES) + 1))
    assert registry.missing(log) == []
    claims = [v.id for v in log.versions.values() if v.subject.endswith("OwnerClaimed")]
    assert len(claims) > 1 and len(set(claims)) == 1


def letter_of(content: bytes | None, processor: str = "execution", at_ms: int = 5) -> Any:
    return dead_letter(
        topic="omium.commands.v1",
        partition=2,
        offset=7,
        key=content,
        value=content,
        reason="unreadable \ud800 " * 1000,
        processor=processor,
        at_ms=at_ms,
    )


def test_a_dead_letter_says_where_and_why_and_fits_into_a_record() -> None:
    letter = letter_of(b"x" * (3 * LETTER_BYTES_MAX))

    record = WIRE.encode(letter, topics.DLQ)

    assert (letter.topic, letter.partition, letter.offset) == ("omium.commands.v1", 2, 7)
    assert letter.reason.startswith("unreadable")
    assert record.key == b"omium.commands.v1/2/7"
    assert len(record.value) < MESSAGE_BYTES_MAX
    assert WIRE.decode(record.value) == letter


def test_a_record_met_again_gives_the_same_dead_letter() -> None:
    assert letter_of(b"x").event_id == letter_of(None, at_ms=9).event_id
    assert letter_of(b"x").event_id != letter_of(b"x", processor="routing").event_id
