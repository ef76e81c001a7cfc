"""The shape of every rule in Omium: decide what happens, evolve what is, fold what was.

Source: the decider pattern (emmett, `typing/decider.ts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

State = TypeVar("State")
Happened = TypeVar("Happened")


def fold(
    evolve: Callable[[State, Happened], State], initial: State, events: Iterable[Happened]
) -> State:
    """The state after the events, in order (law 6)."""
    state = initial
    for event in events:
        state = evolve(state, event)
    return state
