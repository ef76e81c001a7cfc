"""LangGraph: any compiled or uncompiled graph, or functional-API entrypoint, unmodified.

For the execution the graph's own checkpointer is replaced by one on the execution's log; durability
is `sync`. Finished super-steps, and finished nodes of an unfinished one, are not run again; an
unfinished node starts over and gets its finished tool calls and LLM answers from the journal.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, cast

import orjson
from langchain_core.tracers.context import register_configure_hook
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt

from producers.adapters import langgraph_patches
from producers.adapters.langgraph_steps import StepEvents, StepTracker
from producers.adapters.log_saver import INTERRUPT, Entry, LogSaver
from producers.adapters.port import BadInput, Finished, Interrupted, Interruption, Outcome
from producers.runner import langchain_tools, llm_calls, rehearsal
from producers.runner.channel import Ticket
from producers.runner.render import to_json
from producers.runner.session import Session

_events: ContextVar[StepEvents | None] = ContextVar("omium_langgraph_events", default=None)
_BREAKPOINT = "breakpoint"
_WHOLE = frozenset({"__root__", "__return__", "__end__"})
"""Channels that hold the whole state or result rather than a part of it."""


class LangGraphAdapter:
    """See the module."""

    name = "langgraph"

    def __init__(self) -> None:
        self._is_loaded = False

    def preload(self) -> None:
        """Imports what LangGraph users import, and patches."""
        if self._is_loaded:
            return
        import langchain_openai  # noqa: F401 - the slowest import of most graphs

        register_configure_hook(_events, inheritable=True)
        langgraph_patches.patch()
        langchain_tools.patch()
        llm_calls.patch()
        self._is_loaded = True

    def rehearse(self) -> None:
        """Runs a small graph to nowhere."""
        rehearsal.sdk()
        rehearsal.langgraph()

    def detect(self, target: object) -> bool:
        """A graph, compiled or not, or an entrypoint of the functional API."""
        return isinstance(target, Pregel | StateGraph)

    def describe(self, target: object) -> Mapping[str, object]:
        """The graph's nodes and edges."""
        drawn = _compiled(target).get_graph()
        return {
            "nodes": sorted(drawn.nodes),
            "edges": [[edge.source, edge.target] for edge in drawn.edges],
        }

    def run(self, target: object, inputs: object, session: Session) -> Outcome:
        """Runs the graph, or takes it up where the records end."""
        tracker = StepTracker(session)
        session.locate = tracker.here
        saver = LogSaver(_SessionLog(session, tracker))
        saver.restore(blob for _, _, blob in session.records)
        graph = copy.copy(_compiled(target))
        graph.checkpointer = saver
        _events.set(StepEvents(tracker))
        thread_id = session.start["execution_id"]
        config: dict[str, Any] = {"configurable": {"thread_id": thread_id}}
        if saver.has_checkpoint(thread_id):
            if (waiting := _at_breakpoint(graph, saver, config, session)) is not None:
                return waiting
            inputs = _answers(saver, config, session)
        elif inputs is None:
            raise BadInput("a graph needs an input; send its state as an object")
        try:
            output = _invoke(graph, inputs, config)
        finally:
            saver.flush()
        return _outcome(graph, saver, config, output, tracker)


adapter = LangGraphAdapter()


class _SessionLog:
    """A checkpointer's records as frames to the worker."""

    def __init__(self, session: Session, tracker: StepTracker) -> None:
        self._session = session
        self._tracker = tracker

    def begin(self, entry: Entry) -> Ticket:
        session = self._session
        if entry.step is None:
            header = {"step_key": entry.ns, "checkpoint_id": entry.checkpoint_id}
            return session.begin("checkpoint", header, entry.blob)
        info = self._tracker.from_metadata(entry.step)
        done = {
            "output_json": to_json(_shown(entry.writes)),
            "duration_ms": self._tracker.duration_ms(info),
            "effects": session.take_effects(info.step_key),
        }
        return session.begin("step_completed", {**info.header(), **done}, entry.blob)

    def settle(self, ticket: object) -> None:
        assert isinstance(ticket, Ticket)
        self._session.settle(ticket)

    async def settle_async(self, ticket: object) -> None:
        assert isinstance(ticket, Ticket)
        await self._session.settle_async(ticket)


def _compiled(target: object) -> Pregel[Any, Any, Any, Any]:
    graph = target.compile() if isinstance(target, StateGraph) else target
    assert isinstance(graph, Pregel)
    return graph


