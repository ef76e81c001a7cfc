"""What the compatibility check promises, fastavro delivers: any schema, evolved, with any data."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.compatibility import incompatibilities
from schemas.fingerprint import canonical, resolution_form
from schemas.model import parse

ZERO: dict[str, object] = {
    "null": None, "boolean": False, "int": 0, "long": 0,
    "float": 0.0, "double": 0.0, "bytes": "", "string": "",
}  # fmt: skip
VALUES: dict[str, st.SearchStrategy[object]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "bytes": st.text(max_size=4).map(str.encode),  # Readable as a string, too.
    "string": st.text(max_size=4),
}
SYMBOLS = ["A", "B", "C", "D"]
FIELDS = ["a", "b", "c", "d"]
Schema = Any  # JSON, as the Avro libraries take it.


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3, prefix: str = "T") -> Schema:
    """A schema; `prefix` keeps the names of its types apart from all others."""
    leaf = st.sampled_from([*ZERO])
    if depth == 0:
        return draw(leaf)
    match draw(st.sampled_from(["leaf", "record", "record", "enum", "fixed", "array", "map", "u"])):
        case "record":
            names = draw(st.lists(st.sampled_from(FIELDS), unique=True, max_size=3))
            fields = [draw(_field(name, depth - 1, prefix + name)) for name in names]
            return {"type": "record", "name": prefix, "fields": fields}
        case "enum":
            chosen = draw(st.lists(st.sampled_from(SYMBOLS), unique=True, min_size=1))
            extra = {"default": chosen[0]} if draw(st.booleans()) else {}
            return {"type": "enum", "name": prefix, "symbols": chosen, **extra}
        case "fixed":
            return {"type": "fixed", "name": prefix, "size": draw(st.integers(0, 3))}
        case "array":
            return {"type": "array", "items": draw(schemas(depth - 1, prefix + "i"))}
        case "map":
            return {"type": "map", "values": draw(schemas(depth - 1, prefix + "v"))}
        case "u":
            kinds = draw(st.lists(leaf, unique=True, min_size=1, max_size=3))
            inner = draw(schemas(depth - 1, prefix + "u"))
            is_other = isinstance(inner, dict) and draw(st.booleans())
            return [*kinds, inner] if is_other else kinds
    return draw(leaf)


@st.composite
def _field(draw: st.DrawFn, name: str, depth: int, prefix: str) -> Schema:
    kind = draw(schemas(depth, prefix))
    if isinstance(kind, str) and draw(st.booleans()):
        return {"name": name, "type": kind, "default": ZERO[kind]}
    return {"name": name, "type": kind}


@st.composite
def evolved(draw: st.DrawFn, schema: Schema) -> Schema:
    """The schema after some changes of the kind that people make, allowed or not."""
    if draw(st.integers(0, 3)) == 0:
        return draw(_replaced(schema))
    if isinstance(schema, list):
        kept = [draw(evolved(b)) if isinstance(b, dict) else b for b in schema]
        # A union holds no union: one that a branch became counts as that branch alone.
        return [b if not isinstance(b, list) else old for b, old in zip(kept, schema, strict=True)]
    if isinstance(schema, str):
        return schema
    result = dict(schema)
    match schema["type"]:
        case "array":
            result["items"] = draw(evolved(schema["items"]))
        case "map":
            result["values"] = draw(evolved(schema["values"]))
        case "enum":
            result["symbols"] = draw(st.lists(st.sampled_from(SYMBOLS), unique=True, min_size=1))
            result.pop("default", None)
            if draw(st.booleans()):
                result["default"] = result["symbols"][0]
        case "record":
            result["fields"] = draw(_evolved_fields(schema))
    return result


@st.composite
def _evolved_fields(draw: st.DrawFn, schema: Schema) -> list[Schema]:
    fields = []
    for each in draw(st.permutations(schema["fields"])):
        match draw(st.sampled_from(["keep", "evolve", "evolve", "rename", "drop"])):
            case "keep":
                fields.append(each)
            case "evolve":
                kind = draw(evolved(each["type"]))
                fields.append({"name": each["name"], "type": kind})
            case "rename":
                fields.append({**each, "name": each["name"] + "2", "aliases": [each["name"]]})
    if draw(st.booleans()):
        fields.append(draw(_field("new", 1, schema["name"] + "new")))
    return fields


@st.composite
def _replaced(draw: st.DrawFn, schema: Schema) -> Schema:
    wider = {
        "int": ["long", "float", "double", ["null", "int"]],
        "long": ["double", ["string", "long"]],
        "float": ["double"],
        "string": ["bytes", ["null", "string"]],
        "bytes": ["string"],
    }
    if isinstance(schema, str):
        return draw(st.sampled_from([schema, *wider.get(schema, []), "boolean"]))
    if isinstance(schema, list):
        return draw(st.permutations(schema))
    return draw(st.sampled_from([schema, ["null", schema]]))


@st.composite
def data(draw: st.DrawFn, schema: Schema) -> object:
    """Any value of the schema."""
    if isinstance(schema, list):
        return draw(data(draw(st.sampled_from(schema))))
    if isinstance(schema, str):
        return draw(VALUES[schema])
    match schema["type"]:
        case "record":
            return {each["name"]: draw(data(each["type"])) for each in schema["fields"]}
        case "enum":
            return draw(st.sampled_from(schema["symbols"]))
        case "fixed":
            return draw(st.binary(min_size=schema["size"], max_size=schema["size"]))
        case "array":
            return [draw(data(schema["items"])) for _ in range(draw(st.integers(0, 2)))]
    return {
        key: draw(data(schema["values"])) for key in draw(st.sets(st.text(max_size=2), max_size=2))
    }


def written(schema: Schema, value: object) -> BytesIO:
    body = BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), value)
    body.seek(0)
    return body


@settings(deadline=None)
@given(schemas())
def test_a_schema_reads_itself(schema: Schema) -> None:
    text = json.dumps(schema)
    assert incompatibilities(reader=parse(text), writer=parse(text)) == []


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_called_compatible_can_be_read(draws: st.DataObject) -> None:
    writer = draws.draw(schemas(), "writer")
    reader = draws.draw(evolved(writer), "reader")
    value = draws.draw(data(writer), "value")
    body = written(writer, value)

    if not incompatibilities(reader=parse(json.dumps(reader)), writer=parse(json.dumps(writer))):
        fastavro.schemaless_reader(
            body, fastavro.parse_schema(writer), fastavro.parse_schema(reader)
        )
        assert body.read() == b""


@settings(deadline=None)
@given(schemas())
def test_canonical_forms_keep_what_they_promise(schema: Schema) -> None:
    text = json.dumps(schema)
    form = canonical(text)
    assert form == fastavro.schema.to_parsing_canonical_form(schema)
    assert canonical(form) == form
    assert resolution_form(resolution_form(text)) == resolution_form(text)
