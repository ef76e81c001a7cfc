"""Fingerprints of schemas: Avro's parsing canonical form, its CRC-64 and its SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from schemas.model import Json, Type, parse

CRC64_EMPTY = 0xC15D213AA4D7A795


def canonical(text: str) -> str:
    """The parsing canonical form: equal for schemas that read and write the same bytes."""
    return _dumps(_Canon(with_resolution=False).of(parse(text)))


def resolution_form(text: str) -> str:
    """The canonical form with defaults and aliases: all that decides how the schema resolves."""
    return _dumps(_Canon(with_resolution=True).of(parse(text)))


def crc64(form: str) -> str:
    """Avro's Rabin fingerprint of a form, hexadecimal."""
    value = CRC64_EMPTY
    for byte in form.encode():
        value = (value >> 8) ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return f"{value:016x}"


def sha256(form: str) -> str:
    """The SHA-256 of a form, hexadecimal."""
    return hashlib.sha256(form.encode()).hexdigest()


def _crc_entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (CRC64_EMPTY & -(value & 1))
    return value


_CRC_TABLE = tuple(_crc_entry(byte) for byte in range(256))


@dataclass(slots=True)
class _Canon:
    with_resolution: bool
    seen: set[str] = field(default_factory=set)

    def of(self, kind: Type) -> Json:
        match kind.kind:
            case "union":
                return [self.of(branch) for branch in kind.branches]
            case "array" | "map":
                assert kind.inner is not None
                inner = "items" if kind.kind == "array" else "values"
                return {"type": kind.kind, inner: self.of(kind.inner)}
            case "record" | "enum" | "fixed":
                return self._named(kind)
        return kind.kind

    def _named(self, kind: Type) -> Json:
        if kind.name in self.seen:
            return kind.name
        self.seen.add(kind.name)
        form: dict[str, Json] = {"name": kind.name, "type": kind.kind}
        if kind.kind == "fixed":
            form["size"] = kind.size
        elif kind.kind == "enum":
            form["symbols"] = list(kind.symbols)
        else:
            form["fields"] = [self._field(kind, index) for index in range(len(kind.fields))]
        if self.with_resolution and kind.aliases:
            form["aliases"] = list(kind.aliases)
        if self.with_resolution and kind.default_symbol is not None:
            form["default"] = kind.default_symbol
        return form

    def _field(self, record: Type, index: int) -> Json:
        each = record.fields[index]
        form: dict[str, Json] = {"name": each.name, "type": self.of(each.type)}
        if self.with_resolution and each.has_default:
            form["default"] = each.default
        if self.with_resolution and each.aliases:
            form["aliases"] = list(each.aliases)
        return form


def _dumps(form: Json) -> str:
    return json.dumps(form, separators=(",", ":"), ensure_ascii=False)
