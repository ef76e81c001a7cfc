"""The state of a schema registry: a fold over its log, in the format of Confluent's `_schemas`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of one subject."""

    subject: str
    version: int
    id: int
    schema: str
    is_deleted: bool = False
    """Soft-deleted: no longer listed, still readable by its id."""


@dataclass(slots=True)
class SchemaLog:
    """What the log says so far. A later record replaces one of the same key, as in compaction."""

    versions: dict[tuple[str, int], Version] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    """Schema text by id. Kept after a permanent deletion: records with that id may still be read."""
    levels: dict[str, str] = field(default_factory=dict)
    """Compatibility level by subject; the global level under the empty name."""
    modes: dict[str, str] = field(default_factory=dict)
    id_max: int = 0

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Folds one record in. ValueError if it is not a registry record."""
        fields = json.loads(key)
        body = json.loads(value) if value is not None else None
        match fields["keytype"]:
            case "SCHEMA":
                self._apply_schema(str(fields["subject"]), int(fields["version"]), body)
            case "CONFIG":
                _put(self.levels, fields["subject"] or "", body and body["compatibilityLevel"])
            case "MODE":
                _put(self.modes, fields["subject"] or "", body and body["mode"])
            case _:
                pass  # NOOP, DELETE_SUBJECT and later kinds carry nothing that we keep.

    def _apply_schema(self, subject: str, version: int, body: dict[str, object] | None) -> None:
        if body is None:
            self.versions.pop((subject, version), None)
            return
        entry = Version(
            subject=subject,
            version=version,
            id=int(str(body["id"])),
            schema=str(body["schema"]),
            is_deleted=bool(body.get("deleted", False)),
        )
        self.versions[subject, version] = entry
        self.texts[entry.id] = entry.schema
        self.id_max = max(self.id_max, entry.id)

    def id_of(self, schema: str) -> int | None:
        """The id of exactly this text; the lowest if a foreign writer gave it several."""
        same = [number for number, text in self.texts.items() if text == schema]
        return min(same, default=None)

    def of_subject(self, subject: str, *, with_deleted: bool = False) -> list[Version]:
        """The subject's versions, oldest first."""
        return sorted(
            (
                entry
                for entry in self.versions.values()
                if entry.subject == subject and (with_deleted or not entry.is_deleted)
            ),
            key=lambda entry: entry.version,
        )


Entry = tuple[bytes, bytes | None]
"""A record of the log: key and value."""


def schema_entry(entry: Version) -> Entry:
    """The record that sets a version.

    The key's bytes are Confluent's, field order included: compaction compares bytes.
    """
    key = {"keytype": "SCHEMA", "subject": entry.subject, "version": entry.version, "magic": 1}
    value = {
        "subject": entry.subject,
        "version": entry.version,
        "id": entry.id,
        "schema": entry.schema,
        "deleted": entry.is_deleted,
    }
    return _json(key), _json(value)


def level_entry(subject: str, level: str | None) -> Entry:
    """The record that sets (`None`: clears) a compatibility level; the empty subject is the global."""
    key = {"keytype": "CONFIG", "subject": subject or None, "magic": 0}
    return _json(key), None if level is None else _json({"compatibilityLevel": level})


def fold(entries: Iterable[Entry]) -> SchemaLog:
    """The state after these records."""
    log = SchemaLog()
    for key, value in entries:
        log.apply(key, value)
    return log


def _put(into: dict[str, str], name: str, value: str | None) -> None:
    if value is None:
        into.pop(name, None)
    else:
        into[name] = value


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
