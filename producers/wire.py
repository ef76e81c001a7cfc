"""Messages as Kafka records: Avro in Confluent's wire format, CloudEvents headers, partition."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from io import BytesIO
from operator import attrgetter
from typing import NamedTuple, cast

import fastavro
from fastavro.types import Schema

import schemas
from producers import registry
from producers.flat import Encoder, encoder
from producers.subjects import topics_of
from schemas.log import SchemaLog
from schemas.model import parse
from streams.codec import TYPES, from_record, full_name
from streams.control.events import ApiKeyIssued, RecordDeadLettered, WorkflowRegistered
from streams.errors import Rejected
from streams.execution.events import OwnerClaimed, PartitionMarked
from streams.messages import Message
from streams.topics import MESSAGE_BYTES_MAX, Topic, partition_of, partitions

MAGIC = 0
PREFIX_BYTES = 5
"""The magic byte and the schema id, four bytes big-endian."""

Headers = list[tuple[str, bytes]]


class Record(NamedTuple):
    """What a producer is asked to append. A tuple: a frozen dataclass costs 1.5 us more, each."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class _Writer:
    """All that is known of a record type before its first message."""

    prefix: bytes
    encode: Encoder
    headers: Headers
    topics: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Reader:
    name: str
    writer_schema: Schema
    reader_schema: Schema | None
    """`None` if the writer's schema is ours: nothing to resolve."""


class Wire:
    """Encodes messages with our schemas and decodes what any version of us wrote."""

    def __init__(self, log: SchemaLog, refresh: Callable[[], SchemaLog] | None = None) -> None:
        """`refresh` reads the log again, for ids that were registered after `log` was read."""
        numbers = registry.ids(log)
        self._ours = {name: _parsed(schemas.compact(name)) for name in TYPES}
        self._writers = {
            kind: _writer(kind, numbers[name], encoder(json.loads(schemas.compact(name))))
            for name, kind in TYPES.items()
        }
        self._readers: dict[int, _Reader] = {}
        self._texts = dict(log.texts)
        self._refresh = refresh
        self._unknown: set[int] = set()

    @staticmethod
    def load(bootstrap: str) -> Wire:
        """A wire with the ids in `_schemas`. LookupError if our schemas are not registered."""
        return Wire(registry.read(bootstrap), lambda: registry.read(bootstrap))

    def encode(
        self,
        message: Message,
        topic: Topic,
        partition: int | None = None,
        traceparent: str | None = None,
    ) -> Record:
        """The record of a message; `partition` only for records that describe a partition.

        ValueError if the message breaks its schema or has no place there, Rejected if too large.
        """
        writer = self._writers[type(message)]
        if topic.name not in writer.topics:
            raise ValueError(f"{full_name(type(message))} has no place on {topic.name}")
        key = key_of(message, topic)
        value = _value(message, writer)  # First: it proves that the fields are what they should be.
        headers = _headers(message, writer, key)
        if traceparent is not None:
            headers.append(("traceparent", traceparent.encode()))
        return Record(
            topic=topic.name,
            partition=_partition(message, topic, key, partition),
            key=key.encode(),
            value=value,
            headers=headers,
        )

    def decode(self, value: bytes | None) -> Message:
        """The message in a record's value. ValueError on anything unreadable."""
        if value is None or len(value) < PREFIX_BYTES or value[0] != MAGIC:
            raise ValueError("not in the wire format: no magic byte and schema id")
        number = int.from_bytes(value[1:PREFIX_BYTES], "big")
        reader = self._readers.get(number) or self._reader(number)
        body = BytesIO(value)
        body.seek(PREFIX_BYTES)
        try:
            fields = fastavro.schemaless_reader(body, reader.writer_schema, reader.reader_schema)
        except Exception as error:  # fastavro raises a dozen types on foreign bytes.
            raise ValueError(f"{reader.name}: unreadable: {error!r}") from error
        if body.tell() != len(value):
            raise ValueError(f"{reader.name}: {len(value) - body.tell()} bytes too many")
        return from_record(reader.name, cast(dict[str, object], fields))

    def _reader(self, number: int) -> _Reader:
        """How to read records of this schema id, looked up once."""
        text = self._texts.get(number) or self._text_since_registered(number)
        name = parse(text).name
        if name not in self._ours:
            raise ValueError(f"schema id {number} is {name or text[:80]}, no record type of ours")
        is_ours = text == schemas.compact(name)
        parsed = self._ours[name] if is_ours else _parsed(text)
        reader = _Reader(name, parsed, None if is_ours else self._ours[name])
        self._readers[number] = reader
        return reader

    def _text_since_registered(self, number: int) -> str:
        """The schema of an id unknown at start: a newer version of us may have added it."""
        is_plausible = max(self._texts) < number <= max(self._texts) + NEW_IDS_MAX
        if self._refresh is not None and is_plausible and number not in self._unknown:
            self._texts.update(self._refresh().texts)
            self._unknown.add(number)
        if number not in self._texts:
            raise ValueError(f"unknown schema id {number}")
        return self._texts[number]