def _invoke(graph: Pregel[Any, Any, Any, Any], inputs: object, config: dict[str, Any]) -> object:
    run_config = cast("Any", config)
    if _is_async(graph):
        coroutine = graph.ainvoke(inputs, run_config, durability="sync")
        return asyncio.run(cast("Any", coroutine))
    return graph.invoke(inputs, run_config, durability="sync")


def _is_async(graph: Pregel[Any, Any, Any, Any]) -> bool:
    """Whether some node can only be awaited."""
    return any(_only_async(node.bound) for node in graph.nodes.values())


def _only_async(bound: object) -> bool:
    if isinstance(bound, Pregel):
        return _is_async(bound)
    if getattr(bound, "func", ...) is None and getattr(bound, "afunc", None) is not None:
        return True
    steps = getattr(bound, "steps", ())
    return any(_only_async(step) for step in steps) if isinstance(steps, list | tuple) else False


def _answers(saver: LogSaver, config: dict[str, Any], session: Session) -> Command[Any] | None:
    """What a person answered to the interrupts that are pending; nothing: just go on.

    An answer is noted durably before it is used: until its node ends, LangGraph keeps it in memory.
    """
    values = session.start["resume_values"]
    answers: dict[str, object] = {}
    for interrupt, _ in _pending(saver, config):
        key = _key(saver, interrupt)
        if key in values:
            saver.note_answer(key, values[key])
        if key in saver.answers:
            answers[interrupt.id] = orjson.loads(saver.answers[key] or "null")
    return Command(resume=answers) if answers else None


def _key(saver: LogSaver, interrupt: Interrupt) -> str:
    """The question's own id: LangGraph gives all questions of one node the same."""
    answered = saver.answered_before(interrupt.id)
    return f"{interrupt.id}:{answered}" if answered else interrupt.id


def _pending(saver: LogSaver, config: dict[str, Any]) -> list[tuple[Interrupt, str]]:
    """Interrupts of the root graph's current super-step, with the task that raised each."""
    latest = saver.get_tuple(cast("Any", config))
    found: list[tuple[Interrupt, str]] = []
    for task_id, channel, value in (latest.pending_writes or ()) if latest else ():
        if channel == INTERRUPT:
            items = value if isinstance(value, list | tuple) else (value,)
            found += [(item, task_id) for item in items if isinstance(item, Interrupt)]
    return found


def _outcome(
    graph: Pregel[Any, Any, Any, Any],
    saver: LogSaver,
    config: dict[str, Any],
    output: object,
    tracker: StepTracker,
) -> Outcome:
    """Never by `get_state().next` alone: it is empty while a finished task's writes are not applied
    yet.
    """
    raised = output.get(INTERRUPT) if isinstance(output, dict) else None
    if raised:
        nodes = {item.id: tracker.node_of(task_id) for item, task_id in _pending(saver, config)}
        items = [
            Interruption(
                interrupt_id=_key(saver, item), payload=item.value, step=nodes.get(item.id, "")
            )
            for item in raised
        ]
        return Interrupted(interrupts=tuple(items))
    if (graph.interrupt_before_nodes or graph.interrupt_after_nodes) and (
        waiting := graph.get_state(cast("Any", config)).next
    ):
        return _breakpoint(saver, config, waiting)
    return Finished(output=output)


def _breakpoint(saver: LogSaver, config: dict[str, Any], waiting: tuple[str, ...]) -> Interrupted:
    latest = saver.get_tuple(cast("Any", config))
    assert latest is not None
    checkpoint_id = latest.checkpoint["id"]
    payload = {"breakpoint": True, "next": list(waiting)}
    key = f"{_BREAKPOINT}:{checkpoint_id}"
    saver.mark(key)
    item = Interruption(interrupt_id=key, payload=payload, step=waiting[0])
    return Interrupted(interrupts=(item,))


def _at_breakpoint(
    graph: Pregel[Any, Any, Any, Any], saver: LogSaver, config: dict[str, Any], session: Session
) -> Interrupted | None:
    """The breakpoint where the execution still waits: going on would be taken for a person's
    consent.
    """
    latest = saver.get_tuple(cast("Any", config))
    if latest is None:
        return None
    key = f"{_BREAKPOINT}:{latest.checkpoint['id']}"
    if not saver.is_marked(key) or key in session.start["resume_values"]:
        return None
    return _breakpoint(saver, config, graph.get_state(cast("Any", config)).next or ("",))


def _shown(writes: tuple[tuple[str, object], ...]) -> object:
    """A task's writes for people: its own channels only."""
    shown = {
        channel: value
        for channel, value in writes
        if not channel.startswith(("branch:", "__")) or channel in _WHOLE
    }
    if len(shown) == 1 and (only := next(iter(shown))) in _WHOLE:
        return shown[only]
    return shown
