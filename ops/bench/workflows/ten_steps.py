"""The bench's workflow: ten sequential LangGraph steps, each returning 1 KB. No Omium import.

Steps note when they were entered, on the clock that all processes of a machine share.
"""

from __future__ import annotations

import time
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

STEPS = 10
BYTES = 1024
_entered_ns: list[int] = []


class State(TypedDict, total=False):
    """What the graph carries."""

    data: str
    entered_ns: list[int]


def _step(number: int) -> Any:
    def step(state: State) -> State:
        if number == 0:
            _entered_ns.clear()
        _entered_ns.append(time.monotonic_ns())
        result: State = {"data": chr(ord("a") + number) * BYTES}
        if number == STEPS - 1:
            result["entered_ns"] = list(_entered_ns)
        return result

    return step


def build() -> Any:
    """The graph, uncompiled."""
    builder = StateGraph(State)
    names = [f"step_{number}" for number in range(STEPS)]
    for number, name in enumerate(names):
        builder.add_node(name, _step(number))
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder


graph = build().compile()
