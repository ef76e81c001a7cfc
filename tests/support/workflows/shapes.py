"""Graphs of every shape that a LangGraph user may write."""

import asyncio
import operator
import os
import threading
from typing import Annotated, TypedDict

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy, Send, interrupt


class State(TypedDict, total=False):
    directory: str
    said: Annotated[list[str], operator.add]
    item: int


def _row(state: State, name: str) -> None:
    with open(os.path.join(state["directory"], name), "a") as file:
        file.write("row\n")


def _branch(name: str):
    def run(state: State) -> State:
        answer = ChatOpenAI(model="m").invoke("same question")
        _row(state, name)
        return {"said": [f"{name}: {answer.content}"]}

    return run


def _join(state: State) -> State:
    return {"said": [f"joined {len(state['said'])}"]}


builder = StateGraph(State)
for name in ("a", "b", "c"):
    builder.add_node(name, _branch(name))
    builder.add_edge(START, name)
    builder.add_edge(name, "join")
builder.add_node("join", _join)
builder.add_edge("join", END)
parallel = builder


def _fan(state: State) -> list[Send]:
    return [Send("item", {"directory": state["directory"], "item": i}) for i in range(3)]


def _item(state: State) -> State:
    answer = ChatOpenAI(model="m").invoke(f"item {state['item']}")
    return {"said": [str(answer.content)]}


builder = StateGraph(State)
builder.add_node("item", _item)
builder.add_conditional_edges(START, _fan, ["item"])
builder.add_edge("item", END)
fan = builder.compile(checkpointer=InMemorySaver())


def _inner(state: State) -> State:
    answer = ChatOpenAI(model="m").invoke("inner question")
    return {"said": [f"inner {answer.content}"]}


inner = StateGraph(State)
inner.add_node("think", _inner)
inner.add_node("write", lambda state: {"said": ["written"]})
inner.add_edge(START, "think")
inner.add_edge("think", "write")
inner.add_edge("write", END)
builder = StateGraph(State)
builder.add_node("first", lambda state: {"said": ["first"]})
builder.add_node("agent", inner.compile())
builder.add_node("last", lambda state: {"said": ["last"]})
builder.add_edge(START, "first")
builder.add_edge("first", "agent")
builder.add_edge("agent", "last")
builder.add_edge("last", END)
nested = builder.compile()


def _ask(state: State) -> State:
    _row(state, "asked")
    answer = interrupt({"question": "go on?"})
    return {"said": [f"person said {answer}"]}


builder = StateGraph(State)
builder.add_node("before", lambda state: {"said": ["before"]})
builder.add_node("ask", _ask)
builder.add_node("ask_too", lambda state: {"said": [f"too: {interrupt('second?')}"]})
builder.add_node("beside", lambda state: {"said": ["beside"]})
builder.add_edge(START, "before")
builder.add_edge("before", "ask")
builder.add_edge("before", "beside")
builder.add_edge("ask", "ask_too")
builder.add_edge("ask_too", END)
asking = builder.compile()

builder = StateGraph(State)
builder.add_node("draft", lambda state: {"said": ["draft"]})
builder.add_node("send", lambda state: {"said": ["sent"]})
builder.add_edge(START, "draft")
builder.add_edge("draft", "send")
builder.add_edge("send", END)
guarded = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["send"])


@tool
async def slow_lookup(name: str) -> str:
    """Looks up."""
    await asyncio.sleep(0)
    return f"found {name}"


async def _async_node(state: State) -> State:
    answer = await ChatOpenAI(model="m").ainvoke("async question")
    found = await slow_lookup.ainvoke({"name": "x"})
    return {"said": [f"{answer.content} {found}"]}


builder = StateGraph(State)
builder.add_node("one", _async_node)
builder.add_node("two", _async_node)
builder.add_node("three", lambda state: {"said": ["sync"]})
builder.add_edge(START, "one")
builder.add_edge(START, "two")
builder.add_edge("one", "three")
builder.add_edge("two", "three")
asynchronous = builder.compile()


@task
def double(number: int) -> int:
    answer = ChatOpenAI(model="m").invoke(f"double {number}")
    return number * 2 if answer.content else 0


@entrypoint()
def functional(numbers: list[int]) -> int:
    futures = [double(number) for number in numbers]
    return sum(future.result() for future in futures)


_tries = threading.local()


def _flaky(state: State) -> State:
    _row(state, "tries")
    with open(os.path.join(state["directory"], "tries")) as file:
        if len(file.readlines()) < 3:
            raise ConnectionError("not yet")
    return {"said": ["at last"]}


builder = StateGraph(State)
builder.add_node(
    "flaky",
    _flaky,
    retry_policy=RetryPolicy(initial_interval=0.01, jitter=False, max_attempts=3),
)
builder.add_edge(START, "flaky")
flaky = builder.compile()


def _raise(state: State) -> State:
    raise ValueError("this graph raises")


builder = StateGraph(State)
builder.add_node("bad", _raise)
builder.add_edge(START, "bad")
raising = builder.compile()


def _exit(state: State) -> State:
    print("going")
    os._exit(3)


builder = StateGraph(State)
builder.add_node("gone", _exit)
builder.add_edge(START, "gone")
exiting = builder.compile()


@tool
def risky(name: str) -> str:
    """Does something that needs a yes."""
    return f"did {name}"


@tool
def failing(name: str) -> str:
    """Raises."""
    raise LookupError(f"no {name}")


@tool
def asks_inside(name: str) -> str:
    """Asks a person in the middle of the call."""
    return f"{name}: {interrupt({'sure': name})}"


def _risky(state: State) -> State:
    try:
        failing.invoke({"name": "x"})
    except LookupError as error:
        caught = f"{type(error).__name__} {error}"
    return {"said": [caught, risky.invoke({"name": "y"})]}


builder = StateGraph(State)
builder.add_node("risk", _risky)
builder.add_edge(START, "risk")
risking = builder.compile()

builder = StateGraph(State)
builder.add_node("inside", lambda state: {"said": [asks_inside.invoke({"name": "z"})]})
builder.add_edge(START, "inside")
asking_inside = builder.compile()


def _twice(state: State) -> State:
    first = interrupt("first?")
    middle = ChatOpenAI(model="m").invoke(f"after {first}").content
    return {"said": [f"{first} {interrupt('second?')} {middle}"]}


builder = StateGraph(State)
builder.add_node("twice", _twice)
builder.add_edge(START, "twice")
asking_twice = builder.compile()

builder = StateGraph(State)
builder.add_node("agent", asking_twice)
builder.add_edge(START, "agent")
asking_below = builder.compile()


def _endless(state: State) -> State:
    with open(os.path.join(state["directory"], "started"), "w") as file:
        file.write("x")
    threading.Event().wait(60)
    return {}


builder = StateGraph(State)
builder.add_node("endless", _endless)
builder.add_edge(START, "endless")
endless = builder.compile()
