"""An Avro schema as a graph of types with all names resolved. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED = frozenset({"record", "enum", "fixed"})
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
DEPTH_MAX = 100
"""How deep a schema may nest: bounds the recursion over foreign schemas."""
TYPES_MAX = 10_000
"""How many types one schema may hold."""

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


class InvalidSchema(ValueError):
    """The text is no Avro schema; the message says where and why."""


@dataclass(slots=True, eq=False)
class Type:
    """One type. Compared by identity: a recursive type is a cycle in the graph."""

    kind: str
    name: str = ""
    """Full name of a record, enum or fixed."""
    aliases: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    branches: tuple[Type, ...] = ()
    symbols: tuple[str, ...] = ()
    default_symbol: str | None = None
    size: int = 0
    inner: Type | None = None
    """Items of an array, values of a map."""

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.kind} {self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a record."""

    name: str
    type: Type
    aliases: tuple[str, ...]
    has_default: bool
    default: Json


def parse(text: str) -> Type:
    """The schema in this JSON text. InvalidSchema if it breaks the specification."""
    try:
        return _Parser().parse(json.loads(text), "", "", 0)
    except json.JSONDecodeError as error:
        raise InvalidSchema(f"not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidSchema("nested too deeply") from error


@dataclass(slots=True)
class _Parser:
    named: dict[str, Type] = field(default_factory=dict)
    count: int = 0

    def parse(self, schema: Json, namespace: str, path: str, depth: int) -> Type:
        self.count += 1
        if depth > DEPTH_MAX or self.count > TYPES_MAX:
            raise InvalidSchema(f"{path}: more than {DEPTH_MAX} levels or {TYPES_MAX} types")
        match schema:
            case str():
                return self._reference(schema, namespace, path)
            case list():
                return self._union(schema, namespace, path, depth)
            case dict():
                return self._complex(schema, namespace, path, depth)
        raise InvalidSchema(f"{path or '/'}: {json.dumps(schema)} is no type")

    def _reference(self, name: str, namespace: str, path: str) -> Type:
        if name in PRIMITIVES:
            return Type(name)
        found = self.named.get(full_name(name, namespace)) or self.named.get(name)
        if found is None:
            raise InvalidSchema(f"{path or '/'}: unknown type {name}")
        return found

    def _union(self, schema: Sequence[Json], namespace: str, path: str, depth: int) -> Type:
        branches = tuple(
            self.parse(branch, namespace, f"{path}/{i}", depth + 1)
            for i, branch in enumerate(schema)
        )
        labels = [branch.name or branch.kind for branch in branches]
        if len(set(labels)) < len(labels) or "union" in labels:
            raise InvalidSchema(f"{path or '/'}: a union holds each type once, and no unions")
        return Type("union", branches=branches)

    def _complex(self, schema: Mapping[str, Json], namespace: str, path: str, depth: int) -> Type:
        kind = schema.get("type")
        match kind:
            case "record" | "error":
                return self._record(schema, namespace, path, depth)
            case "enum":
                return self._enum(schema, namespace, path)
            case "fixed":
                return self._fixed(schema, namespace, path)
            case "array":
                inner = self.parse(schema.get("items"), namespace, f"{path}/items", depth + 1)
                return Type("array", inner=inner)
            case "map":
                inner = self.parse(schema.get("values"), namespace, f"{path}/values", depth + 1)
                return Type("map", inner=inner)
        return self.parse(kind, namespace, f"{path}/type", depth + 1)

    def _declare(self, kind: str, schema: Mapping[str, Json], namespace: str, path: str) -> Type:
        """A named type, known from here on, before its fields are read: they may refer to it."""
        name, space = schema.get("name"), schema.get("namespace", namespace)
        if not isinstance(name, str) or not isinstance(space, str):
            raise InvalidSchema(f"{path or '/'}: a {kind} needs a name")
        full = full_name(name, space)
        if full in PRIMITIVES or not all(NAME.match(part) for part in full.split(".")):
            raise InvalidSchema(f"{path or '/'}: {full!r} is no name")
        if full in self.named:
            raise InvalidSchema(f"{path or '/'}: {full} is defined twice")
        scope = full.rpartition(".")[0]
        aliases = tuple(full_name(alias, scope) for alias in _strings(schema, "aliases", path))
        self.named[full] = declared = Type(kind, name=full, aliases=aliases)
        return declared

    def _record(self, schema: Mapping[str, Json], namespace: str, path: str, depth: int) -> Type:
        record = self._declare("record", schema, namespace, path)
        scope, fields = record.name.rpartition(".")[0], schema.get("fields")
        if not isinstance(fields, list):
            raise InvalidSchema(f"{path or '/'}: a record needs fields")
        record.fields = tuple(
            self._field(each, scope, f"{path}/fields/{i}", depth) for i, each in enumerate(fields)
        )
        names = [each.name for each in record.fields]
        if len(set(names)) < len(names):
            raise InvalidSchema(f"{path or '/'}: {record.name} has two fields of one name")
        for i, each in enumerate(record.fields):
            if each.has_default and not fits(each.default, each.type):
                value = json.dumps(each.default)
                raise InvalidSchema(f"{path}/fields/{i}: {each.name}: {value} is no default of it")
        return record

    def _field(self, schema: Json, scope: str, path: str, depth: int) -> Field:
        name = schema.get("name") if isinstance(schema, dict) else None
        if not isinstance(schema, dict) or not isinstance(name, str) or not NAME.match(name):
            raise InvalidSchema(f"{path}: a field needs a name of letters, digits and underscores")
        return Field(
            name=name,
            type=self.parse(schema.get("type"), scope, f"{path}/type", depth + 1),
            aliases=_strings(schema, "aliases", path),
            has_default="default" in schema,
            default=schema.get("default"),
        )

    def _enum(self, schema: Mapping[str, Json], namespace: str, path: str) -> Type:
        enum = self._declare("enum", schema, namespace, path)
        enum.symbols = _strings(schema, "symbols", path)
        if len(set(enum.symbols)) < len(enum.symbols) or not all(map(NAME.match, enum.symbols)):
            raise InvalidSchema(f"{path or '/'}: {enum.name} needs distinct names as symbols")
        default = schema.get("default")
        if default is not None and default not in enum.symbols:
            raise InvalidSchema(f"{path or '/'}: the default of {enum.name} is none of its symbols")
        enum.default_symbol = str(default) if default is not None else None
        return enum

    def _fixed(self, schema: Mapping[str, Json], namespace: str, path: str) -> Type:
        fixed, size = self._declare("fixed", schema, namespace, path), schema.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InvalidSchema(f"{path or '/'}: {fixed.name} needs a size")
        fixed.size = size
        return fixed


def full_name(name: str, namespace: str) -> str:
    """The name with its namespace, unless it carries one itself."""
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _strings(schema: Mapping[str, Json], key: str, path: str) -> tuple[str, ...]:
    values = schema.get(key, [])
    if not isinstance(values, list):
        raise InvalidSchema(f"{path or '/'}: {key} must be a list of strings")
    strings = tuple(value for value in values if isinstance(value, str))
    if len(strings) < len(values):
        raise InvalidSchema(f"{path or '/'}: {key} must be a list of strings")
    return strings


def fits(value: Json, kind: Type) -> bool:
    """Whether a default, in JSON encoding, is a value of the type (of a union: its first)."""
    match kind.kind:
        case "union":
            return bool(kind.branches) and fits(value, kind.branches[0])
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "int" | "long":
            bits = 31 if kind.kind == "int" else 63
            return _is_integer(value) and -(2**bits) <= int(str(value)) < 2**bits
        case "float" | "double":
            return _is_integer(value) or isinstance(value, float)
        case "string":
            return isinstance(value, str)
        case "bytes":
            return isinstance(value, str) and _is_latin(value)
        case "fixed":
            return isinstance(value, str) and _is_latin(value) and len(value) == kind.size
        case "enum":
            return value in kind.symbols
        case "array":
            inner = kind.inner
            return isinstance(value, list) and all(inner and fits(each, inner) for each in value)
    return isinstance(value, dict) and _fits_object(value, kind)


def _fits_object(value: Mapping[str, Json], kind: Type) -> bool:
    if kind.inner is not None:
        return all(fits(each, kind.inner) for each in value.values())
    return all(
        fits(value[each.name], each.type) if each.name in value else each.has_default
        for each in kind.fields
    )


def _is_integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_latin(value: str) -> bool:
    """Avro writes bytes in JSON as one character a byte."""
    return all(ord(character) < 256 for character in value)
