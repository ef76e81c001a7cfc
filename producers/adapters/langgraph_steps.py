"""Where in a LangGraph execution something happens, under names that stay the same after a resume.

LangGraph's own namespaces carry task ids that differ from process to process. A step key is built
from what does not: `node#superstep`, `.index` for the copies that `Send` or a task call makes, and
`/` into subgraphs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.constants import START, TAG_HIDDEN
from langgraph.errors import GraphBubbleUp

from producers.runner.session import Session, StepInfo, failure_header, is_unwind

NS_SEP: Final = "|"
NS_END: Final = ":"
PUSH: Final = "__pregel_push"
STEP_TAG: Final = "graph:step:"
ROOT: Final = StepInfo(step="graph", step_key="graph", agent="graph")


@dataclass(slots=True)
class _Task:
    """A task's own part of its key, without its parents'."""

    key: str
    node: str
    superstep: int


@dataclass(slots=True)
class _Open:
    run_id: UUID
    info: StepInfo
    since_s: float


@dataclass(slots=True)
class StepTracker:
    """Knows every task that has started in this process."""

    session: Session
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _attempts: dict[str, int] = field(default_factory=dict)
    _since_s: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def here(self) -> StepInfo:
        """The step of the calling thread or task."""
        config = var_child_runnable_config.get()
        metadata = config.get("metadata") if config else None
        return self.from_metadata(metadata) if metadata else ROOT

    def from_metadata(self, metadata: Mapping[str, object]) -> StepInfo:
        """The step that LangGraph's own metadata describe."""
        ns = metadata.get("langgraph_checkpoint_ns") or metadata.get("checkpoint_ns")
        node = metadata.get("langgraph_node")
        if not isinstance(ns, str) or not ns or not isinstance(node, str):
            return ROOT
        superstep = metadata.get("langgraph_step")
        superstep = superstep if isinstance(superstep, int) else 0
        key = f"{node}#{superstep}{_copy(metadata.get('langgraph_path'))}"
        self._remember(ns, _Task(key, node, superstep))
        return self.info(ns)

    def info(self, ns: str) -> StepInfo:
        """The step of a task's namespace, `outer:id|inner:id`."""
        keys: list[str] = []
        nodes: list[str] = []
        superstep = 0
        for part in ns.split(NS_SEP):
            name, end, task_id = part.rpartition(NS_END)
            if not end:
                # A node's second and later subgraphs are numbered.
                keys[-1:] = [f"{keys[-1] if keys else ''}~{part}"]
                continue
            task = self._tasks.get(task_id)
            keys.append(task.key if task else name)
            nodes.append(task.node if task else name)
            superstep = task.superstep if task else 0
        step_key = "/".join(keys)
        attempt = self._attempts.get(step_key, 0) + self.session.start["attempt"]
        return StepInfo(
            step=nodes[-1], step_key=step_key, agent=nodes[0], attempt=attempt, ordinal=superstep
        )

    def node_of(self, task_id: str) -> str:
        """The node that a task runs; empty when it is unknown here."""
        task = self._tasks.get(task_id)
        return task.node if task is not None else ""

    def started(self, info: StepInfo) -> None:
        """Notes when the step began."""
        self._since_s[info.step_key] = time.monotonic()

    def duration_ms(self, info: StepInfo) -> int:
        """How long the step took until now."""
        since_s = self._since_s.get(info.step_key)
        return 0 if since_s is None else round((time.monotonic() - since_s) * 1000)

    def failed(self, info: StepInfo) -> None:
        """A further try of this step in this process is the next attempt."""
        with self._lock:
            self._attempts[info.step_key] = self._attempts.get(info.step_key, 0) + 1

    def _remember(self, ns: str, task: _Task) -> None:
        *_, last = (part for part in ns.split(NS_SEP) if NS_END in part)
        self._tasks[last.rpartition(NS_END)[2]] = task


class StepEvents(BaseCallbackHandler):
    """Tells the worker when nodes start and fail."""

    run_inline = True
    """In order, on the thread that runs the node."""
    raise_error = True

    def __init__(self, tracker: StepTracker) -> None:
        self._tracker = tracker
        self._open: dict[str, _Open] = {}
        self._spaces: dict[UUID, str] = {}
        self._lock = threading.Lock()

    def on_chain_start(
        self,
        serialized: dict[str, object] | None,
        inputs: object,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        """A node starts with a chain of its name or with the graph's tag; a subgraph inside it may
        say so again.
        """
        if metadata is None or TAG_HIDDEN in (tags or ()):
            return
        ns, node = metadata.get("langgraph_checkpoint_ns"), metadata.get("langgraph_node")
        is_tagged = any(tag.startswith(STEP_TAG) for tag in tags or ())
        if (
            not isinstance(ns, str)
            or not (is_tagged or kwargs.get("name") == node)
            or node == START
        ):
            return
        info = self._tracker.from_metadata(metadata)
        with self._lock:
            if ns in self._open:
                return
            self._open[ns] = _Open(run_id, info, time.monotonic())
            self._spaces[run_id] = ns
        self._tracker.started(info)
        self._tracker.session.tell("step_started", info.header())

    def on_chain_end(self, outputs: object, *, run_id: UUID, **kwargs: object) -> None:
        """The node is done; its result leaves with the checkpointer's record."""
        self._close(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: object) -> None:
        """The node failed, unless it only waits or the execution ends."""
        opened = self._close(run_id)
        if opened is None or isinstance(error, GraphBubbleUp) or is_unwind(error):
            return
        session = self._tracker.session
        if session.is_suspended or session.channel.cancel_reason is not None:
            return
        duration_ms = round((time.monotonic() - opened.since_s) * 1000)
        if not session.failed_step:
            session.failed_step = opened.info.step
        self._tracker.failed(opened.info)
        session.take_effects(opened.info.step_key)
        header = {**opened.info.header(), **failure_header(error), "duration_ms": duration_ms}
        session.report("step_failed", header)

    def _close(self, run_id: UUID) -> _Open | None:
        with self._lock:
            ns = self._spaces.pop(run_id, None)
            return self._open.pop(ns) if ns is not None else None


def _copy(path: object) -> str:
    """Which copy of its node a task is: nothing for the only one, `.3`, or `.0.2` for a call within
    a call.
    """
    if not isinstance(path, tuple | list) or not path or path[0] != PUSH:
        return ""
    if isinstance(path[1], int):
        return f".{path[1]}"
    return f"{_copy(path[1])}.{path[2] if len(path) > 2 else 0}"
