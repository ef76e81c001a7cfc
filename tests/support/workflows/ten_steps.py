"""Ten nodes, each with one LLM call and one tool that writes a row in a file of its own."""

import os
from typing import TypedDict

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

STEPS = 10


class State(TypedDict):
    directory: str
    said: list[str]


@tool
def write_row(directory: str, name: str) -> str:
    """Writes a row."""
    with open(os.path.join(directory, name), "a") as file:
        file.write("row\n")
    return f"wrote {name}"


def reconcile_write_row(idempotency_key: str, arguments: dict[str, str]) -> str | None:
    path = os.path.join(arguments["directory"], arguments["name"])
    return f"wrote {arguments['name']}" if os.path.exists(path) else None


def node(index: int):
    def run(state: State) -> dict[str, object]:
        answer = ChatOpenAI(model="m").invoke(f"question {index}")
        wrote = write_row.invoke({"directory": state["directory"], "name": f"row{index}"})
        return {"said": [*state["said"], f"{answer.content} / {wrote}"]}

    return run


builder = StateGraph(State)
for i in range(STEPS):
    builder.add_node(f"n{i}", node(i))
builder.add_edge(START, "n0")
for i in range(STEPS - 1):
    builder.add_edge(f"n{i}", f"n{i + 1}")
builder.add_edge(f"n{STEPS - 1}", END)
graph = builder.compile()
