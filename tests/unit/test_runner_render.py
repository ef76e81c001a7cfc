"""Values for people."""

from __future__ import annotations

import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st

from producers.runner.render import HUMAN_BYTES_MAX, canonical, to_json

anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
        st.builds(object), st.just(len), st.sets(st.integers()), st.builds(ValueError, st.text()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.text(), st.tuples(st.integers())), inner, max_size=5),
    ),
    max_leaves=30,
)  # fmt: skip


@given(anything)
def test_any_value_becomes_json_within_the_limit(value: object) -> None:
    text = to_json(value, 512)

    json.loads(text)
    assert len(text.encode()) <= 512


def test_a_long_value_is_cut_and_says_how_long_it_was() -> None:
    cut = json.loads(to_json("x" * 100_000))

    assert cut["omium_cut_bytes"] == 100_002
    assert len(to_json('ü"' * 100_000).encode()) <= HUMAN_BYTES_MAX


def test_a_value_that_holds_itself_ends() -> None:
    loop: list[object] = []
    loop.append(loop)

    json.loads(to_json(loop))


def test_a_value_whose_methods_raise_is_named() -> None:
    class Hostile:
        def model_dump(self, **_: object) -> object:
            raise RuntimeError

        def __str__(self) -> str:
            raise RuntimeError

    assert "Hostile" in to_json({"a": Hostile()})


def test_equal_values_have_equal_canonical_bytes_in_every_order() -> None:
    @dataclasses.dataclass
    class Point:
        x: int

    assert canonical({"b": Point(1), "a": {3, 1, 2}}) == canonical({"a": {2, 3, 1}, "b": Point(1)})


def test_canonical_bytes_hold_no_address() -> None:
    assert canonical({"o": object()}) == canonical({"o": object()})
