"""A position comes back as it went out, and says what its reader has had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.execution.position import Mark, Position
from streams.topics import EXECUTIONS, LLM_RESPONSES

E, L = EXECUTIONS.name, LLM_RESPONSES.name

places = st.tuples(st.sampled_from([E, L]), st.integers(0, 9999))
marks = st.builds(Mark, st.integers(0, 2**62), st.integers(-1, 2**62))


@given(st.dictionaries(places, marks, max_size=12))
def test_a_position_comes_back_as_it_went_out(given_marks: dict[tuple[str, int], Mark]) -> None:
    position = Position(given_marks)
    assert Position.parse(str(position)) == position


def test_a_position_has_read_what_lies_at_or_below_its_mark_only() -> None:
    position = Position.start().after(E, 2, 118, 90)
    assert str(position) == "e2:118:90"
    assert position.has_read(E, 2, 118)
    assert not position.has_read(E, 2, 119)
    assert not position.has_read(E, 3, 0)
    assert not position.has_read(L, 2, 0)


@pytest.mark.parametrize(
    "text", ["7", "e1:2", "x1:2:3", "e1:2:3,", "e-1:2:3", "e1:2:-2", "e1:2:3" * 400]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="position"):
        Position.parse(text)
