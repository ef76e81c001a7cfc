"""The checkpointer: LangGraph's own conformance suite, and the log as its only memory."""

from __future__ import annotations

import operator
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from producers.adapters import langgraph_patches
from producers.adapters.log_saver import Entry, LogSaver


class MemoryLog:
    """Records in a list. What is begun stands at once."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def begin(self, entry: Entry) -> object:
        self.entries.append(entry)
        return entry

    def settle(self, ticket: object) -> None:
        """It stands."""

    async def settle_async(self, ticket: object) -> None:
        """It stands."""


def rebuilt(log: MemoryLog) -> LogSaver:
    saver = LogSaver(MemoryLog())
    saver.restore(entry.blob for entry in log.entries)
    return saver


class RebuildingSaver(LogSaver):
    """Forgets everything before it is read: only what is on the log can be found."""

    def get_tuple(self, config: Any) -> Any:
        self.flush_all()
        return LogSaver.get_tuple(rebuilt(self.log), config)  # type: ignore[arg-type]

    async def aget_tuple(self, config: Any) -> Any:
        return self.get_tuple(config)

    async def alist(self, config: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.flush_all()
        for item in LogSaver.list(rebuilt(self.log), config, **kwargs):  # type: ignore[arg-type]
            yield item

    def flush_all(self) -> None:
        self.mark(f"flush {len(self.log.entries)}")  # type: ignore[attr-defined]


@pytest.mark.parametrize("saver_class", [LogSaver, RebuildingSaver])
async def test_the_checkpointer_conforms_in_base_and_all_extended_capabilities(
    saver_class: type[LogSaver],
) -> None:
    @checkpointer_test(name="omium")
    async def registered() -> AsyncIterator[LogSaver]:
        yield saver_class(MemoryLog())

    report = await validate(registered)

    assert report.passed_all_base()
    assert {
        name: (r.passed, r.failures) for name, r in report.results.items() if not r.passed
    } == {}
    assert len(report.results) == 8


class State(TypedDict, total=False):
    items: Annotated[list[int], operator.add]


def chain(steps: int) -> StateGraph[State]:
    builder = StateGraph(State)
    previous = START
    for index in range(steps):
        builder.add_node(f"n{index}", lambda state, index=index: {"items": [index]})
        builder.add_edge(previous, f"n{index}")
        previous = f"n{index}"
    builder.add_edge(previous, END)
    return builder


CONFIG: Any = {"configurable": {"thread_id": "t"}}


def test_a_step_of_one_node_is_one_record_with_writes_and_checkpoint() -> None:
    langgraph_patches.patch()
    log = MemoryLog()

    chain(10).compile(checkpointer=LogSaver(log)).invoke({"items": []}, CONFIG, durability="sync")

    assert [entry.step and entry.step["langgraph_node"] for entry in log.entries] == [
        f"n{index}" for index in range(10)
    ]


def test_any_prefix_of_the_log_resumes_to_the_same_end() -> None:
    langgraph_patches.patch()
    log = MemoryLog()
    graph = chain(6)
    expected = graph.compile(checkpointer=LogSaver(log)).invoke(
        {"items": []}, CONFIG, durability="sync"
    )

    for length in range(1, len(log.entries) + 1):
        saver = LogSaver(MemoryLog())
        saver.restore(entry.blob for entry in log.entries[:length])
        resumed = graph.compile(checkpointer=saver).invoke(None, CONFIG, durability="sync")
        assert resumed == expected
        assert len(saver.log.entries) == len(log.entries) - length  # type: ignore[attr-defined]


def test_without_the_patches_nothing_is_lost_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """The race of LangGraph issue 8039: a checkpoint may then be stored before its writes."""
    log = MemoryLog()
    saver = LogSaver(log)
    monkeypatch.setattr(saver, "note_task", lambda *_: None)
    monkeypatch.setattr(langgraph_patches, "_is_ours", lambda _: False)
    graph = chain(6)

    expected = graph.compile(checkpointer=saver).invoke({"items": []}, CONFIG, durability="sync")

    for length in range(1, len(log.entries) + 1):
        again = LogSaver(MemoryLog())
        again.restore(entry.blob for entry in log.entries[:length])
        if again.has_checkpoint("t"):
            assert (
                graph.compile(checkpointer=again).invoke(None, CONFIG, durability="sync")
                == expected
            )


def test_a_checkpoint_never_overtakes_the_writes_that_it_follows_from() -> None:
    """Issue 8039 again: with the patches both are stored on the loop's own thread, in order."""
    langgraph_patches.patch()
    threads: list[tuple[str, int]] = []

    class Watching(LogSaver):
        def put(self, *args: Any) -> Any:
            threads.append(("put", threading.get_ident()))
            return super().put(*args)

        def put_writes(self, *args: Any) -> None:
            threads.append(("put_writes", threading.get_ident()))
            super().put_writes(*args)

    chain(3).compile(checkpointer=Watching(MemoryLog())).invoke(
        {"items": []}, CONFIG, durability="sync"
    )

    assert {ident for _, ident in threads} == {threading.get_ident()}
    assert [name for name, _ in threads] == ["put"] + ["put_writes", "put"] * 4


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def test_the_log_grows_with_the_conversation_and_not_with_its_square() -> None:
    langgraph_patches.patch()

    def talk(steps: int) -> MemoryLog:
        builder = StateGraph(Chat)
        previous = START
        for index in range(steps):
            text = f"{index} " + "word " * 200
            builder.add_node(f"n{index}", lambda state, text=text: {"messages": [AIMessage(text)]})
            builder.add_edge(previous, f"n{index}")
            previous = f"n{index}"
        log = MemoryLog()
        graph = builder.compile(checkpointer=LogSaver(log))
        said = graph.invoke({"messages": [("user", "hi")]}, CONFIG, durability="sync")["messages"]
        assert (
            builder.compile(checkpointer=rebuilt(log)).get_state(CONFIG).values["messages"] == said
        )
        return log

    early, late = (len(talk(steps).entries[-1].blob) for steps in (8, 48))

    assert late < early * 1.6 + 48 * 120, "only the list of versions may grow"


def _append(state: list[int], writes: list[list[int]]) -> list[int]:
    return [*state, *(item for write in writes for item in write)]


class Delta(TypedDict):
    items: Annotated[list[int], DeltaChannel(_append, snapshot_frequency=4)]


@pytest.mark.filterwarnings("ignore")
def test_delta_channels_are_rebuilt_from_the_log_and_survive_a_prune() -> None:
    langgraph_patches.patch()
    builder = StateGraph(Delta)
    previous = START
    for index in range(10):
        builder.add_node(f"n{index}", lambda state, index=index: {"items": [index]})
        builder.add_edge(previous, f"n{index}")
        previous = f"n{index}"
    log = MemoryLog()
    saver = LogSaver(log)
    graph = builder.compile(checkpointer=saver)
    graph.invoke({"items": []}, CONFIG, durability="sync")

    for length in range(1, len(log.entries) + 1):
        again = LogSaver(MemoryLog())
        again.restore(entry.blob for entry in log.entries[:length])
        resumed = builder.compile(checkpointer=again).invoke(None, CONFIG, durability="sync")
        assert resumed["items"] == list(range(10))
    before = len(list(saver.list(CONFIG)))
    saver.prune(["t"])

    assert graph.get_state(CONFIG).values["items"] == list(range(10))
    assert len(list(saver.list(CONFIG))) < before
    assert builder.compile(checkpointer=rebuilt(log)).get_state(CONFIG).values["items"] == list(
        range(10)
    )
