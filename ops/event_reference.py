"""`docs/events.md`: the reference of every record, written from the schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import schemas
from producers.subjects import compatibility, topics_of
from streams.codec import TYPES
from streams.messages import Command, Message
from streams.topics import CATALOGUE, DAY_MS, Topic, partitions

COMMON = ("event_id", "tenant", "execution_id", "epoch", "at_ms")

INTRODUCTION = """# Records on the log

Written by `omiumctl schemas docs` from `schemas/avro/` and `streams/topics.py`; do not edit.

Every value is Avro in Confluent's wire format: a zero byte, the schema id in four bytes, the
record. Subjects follow `TopicRecordNameStrategy` (`<topic>-<record>`), so any Confluent client can
read a topic with the registry's URL. Headers are CloudEvents 1.0 in Kafka's binary mode
(`ce_specversion ce_id ce_type ce_source ce_time ce_subject`), with `omium_tenant` and, where a
trace is followed, `traceparent`.

A reader of a *claimed* topic drops void records first (those whose `epoch` is below the highest
offset of an `OwnerClaimed` before them) and repeated ones (equal `event_id`) second.
"""


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *_topics(), *_common()]
    aggregates = sorted({kind.namespace for kind in TYPES.values()})
    for namespace in aggregates:
        parts.append(f"## {namespace}\n")
        for name in sorted(TYPES):
            if TYPES[name].namespace == namespace:
                parts += _record(TYPES[name], json.loads(schemas.sources()[name]))
    return "\n".join(parts).rstrip() + "\n"


def _topics() -> Iterator[str]:
    yield "## Topics\n"
    yield "| topic | key | partitions | kept | claimed | records |\n|---|---|---|---|---|---|"
    for topic in CATALOGUE:
        records = sorted(k.__name__ for k in TYPES.values() if topic in topics_of(k))
        claimed = "yes" if topic.is_claimed else ""
        names = " ".join(f"[{name}](#{name.lower()})" for name in records) or "-"
        yield (
            f"| `{topic.name}` | {topic.key} | {partitions(topic)} | {kept(topic)} "
            f"| {claimed} | {names} |"
        )
    yield ""


def kept(topic: Topic) -> str:
    """How long the topic keeps its records, for people."""
    if topic.is_compacted:
        return "newest of each key"
    if topic.retention_ms < 0:
        return "for ever"
    hours = topic.retention_ms * 24 // DAY_MS
    return f"{hours // 24} days" if hours % 24 == 0 else f"{hours} h"


def _common() -> Iterator[str]:
    schema = json.loads(next(iter(schemas.sources().values())))
    yield "## Fields of every record\n"
    yield from _table(field for field in schema["fields"] if field["name"] in COMMON)


def _record(kind: type[Message], schema: Mapping[str, Any]) -> Iterator[str]:
    places = ", ".join(f"`{topic.name}`" for topic in topics_of(kind))
    what = "command" if issubclass(kind, Command) else "event"
    level = compatibility(kind)
    yield f"### {schema['name']}\n"
    yield f"{schema['doc']}\n"
    yield f"*{what} on {places}; {level}*\n"
    own = [field for field in schema["fields"] if field["name"] not in COMMON]
    if own:
        yield from _table(own)


def _table(fields: Any) -> Iterator[str]:
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    for field in fields:
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        doc = field["doc"].replace("|", "\\|")
        yield f"| `{field['name']}` | {_type(field['type'])} | {default} | {doc} |"
    yield ""


def _type(kind: Any) -> str:
    match kind:
        case str():
            return kind
        case list():
            return " or ".join(_type(branch) for branch in kind)
    return f"array of {_type(kind['items'])}"
