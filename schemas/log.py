"""The state of a schema registry: a fold over its log, in the format of Confluent's `_schemas`."""

from __future__ import annotations

import json
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
    """Schema text by id. Kept after a permanent deletion: records may still carry the id."""
    levels: dict[str, str] = field(default_factory=dict)
    """Compatibility level by subject; the global level under the empty name."""
    modes: dict[str, str] = field(default_factory=dict)
    id_max: int = 0
    ids: dict[str, int] = field(default_factory=dict)
    """The id of each schema by its identity; the lowest if a foreign writer gave it several."""

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
            case "NOOP":
                self.id_max = max(self.id_max, int(body["idMax"]) if body else 0)
            case _:
                pass  # DELETE_SUBJECT and later kinds carry nothing that we keep.

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
        known = identity(entry.schema)
        self.ids[known] = min(entry.id, self.ids.get(known, entry.id))

    def copy(self) -> SchemaLog:
        """A log of its own that says the same."""
        return SchemaLog(
            dict(self.versions),
            dict(self.texts),
            dict(self.levels),
            dict(self.modes),
            self.id_max,
            dict(self.ids),
        )

    def id_of(self, schema: str) -> int | None:
        """The id under which this schema stands, however its text is laid out."""
        return self.ids.get(identity(schema))

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
    """The record that sets (`None`: clears) a level; the empty subject: everywhere."""
    key = {"keytype": "CONFIG", "subject": subject or None, "magic": 0}
    return _json(key), None if level is None else _json({"compatibilityLevel": level})


def mode_entry(subject: str, mode: str | None) -> Entry:
    """The record that sets (`None`: clears) a mode; the empty subject: everywhere."""
    key = {"keytype": "MODE", "subject": subject or None, "magic": 0}
    return _json(key), None if mode is None else _json({"mode": mode})


def id_entry(id_max: int) -> Entry:
    """The record that keeps ids from being given again when their versions are gone for good.

    Confluent's registry passes over records with this key.
    """
    return _json({"keytype": "NOOP", "magic": 0}), _json({"idMax": id_max})


def tombstone(entry: Version) -> Entry:
    """The record that removes a version for good."""
    return schema_entry(entry)[0], None


def identity(schema: str) -> str:
    """Equal for two texts of one schema: white space and the order of keys do not count."""
    try:
        return json.dumps(json.loads(schema), sort_keys=True, separators=(",", ":"))
    except ValueError:
        return schema  # Not Avro: a foreign registry keeps other kinds in the same log.


def _put(into: dict[str, str], name: str, value: str | None) -> None:
    if value is None:
        into.pop(name, None)
    else:
        into[name] = value


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
