"""A rebuild of every table from the log (law 6): beside the standing ones, compared with them, then
swapped in.

The standing sink goes on while most of the log is read. Then a batch by `replay` in its ledger
makes it stand still, the rest is read to exactly its positions, both sets of tables are compared
row by row, and they change names. The last entry of the new ledger has a number above all of the
old one, so that whoever slept through it is deposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from projections.batches import DeadRecord, Decode, LogRecord
from projections.clickhouse import ClickHouseStore
from projections.http import ClickHouse
from projections.ledger import HOLD_WRITER, Batch, Ledger, PartitionKey, Range, SinkDeposed
from projections.sink import Sink, Source
from projections.tables import (
    COLUMNS,
    EVENTS,
    EVENTS_VOID,
    LEDGER,
    LLM_CALL_CHANGES,
    USAGE,
)
from streams.errors import Terminal

REBUILD_DATABASE: Final = "omium_rebuild"
REBUILD_WRITER: Final = "rebuild"
HOLD_WAIT_MS: Final = 30_000
"""How long the standing sink may take to finish the batch it has begun; above the longest
insert."""
POLL_MS: Final = 100
BY_RECORD: Final = (EVENTS, EVENTS_VOID, USAGE)
"""Tables with one row per record, which can be compared and carried over by offset."""
FOLDED: Final = {
    "executions": "tenant, execution, status, workflow, steps, steps_failed, tool_calls, llm_calls,"
    " approvals, input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_microusd,"
    " output_json, error_message",
    "llm_calls": "tenant, execution, call_id, status, route, provider, model, tries, input_tokens,"
    " cost_microusd",
    "tool_calls": "tenant, execution, call_id, status, tool, policy, arguments_json, result_json,"
    " intents",
}
"""Views compared by what they answer."""


class BoundedSource:
    """A source that ends: records from `ends` on are left to others."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ends: Mapping[PartitionKey, int] = {}
        self._positions: dict[PartitionKey, int] = {}

    def until(self, ends: Mapping[PartitionKey, int]) -> None:
        """Read up to, not including, these offsets."""
        self._ends = ends

    def is_done(self) -> bool:
        """Whether every partition was read to its end."""
        return all(self._positions.get(key, -1) >= end for key, end in self._ends.items())

    def open(self, positions: dict[PartitionKey, int]) -> None:
        """Read on from these offsets."""
        self._positions = dict(positions)
        self._source.open(positions)

    def take(self) -> list[LogRecord]:
        """The next records below the ends."""
        if self.is_done():
            return []
        records = self._source.take()
        for record in records:
            self._positions[record.topic, record.partition] = record.offset + 1
        return [r for r in records if r.offset < self._ends.get((r.topic, r.partition), 0)]

    def again(self, part: Range) -> Iterator[LogRecord]:
        """The records of a range that was read before."""
        return self._source.again(part)

    def close(self) -> None:
        """Stop reading."""
        self._source.close()


