"""Everything that must be true of the schemas before they ship."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_type_hints

import schemas
from producers.subjects import compatibility
from schemas import lock
from schemas.model import InvalidSchema, parse
from streams.codec import TYPES
from streams.messages import Message

ROOT = Path(schemas.__file__).parent.parent
LOCK_PATH = Path("schemas/fingerprints.lock")
GIT_TIMEOUT_S = 30

AVRO_TYPES: Mapping[object, object] = {
    int: "long",
    str: "string",
    bytes: "bytes",
    bool: "boolean",
    int | None: ["null", "long"],
    tuple[str, ...]: {"type": "array", "items": "string"},
}
"""The Avro type of each type that a message's field may have."""


def problems(lock_text: str) -> list[str]:
    """One sentence for everything wrong with the schemas; empty if they may ship."""
    try:
        sources = schemas.sources()
    except (ValueError, KeyError, TypeError) as error:
        return [f"schemas/avro: {error}"]
    unreadable = [*_unreadable(sources)]
    if unreadable:
        return unreadable
    levels = {name: compatibility(kind) for name, kind in TYPES.items()}
    try:
        found = lock.broken_rules(lock_text, sources, levels)
        new = lock.unlocked(lock_text, sources)
    except ValueError as error:
        found, new = [str(error)], []
    found += [
        f"{shape.record}: version {shape.version} is not in {LOCK_PATH}; "
        "if the change is meant, run `omiumctl schemas lock` and commit the file"
        for shape in new
    ]
    return [*found, *_undocumented(sources), *_disagreements(sources)]


def _unreadable(sources: Mapping[str, str]) -> Iterator[str]:
    for name, text in sources.items():
        try:
            parse(text)
        except InvalidSchema as error:
            yield f"{name}: {error}"


def _undocumented(sources: Mapping[str, str]) -> Iterator[str]:
    for name, text in sources.items():
        record = json.loads(text)
        if not record.get("doc"):
            yield f"{name}: has no doc"
        for field in record["fields"]:
            if not field.get("doc"):
                yield f"{name}.{field['name']}: has no doc"


def _disagreements(sources: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*sources} - {*TYPES}):
        yield f"{name}: no class of this name in streams/"
    for name, kind in TYPES.items():
        if name not in sources:
            aggregate = kind.namespace.rpartition(".")[2]
            yield f"{name}: no schemas/avro/{aggregate}/{kind.__name__}.avsc"
        else:
            yield from disagreements(kind, json.loads(sources[name]))


def disagreements(kind: type[Message], schema: Mapping[str, Any]) -> Iterator[str]:
    """Where a record's class and its schema differ: fields, order, types, defaults."""
    hints, declared = get_type_hints(kind), {each["name"]: each for each in schema["fields"]}
    ours = [each.name for each in fields(kind)]
    if ours != [*declared]:
        yield f"{kind.__name__}: the class has the fields {ours}, the schema {[*declared]}"
    for each in fields(kind):
        if each.name in declared:
            field = declared[each.name]
            if AVRO_TYPES.get(hints[each.name]) != field["type"]:
                yield f"{kind.__name__}.{each.name}: {each.type} became {field['type']}"
            if not _has_same_default(each, hints[each.name], field):
                yield f"{kind.__name__}.{each.name}: class and schema have different defaults"


def _has_same_default(each: Field[Any], hint: object, declared: Mapping[str, Any]) -> bool:
    """A field without default in the class has none in the schema, but for `None`."""
    if each.default is not MISSING:
        wanted = [*each.default] if isinstance(each.default, tuple) else each.default
        return "default" in declared and bool(declared["default"] == wanted)
    return ("default" in declared) is (hint == int | None) and declared.get("default") is None


def removed_in_git(root: Path, lock_text: str) -> list[str]:
    """The lock's lines that an earlier commit held and that are gone; empty without git."""
    try:
        shown = subprocess.run(
            ["git", "-C", str(root), "log", "--format=", "-p", "--", str(LOCK_PATH)],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []  # No git, or no repository: a wheel, or an unpacked archive.
    removed = [
        line[1:]
        for line in shown.stdout.split("\n")
        if line.startswith("-") and not line.startswith("---")
    ]
    return [
        f"{LOCK_PATH}: the line of {' version '.join(line.split(' ')[:2])} is gone; put it back"
        for line in lock.lost_lines("\n".join(removed), lock_text)
    ]
