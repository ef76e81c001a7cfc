"""An in-memory broker: ordered logs, late and lost acknowledgements, a group with sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from streams.execution.events import OwnerClaimed, ToolCallIntended
from streams.messages import Message
from streams.ownership import EpochFold
from tests.simulation.kernel import Act, Kernel, Process

SESSION_MS = 6_000
HEARTBEAT_MS = 1_500


class Log:
    """One partition of one topic."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: list[Message] = []
        self.times_ms: list[int] = []
        self.listeners: list[Callable[[int, Message], None]] = []


class Reader:
    """Reads a log from a position and hands on what stands, by the rule of every reader."""

    def __init__(
        self,
        log: Log,
        start: int = 0,
        epochs: EpochFold | None = None,
        *,
        is_trusting: bool = False,
    ) -> None:
        self._is_trusting = is_trusting
        self.log = log
        self.position = start
        self.epochs = epochs or EpochFold()

    def read(self, end: int | None = None) -> list[tuple[int, Message]]:
        """The standing events up to the end."""
        standing: list[tuple[int, Message]] = []
        stop = len(self.log.records) if end is None else end
        while self.position < stop:
            offset, message = self.position, self.log.records[self.position]
            self.position += 1
            if isinstance(message, OwnerClaimed):
                self.epochs = self.epochs.claimed(offset)
            elif self._is_trusting or not self.epochs.is_void(message.epoch):
                self.epochs = self.epochs.seen(message.epoch)
                standing.append((offset, message))
        return standing


class Broker:
    """Takes records in each producer's order, and answers late, or twice, or never."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._arrivals: dict[tuple[int, str], int] = {}
        self._acks: dict[tuple[int, str], int] = {}

    def latency_ms(self) -> int:
        """Mostly quick, sometimes slow, seldom very slow."""
        kernel = self._kernel
        luck = kernel.random.random()
        if luck < 0.90:
            return kernel.between(1, 3)
        return kernel.between(5, 200) if luck < 0.985 else kernel.between(200, 8_000)

    def send(
        self,
        process: Process,
        log: Log,
        message: Message,
        acked: Callable[[int], None],
        failed: Act,
    ) -> None:
        """Queues a record: it leaves soon, reaches the log later, is acknowledged later still."""
        kernel = self._kernel
        kernel.hazard(process, "intent" if isinstance(message, ToolCallIntended) else "send")
        key = (id(process), log.name)

        def leave() -> None:
            arrival = max(self._arrivals.get(key, 0), kernel.now_ms + self.latency_ms())
            self._arrivals[key] = arrival
            kernel.after(arrival - kernel.now_ms, arrive)

        def arrive() -> None:
            offset = self.append(log, message)
            # A lost acknowledgement is asked for again and names the same offset.
            answer = max(self._acks.get(key, 0), kernel.now_ms + self.latency_ms())
            self._acks[key] = answer
            is_lost = kernel.chance(0.002)
            kernel.after(
                answer - kernel.now_ms, failed if is_lost else lambda: acknowledge(offset), process
            )

        def acknowledge(offset: int) -> None:
            kernel.hazard(process, "ack")
            acked(offset)

        kernel.after(0, leave, process)

    def append(self, log: Log, message: Message) -> int:
        """Puts the record on the log and tells whoever listens."""
        offset = len(log.records)
        log.records.append(message)
        log.times_ms.append(self._kernel.now_ms)
        if self._kernel.is_traced:
            self._kernel.say(f"{log.name}@{offset} {_line(message)}")
        for listener in log.listeners:
            listener(offset, message)
        return offset


def _line(message: Message) -> str:
    about = getattr(message, "worker_id", "") or getattr(message, "call_id", "")[:6]
    return f"{type(message).__name__} epoch {message.epoch} {message.execution_id} {about}"


class Member(Protocol):
    """A process that consumes partitions."""

    process: Process
    name: str

    def assigned(self, partition: int, generation: int, position: int) -> None:
        """The partition is this member's, from this position on."""

    def revoked(self, partition: int) -> None:
        """The partition is somebody else's."""