NEW_IDS_MAX = 256
"""How far above the known ids one is looked up: foreign bytes must not keep us reading the log."""


def key_of(message: Message, topic: Topic) -> str:
    """The record key: everything that must stay in order shares it."""
    match message:
        case OwnerClaimed():
            return f"claim/{message.topic}/{message.partition}"
        case PartitionMarked():
            return f"mark/{message.topic}/{message.partition}"
        case WorkflowRegistered():
            return f"workflow/{message.tenant}/{message.name}"
        case ApiKeyIssued():
            return f"key/{message.tenant}/{message.key_id}"
        case RecordDeadLettered():
            return f"{message.topic}/{message.partition}/{message.offset}"
    return _KEYS[topic.key](message)


_KEYS: dict[str, Callable[[Message], str]] = {
    "execution": attrgetter("execution_id"),
    "call": attrgetter("call_id"),
    "tenant": attrgetter("tenant"),
}


def _partition(message: Message, topic: Topic, key: str, explicit: int | None) -> int:
    if isinstance(message, OwnerClaimed | PartitionMarked):
        if explicit is None or not 0 <= explicit < partitions(topic):
            raise ValueError(f"{type(message).__name__} needs the partition that it speaks of")
        return explicit
    if explicit is not None:
        raise ValueError(f"{type(message).__name__} goes where its key belongs")
    if not key:
        raise ValueError(f"{type(message).__name__} on {topic.name} without {topic.key} id")
    return partition_of(topic, key)


def _value(message: Message, writer: _Writer) -> bytes:
    try:
        value = writer.prefix + writer.encode(message)
    except (TypeError, KeyError, AttributeError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"{type(message).__name__} breaks its schema: {error}") from error
    if len(value) > MESSAGE_BYTES_MAX:
        raise Rejected(
            "record_too_large", f"{len(value)} bytes; a record holds {MESSAGE_BYTES_MAX}"
        )
    return value


def _headers(message: Message, writer: _Writer, key: str) -> Headers:
    """The CloudEvents attributes (Kafka protocol binding, binary mode) and ours."""
    second, millisecond = divmod(message.at_ms, 1000)
    return [
        *writer.headers,
        ("ce_id", message.event_id.encode()),
        ("ce_time", b"%b.%03dZ" % (_second(second), millisecond)),
        ("ce_subject", key.encode()),
        ("omium_tenant", message.tenant.encode()),
    ]


@lru_cache(maxsize=64)
def _second(second: int) -> bytes:
    """The time in RFC 3339, to the second. Cached: formatting costs 2 us, and records cluster."""
    try:
        return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"at_ms: {second} seconds is no time") from error


def _writer(kind: type[Message], number: int, encode: Encoder) -> _Writer:
    return _Writer(
        prefix=bytes([MAGIC]) + number.to_bytes(4, "big"),
        encode=encode,
        headers=[
            ("ce_specversion", b"1.0"),
            ("ce_type", full_name(kind).encode()),
            ("ce_source", f"/{kind.namespace.replace('.', '/')}".encode()),
        ],
        topics=frozenset(topic.name for topic in topics_of(kind)),
    )


def _parsed(text: str) -> Schema:
    return fastavro.parse_schema(json.loads(text))
