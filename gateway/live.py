"""Executions in memory: folded from the log's tail, bounded by bytes and by count, older ones left
to ClickHouse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.envelope import Stored, stored
from streams.control.events import WorkflowRegistered
from streams.execution.commands import StartExecution
from streams.execution.events import ExecutionQueued
from streams.execution.summary import accepted, empty, evolve
from streams.execution.view import ExecutionView
from streams.messages import Message
from streams.topics import EXECUTIONS

ENTRY_BYTES: Final = 4096
"""What an execution holds beside its events: its view and Python's own share."""


@dataclass(slots=True)
class Entry:
    """One execution in memory: its view, and its standing events from `trimmed` on."""

    view: ExecutionView
    events: list[Stored] = field(default_factory=list)
    trimmed: int = 0
    """Events dropped from the front, to be read from ClickHouse."""
    event_ids: set[str] = field(default_factory=set)
    next_sequence: int = 0
    has_start: bool = False
    """Whether its first event is here; else the earlier ones stand in ClickHouse only."""
    is_on_log: bool = False
    """Whether any event of the executions topic is here, rather than a command or an LLM answer
    alone.
    """
    is_command: bool = False
    """Whether it was seen as a command after this process had started, so that the store cannot
    know more.
    """
    size_bytes: int = ENTRY_BYTES
    waiters: set[asyncio.Event] = field(default_factory=set)

    @property
    def is_shown(self) -> bool:
        """Whether it is known well enough to be listed."""
        return self.has_start or self.is_command

    def fold(self, message: Message, topic: str, partition: int, offset: int, claim: int) -> int:
        """Take one standing event; the bytes it added, 0 for one that was here already."""
        if message.event_id in self.event_ids:
            return 0
        self.event_ids.add(message.event_id)
        sequence = None
        if topic == EXECUTIONS.name:
            sequence, self.next_sequence = self.next_sequence, self.next_sequence + 1
            self.is_on_log = True
            self.has_start = self.has_start or isinstance(message, ExecutionQueued)
        item = stored(message, topic, partition, offset, claim, sequence)
        self.events.append(item)
        self.view = evolve(self.view, message)
        self.size_bytes += item.size_bytes
        self.wake()
        return item.size_bytes

    def wake(self) -> None:
        """Tell every follower that there is something new."""
        for waiter in self.waiters:
            waiter.set()


