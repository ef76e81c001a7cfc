"""The store on ClickHouse: migrations, the ledger, and inserts that may be repeated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

from projections.http import ClickHouse
from projections.ledger import (
    WINDOW_OFFSETS,
    Batch,
    Ledger,
    PartitionKey,
    Range,
    Settled,
    SinkDeposed,
    token,
)
from projections.tables import COLUMNS, LEDGER, Migration, PackedRow, migrations, pack
from streams.errors import Terminal

DATABASE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
RANGE_COLUMNS: Final = (
    "topic", "partition", "first_offset", "last_offset", "claim_before", "highest_claim",
    "records", "rows", "void", "duplicates", "poison",
)  # fmt: skip
NO_RANGE: Final = Range(topic="", partition=0, first_offset=0, last_offset=-1)
"""Stands in the ledger for a batch without ranges, which could have no row otherwise."""
LEDGER_DAYS: Final = 30
SETTLED_MAX: Final = 2_000
"""Calls asked for at a time."""

NEWEST: Final = (
    "SELECT seq, min(writer) AS writer FROM batches"
    " WHERE seq = (SELECT max(seq) FROM batches) GROUP BY seq"
)
RANGES: Final = (
    f"SELECT argMax(tuple({', '.join(RANGE_COLUMNS)}), seq) AS newest"
    " FROM batches WHERE topic != '' GROUP BY topic, partition"
)
RANGES_OF: Final = (
    f"SELECT {', '.join(RANGE_COLUMNS)} FROM batches"
    " WHERE seq = {seq:UInt64} AND writer = {writer:String} AND topic != ''"
)
RECENT: Final = (
    "SELECT kafka_topic, kafka_partition, event_id, kafka_offset FROM events"
    " INNER JOIN asked ON kafka_topic = asked.topic AND kafka_partition = asked.partition"
    f" WHERE kafka_offset < asked.end AND toInt64(kafka_offset) >= asked.end - {WINDOW_OFFSETS}"
    " ORDER BY kafka_offset"
)
IS_DONE: Final = "SELECT count() FROM batches_done WHERE seq = {seq:UInt64}"
SETTLED: Final = (
    "SELECT DISTINCT event_id, kafka_topic, kafka_partition, kafka_offset FROM usage"
    " WHERE (tenant, call_id) IN (SELECT tenant, call_id FROM asked)"
    " AND event_id IN (SELECT event_id FROM asked)"
)


class ClickHouseStore:
    """Rows and ledger in one database of a ClickHouse server."""

    def __init__(self, client: ClickHouse) -> None:
        self._client = client

    def migrate(self) -> list[str]:
        """Apply every migration that this database lacks; returns their names. Refuses an edited
        one."""
        database = self._client.endpoint.database
        if not DATABASE_NAME.fullmatch(database):
            raise Terminal(f"{database!r} cannot name a database")
        # Not in the database's own context: it may not exist yet.
        root = ClickHouse(self._client.endpoint._replace(database="default"))
        try:
            root.execute(f"CREATE DATABASE IF NOT EXISTS {database} ENGINE = Atomic")
        finally:
            root.close()
        self._client.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number UInt32, name String, sha256 String,"
            " at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY number"
        )
        known = {row[0]: row[1] for row in self._rows("SELECT number, sha256 FROM migrations")}
        return [self._apply(m) for m in migrations() if not _is_applied(m, known)]

    def _apply(self, migration: Migration) -> str:
        for statement in migration.statements:
            self._client.execute(statement)
        row = (migration.number, migration.name, migration.sha256)
        self._client.insert("migrations", ("number", "name", "sha256"), [pack(row)], token="")
        return migration.name

    def ledger(self) -> Ledger:
        """The ledger as it stands now."""
        newest = self._newest()
        ranges: dict[PartitionKey, Range] = {}
        for (fields,) in self._rows(RANGES):
            found = _range(cast(list[object], fields))
            ranges[found.key] = found
        is_complete = newest is None or bool(self._rows(IS_DONE, seq=newest.seq)[0][0])
        bare = Ledger(newest=newest, is_complete=is_complete, ranges=ranges, recent={})
        return replace(bare, recent=self._recent(bare))

    def _recent(self, ledger: Ledger) -> dict[PartitionKey, list[tuple[str, int]]]:
        asked = [(*key, ledger.resume(key)[0]) for key in ledger.ranges]
        found: dict[PartitionKey, list[tuple[str, int]]] = {key: [] for key in ledger.ranges}
        if not asked:
            return found
        structure = "topic String, partition UInt16, end Int64"
        for topic, partition, event_id, offset in self._client.query_with(
            RECENT, "asked", structure, asked
        ).rows:
            found[str(topic), int(str(partition))].append((str(event_id), int(str(offset))))
        return found

    def intend(self, batch: Batch) -> None:
        """Enter the batch; the token lets in the first of two writers, the read-back tells which it
        was."""
        columns = ("seq", "writer", *RANGE_COLUMNS)
        rows = [
            pack((batch.seq, batch.writer, *(getattr(part, name) for name in RANGE_COLUMNS)))
            for part in batch.ranges or (NO_RANGE,)
        ]
        self._client.insert("batches", columns, rows, token("batches", batch.seq))
        seq, writer = self._rows(NEWEST)[0]
        if (seq, writer) != (batch.seq, batch.writer):
            raise SinkDeposed(batch.seq, str(writer))

    def insert(self, table: str, seq: int, rows: Sequence[PackedRow]) -> None:
        """Insert a batch's rows once."""
        if rows:
            self._client.insert(table, COLUMNS[table], rows, token(table, seq))

    def complete(self, seq: int) -> None:
        """Note that all rows of the batch stand."""
        self._client.insert("batches_done", ("seq",), [pack((seq,))], token("batches_done", seq))

    def prune(self, before_seq: int) -> None:
        """Forget entries older than `LEDGER_DAYS` below a batch that names every partition's
        position."""
        for table in LEDGER:
            self._client.execute(
                f"DELETE FROM {table} WHERE seq < {int(before_seq)}"
                f" AND at < now() - INTERVAL {LEDGER_DAYS} DAY"
            )

    def settled(self, calls: Sequence[tuple[str, str, str]]) -> set[Settled]:
        """Which of these (tenant, call id, event id) have usage rows already."""
        found: set[Settled] = set()
        structure = "tenant String, call_id String, event_id String"
        for start in range(0, len(calls), SETTLED_MAX):
            part = calls[start : start + SETTLED_MAX]
            answer = self._client.query_with(SETTLED, "asked", structure, part)
            for event_id, topic, partition, offset in answer.rows:
                place = (int(str(partition)), int(str(offset)))
                found.add(Settled(str(event_id), str(topic), *place))
        return found

    def _newest(self) -> Batch | None:
        rows = self._rows(NEWEST)
        if not rows:
            return None
        seq, writer = int(str(rows[0][0])), str(rows[0][1])
        ranges = self._rows(RANGES_OF, seq=seq, writer=writer)
        return Batch(seq=seq, writer=writer, ranges=tuple(_range(fields) for fields in ranges))

    def _rows(self, statement: str, **parameters: object) -> list[list[object]]:
        return self._client.query(statement, parameters).rows


def _range(fields: Sequence[object]) -> Range:
    topic, *numbers = fields
    whole = dict(zip(RANGE_COLUMNS[1:], (int(str(number)) for number in numbers), strict=True))
    return Range(topic=str(topic), **whole)


def _is_applied(migration: Migration, known: dict[object, object]) -> bool:
    found = known.get(migration.number)
    if found not in (None, migration.sha256):
        raise Terminal(f"migration {migration.number} was edited after it had been applied")
    return found is not None
