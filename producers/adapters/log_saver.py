"""A LangGraph checkpointer whose memory is the execution's log.

Everything is kept in memory for LangGraph to read and leaves as records through a `CheckpointLog`,
in the order in which it happened; the same records, given back, rebuild the memory.

A super-step's last task does not send its writes at once: they leave together with the checkpoint
that follows from them, as one record (law 4). An input checkpoint leaves with the first record
after it: until then nothing follows from it that the input alone would not give.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from zlib import crc32

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_id,
)

from producers.adapters.log_memory import LogMemory, Op, Place, place_of

ERROR, INTERRUPT, RESUME, ERROR_SOURCE = (
    "__error__",
    "__interrupt__",
    "__resume__",
    "__error_source_node__",
)
_OPTIONS: Final = ormsgpack.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record on its way to the log."""

    blob: bytes
    ns: str
    checkpoint_id: str
    step: Mapping[str, object] | None = None
    """LangGraph's metadata of the task that it completes; none for state that belongs to no single
    step.
    """
    writes: tuple[tuple[str, object], ...] = ()
    """What the task wrote, for people."""


class CheckpointLog(Protocol):
    """Where records go. What `begin` was given stands once `settle` returns; order is the order of
    `begin`.
    """

    def begin(self, entry: Entry) -> object: ...

    def settle(self, ticket: object) -> None: ...

    async def settle_async(self, ticket: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a loop knows of a task that is about to put its writes."""

    siblings: tuple[str, ...]
    """All tasks of its super-step, itself included."""
    metadata: Mapping[str, object]
    is_hidden: bool
    """LangGraph's own, not the user's: its state leaves with the first record of a real step."""


@dataclass(slots=True)
class _Held:
    op: Op
    step: Mapping[str, object] | None
    writes: tuple[tuple[str, object], ...]


@dataclass(slots=True)
class _Outbox:
    """What has happened and not left yet. Shared by clones of a saver."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    prefix: list[Op] = field(default_factory=list)
    held: dict[Place, _Held] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    hidden: set[Place] = field(default_factory=set)
    """Super-steps in which a task of LangGraph's own ran, which is no step of the user's."""


class LogSaver(LogMemory):
    """See the module."""

    def __init__(self, log: CheckpointLog) -> None:
        super().__init__()
        self.log = log
        self._outbox = _Outbox()

    def note_task(self, task_id: str, task: Task) -> None:
        """Says what a task is, before its writes come."""
        self._outbox.tasks[task_id] = task

    def restore(self, blobs: Iterable[bytes]) -> None:
        """Rebuilds the memory from records, in log order."""
        for blob in blobs:
            for op in ormsgpack.unpackb(blob, option=_OPTIONS):
                self.redo(op)

    def has_checkpoint(self, thread_id: str) -> bool:
        """Whether the thread's root graph has state to resume from."""
        return bool(self.storage.get(thread_id, {}).get(""))

    def flush(self) -> None:
        """Sends what is held: the super-step failed or waits, no checkpoint follows. Before any
        final frame.
        """
        self._settle(self._flushed())

    def mark(self, name: str) -> None:
        """Notes something durably, once."""
        if name not in self.marks:
            self._change(("mark", name))

    def note_answer(self, question: str, answer_json: str) -> None:
        """Notes a person's answer durably, once."""
        if question not in self.answers:
            self._change(("answer", question, answer_json))

    def is_marked(self, name: str) -> bool:
        """Whether this or an earlier incarnation noted it."""
        return name in self.marks

    # What LangGraph calls.

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint, durably on return (an input checkpoint: with the next record)."""
        stored, ticket = self._put(config, checkpoint, metadata, new_versions)
        self._settle(ticket)
        return stored

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put` for a coroutine."""
        stored, ticket = self._put(config, checkpoint, metadata, new_versions)
        await self._settle_async(ticket)
        return stored

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores a task's writes, durably on return or with the checkpoint of its super-step."""
        self._settle(self._put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """`put_writes` for a coroutine."""
        await self._settle_async(self._put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Forgets a thread."""
        self._change(("delete_thread", thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread` for a coroutine."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Forgets what these runs stored. As with every saver, a `DeltaChannel` loses writes of
        theirs that it needs.
        """
        self._change(("delete_for_runs", list(run_ids)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs` for a coroutine."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a thread with all its ancestors and writes."""
        self._change(("copy_thread", source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread` for a coroutine."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Drops all but the latest checkpoint of each namespace (`delete`: all); delta channels
        keep their history.
        """
        if strategy not in {"keep_latest", "delete", "delete_all"}:
            raise ValueError(f"unknown strategy {strategy!r}; there is keep_latest and delete")
        self._change(("prune", list(thread_ids), strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`prune` for a coroutine."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)

    # How records come to be.

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> tuple[RunnableConfig, object]:
        with self._outbox.lock:
            stored = super().put(config, checkpoint, metadata, new_versions)
            thread_id, ns, checkpoint_id = place_of(stored)
            op = self.checkpoint_op((thread_id, ns, checkpoint_id), new_versions)
            parent = get_checkpoint_id(config) or ""
            held = self._outbox.held.pop((thread_id, ns, parent), None)
            is_hidden = (thread_id, ns, parent) in self._outbox.hidden
            self._outbox.hidden.discard((thread_id, ns, parent))
            if held is None and (is_hidden or metadata.get("source") == "input"):
                self._outbox.prefix.append(op)
                return stored, None
            return stored, self._send(held, [op], ns, checkpoint_id)

    def _put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> object:
        with self._outbox.lock:
            super().put_writes(config, writes, task_id, task_path)
            task = self._outbox.tasks.pop(task_id, None)
            channels = {channel for channel, _ in writes}
            place = place_of(config)
            op = self.writes_op(place, task_id)
            if ERROR in channels and ERROR_SOURCE not in channels:
                # A failed task runs again on a resume; its failure is on the log as an event of its
                # own.
                self._outbox.prefix.append(op)
                return None
            if task is None or channels & {INTERRUPT, ERROR} or channels <= {RESUME}:
                return self._send(None, [op], place[1], f"{place[2]}:{task_id}")
            if task.is_hidden:
                self._outbox.hidden.add(place)
                self._outbox.prefix.append(op)
                return None
            held = _Held(op, task.metadata, tuple(writes))
            if self._finished(place).issuperset(task.siblings):
                self._outbox.held[place] = held
                return None
            return self._send(held, [], place[1], place[2])

    def _send(self, held: _Held | None, ops: list[Op], ns: str, checkpoint_id: str) -> object:
        """Hands everything that has happened so far to the log, as one record. Under the lock:
        order is the point.
        """
        record = [*self._outbox.prefix, *([held.op] if held else ()), *ops]
        self._outbox.prefix.clear()
        blob = ormsgpack.packb(record, option=_OPTIONS)
        return self.log.begin(
            Entry(
                blob=blob,
                ns=ns,
                # A task may wait more than once under one checkpoint: its records are told apart by
                # content.
                checkpoint_id=f"{checkpoint_id}:{crc32(blob):08x}",
                step=held.step if held else None,
                writes=held.writes if held else (),
            )
        )

    def _flushed(self) -> object:
        ticket: object = None
        with self._outbox.lock:
            for place, held in list(self._outbox.held.items()):
                del self._outbox.held[place]
                ticket = self._send(held, [], place[1], place[2])
        return ticket

    def _finished(self, place: Place) -> set[str]:
        """Tasks of this super-step whose regular writes are here."""
        return {task_id for task_id, index in self.writes.get(place, {}) if index >= 0}

    def _change(self, op: Op) -> None:
        with self._outbox.lock:
            self.redo(op)
            ticket = self._send(None, [op], "", f"{op[0]}:{self.redone}")
        self._settle(ticket)

    def _settle(self, ticket: object) -> None:
        if ticket is not None:
            self.log.settle(ticket)

    async def _settle_async(self, ticket: object) -> None:
        if ticket is not None:
            await self.log.settle_async(ticket)
