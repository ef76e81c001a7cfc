"""Identity is UUID version 5, whatever makes it fast."""

from __future__ import annotations

from uuid import uuid5

from hypothesis import given
from hypothesis import strategies as st

from streams.messages import OMIUM_NAMESPACE, event_id


@given(st.tuples(*[st.text()] * 4), st.integers(), st.text())
def test_an_event_id_is_a_version_5_uuid(texts: tuple[str, ...], attempt: int, kind: str) -> None:
    tenant, execution, step, ordinal = texts
    try:
        name = "\x1f".join((tenant, execution, step, str(attempt), kind, ordinal))
        expected = str(uuid5(OMIUM_NAMESPACE, name))
    except UnicodeEncodeError:
        return  # Lone surrogates are no text.

    assert event_id(tenant, execution, step, attempt, kind, ordinal) == expected
