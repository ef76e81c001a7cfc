"""What a runner may do when it asks before a call (laws 3 and 7). Pure: the worker acts on the
answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from streams.execution import events as e
from streams.execution.journal import Effect, EffectState, Journal
from streams.execution.options import OnDivergence, Policy
from streams.execution.state import Execution, Status
from streams.messages import Message, event_id

TOOL_MS_ASSUMED = 30_000
"""How long a tool without a declared timeout is assumed to run on after its owner is gone."""
NETWORK_MS_ASSUMED = 10_000
HELD = frozenset({Status.PAUSED, Status.COMPLETED, Status.FAILED, Status.CANCELLED})
"""A runner that has not heard of it yet may ask on; nothing new begins for it."""


class Verdict(StrEnum):
    """The answer to a runner's question."""

    GO = "go"
    RECORDED = "recorded"
    RECONCILE = "reconcile"
    SUSPEND = "suspend"
    DENY = "deny"
    WAIT = "wait"
    """Ask again after `wait_ms`: a predecessor may still be acting, or a parallel call may still
    claim the entry.
    """
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A verdict, the events that must stand before the runner hears of it, and what it needs to
    know.
    """

    verdict: Verdict
    events: tuple[Message, ...] = ()
    effect: Effect | None = None
    reason: str = ""
    wait_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call that the runner is about to make."""

    kind: str
    """`tool` or `llm`."""
    name: str
    call_id: str
    step: str
    step_key: str
    agent: str
    request_hash: str
    ordinal: int
    arguments_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the rule must know beside the log."""

    now_ms: int
    claimed_at_ms: int
    """When this owner's claim was acknowledged."""
    lease_ms: int
    window_ms: int
    is_predecessor_dead: bool
    """Proof of death: every runner of an earlier incarnation is known to be gone."""
    is_replay_over: bool = False
    """The grace for parallel calls to claim their journal entries has passed."""


def ask(question: Question, execution: Execution, journal: Journal, around: Surroundings) -> Answer:
    """May this call be made? At most one `GO` ever per finished effect; an unfinished one goes by
    its policy.
    """
    if execution.status in HELD:
        return Answer(verdict=Verdict.SUSPEND, reason=f"the execution is {execution.status.value}")
    effect = journal.effects.get(question.call_id)
    if effect is None:
        return _new(question, execution, journal, around)
    effect.asked_in = execution.incarnation
    if question.kind == "llm":
        # The gateway holds the answer under the same key: asking again is free.
        return Answer(verdict=Verdict.GO)
    if effect.state is not EffectState.INTENDED:
        return Answer(verdict=Verdict.RECORDED, effect=effect)
    if effect.incarnation == execution.incarnation:
        return Answer(verdict=Verdict.GO, events=(_intent(question, execution),))
    return _in_doubt(question, execution, around, effect)


def _new(
    question: Question, execution: Execution, journal: Journal, around: Surroundings
) -> Answer:
    if strangers := journal.unasked(question.step_key, question.kind, execution.incarnation):
        diverged = _diverged(question, execution, strangers, around)
        if diverged is not None:
            return diverged
    if question.kind == "tool" and execution.options.tool(question.name).needs_approval:
        gate = _gated(question, execution, "tool_gate", "this tool needs approval")
        if gate is not None:
            return gate
    return Answer(verdict=Verdict.GO, events=(_intent(question, execution),))


def _in_doubt(
    question: Question, execution: Execution, around: Surroundings, effect: Effect
) -> Answer:
    options = execution.options.tool(question.name)
    intent = (_intent(question, execution),)
    if options.policy is Policy.IDEMPOTENT:
        return Answer(verdict=Verdict.GO, events=intent)
    if not around.is_predecessor_dead:
        # Rule 1: the old owner's runner may still be acting; its lease, its kill timer and the tool
        # must run out.
        tool_ms = options.timeout_ms or TOOL_MS_ASSUMED
        safe_at_ms = (
            around.claimed_at_ms + around.lease_ms + around.window_ms + tool_ms + NETWORK_MS_ASSUMED
        )
        if around.now_ms < safe_at_ms:
            return Answer(verdict=Verdict.WAIT, wait_ms=safe_at_ms - around.now_ms)
    if options.policy is Policy.RECONCILE:
        return Answer(verdict=Verdict.RECONCILE, events=intent)
    reason = "the call was in flight when its runner died; it may have happened"
    # Each doubt is a question of its own: a yes to one run is no yes to the next.
    gate = _gated(question, execution, "tool_in_doubt", reason, f":{effect.incarnation}")
    return gate or Answer(verdict=Verdict.GO, events=intent)


