"""What a caller may ask of one execution beside its input (ARCHITECTURE 4.8), parsed once and for
all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar, cast

from streams.errors import Rejected

E = TypeVar("E", bound=StrEnum)

OPTIONS_BYTES_MAX = 256 * 1024
NAMED_MAX = 200
"""Tools or steps that one request may configure."""

KEYS = frozenset(
    {
        "constraints",
        "infer_constraints",
        "tools",
        "steps",
        "recovery",
        "budget_usd",
        "on_divergence",
        "llm",
    }
)
TOOL_KEYS = frozenset({"policy", "approval", "timeout_s", "reconcile", "retries"})
STEP_KEYS = frozenset({"approval", "timeout_s", "retries"})


class Policy(StrEnum):
    """What may be done with a call that was in flight when its runner died (law 3)."""

    IDEMPOTENT = "idempotent"
    RECONCILE = "reconcile"
    AT_MOST_ONCE = "at_most_once"


class OnDivergence(StrEnum):
    """What to do when a resumed run asks a question that its journal does not hold (law 7)."""

    ASK = "ask"
    CONTINUE = "continue"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOptions:
    """How one tool behaves. Undeclared tools get the safe default."""

    policy: Policy = Policy.AT_MOST_ONCE
    needs_approval: bool = False
    timeout_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One execution's options."""

    tools: Mapping[str, ToolOptions] = field(default_factory=dict[str, ToolOptions])
    on_divergence: OnDivergence = OnDivergence.ASK

    def tool(self, name: str) -> ToolOptions:
        """The tool's options: by name, else `*`, else the safe default."""
        return self.tools.get(name) or self.tools.get("*") or ToolOptions()


def parse(text: str) -> Options:
    """The options in a request's JSON. Raises `Rejected` that names the field, the limit and what
    to do.
    """
    if len(text.encode()) > OPTIONS_BYTES_MAX:
        raise Rejected("too_large", f"options hold more than {OPTIONS_BYTES_MAX} bytes", "options")
    try:
        raw = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise Rejected("invalid_json", f"options are not JSON: {error}", "options") from error
    options = _object(raw, "options")
    _known(options, KEYS, "")
    tools = _named(options.get("tools"), "tools")
    for name, step in _named(options.get("steps"), "steps").items():
        _known(step, STEP_KEYS, f"steps.{name}")
    if not isinstance(options.get("constraints", []), list):
        raise Rejected("invalid", "constraints must be a list", "constraints")
    _object(options.get("recovery") or {}, "recovery")
    return Options(
        tools={name: _tool(tool, f"tools.{name}") for name, tool in tools.items()},
        on_divergence=_one_of(OnDivergence, options.get("on_divergence", "ask"), "on_divergence"),
    )


def _tool(raw: Mapping[str, object], at: str) -> ToolOptions:
    _known(raw, TOOL_KEYS, at)
    timeout_s = raw.get("timeout_s")
    if timeout_s is not None and not (
        _is_number(timeout_s) and 0 < float(str(timeout_s)) <= 86_400
    ):
        raise Rejected("invalid", f"{at}.timeout_s must be between 0 and 86400", f"{at}.timeout_s")
    approval = raw.get("approval", False)
    if not isinstance(approval, bool):
        raise Rejected("invalid", f"{at}.approval must be true or false", f"{at}.approval")
    return ToolOptions(
        policy=_one_of(Policy, raw.get("policy", Policy.AT_MOST_ONCE.value), f"{at}.policy"),
        needs_approval=approval,
        timeout_ms=None if timeout_s is None else int(float(str(timeout_s)) * 1000),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(raw: object, at: str) -> Mapping[str, object]:
    if not isinstance(raw, dict):
        raise Rejected("invalid", f"{at} must be an object", at)
    return cast("dict[str, object]", raw)  # JSON's keys are strings.


def _named(raw: object, at: str) -> Mapping[str, Mapping[str, object]]:
    named = _object(raw if raw is not None else {}, at)
    if len(named) > NAMED_MAX:
        raise Rejected("too_large", f"{at} names more than {NAMED_MAX}", at)
    return {str(name): _object(value, f"{at}.{name}") for name, value in named.items()}


def _known(raw: Mapping[str, object], keys: frozenset[str], at: str) -> None:
    for key in raw:
        if key not in keys:
            where = f"{at}.{key}" if at else key
            raise Rejected(
                "unknown_field", f"{where} is unknown; known: {', '.join(sorted(keys))}", where
            )


def _one_of(enum: type[E], value: object, at: str) -> E:
    try:
        return enum(str(value))
    except ValueError as error:
        allowed = ", ".join(member.value for member in enum)
        raise Rejected("invalid", f"{at} must be one of {allowed}, not {value!r}", at) from error
