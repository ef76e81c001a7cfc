"""From records to a batch: decode, void, de-duplicate, turn into rows. Deterministic: equal
records, equal batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from projections.changes import RULES
from projections.ledger import WINDOW_OFFSETS, Batch, Ledger, PartitionKey, Range, Settled
from projections.rows import rows_of, void_row
from projections.tables import COLUMNS, EVENTS_VOID, PackedRow, Place, pack
from streams.errors import Poison
from streams.execution.events import OwnerClaimed
from streams.llm.events import LlmCallCompleted
from streams.messages import Message
from streams.ownership import EpochFold

Decode = Callable[[bytes | None], Message]
"""The message of a record's value. ValueError on anything unreadable."""
AskSettled = Callable[[Sequence[tuple[str, str, str]]], set[Settled]]


class LogRecord(NamedTuple):
    """One record as it was read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class DeadRecord(NamedTuple):
    """A record that could not be read, and why."""

    record: LogRecord
    reason: str


class RecentIds:
    """The event ids of a partition's last records. By offset, not by count: a restarted sink
    remembers the same."""

    def __init__(self, known: Iterable[tuple[str, int]] = ()) -> None:
        self._offset_of = dict(known)

    def is_repeat(self, event_id: str, offset: int) -> bool:
        """Whether the id stands within the window before `offset`; if not, it stands from now
        on."""
        self._forget(offset - WINDOW_OFFSETS)
        if event_id in self._offset_of:
            return True
        self._offset_of[event_id] = offset
        return False

    def _forget(self, before: int) -> None:
        # Insertion order is offset order, so the oldest come first and each is dropped once.
        old = []
        for event_id, offset in self._offset_of.items():
            if offset >= before:
                break
            old.append(event_id)
        for event_id in old:
            del self._offset_of[event_id]


@dataclass(slots=True)
class PartitionReader:
    """What the sink knows of one partition below its position."""

    topic: str
    partition: int
    is_claimed: bool
    """Whether the partition has one claimed writer, whose epoch counts."""
    position: int = 0
    fold: EpochFold = field(default_factory=EpochFold)
    recent: RecentIds = field(default_factory=RecentIds)

    @staticmethod
    def resumed(key: PartitionKey, is_claimed: bool, ledger: Ledger) -> PartitionReader:
        """The reader as it was before the first record that may lack rows."""
        position, highest_claim = ledger.resume(key)
        recent = RecentIds(ledger.recent.get(key, ()))
        return PartitionReader(*key, is_claimed, position, EpochFold(highest_claim), recent)

    def judge(self, event: Message, offset: int) -> str:
        """Whether the event is `void`, a `duplicate` or `standing`. Void first: a void event leaves
        no trace."""
        if isinstance(event, OwnerClaimed):
            self.fold = self.fold.claimed(offset)
        elif self.is_claimed:
            if self.fold.is_void(event.epoch):
                return "void"
            self.fold = self.fold.seen(event.epoch)
        return "duplicate" if self.recent.is_repeat(event.event_id, offset) else "standing"


@dataclass(slots=True)
class _Tally:
    """One partition's part of a batch while it is made."""

    first_offset: int
    last_offset: int
    claim_before: int
    records: int = 0
    rows: int = 0
    void: int = 0
    duplicates: int = 0
    poison: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A batch ready to be sent: its ledger entry, its rows by table, and what goes to the dead
    letters."""

    batch: Batch
    rows: Mapping[str, Sequence[PackedRow]]
    dead: Sequence[DeadRecord]
    records: int


class Standing(NamedTuple):
    event: Message
    place: Place


@dataclass(slots=True)
class BatchBuilder:
    """Folds records, in log order per partition, into batches. It moves the readers, so each record
    comes once."""

    decode: Decode
    readers: dict[PartitionKey, PartitionReader]

    def build(
        self,
        records: Sequence[LogRecord],
        seq: int,
        writer: str,
        ask_settled: AskSettled,
        and_positions: bool = False,
    ) -> Prepared:
        """The batch of these records; on request with the position of every other partition as an
        empty range."""
        tallies: dict[PartitionKey, _Tally] = {}
        rows: dict[str, list[PackedRow]] = {table: [] for table in COLUMNS}
        dead: list[DeadRecord] = []
        standing: list[Standing] = []
        for record in records:
            if record.offset < self.readers[record.topic, record.partition].position:
                continue
            tally = self._tally(tallies, record)
            event = self._read(record)
            if isinstance(event, Poison):
                tally.poison += 1
                dead.append(DeadRecord(record, event.reason))
                continue
            self._judge(event, record, tally, rows, standing)
        self._add_rows(standing, tallies, rows, ask_settled)
        if and_positions:
            for key, reader in self.readers.items():
                claim = reader.fold.highest_claim
                tallies.setdefault(key, _Tally(reader.position, reader.position - 1, claim))
        ranges = [_range(key, tally, self.readers[key]) for key, tally in tallies.items()]
        return Prepared(
            batch=Batch(seq=seq, writer=writer, ranges=tuple(ranges)),
            rows=rows,
            dead=dead,
            records=len(records),
        )

    def _read(self, record: LogRecord) -> Message | Poison:
        place = record[:3]
        try:
            event = self.decode(record.value)
        except ValueError as error:
            return Poison(*place, str(error))
        if type(event) not in RULES:
            return Poison(*place, f"{type(event).__name__} has no place on this topic")
        return event

    def _tally(self, tallies: dict[PartitionKey, _Tally], record: LogRecord) -> _Tally:
        key = (record.topic, record.partition)
        reader = self.readers[key]
        tally = tallies.get(key)
        if tally is None:
            claim = reader.fold.highest_claim
            tally = tallies[key] = _Tally(reader.position, record.offset, claim)
        reader.position = record.offset + 1
        tally.last_offset = record.offset
        tally.records += 1
        return tally

    def _judge(
        self,
        event: Message,
        record: LogRecord,
        tally: _Tally,
        rows: dict[str, list[PackedRow]],
        standing: list[Standing],
    ) -> None:
        reader = self.readers[record.topic, record.partition]
        place = Place(*record[:3])
        match reader.judge(event, record.offset):
            case "void":
                tally.void += 1
                rows[EVENTS_VOID].append(pack(void_row(event, reader.fold.highest_claim, place)))
            case "duplicate":
                tally.duplicates += 1
            case _:
                standing.append(Standing(event, place))

    def _add_rows(
        self,
        standing: Sequence[Standing],
        tallies: Mapping[PartitionKey, _Tally],
        rows: dict[str, list[PackedRow]],
        ask_settled: AskSettled,
    ) -> None:
        repeats = _repeats(standing, tallies, ask_settled)
        for event, place in standing:
            tally = tallies[place.topic, place.partition]
            if (place.topic, place.partition, event.event_id) in repeats:
                tally.duplicates += 1
                continue
            tally.rows += 1
            for table, row in rows_of(event, place):
                rows[table].append(pack(row))


def _repeats(
    standing: Sequence[Standing], tallies: Mapping[PartitionKey, _Tally], ask_settled: AskSettled
) -> set[tuple[str, int, str]]:
    """Settled calls that have a usage row from before this batch: money is de-duplicated without a
    window.

    Only rows below the range count, so a re-sent batch does not take its own rows for somebody
    else's.
    """
    calls = [
        (event.tenant, event.call_id, event.event_id)
        for event, _ in standing
        if isinstance(event, LlmCallCompleted)
    ]
    if not calls:
        return set()
    before: dict[PartitionKey, int] = defaultdict(int)
    before.update({key: tally.first_offset for key, tally in tallies.items()})
    return {
        (found.topic, found.partition, found.event_id)
        for found in ask_settled(calls)
        if found.offset < before[found.topic, found.partition]
    }


def _range(key: PartitionKey, tally: _Tally, reader: PartitionReader) -> Range:
    return Range(
        topic=key[0],
        partition=key[1],
        first_offset=tally.first_offset,
        last_offset=tally.last_offset,
        claim_before=tally.claim_before,
        highest_claim=reader.fold.highest_claim,
        records=tally.records,
        rows=tally.rows,
        void=tally.void,
        duplicates=tally.duplicates,
        poison=tally.poison,
    )
