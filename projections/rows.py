"""From a standing event to its rows: pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from hashlib import sha256
from operator import attrgetter
from typing import Final

import orjson

from projections.changes import RULES, Fields, time_ms
from projections.tables import (
    COLUMNS,
    EVENTS,
    EXECUTION_CHANGES,
    LLM_CALL_CHANGES,
    PLACE,
    TOOL_CALL_CHANGES,
    USAGE,
    Place,
    Row,
    Value,
)
from streams.messages import Message

PAYLOAD_BYTES_MAX: Final = 256 * 1024


def rows_of(event: Message, place: Place) -> list[tuple[str, Row]]:
    """The event's own row, then the rows of what it changes."""
    rule = RULES[type(event)]
    rows = [(EVENTS, _wide(event, place))]
    for table, values in rule(event, place):
        rows.append((table, _row(table, event, place, values)))
    return rows


def void_row(event: Message, highest_claim: int, place: Place) -> Row:
    """The row of an event that never counts: its owner had been deposed by the claim at
    `highest_claim`."""
    payload, is_cut = _payload(event)
    return (
        event.tenant, event.execution_id, event.event_id, type(event).__name__, time_ms(event),
        event.epoch, highest_claim, payload, is_cut, *place.columns(),
    )  # fmt: skip


# The wide row: every column of `events` that the event has under the same or a known other name.
_COMMON: Final = frozenset(field.name for field in fields(Message))
_OTHER_NAMES: Final = {"duration_ms": "latency_ms"}
_NUMBERS: Final = frozenset(
    (
        "attempt", "ordinal", "incarnation", "input_tokens", "cached_tokens", "output_tokens",
        "reasoning_tokens", "cost_microusd", "duration_ms",
    )
)  # fmt: skip
_FACETS: Final = COLUMNS[EVENTS][6 : COLUMNS[EVENTS].index("payload")]


def _facets(kind: type[Message]) -> Callable[[Message], list[Value]]:
    """How to read the facet columns off events of this type, worked out once."""
    names = {field.name for field in fields(kind)}
    chosen = [column if column in names else _OTHER_NAMES.get(column, "") for column in _FACETS]
    empty: list[Value] = [0 if column in _NUMBERS else "" for column in _FACETS]
    present = [index for index, name in enumerate(chosen) if name in names]

    def read(event: Message) -> list[Value]:
        values = list(empty)
        for index in present:
            values[index] = getattr(event, chosen[index])
        return values

    return read


def _wide(event: Message, place: Place) -> Row:
    kind = type(event)
    payload, is_cut = _payload(event)
    return (
        event.tenant, event.execution_id, event.event_id, kind.__name__, time_ms(event),
        event.epoch,
        *_FACETS_OF[kind](event), payload, is_cut, *place.columns(),
    )  # fmt: skip


def _payload(event: Message) -> tuple[str, bool]:
    """The event's own fields as JSON, bounded. Bytes are told by length and digest: their content
    stays on the log."""
    names, values = _OWN_FIELDS[type(event)]
    document = dict(zip(names, values(event), strict=True))
    text = orjson.dumps(document, default=_digest)
    if len(text) <= PAYLOAD_BYTES_MAX:
        return text.decode(), False
    return _cut(document), True


def _cut(document: dict[str, object]) -> str:
    """The document as JSON with its long texts cut, ever shorter until it fits: bounded, and still
    JSON."""
    chars_max = PAYLOAD_BYTES_MAX // 4
    while True:
        short = {name: _shortened(value, chars_max) for name, value in document.items()}
        text = orjson.dumps(short, default=_digest)
        if len(text) <= PAYLOAD_BYTES_MAX or chars_max == 0:
            return text.decode()
        chars_max //= 2


def _shortened(value: object, chars_max: int) -> object:
    match value:
        case str():
            return value[:chars_max]
        case tuple():
            return value[: chars_max // 64]
        case _:
            return value


def _digest(value: object) -> dict[str, object]:
    if not isinstance(value, bytes):
        raise TypeError(f"no JSON for {type(value).__name__}")
    return {"bytes": len(value), "sha256": sha256(value).hexdigest()}


def _own_fields(
    kind: type[Message],
) -> tuple[tuple[str, ...], Callable[[Message], tuple[object, ...]]]:
    names = tuple(field.name for field in fields(kind) if field.name not in _COMMON)
    if len(names) == 1:
        read_one = attrgetter(names[0])
        return names, lambda event: (read_one(event),)
    return names, attrgetter(*names)


# The change rows: a rule names what it knows, everything else is the neutral element of the
# column's fold.
_NEUTRAL: Final[Mapping[str, Row]] = {
    EXECUTION_CHANGES: (
        "", "", 0, (0, ""), (0, ""), "", "", "", "", "", "", 0, None, 0, 0, 0, "", "", "", "",
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "", 0, 0,
    ),
    LLM_CALL_CHANGES: (
        "", "", "", 0, (0, ""), "", "", "", "", 0, 0, 0, (0, ""), (0, ""), (0, ""), 0,
        0, 0, 0, 0, 0, "", 0, 0, "", "", 0, "", 0, 0,
    ),
    TOOL_CALL_CHANGES: (
        "", "", "", 0, (0, ""), "", "", "", "", "", "", "", "", "", "", 0, 0, 0, 0, "", 0, 0,
    ),
    USAGE: ("", "", "", "", "", "", "", 0, 0, 0, 0, 0, "", "", "", "", 0, "", 0, 0),
}  # fmt: skip
_INDEX: Final = {
    table: {column: index for index, column in enumerate(columns)}
    for table, columns in COLUMNS.items()
}


def _row(table: str, event: Message, place: Place, values: Fields) -> Row:
    index = _INDEX[table]
    row: list[Value] = list(_NEUTRAL[table])
    row[0], row[1], row[index["at_ms"]] = event.tenant, event.execution_id, time_ms(event)
    row[-len(PLACE) :] = place.columns()
    for column, value in values.items():
        row[index[column]] = value
    return tuple(row)


_FACETS_OF: Final = {kind: _facets(kind) for kind in RULES}
_OWN_FIELDS: Final = {kind: _own_fields(kind) for kind in RULES}
