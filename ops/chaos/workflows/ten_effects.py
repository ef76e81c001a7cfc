"""A workflow for the crash matrix: ten LangGraph steps, each with one LLM call and one side effect.
No Omium import.

Every tool call writes one row into a file of its own, so a repeated side effect is a second row.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from openai import OpenAI

STEPS = 10
ACT_S = 0.01


class State(TypedDict):
    """What the graph carries."""

    directory: str
    delay_ms: NotRequired[int]
    answers: NotRequired[list[str]]


@tool
def write_row(directory: str, number: int, idempotency_key: str = "") -> str:
    """Writes one row into the file of this number."""
    time.sleep(ACT_S)
    with (Path(directory) / f"{number}.rows").open("a") as file:
        file.write(f"{idempotency_key} {os.getpid()} {time.time()}\n")
    time.sleep(ACT_S)
    return f"row {number}"


def reconcile_write_row(idempotency_key: str, arguments: dict[str, Any]) -> str | None:
    """Whether the row of this call stands already."""
    path = Path(arguments["directory"]) / f"{arguments['number']}.rows"
    is_there = path.exists() and idempotency_key in path.read_text()
    return f"row {arguments['number']}" if is_there else None


def _step(number: int) -> Any:
    def step(state: State) -> dict[str, list[str]]:
        prompt = f"!delay_ms={state.get('delay_ms', 20)}\nstep {number} of {state['directory']}"
        answer = OpenAI().chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}]
        )
        write_row.invoke({"directory": state["directory"], "number": number})
        text = answer.choices[0].message.content or ""
        return {"answers": [*state.get("answers", []), text]}

    return step


def _build() -> Any:
    builder = StateGraph(State)
    names = [f"step_{number}" for number in range(STEPS)]
    for number, name in enumerate(names):
        builder.add_node(name, _step(number))
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile()


graph = _build()