class Live:
    """The bounded store. All methods run on the event loop."""

    def __init__(self, *, bytes_max: int, executions_max: int) -> None:
        self._bytes_max = bytes_max
        self._executions_max = executions_max
        self._entries: dict[str, Entry] = {}
        self._evictable: dict[str, None] = {}
        self._execution_of_approval: dict[str, str] = {}
        self._queued: dict[str, int] = {}
        self.size_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, tenant: str, execution_id: str) -> Entry | None:
        """The tenant's execution, if it is in memory."""
        entry = self._entries.get(execution_id)
        return entry if entry is not None and entry.view.tenant == tenant else None

    def of_tenant(self, tenant: str) -> Iterator[Entry]:
        """The tenant's executions in memory that a list may show."""
        return (
            entry
            for entry in self._entries.values()
            if entry.view.tenant == tenant and entry.is_shown
        )

    def with_approval(self, tenant: str, approval_id: str) -> Entry | None:
        """The tenant's execution that asked this question, if it is in memory."""
        return self.get(tenant, self._execution_of_approval.get(approval_id, ""))

    def queued(self, tenant: str) -> int:
        """How many of the tenant's executions wait to be started."""
        return self._queued.get(tenant, 0)

    def accept(self, command: StartExecution, *, is_fresh: bool) -> None:
        """Show an execution as queued from the moment its command stands.

        A command from before this process's start is not listed yet: its execution may have ended
        long ago.
        """
        entry = self._entries.get(command.execution_id)
        if entry is None:
            self._put(Entry(accepted(command), is_command=is_fresh))
        elif is_fresh and entry.view.tenant == command.tenant:
            self.confirm(command.execution_id)

    def unconfirmed(self) -> list[tuple[str, str]]:
        """Tenant and id of executions that only an old command speaks of."""
        return [
            (e.view.tenant, i)
            for i, e in self._entries.items()
            if not e.is_shown and e.view.workflow
        ]

    def confirm(self, execution_id: str) -> None:
        """Show an execution of which only a command speaks: nothing else is known of it."""
        entry = self._entries.get(execution_id)
        if entry is not None and not entry.is_command:
            self._count(entry, -1)
            entry.is_command = True
            self._count(entry, +1)
            self._note_evictable(entry)

    def fold(self, message: Message, topic: str, partition: int, offset: int, claim: int) -> None:
        """Take one standing event of any execution."""
        entry = self._entries.get(message.execution_id)
        if entry is None:
            entry = self._put(Entry(empty(message.tenant, message.execution_id)))
        elif entry.view.tenant != message.tenant:
            return
        self._count(entry, -1)
        asked = len(entry.view.approvals)
        self.size_bytes += entry.fold(message, topic, partition, offset, claim)
        self._count(entry, +1)
        for approval in entry.view.approvals[asked:]:
            self._execution_of_approval[approval.approval_id] = message.execution_id
        self._note_evictable(entry)
        self._make_room()

    def drop(self, execution_id: str) -> None:
        """Forget an execution; ClickHouse has it."""
        entry = self._entries.pop(execution_id, None)
        self._evictable.pop(execution_id, None)
        if entry is None:
            return
        self._count(entry, -1)
        self.size_bytes -= entry.size_bytes
        for approval in entry.view.approvals:
            self._execution_of_approval.pop(approval.approval_id, None)

    def _put(self, entry: Entry) -> Entry:
        self._entries[entry.view.execution_id] = entry
        self.size_bytes += entry.size_bytes
        self._count(entry, +1)
        self._note_evictable(entry)
        return entry

    def _count(self, entry: Entry, change: int) -> None:
        if entry.is_shown and entry.view.status == "queued":
            tenant = entry.view.tenant
            self._queued[tenant] = self._queued.get(tenant, 0) + change

    def _note_evictable(self, entry: Entry) -> None:
        execution_id = entry.view.execution_id
        if entry.view.is_terminal or not entry.is_shown:
            self._evictable.setdefault(execution_id)
        else:
            self._evictable.pop(execution_id, None)

    def _make_room(self) -> None:
        while self._is_full() and self._evictable:
            self.drop(next(iter(self._evictable)))
            self.evicted += 1
        if self.size_bytes > self._bytes_max:
            self._trim(max(self._entries.values(), key=lambda entry: entry.size_bytes))

    def _is_full(self) -> bool:
        return self.size_bytes > self._bytes_max or len(self._entries) > self._executions_max

    def _trim(self, entry: Entry) -> None:
        """Drop the older half of the largest running execution's events; its view stays whole."""
        half = (len(entry.events) + 1) // 2
        freed = sum(item.size_bytes for item in entry.events[:half])
        del entry.events[:half]
        entry.trimmed += half
        entry.size_bytes -= freed
        self.size_bytes -= freed
        entry.wake()


class Workflows:
    """Registered workflows: the newest of each name, and the versions that this process saw."""

    def __init__(self, versions_max: int = 10_000) -> None:
        self._newest: dict[tuple[str, str], WorkflowRegistered] = {}
        self._versions: dict[tuple[str, str, str], WorkflowRegistered] = {}
        self._versions_max = versions_max

    def fold(self, event: WorkflowRegistered) -> None:
        """Follow the control topic."""
        self._newest[event.tenant, event.name] = event
        self._versions[event.tenant, event.name, event.version] = event
        while len(self._versions) > self._versions_max:
            del self._versions[next(iter(self._versions))]

    def get(self, tenant: str, name: str, version: str = "") -> WorkflowRegistered | None:
        """The tenant's workflow: the newest, or exactly that version."""
        if version:
            return self._versions.get((tenant, name, version))
        return self._newest.get((tenant, name))

    def of_tenant(self, tenant: str) -> Iterable[WorkflowRegistered]:
        """The tenant's workflows by name."""
        return sorted(
            (w for (t, _), w in self._newest.items() if t == tenant), key=lambda w: w.name
        )
