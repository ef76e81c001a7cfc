"""What was ever written can be read: bytes of every shape ever shipped, decoded by today's code."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from producers import registry
from producers.subjects import topics_of
from producers.wire import Wire
from schemas.log import SchemaLog
from streams.codec import TYPES, to_record
from tests.replay.golden import kept, locked

GOLDEN = kept()
FIRST_ID = 1_000


def wire() -> Wire:
    """A wire on a log that holds every shape in the lock, as a customer's log does."""
    log = SchemaLog()
    for number, shape in enumerate(locked(), FIRST_ID):
        log.texts[number] = shape.form
    for key, value in registry.missing(log):
        log.apply(key, value)
    return Wire(log)


WIRE = wire()
SHAPES = list(enumerate(locked(), FIRST_ID))


def test_every_shape_in_the_lock_has_golden_bytes() -> None:
    """A new shape: run `python -m tests.replay.golden` and commit what it appends."""
    assert [*GOLDEN] == [(shape.record, shape.version) for _, shape in SHAPES]


@pytest.mark.parametrize(
    ("number", "record", "version"),
    [(number, shape.record, shape.version) for number, shape in SHAPES],
    ids=[f"{shape.record}-{shape.version}" for _, shape in SHAPES],
)
def test_golden_bytes_are_read(number: int, record: str, version: int) -> None:
    golden = GOLDEN[record, version]
    value = b"\x00" + number.to_bytes(4, "big") + bytes.fromhex(golden["body"])

    message = WIRE.decode(value)

    assert type(message) is TYPES[record]
    names = {each.name for each in fields(message)}
    read: dict[str, Any] = {k: _shown(v) for k, v in to_record(message).items()}
    assert {k: v for k, v in read.items() if k in golden["fields"]} == {
        k: v for k, v in golden["fields"].items() if k in names
    }


@pytest.mark.parametrize("record", sorted(TYPES))
def test_todays_writer_still_makes_the_newest_golden_bytes(record: str) -> None:
    """Byte for byte: readers in other languages rely on the format, not on our decoder."""
    version = max(version for name, version in GOLDEN if name == record)
    golden = GOLDEN[record, version]
    number = next(n for n, s in SHAPES if (s.record, s.version) == (record, version))
    message = WIRE.decode(b"\x00" + number.to_bytes(4, "big") + bytes.fromhex(golden["body"]))
    topic = topics_of(type(message))[0]
    is_placed = record.startswith("omium.ownership.")

    written = WIRE.encode(message, topic, partition=0 if is_placed else None)

    assert written.value[5:].hex() == golden["body"]


def _shown(value: object) -> object:
    match value:
        case bytes():
            return value.decode("latin-1")
        case tuple():
            return [*value]
    return value