class Silent:
    """Dead letters of a rebuild: they were buried when the records were first met."""

    def bury(self, dead: Sequence[DeadRecord]) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One table before and after: rows, and a sum of hashes of every column."""

    table: str
    old_rows: int
    new_rows: int
    is_equal: bool


@dataclass(slots=True, kw_only=True)
class Rebuild:
    """One rebuild. `sleep_ms` waits; `say` tells a person."""

    standing: ClickHouse
    fresh: ClickHouse
    source: Source
    decode: Decode
    partitions: Mapping[PartitionKey, bool]
    lows: Mapping[PartitionKey, int]
    """First offset that the log still holds, by partition."""
    sleep_ms: Callable[[int], None]
    monotonic_ms: Callable[[], int]
    say: Callable[[str], None]

    def run(self) -> list[Compared]:
        """Rebuild, compare, and swap if all is equal; on any difference the standing tables
        stay."""
        old, new = ClickHouseStore(self.standing), ClickHouseStore(self.fresh)
        old.migrate()
        self._drop_fresh()
        new.migrate()
        source = BoundedSource(self.source)
        try:
            self._read(source, new, old.ledger())
            self.say("the projector stands still")
            held = self._hold(old)
            self._read(source, new, held)
            self._carry_over(new)
            compared = [self._compare(table, "*") for table in BY_RECORD]
            compared += [self._compare(view, columns) for view, columns in FOLDED.items()]
            if all(one.is_equal for one in compared):
                self._close_ledger(new, held)
                self._swap(old, held)
        finally:
            # Either the old ledger stands again and gives up its hold, or the new one does, which
            # has none.
            self._release(old)
            self._drop_fresh()
        return compared

    def _read(self, source: BoundedSource, store: ClickHouseStore, upto: Ledger) -> None:
        """Project what the standing ledger covers, and no more."""
        wanted = {key: upto.resume(key)[0] for key in self.partitions}
        ends = {key: end for key, end in wanted.items() if end > self.lows.get(key, 0)}
        source.until(ends)

        def wait(milliseconds: int) -> bool:
            if milliseconds:
                self.sleep_ms(milliseconds)
            return source.is_done()

        while True:
            Sink(
                source=source,
                store=store,
                dead_letters=Silent(),
                decode=self.decode,
                partitions=self.partitions,
                writer=REBUILD_WRITER,
                wait=wait,
                monotonic_ms=self.monotonic_ms,
            ).run()
            reached = store.ledger()
            if not reached.unfinished and all(
                reached.resume(key)[0] >= end for key, end in ends.items()
            ):
                return

    def _hold(self, store: ClickHouseStore) -> Ledger:
        """The standing ledger once nobody writes to it. A hold has no ranges, so positions stay
        what they are."""
        deadline_ms = self.monotonic_ms() + HOLD_WAIT_MS
        while self.monotonic_ms() < deadline_ms:
            ledger = store.ledger()
            if not ledger.unfinished and self._entered(store, ledger, HOLD_WRITER):
                return store.ledger()
            self.sleep_ms(POLL_MS)
        raise Terminal(
            "the projector does not finish its batch; start it, or try again when it is quiet"
        )

    def _entered(self, store: ClickHouseStore, ledger: Ledger, writer: str) -> bool:
        """Whether an empty batch of this writer now is the ledger's newest."""
        try:
            store.intend(Batch(seq=ledger.next_seq, writer=writer, ranges=()))
        except SinkDeposed:
            return False
        store.complete(ledger.next_seq)
        return True

    def _carry_over(self, new: ClickHouseStore) -> None:
        """Take over rows of records that the log no longer holds: retention must not empty the
        audit."""
        gone = {key: low for key, low in self.lows.items() if low > 0}
        source = self.standing.endpoint.database
        for (topic, partition), low in gone.items():
            for table in BY_RECORD:
                columns = ", ".join(COLUMNS[table])
                self.fresh.query(
                    f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {source}.{table}"
                    " WHERE kafka_topic = {topic:String} AND kafka_partition = {partition:UInt16}"
                    " AND kafka_offset < {low:UInt64}",
                    {"topic": topic, "partition": partition, "low": low},
                )
        if gone:
            # Every column of this fold is a maximum: joining the old changes once more changes
            # nothing else.
            columns = ", ".join(COLUMNS[LLM_CALL_CHANGES])
            self.fresh.execute(
                f"INSERT INTO {LLM_CALL_CHANGES} ({columns})"
                f" SELECT {columns} FROM {source}.{LLM_CALL_CHANGES}"
            )

    def _compare(self, table: str, columns: str) -> Compared:
        statement = f"SELECT count(), sum(cityHash64({columns})) FROM {table}"
        (old,), (new,) = (client.query(statement).rows for client in (self.standing, self.fresh))
        return Compared(
            table=table, old_rows=int(str(old[0])), new_rows=int(str(new[0])), is_equal=old == new
        )

    def _close_ledger(self, new: ClickHouseStore, held: Ledger) -> None:
        """Number the new ledger above the old one, and let it say every position, also where the
        log is empty."""
        ranges = tuple(
            Range(
                topic=part.topic,
                partition=part.partition,
                first_offset=part.last_offset + 1,
                last_offset=part.last_offset,
                claim_before=part.highest_claim,
                highest_claim=part.highest_claim,
            )
            for part in held.ranges.values()
        )
        seq = max(held.next_seq, new.ledger().next_seq)
        new.intend(Batch(seq=seq, writer=REBUILD_WRITER, ranges=ranges))
        new.complete(seq)

    def _swap(self, old: ClickHouseStore, held: Ledger) -> None:
        newest = old.ledger().newest
        if newest != held.newest:
            raise Terminal("the projector went on before the rebuild was done: nothing was swapped")
        standing, fresh = self.standing.endpoint.database, self.fresh.endpoint.database
        for table in (*COLUMNS, *LEDGER):
            self.standing.execute(f"EXCHANGE TABLES {standing}.{table} AND {fresh}.{table}")

    def _release(self, store: ClickHouseStore) -> None:
        ledger = store.ledger()
        if ledger.is_held:
            self._entered(store, ledger, REBUILD_WRITER)

    def _drop_fresh(self) -> None:
        self.standing.execute(f"DROP DATABASE IF EXISTS {self.fresh.endpoint.database} SYNC")
