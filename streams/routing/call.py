"""One LLM call as the log tells it, and what a request for it means now (laws 2, 3 and 6).

A completed call is final: asking again is answered from the log. A failed call is not: nothing was
answered, so a *new* request for it is tried again, while the request that failed, delivered a
second time, is not. A call with an intent and no outcome is *in doubt*: its owner died or was
deposed while the provider worked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

from streams.llm.events import LlmCallCompleted, LlmCallFailed, LlmCallRequested, LlmCallRouted
from streams.messages import Message, event_id

FAILURES_KEPT = 8
"""How many failed requests of one call are remembered: deliveries repeat recent ones only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallState:
    """What must be remembered of a call. `open_try` is the intent that has no outcome yet."""

    is_completed: bool = False
    failures: tuple[str, ...] = ()
    tries: int = 0
    open_try: LlmCallRouted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Nothing to do: the outcome of this very request stands on the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Ask a provider. `in_doubt` is an earlier try that may have been answered, and paid for."""

    try_number: int
    in_doubt: LlmCallRouted | None


def evolve(state: CallState, event: Message) -> CallState:
    """The state after one standing event of the call; other events change nothing."""
    match event:
        case LlmCallRouted():
            return replace(state, tries=max(state.tries, event.try_number), open_try=event)
        case LlmCallCompleted():
            return replace(state, is_completed=True, open_try=None)
        case LlmCallFailed():
            kept = (*state.failures, event.event_id)[-FAILURES_KEPT:]
            return replace(state, failures=kept, open_try=None)
        case _:
            return state


def decide(state: CallState, request: LlmCallRequested) -> Answered | Ask:
    """What a request means, given what the log says of its call."""
    if state.is_completed or failure_id(request) in state.failures:
        return Answered()
    return Ask(try_number=state.tries + 1, in_doubt=state.open_try)


def settlement(in_doubt: LlmCallRouted | None) -> Literal["settled", "unconfirmed"]:
    """The status of a call's usage: a try in doubt may have been paid too, unless it was our own
    hardware.
    """
    return "unconfirmed" if in_doubt is not None and in_doubt.route == "upstream" else "settled"


def request_id(tenant: str, execution_id: str, step: str, call: str, nonce: str) -> str:
    """The id of one request for a call. Each asking is a fact of its own: the nonce is fresh every
    time.
    """
    return event_id(tenant, execution_id, step, 0, "LlmCallRequested", f"{call}/{nonce}")


def routed_id(request: LlmCallRequested, try_number: int) -> str:
    """The id of the intent of one try."""
    return _id(request, "LlmCallRouted", try_number)


def failure_id(request: LlmCallRequested) -> str:
    """The id of the failure of this very request."""
    return _id(request, "LlmCallFailed", request.event_id)


def completion_id(tenant: str, execution_id: str, step: str, call: str, body: bytes) -> str:
    """The id of the answer to `body`: who holds a body can tell whether a recorded answer answers
    it.
    """
    digest = sha256(body).hexdigest()
    return event_id(tenant, execution_id, step, 0, "LlmCallCompleted", f"{call}/{digest}")


def answers(completed: LlmCallCompleted, body: bytes) -> bool:
    """Whether the recorded answer is one to this very body; if not, its key was used for another
    request.
    """
    return completed.event_id == completion_id(
        completed.tenant, completed.execution_id, completed.step, completed.call_id, body
    )


def _id(request: LlmCallRequested, kind: str, ordinal: int | str) -> str:
    return event_id(
        request.tenant, request.execution_id, request.step, 0, kind, f"{request.call_id}/{ordinal}"
    )
