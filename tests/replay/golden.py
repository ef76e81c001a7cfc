"""The bytes of every shape ever shipped: `python -m tests.replay.golden` appends new shapes'."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro

import schemas
from schemas.lock import Shape, shapes

RECORDS = Path(__file__).with_name("records.jsonl")
VALUES: dict[str, Any] = {
    "string": "Grüße, 世界 🚀",
    "long": -1_234_567_890_123,
    "boolean": True,
    "bytes": bytes(range(256)),
    '["null", "long"]': 2**62,
    '{"type": "array", "items": "string"}': ["", "a", "ß" * 70],
}
"""A value of each type that an encoder could get wrong."""


def locked() -> list[Shape]:
    """Every shape in the lock."""
    return shapes(schemas.LOCK.read_text("utf-8"))


def kept() -> dict[tuple[str, int], dict[str, Any]]:
    """The golden records by name and version."""
    lines = RECORDS.read_text("utf-8").split("\n") if RECORDS.is_file() else []
    return {
        (each["record"], each["version"]): each for each in map(json.loads, filter(None, lines))
    }


def record_of(shape: Shape) -> dict[str, Any]:
    """A record of the shape: its fields, and the bytes that fastavro makes of them."""
    schema = json.loads(shape.form)
    values = {each["name"]: _value(each["type"]) for each in schema["fields"]}
    body = BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), values)
    shown = {k: v.decode("latin-1") if isinstance(v, bytes) else v for k, v in values.items()}
    return {
        "record": shape.record,
        "version": shape.version,
        "body": body.getvalue().hex(),
        "fields": shown,
    }


def _value(kind: object) -> Any:
    return VALUES[kind if isinstance(kind, str) else json.dumps(kind)]


def append_missing() -> list[str]:
    """The names of shapes whose bytes were appended; what is there is never written again."""
    there = kept()
    new = [shape for shape in locked() if (shape.record, shape.version) not in there]
    with RECORDS.open("a", encoding="utf-8") as file:
        for shape in new:
            file.write(json.dumps(record_of(shape)) + "\n")
    return [f"{shape.record} v{shape.version}" for shape in new]


if __name__ == "__main__":
    print("\n".join(append_missing()) or "nothing appended")
