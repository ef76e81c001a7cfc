"""Avro's resolution rules, one by one."""

from __future__ import annotations

import json

import pytest

from schemas.compatibility import TooComplex, incompatibilities, problems
from schemas.model import InvalidSchema, parse

Schema = object


def record(*fields: object, name: str = "R", **more: object) -> dict[str, object]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def f(name: str, kind: Schema = "long", **more: object) -> dict[str, object]:
    return {"name": name, "type": kind, **more}


def enum(*symbols: str, name: str = "E", **more: object) -> dict[str, object]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F", **more: object) -> dict[str, object]:
    return {"type": "fixed", "name": name, "size": size, **more}


def array(items: Schema) -> dict[str, object]:
    return {"type": "array", "items": items}


def map_(values: Schema) -> dict[str, object]:
    return {"type": "map", "values": values}


LIST = record(f("value"), f("next", ["null", "List"]), name="List")
LIST_MORE = record(
    f("value"), f("next", ["null", "List"]), f("note", "string", default=""), name="List"
)
LIST_BROKEN = record(f("value"), f("next", ["null", "List"]), f("note", "string"), name="List")
LIST_STRING = record(f("value", "string"), f("next", ["null", "List"]), name="List")
MUTUAL = record(f("b", ["null", record(f("a", ["null", "A"]), f("x"), name="B")]), f("y"), name="A")
MUTUAL_STRING = record(
    f("b", ["null", record(f("a", ["null", "A"]), f("x", "string"), name="B")]), f("y"), name="A"
)

