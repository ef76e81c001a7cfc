"""Values as JSON for people: bounded, and never an exception."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import orjson

HUMAN_BYTES_MAX: Final = 16 * 1024
"""Longest JSON of a step's or tool's result on an event."""
DEPTH_MAX: Final = 24
ITEMS_MAX: Final = 1000
TEXT_MAX: Final = 8 * 1024

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


def to_json(value: object, limit_bytes: int = HUMAN_BYTES_MAX) -> str:
    """The value as JSON text of at most `limit_bytes`; what does not fit is cut and says so."""
    try:
        text = orjson.dumps(value, default=_plain, option=_OPTIONS)
    except Exception:
        text = _dump_safely(value)
    if len(text) <= limit_bytes:
        return text.decode()
    return _cut(text, limit_bytes)


def canonical(value: object) -> bytes:
    """Bytes that equal values share in every process: sorted keys, no addresses."""
    try:
        return orjson.dumps(value, default=_plain, option=_OPTIONS | orjson.OPT_SORT_KEYS)
    except Exception:
        return orjson.dumps(simplify(value), option=_OPTIONS | orjson.OPT_SORT_KEYS)


def simplify(value: object, depth: int = 0) -> object:
    """The value made of JSON types only, bounded in depth, width and text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, str):
        text = value if len(value) <= TEXT_MAX else value[:TEXT_MAX] + "…"
        return text.encode("utf-8", "replace").decode()
    if depth >= DEPTH_MAX:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        pairs = list(value.items())[:ITEMS_MAX]
        return {str(key): simplify(item, depth + 1) for key, item in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else list(value)
        return [simplify(item, depth + 1) for item in items[:ITEMS_MAX]]
    try:
        return simplify(_plain(value), depth + 1)
    except Exception:
        return f"<{type(value).__name__}>"


def _dump_safely(value: object) -> bytes:
    try:
        return orjson.dumps(simplify(value), option=_OPTIONS)
    except Exception:
        return orjson.dumps(f"<{type(value).__name__}>")


def _plain(value: object) -> object:
    """One level towards JSON. Never an object's address: results must be equal in every process."""
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        dumped = dump(mode="json", exclude_none=True)
        return dumped if type(dumped) is not type(value) else str(dumped)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, type) or callable(value):
        return f"<{getattr(value, '__qualname__', type(value).__name__)}>"
    if type(value).__str__ is not object.__str__:
        return str(value)
    return f"<{type(value).__name__}>"


def _cut(text: bytes, limit_bytes: int) -> str:
    """JSON that says how long the whole was and shows its beginning."""
    keep = max(0, limit_bytes // 2 - 128)
    head = text[:keep].decode("utf-8", "ignore")
    cut = orjson.dumps({"omium_cut_bytes": len(text), "head": head})
    while len(cut) > limit_bytes and head:
        head = head[: len(head) // 2]
        cut = orjson.dumps({"omium_cut_bytes": len(text), "head": head})
    return cut.decode()