def _gated(
    question: Question, execution: Execution, kind: str, reason: str, which: str = ""
) -> Answer | None:
    """The question to a person, or their no; nothing when they said yes."""
    asked_of = f"{kind}:{question.call_id}{which}"
    asked = execution.approval_of(asked_of)
    if asked is not None and asked.is_granted is not None:
        if asked.is_granted:
            return None
        return Answer(verdict=Verdict.DENY, reason=asked.reason or "a person said no")
    if asked is not None:
        return Answer(verdict=Verdict.SUSPEND, reason=reason)
    request = e.ApprovalRequested(
        event_id=_id(execution, question.step_key, "ApprovalRequested", asked_of),
        tenant=execution.tenant,
        execution_id=execution.execution_id,
        approval_id=_id(execution, question.step_key, "approval", asked_of),
        kind=kind,
        step=question.step,
        tool=question.name if question.kind == "tool" else "",
        call_id=asked_of,
        payload_json=json.dumps(
            {"reason": reason, "arguments": question.arguments_json[:4096]}, sort_keys=True
        ),
    )
    return Answer(verdict=Verdict.SUSPEND, events=(request,), reason=reason)


def _diverged(
    question: Question, execution: Execution, strangers: list[Effect], around: Surroundings
) -> Answer | None:
    if not around.is_replay_over:
        return Answer(verdict=Verdict.WAIT, wait_ms=0, reason="replay")
    policy = execution.options.on_divergence
    said = e.ReplayDiverged(
        event_id=_id(execution, question.step_key, "ReplayDiverged", question.call_id),
        tenant=execution.tenant,
        execution_id=execution.execution_id,
        step=question.step,
        step_key=question.step_key,
        kind=question.kind,
        expected_json=json.dumps([[s.name, s.request_hash] for s in strangers[:8]]),
        actual_json=json.dumps([question.name, question.request_hash]),
        policy=policy.value,
    )
    reason = f"replay asked {question.kind} {question.name!r} differently than its journal holds"
    if policy is OnDivergence.FAIL:
        return Answer(verdict=Verdict.FAIL, events=(said,), reason=reason)
    if policy is OnDivergence.CONTINUE:
        events = (said, _intent(question, execution))
        return Answer(verdict=Verdict.GO, events=events, reason=reason)
    gate = _gated(question, execution, "divergence", reason)
    if gate is None:
        return None
    return (
        gate
        if not gate.events
        else Answer(verdict=gate.verdict, events=(said, *gate.events), reason=reason)
    )


def _intent(question: Question, execution: Execution) -> Message:
    kind = "ToolCallIntended" if question.kind == "tool" else "LlmCallIntended"
    identity = _id(execution, question.step_key, kind, question.call_id)
    if question.kind == "tool":
        return e.ToolCallIntended(
            event_id=identity,
            tenant=execution.tenant,
            execution_id=execution.execution_id,
            call_id=question.call_id,
            step=question.step,
            step_key=question.step_key,
            agent=question.agent,
            tool=question.name,
            policy=execution.options.tool(question.name).policy.value,
            request_hash=question.request_hash,
            ordinal=question.ordinal,
            arguments_json=question.arguments_json,
            incarnation=execution.incarnation,
        )
    return e.LlmCallIntended(
        event_id=identity,
        tenant=execution.tenant,
        execution_id=execution.execution_id,
        call_id=question.call_id,
        step=question.step,
        step_key=question.step_key,
        agent=question.agent,
        model=question.name,
        request_hash=question.request_hash,
        ordinal=question.ordinal,
        incarnation=execution.incarnation,
    )


def _id(execution: Execution, step_key: str, kind: str, ordinal: str) -> str:
    return event_id(execution.tenant, execution.execution_id, step_key, 0, kind, ordinal)
