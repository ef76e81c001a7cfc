"""A store in memory, under the same contract as ClickHouse: for tests of the sink and of rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from projections.ledger import (
    NO_BATCH,
    WINDOW_OFFSETS,
    Batch,
    Ledger,
    PartitionKey,
    Range,
    Settled,
    SinkDeposed,
    token,
)
from projections.tables import COLUMNS, EVENTS, USAGE, PackedRow, Row, unpack


class MemoryStore:
    """Rows by table, and the ledger. Two sinks may share one store, as they would share a
    server."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {table: [] for table in COLUMNS}
        self.batches: list[Batch] = []
        self._tokens: set[str] = set()
        self._completed = NO_BATCH

    def ledger(self) -> Ledger:
        """The ledger as it stands now."""
        ranges: dict[PartitionKey, Range] = {}
        for batch in self.batches:
            ranges.update({part.key: part for part in batch.ranges})
        newest = self.batches[-1] if self.batches else None
        is_complete = newest is None or newest.seq <= self._completed
        bare = Ledger(newest=newest, is_complete=is_complete, ranges=ranges, recent={})
        return replace(bare, recent={key: self._recent(key, bare.resume(key)[0]) for key in ranges})

    def _recent(self, key: PartitionKey, end: int) -> list[tuple[str, int]]:
        found = [
            (str(row[2]), int(str(row[-1])))
            for row in self.rows[EVENTS]
            if row[-3:-1] == key and end - WINDOW_OFFSETS <= int(str(row[-1])) < end
        ]
        return sorted(found, key=lambda one: one[1])

    def intend(self, batch: Batch) -> None:
        """Enter the batch, unless one of its or a later number is there."""
        if not self.batches or self.batches[-1].seq < batch.seq:
            self.batches.append(batch)
        newest = self.batches[-1]
        if (newest.seq, newest.writer) != (batch.seq, batch.writer):
            raise SinkDeposed(batch.seq, newest.writer)

    def insert(self, table: str, seq: int, rows: Sequence[PackedRow]) -> None:
        """Insert a batch's rows once."""
        if not rows or token(table, seq) in self._tokens:
            return
        self._tokens.add(token(table, seq))
        self.rows[table].extend(unpack(row) for row in rows)

    def complete(self, seq: int) -> None:
        """Note that all rows of the batch stand."""
        self._completed = max(self._completed, seq)

    def prune(self, before_seq: int) -> None:
        """Forget old entries below a batch that names every partition's position."""
        self.batches = [batch for batch in self.batches if batch.seq >= before_seq]

    def settled(self, calls: Sequence[tuple[str, str, str]]) -> set[Settled]:
        """Which of these (tenant, call id, event id) have usage rows already."""
        columns = COLUMNS[USAGE]
        at = {name: columns.index(name) for name in ("tenant", "call_id", "event_id")}
        wanted = set(calls)
        return {
            Settled(str(row[at["event_id"]]), str(row[-3]), int(str(row[-2])), int(str(row[-1])))
            for row in self.rows[USAGE]
            if (row[at["tenant"]], row[at["call_id"]], row[at["event_id"]]) in wanted
        }

    def counts(self, table: str) -> dict[str, int]:
        """Rows of a table by topic."""
        topics = sorted(str(row[-3]) for row in self.rows[table])
        return {topic: len(list(group)) for topic, group in groupby(topics)}
