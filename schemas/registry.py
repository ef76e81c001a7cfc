"""What a schema registry answers and writes: pure decisions over its log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from schemas.compatibility import LEVELS, TooComplex, problems
from schemas.log import (
    Entry,
    SchemaLog,
    Version,
    id_entry,
    identity,
    level_entry,
    mode_entry,
    schema_entry,
    tombstone,
)
from schemas.model import InvalidSchema, parse

LEVEL_DEFAULT = "BACKWARD"
"""Confluent's default, for subjects whose owner chose nothing."""
MODE_DEFAULT = "READWRITE"
MODES = (MODE_DEFAULT, "READONLY")
SUBJECTS_MAX = 10_000
VERSIONS_MAX = 1_000
"""Of one subject."""
SUBJECT_CHARS_MAX = 512
SCHEMA_CHARS_MAX = 512 * 1024


class RegistryError(Exception):
    """An answer that says no: HTTP status, Confluent's error code, a sentence."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def register(log: SchemaLog, subject: str, schema: str) -> tuple[Version, list[Entry]]:
    """The version under which the schema stands, and what must be written: nothing if it stood.

    RegistryError 409 if the compatibility level forbids it, 42201 if it is no Avro schema.
    """
    check_schema(schema)
    standing = find(log, subject, schema)
    if standing is not None:
        return standing, []
    if mode_of(log, subject) != MODE_DEFAULT:
        raise RegistryError(422, 42205, f"Subject {subject} is in read-only mode")
    check_room(log, subject)
    found = incompatible(log, schema, log.of_subject(subject), level_of(log, subject))
    if found:
        level = level_of(log, subject)
        reasons = "; ".join(found)
        raise RegistryError(
            409, 409, f"Schema is incompatible with one before it, {subject} is {level}: {reasons}"
        )
    every = log.of_subject(subject, with_deleted=True)
    number = log.id_of(schema)
    version = Version(
        subject=subject,
        version=every[-1].version + 1 if every else 1,
        id=log.id_max + 1 if number is None else number,
        schema=compact(schema),
    )
    return version, [schema_entry(version)]


def find(
    log: SchemaLog, subject: str, schema: str, *, with_deleted: bool = False
) -> Version | None:
    """The newest version of the subject that is this schema."""
    wanted = identity(schema)
    for version in reversed(log.of_subject(subject, with_deleted=with_deleted)):
        if identity(version.schema) == wanted:
            return version
    return None


def incompatible(log: SchemaLog, schema: str, previous: Sequence[Version], level: str) -> list[str]:
    """Why the schema must not follow these versions under this level; empty if it may."""
    try:
        return problems(level, parse(schema), [parse(version.schema) for version in previous])
    except (InvalidSchema, TooComplex) as error:
        raise RegistryError(422, 42201, f"Invalid schema: {error}") from error


def check_schema(schema: str) -> None:
    """RegistryError 42201 unless it is an Avro schema of bounded size."""
    if len(schema) > SCHEMA_CHARS_MAX:
        raise RegistryError(422, 42201, f"Invalid schema: more than {SCHEMA_CHARS_MAX} characters")
    try:
        parse(schema)
    except InvalidSchema as error:
        raise RegistryError(422, 42201, f"Invalid schema: {error}") from error


def check_room(log: SchemaLog, subject: str) -> None:
    """RegistryError 42205 if one more version would exceed a limit."""
    if not subject or len(subject) > SUBJECT_CHARS_MAX or not subject.isprintable():
        raise RegistryError(
            422, 42208, f"A subject has 1 to {SUBJECT_CHARS_MAX} printable characters"
        )
    every = log.of_subject(subject, with_deleted=True)
    if len(every) >= VERSIONS_MAX:
        raise RegistryError(422, 42205, f"{subject} has {VERSIONS_MAX} versions, the most allowed")
    if not every and len(subjects(log, with_deleted=True)) >= SUBJECTS_MAX:
        raise RegistryError(422, 42205, f"There are {SUBJECTS_MAX} subjects, the most allowed")


def compact(schema: str) -> str:
    """The schema's text without white space."""
    return json.dumps(json.loads(schema), separators=(",", ":"), ensure_ascii=False)


def subjects(log: SchemaLog, *, with_deleted: bool = False, prefix: str = "") -> list[str]:
    """Names of subjects with a version, sorted."""
    return sorted(
        {
            entry.subject
            for entry in log.versions.values()
            if (with_deleted or not entry.is_deleted) and entry.subject.startswith(prefix)
        }
    )


def versions(log: SchemaLog, subject: str, *, with_deleted: bool = False) -> list[Version]:
    """The subject's versions. RegistryError 40401 if there are none."""
    found = log.of_subject(subject, with_deleted=with_deleted)
    if not found:
        raise RegistryError(404, 40401, f"Subject '{subject}' not found.")
    return found


