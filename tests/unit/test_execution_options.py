"""What a caller may ask of an execution: every refusal names its field (law 13)."""

from __future__ import annotations

import json

import pytest

from streams.errors import Rejected
from streams.execution.options import (
    NAMED_MAX,
    OPTIONS_BYTES_MAX,
    OnDivergence,
    Policy,
    ToolOptions,
    parse,
)


def test_no_options_mean_the_safe_defaults() -> None:
    for text in ("", "{}"):
        options = parse(text)

        assert options.on_divergence is OnDivergence.ASK
        assert options.tool("anything") == ToolOptions(
            policy=Policy.AT_MOST_ONCE, needs_approval=False, timeout_ms=None
        )


def test_a_tool_is_found_by_name_then_by_star_then_by_default() -> None:
    options = parse('{"tools": {"pay": {"policy": "reconcile"}, "*": {"policy": "idempotent"}}}')

    assert options.tool("pay").policy is Policy.RECONCILE
    assert options.tool("look").policy is Policy.IDEMPOTENT
    assert parse("{}").tool("look").policy is Policy.AT_MOST_ONCE


def test_the_request_of_the_architecture_is_understood() -> None:
    text = json.dumps(
        {
            "constraints": [{"name": "apr", "path": "$.apr", "range": [2.5, 8.5]}],
            "infer_constraints": True,
            "tools": {
                "send": {"policy": "at_most_once", "approval": True, "timeout_s": 1.5, "retries": 2}
            },
            "steps": {"quote": {"approval": True, "timeout_s": 5, "retries": 1}},
            "recovery": {"mode": "auto", "max_attempts": 3},
            "budget_usd": 0.5,
            "on_divergence": "fail",
        }
    )

    options = parse(text)

    assert options.on_divergence is OnDivergence.FAIL
    assert options.tool("send") == ToolOptions(
        policy=Policy.AT_MOST_ONCE, needs_approval=True, timeout_ms=1500
    )


REFUSED = [
    ("{", "options", "invalid_json"),
    ("[]", "options", "invalid"),
    ("[" * 100_000, "options", "invalid_json"),
    ('"x"', "options", "invalid"),
    (" " * (OPTIONS_BYTES_MAX + 1), "options", "too_large"),
    ('{"toolz": {}}', "toolz", "unknown_field"),
    ('{"tools": []}', "tools", "invalid"),
    ('{"tools": {"pay": 1}}', "tools.pay", "invalid"),
    ('{"tools": {"pay": {"color": 1}}}', "tools.pay.color", "unknown_field"),
    ('{"tools": {"pay": {"policy": "twice"}}}', "tools.pay.policy", "invalid"),
    ('{"tools": {"pay": {"policy": null}}}', "tools.pay.policy", "invalid"),
    ('{"tools": {"pay": {"approval": "yes"}}}', "tools.pay.approval", "invalid"),
    ('{"tools": {"pay": {"approval": null}}}', "tools.pay.approval", "invalid"),
    ('{"tools": {"pay": {"timeout_s": 0}}}', "tools.pay.timeout_s", "invalid"),
    ('{"tools": {"pay": {"timeout_s": -1}}}', "tools.pay.timeout_s", "invalid"),
    ('{"tools": {"pay": {"timeout_s": 86401}}}', "tools.pay.timeout_s", "invalid"),
    ('{"tools": {"pay": {"timeout_s": NaN}}}', "tools.pay.timeout_s", "invalid"),
    ('{"tools": {"pay": {"timeout_s": true}}}', "tools.pay.timeout_s", "invalid"),
    ('{"tools": {"pay": {"timeout_s": "5"}}}', "tools.pay.timeout_s", "invalid"),
    ('{"steps": 3}', "steps", "invalid"),
    ('{"steps": {"a": 3}}', "steps.a", "invalid"),
    ('{"steps": {"a": {"color": 1}}}', "steps.a.color", "unknown_field"),
    ('{"constraints": {}}', "constraints", "invalid"),
    ('{"recovery": [1]}', "recovery", "invalid"),
    ('{"on_divergence": "shrug"}', "on_divergence", "invalid"),
    (json.dumps({"tools": {f"t{n}": {} for n in range(NAMED_MAX + 1)}}), "tools", "too_large"),
]


@pytest.mark.parametrize(
    ("text", "field", "code"), REFUSED, ids=[f"{f}-{c}-{i}" for i, (_, f, c) in enumerate(REFUSED)]
)
def test_a_refusal_names_its_field(text: str, field: str, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse(text)

    assert (refused.value.field, refused.value.code) == (field, code)
    assert str(refused.value)
