"""Workflows that misbehave, or that need a person: what the e2e tests run."""

import os
import sys
import time
from pathlib import Path
from typing import TypedDict

from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    text: str
    approved: object
    path: str


def _graph(function):
    builder = StateGraph(State)
    builder.add_node("only", function)
    builder.add_edge(START, "only")
    builder.add_edge("only", END)
    return builder.compile()


def _raise(state: State) -> State:
    raise ValueError("the numbers do not add up")


def _exit(state: State) -> State:
    os._exit(7)


def _hang(state: State) -> State:
    while True:
        time.sleep(1)


def _shout(state: State) -> State:
    line = "x" * 1023 + "\n"
    for _ in range(100 * 1024):
        sys.stdout.write(line)
    return {"text": "hoarse"}


def _ask(state: State) -> State:
    return {"approved": interrupt({"question": "may I?"})}


@tool
def touch(path: str) -> str:
    """Adds a row to the file, then dies once if it was the first."""
    with open(path, "a") as file:
        file.write("row\n")
    with open(path) as file:
        is_first = file.read().count("row") == 1
    if is_first:
        os._exit(9)
    return "touched"


@tool
def slow_row(path: str, number: int) -> str:
    """Adds one row, slowly."""
    time.sleep(0.6)
    with open(path, "a") as file:
        file.write(f"row {number}\n")
    return f"row {number}"


def reconcile_slow_row(idempotency_key: str, arguments: dict) -> str | None:
    path, row = Path(arguments["path"]), f"row {arguments['number']}"
    is_there = path.exists() and row in path.read_text().splitlines()
    return row if is_there else None


def _slow(state: State) -> State:
    for number in range(5):
        slow_row.invoke({"path": state["path"], "number": number})
    return {"text": "done"}


def _touch(state: State) -> State:
    return {"text": touch.invoke({"path": state["path"]})}


raises = _graph(_raise)
exits = _graph(_exit)
hangs = _graph(_hang)
shouts = _graph(_shout)
asks = _graph(_ask)
touches = _graph(_touch)
slow = _graph(_slow)


def plain(name: str, times: int = 1) -> dict:
    """A plain function on the OpenAI SDK."""
    from openai import OpenAI

    client = OpenAI()
    answers = [
        client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": f"!say=hello {name} {number}"}],
        )
        .choices[0]
        .message.content
        for number in range(times)
    ]
    return {"answers": answers}
