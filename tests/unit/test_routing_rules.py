"""Laws of routing: local first, upstream when it cannot, nothing mixed after the first byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.routing.rules import (
    Candidate,
    ErrorClass,
    Provider,
    Question,
    candidates,
    fallback_reason,
    may_ask_next,
)

LOCAL = Provider(route="local", name="triton", model="gpt-oss-20b", has_tools=False)
UPSTREAM = Provider(route="upstream", name="openai", model="", has_tools=True)
PLAIN = Question(tenant="acme", model="gpt-4o-mini", has_tools=False)
TOOLS = replace(PLAIN, has_tools=True)


def told(found: tuple[Candidate, ...]) -> list[tuple[str, str, str]]:
    return [(c.provider.route, c.model, c.reason) for c in found]


def test_local_is_asked_first_and_the_upstream_next() -> None:
    assert told(candidates(PLAIN, [UPSTREAM, LOCAL])) == [
        ("local", "gpt-oss-20b", "local_first"),
        ("upstream", "gpt-4o-mini", "next"),
    ]


def test_without_a_local_model_the_upstream_is_asked() -> None:
    assert told(candidates(PLAIN, [UPSTREAM])) == [("upstream", "gpt-4o-mini", "no_local")]


def test_tools_go_to_whoever_can_call_them() -> None:
    assert told(candidates(TOOLS, [LOCAL, UPSTREAM])) == [
        ("upstream", "gpt-4o-mini", "local_lacks_tools"),
        ("local", "gpt-oss-20b", "next"),
    ]


def test_tools_do_not_leave_a_request_unanswered_when_only_the_local_model_is_there() -> None:
    assert told(candidates(TOOLS, [LOCAL])) == [("local", "gpt-oss-20b", "local_first")]


def test_a_local_model_that_can_call_tools_keeps_its_place() -> None:
    capable = replace(LOCAL, has_tools=True)
    assert told(candidates(TOOLS, [capable, UPSTREAM]))[0] == (
        "local",
        "gpt-oss-20b",
        "local_first",
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("local/gpt-4o", [("local", "gpt-oss-20b", "pinned")]),
        ("upstream/gpt-4o", [("upstream", "gpt-4o", "pinned")]),
    ],
)
def test_a_pinned_model_is_asked_there_and_nowhere_else(
    model: str, expected: list[tuple[str, str, str]]
) -> None:
    assert told(candidates(replace(PLAIN, model=model), [LOCAL, UPSTREAM])) == expected


def test_a_pin_that_nobody_serves_has_no_candidate() -> None:
    assert candidates(replace(PLAIN, model="upstream/gpt-4o"), [LOCAL]) == ()


def test_a_vetoed_provider_is_not_asked_and_its_veto_is_the_reason() -> None:
    def breaker(provider: Provider, _: Question) -> str:
        return "circuit_open" if provider.route == "local" else ""

    assert told(candidates(PLAIN, [LOCAL, UPSTREAM], breaker)) == [
        ("upstream", "gpt-4o-mini", "circuit_open")
    ]


@pytest.mark.parametrize("error", ["overloaded", "timeout", "unavailable", "unsupported"])
def test_the_next_is_asked_only_while_the_client_has_seen_nothing(error: ErrorClass) -> None:
    assert may_ask_next(error, is_byte_sent=False)
    assert not may_ask_next(error, is_byte_sent=True)


def test_the_reason_of_a_fallback_names_route_and_error() -> None:
    first = candidates(PLAIN, [LOCAL, UPSTREAM])[0]
    assert fallback_reason(first, "timeout") == "local_timeout"
