"""LangGraph's checkpoints in memory, and the operations that build it: what a record consists of.

An operation is a tuple that msgpack can hold. Redoing the same operations in the same order gives
the same memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langgraph.checkpoint.base import WRITES_IDX_MAP, ChannelVersions
from langgraph.checkpoint.memory import InMemorySaver

from producers.adapters.log_serde import LIST, LogSerializer, common

INTERRUPT, RESUME = "__interrupt__", "__resume__"

Op = tuple[object, ...]
Place = tuple[str, str, str]
"""Thread, namespace, checkpoint id."""


class LogMemory(InMemorySaver):
    """See the module."""

    def __init__(self) -> None:
        super().__init__(serde=LogSerializer())
        self.marks: set[str] = set()
        self.answers: dict[str, str] = {}
        """Question → what a person answered, as JSON."""
        self.redone = 0
        """How many operations were redone."""
        self._versions: dict[tuple[str, str, str], str | int | float] = {}
        """(Thread, namespace, channel) → its version that was stored last; a list's next version
        builds on it.
        """

    def checkpoint_op(self, place: Place, new_versions: ChannelVersions) -> Op:
        """What storing this checkpoint meant: it and the channels that changed with it."""
        thread_id, ns, checkpoint_id = place
        stored, metadata, parent = self.storage[thread_id][ns][checkpoint_id]
        blobs = [
            (channel, version, *self._delta((thread_id, ns, channel), version))
            for channel, version in new_versions.items()
        ]
        return ("checkpoint", thread_id, ns, checkpoint_id, parent, stored, metadata, blobs)

    def answered_before(self, interrupt_id: str) -> int:
        """How many questions of the task that asks this one have been answered."""
        for writes in list(self.writes.values()):
            for (task_id, index), (_, _, stored, _) in list(writes.items()):
                if index != WRITES_IDX_MAP[INTERRUPT]:
                    continue
                asked = self.serde.loads_typed(stored)
                if not any(getattr(item, "id", None) == interrupt_id for item in asked):
                    continue
                resumed = writes.get((task_id, WRITES_IDX_MAP[RESUME]))
                if resumed is not None:
                    answered = self.serde.loads_typed(resumed[2])
                    return len(answered) if isinstance(answered, list) else 1
        return 0

    def _delta(self, channel: tuple[str, str, str], version: str | int | float) -> Op:
        """The channel's new version as the record holds it: a list as what it adds to the last
        stored one.
        """
        kind, data = cast("tuple[str, Any]", self.blobs[(*channel, version)])
        base = self._versions.get(channel)
        self._versions[channel] = version
        if kind != LIST:
            return (kind, data)
        old = self._parts(channel, base)
        shared = common(old, data)
        self.blobs[(*channel, version)] = (kind, (*old[:shared], *data[shared:]))  # type: ignore[assignment]
        return (kind, data[shared:], base, shared)

    def _parts(self, channel: tuple[str, str, str], version: str | int | float | None) -> Any:
        known = self.blobs.get((*channel, version)) if version is not None else None
        return known[1] if known is not None and known[0] == LIST else ()

    def writes_op(self, place: Place, task_id: str) -> Op:
        """All that is stored of the task: a record replaces what an earlier one said of it."""
        writes = [
            (index, channel, *value, path)
            for (owner, index), (_, channel, value, path) in self.writes[place].items()
            if owner == task_id
        ]
        return ("writes", *place, task_id, writes)

    def redo(self, op: Sequence[Any]) -> None:
        """Does it, the first time or again."""
        self.redone += 1
        match op[0]:
            case "checkpoint":
                _, thread_id, ns, checkpoint_id, parent, stored, metadata, blobs = op
                self.storage[thread_id][ns][checkpoint_id] = (
                    tuple(stored),
                    tuple(metadata),
                    parent,
                )
                for channel, version, kind, data, *based in blobs:
                    key = (thread_id, ns, channel)
                    if based:
                        data = cast("bytes", (*self._parts(key, based[0])[: based[1]], *data))
                    self.blobs[(*key, version)] = (kind, data)
                    self._versions[key] = version
            case "writes":
                _, thread_id, ns, checkpoint_id, task_id, writes = op
                place = (thread_id, ns, checkpoint_id)
                for index, channel, kind, data, path in writes:
                    self.writes[place][(task_id, index)] = (task_id, channel, (kind, data), path)
            case "answer":
                self.answers[op[1]] = op[2]
            case "mark":
                self.marks.add(op[1])
            case "delete_thread":
                InMemorySaver.delete_thread(self, op[1])
            case "delete_for_runs":
                self._forget_runs(set(op[1]))
            case "copy_thread":
                self._copy(op[1], op[2])
            case "prune":
                for thread_id in op[1]:
                    self._prune(thread_id, op[2])
            case unknown:
                raise ValueError(f"unknown operation {unknown!r} in a record")

    def _forget_runs(self, run_ids: set[str]) -> None:
        for thread_id, spaces in self.storage.items():
            for ns, checkpoints in spaces.items():
                for checkpoint_id in list(checkpoints):
                    metadata = self.serde.loads_typed(checkpoints[checkpoint_id][1])
                    if metadata.get("run_id") in run_ids:
                        self._forget((thread_id, ns, checkpoint_id))
        self._drop_unused_blobs()

    def _copy(self, source: str, target: str) -> None:
        for ns, checkpoints in list(self.storage.get(source, {}).items()):
            self.storage[target][ns].update(checkpoints)
        for (thread_id, ns, checkpoint_id), writes in list(self.writes.items()):
            if thread_id == source:
                self.writes[(target, ns, checkpoint_id)].update(writes)
        for (thread_id, ns, channel, version), blob in list(self.blobs.items()):
            if thread_id == source:
                self.blobs[(target, ns, channel, version)] = blob

    def _prune(self, thread_id: str, strategy: str) -> None:
        if strategy != "keep_latest":
            InMemorySaver.delete_thread(self, thread_id)
            return
        for ns, checkpoints in self.storage.get(thread_id, {}).items():
            keep = self._chain((thread_id, ns, max(checkpoints))) if checkpoints else set()
            for checkpoint_id in list(checkpoints):
                if checkpoint_id not in keep:
                    self._forget((thread_id, ns, checkpoint_id))
        self._drop_unused_blobs()

    def _chain(self, place: Place) -> set[str]:
        """The checkpoint, and the ancestors that its delta channels are rebuilt from."""
        thread_id, ns, checkpoint_id = place
        checkpoints = self.storage[thread_id][ns]
        keep = {checkpoint_id}
        metadata = self.serde.loads_typed(checkpoints[checkpoint_id][1])
        missing = set(metadata.get("counters_since_delta_snapshot") or ())
        parent = checkpoints[checkpoint_id][2]
        while missing and parent is not None and parent in checkpoints:
            keep.add(parent)
            stored = self.serde.loads_typed(checkpoints[parent][0])
            missing -= self._load_blobs(thread_id, ns, stored["channel_versions"]).keys()
            parent = checkpoints[parent][2]
        return keep

    def _forget(self, place: Place) -> None:
        thread_id, ns, checkpoint_id = place
        self.storage[thread_id][ns].pop(checkpoint_id, None)
        self.writes.pop(place, None)

    def _drop_unused_blobs(self) -> None:
        used: set[tuple[str, str, str, str | int | float]] = set()
        for thread_id, spaces in self.storage.items():
            for ns, checkpoints in spaces.items():
                for stored, _, _ in checkpoints.values():
                    versions = self.serde.loads_typed(stored)["channel_versions"]
                    used.update(
                        (thread_id, ns, name, version) for name, version in versions.items()
                    )
        for key in [key for key in self.blobs if key not in used]:
            del self.blobs[key]


def place_of(config: Mapping[str, Any]) -> Place:
    """The place that a LangGraph config names."""
    configurable = config["configurable"]
    return (
        configurable["thread_id"],
        configurable.get("checkpoint_ns", ""),
        configurable.get("checkpoint_id") or "",
    )
