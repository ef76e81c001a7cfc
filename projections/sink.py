"""The sink: log in, rows out, exactly once, whatever is killed and whenever.

How: see `projections.ledger`. While one batch is being stored the next is read and turned into
rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

from projections.batches import (
    BatchBuilder,
    DeadRecord,
    Decode,
    LogRecord,
    PartitionReader,
    Prepared,
)
from projections.ledger import Ledger, PartitionKey, Range, Settled, SinkDeposed, Store
from streams.errors import Retryable

log = logging.getLogger("omium.projector")

BACKOFF_MS_MIN: Final = 100
BACKOFF_MS_MAX: Final = 5_000
HOLD_POLL_MS: Final = 500
HOLD_MS_MAX: Final = 10 * 60 * 1000
REFRESH_MS: Final = 24 * 60 * 60 * 1000
"""How often a batch names every partition's position, after which older entries of the ledger may
go."""

T = TypeVar("T")


class Source(Protocol):
    """The log. Raises `Retryable` while the broker is away."""

    def open(self, positions: dict[PartitionKey, int]) -> None:
        """Read on from these offsets."""
        ...

    def take(self) -> list[LogRecord]:
        """The next records, in order within each partition; empty if there are none for a while."""
        ...

    def again(self, part: Range) -> Iterator[LogRecord]:
        """The records of a range that was read before."""
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


class DeadLetters(Protocol):
    """Where records go that nobody can read."""

    def bury(self, dead: Sequence[DeadRecord]) -> None:
        """Put them on the dead letter topic; returns when they stand there. May be repeated."""
        ...


class Stopped(BaseException):
    """The sink was asked to stop while it waited for something."""


@dataclass(slots=True)
class Counters:
    """What this sink did since it began."""

    records: int = 0
    batches: int = 0
    void: int = 0
    duplicates: int = 0
    poison: int = 0
    retries: int = 0


@dataclass(slots=True, kw_only=True)
class Sink:
    """One projector. `wait` sleeps for so many milliseconds and returns True when the sink must
    stop."""

    source: Source
    store: Store
    dead_letters: DeadLetters
    decode: Decode
    partitions: Mapping[PartitionKey, bool]
    """What to project, and whether each has one claimed writer."""
    writer: str
    wait: Callable[[int], bool]
    monotonic_ms: Callable[[], int]
    on_ready: Callable[[], None] = lambda: None
    counters: Counters = field(default_factory=Counters)
    _refreshed_at_ms: int | None = None

    def run(self) -> None:
        """Project until told to stop."""
        try:
            while True:
                try:
                    self._tenure()
                except SinkDeposed as error:
                    log.warning("%s", error)
                    self._rest(HOLD_POLL_MS)
        except Stopped:
            log.info("stopped after %s", self.counters)
        finally:
            self.source.close()

    def _tenure(self) -> None:
        """Read the ledger, finish what it left unfinished, then project; ends only by an
        exception."""
        ledger = self._ledger()
        builder = BatchBuilder(
            self.decode,
            {
                key: PartitionReader.resumed(key, is_claimed, ledger)
                for key, is_claimed in self.partitions.items()
            },
        )
        self._finish(builder, ledger)
        positions = {key: reader.position for key, reader in builder.readers.items()}
        self._retried("open the log", lambda: self.source.open(positions))
        self.on_ready()
        with ThreadPoolExecutor(1, "omium-sink") as executor:
            self._project(builder, ledger.next_seq, executor)

    def _ledger(self) -> Ledger:
        """The ledger, once no rebuild holds it. One that died holding it is not waited for for
        ever."""
        deadline_ms = self.monotonic_ms() + HOLD_MS_MAX
        while True:
            ledger = self._retried("read the ledger", self.store.ledger)
            if not ledger.is_held or self.monotonic_ms() > deadline_ms:
                return ledger
            self._rest(HOLD_POLL_MS)

    def _finish(self, builder: BatchBuilder, ledger: Ledger) -> None:
        """Send the newest batch again, with exactly its records, unless it is known to be
        complete."""
        if ledger.newest is None or ledger.is_complete:
            return
        again = [part for part in ledger.newest.ranges if not part.is_empty]
        log.info("sending batch %d again: %s", ledger.newest.seq, [part.key for part in again])
        records = self._retried(
            "read a range again",
            lambda: [record for part in again for record in self.source.again(part)],
        )
        newest = ledger.newest
        prepared = builder.build(records, newest.seq, newest.writer, self._settled)
        self._store_rows(prepared)
        for part in again:
            # The ledger's word counts even where the log has lost records meanwhile.
            reader = builder.readers[part.key]
            reader.position = part.last_offset + 1
            reader.fold = reader.fold.claimed(part.highest_claim)

    def _project(self, builder: BatchBuilder, seq: int, executor: ThreadPoolExecutor) -> None:
        sending: Future[None] | None = None
        while True:
            records = self.source.take()
            if records:
                is_refresh = self._is_refresh_due()
                prepared = builder.build(records, seq, self.writer, self._settled, is_refresh)
                if sending is not None:
                    sending.result()
                sending = executor.submit(self._send, prepared, is_refresh)
                seq += 1
            elif sending is not None:
                sending.result()
                sending = None
            self._rest(0)

    def _send(self, prepared: Prepared, is_refresh: bool) -> None:
        batch = prepared.batch
        self._retried("enter a batch", lambda: self.store.intend(batch))
        self._store_rows(prepared)
        if is_refresh:
            self._retried("prune the ledger", lambda: self.store.prune(batch.seq))

    def _store_rows(self, prepared: Prepared) -> None:
        seq = prepared.batch.seq
        if prepared.dead:
            for dead in prepared.dead:
                log.error("poison: %s[%d]@%d: %s", *dead.record[:3], dead.reason)
            self._retried("bury poison", lambda: self.dead_letters.bury(prepared.dead))
        for table, rows in prepared.rows.items():
            if rows:
                insert = partial(self.store.insert, table, seq, rows)
                self._retried(f"insert into {table}", insert)
        self._retried("complete a batch", lambda: self.store.complete(seq))
        self._count(prepared)

    def _settled(self, calls: Sequence[tuple[str, str, str]]) -> set[Settled]:
        return self._retried("look for settled calls", lambda: self.store.settled(calls))

    def _count(self, prepared: Prepared) -> None:
        self.counters.batches += 1
        self.counters.records += prepared.records
        for part in prepared.batch.ranges:
            self.counters.void += part.void
            self.counters.duplicates += part.duplicates
            self.counters.poison += part.poison

    def _is_refresh_due(self) -> bool:
        now_ms = self.monotonic_ms()
        if self._refreshed_at_ms is not None and now_ms - self._refreshed_at_ms < REFRESH_MS:
            return False
        self._refreshed_at_ms = now_ms
        return True

    def _retried(self, what: str, act: Callable[[], T]) -> T:
        """The act's result, however long its other side is away. Nothing is read meanwhile: memory
        stays bounded."""
        backoff_ms = BACKOFF_MS_MIN
        while True:
            try:
                return act()
            except Retryable as error:
                self.counters.retries += 1
                log.warning("cannot %s, again in %d ms: %s", what, backoff_ms, error)
            self._rest(backoff_ms)
            backoff_ms = min(backoff_ms * 2, BACKOFF_MS_MAX)

    def _rest(self, milliseconds: int) -> None:
        if self.wait(milliseconds):
            raise Stopped