class Group:
    """The coordinator of one consumer group: it sees members by heartbeat, and so they hear."""

    def __init__(self, kernel: Kernel, partitions: int) -> None:
        self._kernel = kernel
        self._members: dict[str, Member] = {}
        self._heard_ms: dict[str, int] = {}
        self._owner: list[str] = [""] * partitions
        self._generation = [0] * partitions
        self.committed = [0] * partitions

    def join(self, member: Member) -> None:
        """A member is there (again); under its old name it gets its partitions back at once."""
        self._members[member.name] = member
        member.process.on_pause.append(lambda: self._watch(member))
        member.process.on_death.append(lambda: self._watch(member))
        for partition, owner in enumerate(self._owner):
            if owner in ("", member.name):
                self._assign(partition, member)

    def move(self, partition: int) -> None:
        """A rebalance: somebody else gets the partition while its owner is alive."""
        others = [m for m in self._members.values() if m.name != self._owner[partition]]
        if others:
            self._assign(partition, self._kernel.random.choice(others))

    def renew(self, partition: int) -> None:
        """Gives the partition back to its owner, who reads it again from what is committed."""
        member = self._members.get(self._owner[partition])
        if member is not None:
            self._assign(partition, member)

    def commit(self, partition: int, name: str, generation: int, position: int) -> None:
        """Moves the group's position, unless the generation is over or the request is lost."""
        if self._kernel.chance(0.1):
            return
        if (self._owner[partition], self._generation[partition]) == (name, generation):
            self.committed[partition] = max(self.committed[partition], position)

    def _watch(self, member: Member) -> None:
        self._kernel.after(SESSION_MS, lambda: self._judge(member))

    def _judge(self, member: Member) -> None:
        """The session is over if the member is still silent."""
        process = member.process
        if self._members.get(member.name) is not member:
            return
        if process.is_alive and not process.is_paused:
            return
        del self._members[member.name]
        for partition, owner in enumerate(self._owner):
            if owner == member.name:
                self._owner[partition] = ""
                if self._members:
                    self._assign(
                        partition, self._kernel.random.choice(list(self._members.values()))
                    )
        if process.is_alive:
            # It hears of it some time after it goes on, and joins again.
            self._tell(member, lambda: self._return(member))

    def _return(self, member: Member) -> None:
        for partition, owner in enumerate(self._owner):
            if owner != member.name:
                member.revoked(partition)
        self.join_again(member)

    def join_again(self, member: Member) -> None:
        """A member whose session had ended is back."""
        self._members[member.name] = member
        for partition, owner in enumerate(self._owner):
            if owner == "":
                self._assign(partition, member)

    def _assign(self, partition: int, member: Member) -> None:
        old = self._members.get(self._owner[partition])
        self._owner[partition] = member.name
        self._generation[partition] += 1
        generation = self._generation[partition]
        self._kernel.say(f"group gives partition {partition} to {member.name}")
        if old is not None and old is not member:
            self._tell(old, lambda: self._revoke(old, partition))
        self._tell(member, lambda: self._give(member, partition, generation))

    def _revoke(self, member: Member, partition: int) -> None:
        if self._owner[partition] != member.name:
            member.revoked(partition)

    def _give(self, member: Member, partition: int, generation: int) -> None:
        if (self._owner[partition], self._generation[partition]) == (member.name, generation):
            member.assigned(partition, generation, self.committed[partition])

    def _tell(self, member: Member, act: Act) -> None:
        late_ms = 4 * HEARTBEAT_MS if self._kernel.chance(0.1) else HEARTBEAT_MS
        due = self._kernel.now_ms + self._kernel.between(1, late_ms)
        due = max(due, self._heard_ms.get(member.name, 0))
        self._heard_ms[member.name] = due
        self._kernel.after(due - self._kernel.now_ms, lambda: self._hear(member, act))

    def _hear(self, member: Member, act: Act) -> None:
        """Members hear by answers to their heartbeats: a stopped one some time after it goes on."""
        if member.process.is_paused:
            self._kernel.after(self._kernel.between(500, 1_500), lambda: self._hear(member, act))
        elif member.process.is_alive:
            act()
