"""The sink's ledger: which records are one batch, told before the batch's rows are sent.

A batch is a set of ranges, one per partition, written to the ledger first, then sent to each table
under the token `<table>-<seq>`. Batches follow one another: batch n + 1 enters the ledger only
after every row of batch n was acknowledged. So at any crash at most the newest batch is incomplete,
its ranges and the epochs to judge them by are on the ledger, and sending it again, whole, repeats
nothing: a table that has it already refuses the token.

The ledger's own insert carries the token `batches-<seq>`. Of two sinks at one seq the store keeps
the first, and both read back who it was: the other is deposed. A sink that was stopped between
read-back and rows can do no harm either: its successor sends the same batch under the same tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from projections.tables import PackedRow
from streams.errors import OmiumError
from streams.ownership import NO_CLAIM

NO_BATCH: Final = -1
WINDOW_OFFSETS: Final = 10_000
"""A repeat of an event id is seen within so many records of its partition; the table's own merge
drops later ones."""
HOLD_WRITER: Final = "replay"
"""Writer of the empty batch by which a rebuild asks the sink to stand still until the tables are
swapped."""

PartitionKey = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The records of one partition in one batch, and what became of them. Empty if it ends before
    it begins."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    claim_before: int = NO_CLAIM
    """Highest claim below `first_offset`: what a re-sent range is judged by (rule 5)."""
    highest_claim: int = NO_CLAIM
    records: int = 0
    rows: int = 0
    void: int = 0
    duplicates: int = 0
    poison: int = 0

    @property
    def key(self) -> PartitionKey:
        """Its partition."""
        return (self.topic, self.partition)

    @property
    def is_empty(self) -> bool:
        """Whether it only tells a position."""
        return self.last_offset < self.first_offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One entry of the ledger."""

    seq: int
    writer: str
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What the store knows: the newest batch, whether all its rows stand, and each partition's
    newest range."""

    newest: Batch | None
    is_complete: bool
    ranges: Mapping[PartitionKey, Range]
    recent: Mapping[PartitionKey, Sequence[tuple[str, int]]]
    """Ids and offsets, rising, of the standing events within `WINDOW_OFFSETS` below each
    partition's resume offset."""

    @property
    def next_seq(self) -> int:
        """The number of the next batch."""
        return 0 if self.newest is None else self.newest.seq + 1

    @property
    def is_held(self) -> bool:
        """Whether a rebuild asked the sink to stand still."""
        return self.newest is not None and self.newest.writer == HOLD_WRITER

    @property
    def unfinished(self) -> Mapping[PartitionKey, Range]:
        """The ranges that must be sent again."""
        if self.newest is None or self.is_complete:
            return {}
        return {part.key: part for part in self.newest.ranges if not part.is_empty}

    def resume(self, key: PartitionKey) -> tuple[int, int]:
        """Where to read the partition from, and the highest claim below that offset."""
        if (again := self.unfinished.get(key)) is not None:
            return again.first_offset, again.claim_before
        found = self.ranges.get(key)
        return (0, NO_CLAIM) if found is None else (found.last_offset + 1, found.highest_claim)


@dataclass(frozen=True, slots=True)
class Settled:
    """A usage row that stands: enough to tell a repeat from the row itself."""

    event_id: str
    topic: str
    partition: int
    offset: int


class SinkDeposed(OmiumError):
    """Another sink wrote the batch that this one meant to write, or a later one."""

    def __init__(self, seq: int, writer: str) -> None:
        super().__init__(f"batch {seq} is {writer}'s: this sink must read the ledger again")
        self.seq = seq
        self.writer = writer


class Store(Protocol):
    """Where rows stand. Every method may be repeated; each raises `Retryable` while the store is
    away."""

    def ledger(self) -> Ledger:
        """The ledger as it stands now."""
        ...

    def intend(self, batch: Batch) -> None:
        """Enter the batch. Raises `SinkDeposed` unless it now is the newest entry, written by
        `batch.writer`."""
        ...

    def insert(self, table: str, seq: int, rows: Sequence[PackedRow]) -> None:
        """Insert a batch's rows; without effect if this table has rows of batch `seq` already."""
        ...

    def complete(self, seq: int) -> None:
        """Note that all rows of the batch stand."""
        ...

    def prune(self, before_seq: int) -> None:
        """Forget old entries below a batch that names every partition's position."""
        ...

    def settled(self, calls: Sequence[tuple[str, str, str]]) -> set[Settled]:
        """Which of these (tenant, call id, event id) have usage rows already."""
        ...


def token(table: str, seq: int) -> str:
    """The deduplication token of one table's part of a batch."""
    return f"{table}-{seq}"
