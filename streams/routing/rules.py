"""Where an LLM call goes: the local model first, the upstream when it cannot or must not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Route = Literal["local", "upstream"]
ErrorClass = Literal[
    "overloaded", "timeout", "unavailable", "bad_request", "unsupported", "aborted", "no_provider"
]

PIN_LOCAL: Final = "local/"
PIN_UPSTREAM: Final = "upstream/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What routing needs to know of a request."""

    tenant: str
    model: str
    """As the client wrote it; `local/…` and `upstream/…` pin the route."""
    has_tools: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One place that answers."""

    route: Route
    name: str
    model: str
    """What it is asked for instead of the client's model; empty: the client's own."""
    has_tools: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A provider, under the model it will be asked for, and why it comes where it comes."""

    provider: Provider
    model: str
    reason: str


Veto = Callable[[Provider, Question], str]
"""Why a provider must not be asked now, or nothing: the seam for breaker, budget and policies."""


def no_veto(_: Provider, __: Question) -> str:
    """Nothing speaks against any provider."""
    return ""


def candidates(
    question: Question, providers: Sequence[Provider], veto: Veto = no_veto
) -> tuple[Candidate, ...]:
    """Whom to ask, in order; each next one is asked only if the one before failed without a visible
    byte.

    Local comes first, unless it would have to drop the request's tools and an upstream need not.
    Empty if the model is pinned to a route that nobody serves, or everything is vetoed.
    """
    pin, model = _pinned(question.model)
    vetoes = {provider.name: veto(provider, question) for provider in providers}
    standing = [p for p in providers if not vetoes[p.name] and pin in ("", p.route)]
    ranked = sorted(standing, key=lambda p: _rank(p, question))
    return tuple(
        Candidate(
            provider=provider,
            model=provider.model or model,
            reason=_reason(provider, ranked[:place], providers, vetoes, pin),
        )
        for place, provider in enumerate(ranked)
    )


def may_ask_next(error: ErrorClass, *, is_byte_sent: bool) -> bool:
    """Whether another provider may answer instead: only while the client has seen nothing of this
    answer.
    """
    return not is_byte_sent and error != "no_provider"


def fallback_reason(failed: Candidate, error: ErrorClass) -> str:
    """Why the next candidate is asked, for the log and the `LlmCallRouted` event."""
    return f"{failed.provider.route}_{error}"


def _pinned(model: str) -> tuple[str, str]:
    if model.startswith(PIN_LOCAL):
        return "local", model.removeprefix(PIN_LOCAL)
    if model.startswith(PIN_UPSTREAM):
        return "upstream", model.removeprefix(PIN_UPSTREAM)
    return "", model


def _rank(provider: Provider, question: Question) -> tuple[bool, bool]:
    lacks_tools = question.has_tools and not provider.has_tools
    return lacks_tools, provider.route != "local"


def _reason(
    provider: Provider,
    before: Sequence[Provider],
    providers: Sequence[Provider],
    vetoes: dict[str, str],
    pin: str,
) -> str:
    if pin:
        return "pinned"
    if before:
        return "next"
    if provider.route == "local":
        return "local_first"
    locals_ = [p for p in providers if p.route == "local"]
    if not locals_:
        return "no_local"
    return next((vetoes[p.name] for p in locals_ if vetoes[p.name]), "local_lacks_tools")