def version(log: SchemaLog, subject: str, wanted: str, *, with_deleted: bool = False) -> Version:
    """One version, by number or `latest`. RegistryError 40401, 40402 or 42202."""
    number = version_number(wanted)
    found = versions(log, subject, with_deleted=with_deleted)
    if number is None:
        return found[-1]
    for each in found:
        if each.version == number:
            return each
    raise RegistryError(404, 40402, f"Version {number} not found.")


def version_number(wanted: str) -> int | None:
    """The number, or `None` for the latest. RegistryError 42202 if it is neither."""
    if wanted in ("latest", "-1"):
        return None
    if not wanted.isascii() or not wanted.isdigit() or not 1 <= int(wanted[:10]) < 2**31:
        raise RegistryError(
            422, 42202, f"The specified version '{wanted[:40]}' is not a valid version id."
        )
    return int(wanted)


def lookup(log: SchemaLog, subject: str, schema: str, *, with_deleted: bool = False) -> Version:
    """The version of the subject that is this schema. RegistryError 40401 or 40403."""
    check_schema(schema)
    versions(log, subject, with_deleted=with_deleted)
    found = find(log, subject, schema, with_deleted=with_deleted)
    if found is None:
        raise RegistryError(404, 40403, "Schema not found")
    return found


def text_of(log: SchemaLog, number: int) -> str:
    """The schema of an id. RegistryError 40403."""
    if number not in log.texts:
        raise RegistryError(404, 40403, f"Schema {number} not found")
    return log.texts[number]


def delete_subject(
    log: SchemaLog, subject: str, *, permanent: bool
) -> tuple[list[int], list[Entry]]:
    """The version numbers that go, and what must be written. Permanent only after a soft one."""
    every = versions(log, subject, with_deleted=True)
    live = [each for each in every if not each.is_deleted]
    if permanent and live:
        raise RegistryError(404, 40405, f"Subject '{subject}' was not deleted first, softly")
    if permanent:
        gone = [tombstone(each) for each in every]
        entries = [id_entry(log.id_max), *gone, level_entry(subject, None)]
        return [each.version for each in every], entries
    if not live:
        raise RegistryError(
            404, 40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete it"
        )
    return [each.version for each in live], [_soft_deleted(each) for each in live]


def delete_version(
    log: SchemaLog, subject: str, wanted: str, *, permanent: bool
) -> tuple[int, list[Entry]]:
    """The version number that goes, and what must be written. Permanent only after a soft one."""
    found = version(log, subject, wanted, with_deleted=True)
    if not permanent and found.is_deleted:
        raise RegistryError(
            404, 40406, f"Subject '{subject}' Version {found.version} was soft deleted."
        )
    if permanent and not found.is_deleted:
        raise RegistryError(
            404, 40407, f"Subject '{subject}' Version {found.version} was not deleted first."
        )
    if permanent:
        return found.version, [id_entry(log.id_max), tombstone(found)]
    return found.version, [_soft_deleted(found)]


def level_of(log: SchemaLog, subject: str) -> str:
    """The level that counts for the subject."""
    return log.levels.get(subject) or log.levels.get("") or LEVEL_DEFAULT


def set_level(subject: str, level: str) -> list[Entry]:
    """What must be written. RegistryError 42203 for an unknown level."""
    if level not in LEVELS:
        raise RegistryError(422, 42203, f"Invalid compatibility level. Valid: {', '.join(LEVELS)}")
    return [level_entry(subject, level)]


def clear_level(subject: str) -> list[Entry]:
    """What must be written for the subject to follow the global level again."""
    return [level_entry(subject, None)]


def mode_of(log: SchemaLog, subject: str) -> str:
    """The mode that counts for the subject."""
    return log.modes.get(subject) or log.modes.get("") or MODE_DEFAULT


def set_mode(subject: str, mode: str) -> list[Entry]:
    """What must be written. RegistryError 42204 for a mode that is not offered."""
    if mode not in MODES:
        raise RegistryError(422, 42204, f"Invalid mode. Valid: {', '.join(MODES)}")
    return [mode_entry(subject, mode)]


def clear_mode(subject: str) -> list[Entry]:
    """What must be written for the subject to follow the global mode again."""
    return [mode_entry(subject, None)]


def using(log: SchemaLog, number: int) -> Iterable[Version]:
    """The versions, not deleted, whose schema has this id."""
    text_of(log, number)
    return [e for e in log.versions.values() if e.id == number and not e.is_deleted]


def _soft_deleted(entry: Version) -> Entry:
    return schema_entry(replace(entry, is_deleted=True))