CASES: list[tuple[str, Schema, Schema, bool]] = [
    # what, reader, writer, can the reader read it?
    ("int reads int", "int", "int", True),
    ("long reads int", "long", "int", True),
    ("float reads int", "float", "int", True),
    ("double reads int", "double", "int", True),
    ("float reads long", "float", "long", True),
    ("double reads long", "double", "long", True),
    ("double reads float", "double", "float", True),
    ("string reads bytes", "string", "bytes", True),
    ("bytes reads string", "bytes", "string", True),
    ("int does not read long", "int", "long", False),
    ("long does not read float", "long", "float", False),
    ("float does not read double", "float", "double", False),
    ("int does not read boolean", "int", "boolean", False),
    ("string does not read int", "string", "int", False),
    ("null reads only null", "null", "string", False),
    ("bytes does not read fixed", "bytes", fixed(4), False),
    ("array of long reads array of int", array("long"), array("int"), True),
    ("array of int does not read array of long", array("int"), array("long"), False),
    ("map of double reads map of float", map_("double"), map_("float"), True),
    ("map of string does not read map of int", map_("string"), map_("int"), False),
    ("map does not read array", map_("int"), array("int"), False),
    ("record reads itself", record(f("a")), record(f("a")), True),
    ("record does not read a map", record(f("a")), map_("long"), False),
    ("field order does not matter", record(f("a"), f("b")), record(f("b"), f("a")), True),
    ("a field may be dropped", record(f("a")), record(f("a"), f("b")), True),
    ("a field may come with a default", record(f("a"), f("b", default=1)), record(f("a")), True),
    ("a field may not come without", record(f("a"), f("b")), record(f("a")), False),
    ("a null default is a default", record(f("b", ["null", "int"], default=None)), record(), True),
    ("a nullable type is no default", record(f("b", ["null", "int"])), record(), False),
    ("a field may be promoted", record(f("a", "double")), record(f("a", "int")), True),
    ("a field may not be narrowed", record(f("a", "int")), record(f("a", "long")), False),
    ("a field renamed with alias", record(f("n", aliases=["o"])), record(f("o")), True),
    ("a field renamed without", record(f("n")), record(f("o")), False),
    ("an alias of the writer does not help", record(f("o")), record(f("n", aliases=["o"])), False),
    ("an aliased field still needs its type", record(f("n", "int", aliases=["o"])),
     record(f("o", "string")), False),
    ("a record may not change its name", record(name="S"), record(name="R"), False),
    ("a record renamed with alias", record(name="S", aliases=["R"]), record(name="R"), True),
    ("an alias is resolved in the namespace", record(name="S", namespace="n", aliases=["R"]),
     record(name="R", namespace="n"), True),
    ("an alias in another namespace is another name",
     record(name="S", namespace="n", aliases=["R"]), record(name="R", namespace="m"), False),
    ("only unqualified names count", record(namespace="n"), record(namespace="m"), True),
    ("enum reads a subset", enum("A", "B"), enum("A"), True),
    ("enum does not read a superset", enum("A"), enum("A", "B"), False),
    ("enum with default reads a superset", enum("A", default="A"), enum("A", "B"), True),
    ("a default of the writer does not help", enum("A"), enum("A", "B", default="A"), False),
    ("enum order does not matter", enum("A", "B"), enum("B", "A"), True),
    ("an enum may not change its name", enum("A", name="D"), enum("A"), False),
    ("an enum renamed with alias", enum("A", name="D", aliases=["E"]), enum("A"), True),
    ("enum does not read string", enum("A"), "string", False),
    ("fixed reads its size", fixed(4), fixed(4), True),
    ("fixed reads no other size", fixed(4), fixed(8), False),
    ("a fixed may not change its name", fixed(4, "G"), fixed(4), False),
    ("a fixed renamed with alias", fixed(4, "G", aliases=["F"]), fixed(4), True),
    ("a union may grow", ["null", "int", "string"], ["null", "int"], True),
    ("a union may not shrink", ["null", "int"], ["null", "int", "string"], False),
    ("a union reads one of its branches", ["null", "int"], "int", True),
    ("a union reads by promotion", ["null", "double"], "int", True),
    ("a union does not read what no branch reads", ["null", "int"], "string", False),
    ("a type reads a union of itself", "int", ["int"], True),
    ("a type reads a union that it covers", "double", ["int", "float"], True),
    ("a type does not read a wider union", "int", ["null", "int"], False),
    ("branches are compared in depth", ["null", record(f("a", "int"))],
     ["null", record(f("a", "string"))], False),
    ("branch order does not matter", ["string", "null"], ["null", "string"], True),
    ("an empty union was never written", "int", [], True),
    ("a recursive type reads itself", LIST, LIST, True),
    ("a recursive type may grow with default", LIST_MORE, LIST, True),
    ("a recursive type may not grow without", LIST_BROKEN, LIST, False),
    ("a recursive type keeps its types", LIST_STRING, LIST, False),
    ("types that contain each other", MUTUAL, MUTUAL, True),
    ("a change behind a cycle is found", MUTUAL_STRING, MUTUAL, False),
    ("nested records are compared", record(f("a", record(f("x", "long"), name="I"))),
     record(f("a", record(f("x", "int"), name="I"))), True),
    ("nested records may break", record(f("a", record(f("x"), f("y"), name="I"))),
     record(f("a", record(f("x"), name="I"))), False),
    ("a type used twice is compared at both uses",
     record(f("a", fixed(2)), f("b", "F")), record(f("a", fixed(2)), f("b", fixed(2, "G"))), False),
    ("logical types do not matter", {"type": "long", "logicalType": "timestamp-millis"}, "long",
     True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reader", "writer", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_resolution_rule(reader: Schema, writer: Schema, expected: bool) -> None:
    found = incompatibilities(reader=parse(json.dumps(reader)), writer=parse(json.dumps(writer)))
    assert (not found) is expected, found


def test_the_answer_names_the_field() -> None:
    old = parse(json.dumps(record(f("a", array(record(f("x"), name="I"))))))
    new = parse(json.dumps(record(f("a", array(record(f("x", "string"), name="I"))))))

    found = problems("BACKWARD", new, [old])

    assert found == ["new schema cannot read old data: /a/items/x: string cannot read long"]


V1, V2, V3 = (
    parse(json.dumps(record(*fields)))
    for fields in (
        [f("a"), f("b", default=0)],
        [f("a")],
        [f("a"), f("b", "string", default="")],
    )
)


@pytest.mark.parametrize(
    ("level", "allowed"),
    [
        ("NONE", True),
        ("BACKWARD", True),
        ("FORWARD", True),
        ("FULL", True),
        ("BACKWARD_TRANSITIVE", False),
        ("FORWARD_TRANSITIVE", False),
        ("FULL_TRANSITIVE", False),
    ],
)
def test_only_transitive_levels_look_past_the_latest(level: str, allowed: bool) -> None:
    """b: long was dropped in the second version; the third brings it back as a string."""
    assert (not problems(level, V3, [V1, V2])) is allowed


@pytest.mark.parametrize(
    ("level", "allowed"), [("BACKWARD", True), ("FORWARD", False), ("FULL", False)]
)
def test_the_direction_counts(level: str, allowed: bool) -> None:
    """Dropping a field without default: the new reads the old, the old cannot read the new."""
    old, new = parse(json.dumps(record(f("a"), f("b")))), parse(json.dumps(record(f("a"))))
    assert (not problems(level, new, [old])) is allowed


BROKEN: list[tuple[str, Schema]] = [
    ("unknown type", "text"),
    ("unknown reference", record(f("a", "B"))),
    ("a field twice", record(f("a"), f("a"))),
    ("a type twice", record(f("a", fixed(1)), f("b", fixed(2)))),
    ("a union in a union", ["null", ["int"]]),
    ("a branch twice", ["int", "int"]),
    ("two maps in a union", [map_("int"), map_("long")]),
    ("no name", {"type": "record", "fields": []}),
    ("a name with a dash", record(name="a-b")),
    ("no fields", {"type": "record", "name": "R"}),
    ("no items", {"type": "array"}),
    ("default of another type", record(f("a", "long", default="x"))),
    ("default beyond the bits", record(f("a", "int", default=2**31))),
    ("default of the second branch", record(f("a", ["null", "int"], default=1))),
    ("default that is no symbol", enum("A", default="B")),
    ("a symbol twice", enum("A", "A")),
    ("a negative size", fixed(-1)),
    ("a number", 7),
]


@pytest.mark.parametrize("schema", [b[1] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_broken_schema_is_refused(schema: Schema) -> None:
    with pytest.raises(InvalidSchema):
        parse(json.dumps(schema))


def test_nesting_is_bounded() -> None:
    deep: Schema = "int"
    for _ in range(150):
        deep = array(deep)
    with pytest.raises(InvalidSchema):
        parse(json.dumps(deep))
    with pytest.raises(InvalidSchema):
        parse("[" * 100_000 + "]" * 100_000)


def test_a_comparison_is_bounded() -> None:
    """Records that refer back make a chain without nesting: 3,000 types, one below the other."""
    chain = [f("a0", record(f("x"), name="A0"))]
    chain += [f(f"a{i}", record(f("x", f"A{i - 1}"), name=f"A{i}")) for i in range(1, 3000)]

    def chained(holder: str) -> str:
        holder_field = f(holder, array(record(*chain, name="All")), default=[])
        return json.dumps(record(holder_field, f("last", "A2999")))

    with pytest.raises(TooComplex):
        incompatibilities(reader=parse(chained("new")), writer=parse(chained("old")))
