"""The log as the sink reads it: every partition assigned by us, positions from the store's ledger,
no group."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from producers.kafka import scan
from projections.batches import LogRecord
from projections.ledger import PartitionKey, Range
from streams import topics
from streams.errors import Retryable, Terminal

log = logging.getLogger("omium.projector")

PROJECTED: Final = (topics.EXECUTIONS, topics.LLM_REQUESTS, topics.LLM_RESPONSES)
"""Event topics whose events become rows. Chunks do not: `LlmCallCompleted` holds what they said."""
BATCH_RECORDS_MAX: Final = 3_000
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
BATCH_WAIT_MS: Final = 600
"""A batch is closed by records, bytes, or this long after its first record."""
GATHER_BYTES: Final = 256 * 1024
GATHER_MS: Final = 200
CHUNK_RECORDS_MAX: Final = 500
IDLE_WAIT_S: Final = 0.5
WATERMARK_TIMEOUT_S: Final = 10.0
QUEUE_KIB_MAX: Final = 4 * 1024
"""Read-ahead of the client: while the store is away no more than this is held."""


def partitions() -> dict[PartitionKey, bool]:
    """Every partition that is projected, and whether it has one claimed writer."""
    return {
        (topic.name, n): topic.is_claimed
        for topic in PROJECTED
        for n in range(topics.partitions(topic))
    }


class LogSource:
    """Batches of records from given positions on. One thread."""

    def __init__(self, bootstrap: str, monotonic_ms: Callable[[], int]) -> None:
        self._bootstrap = bootstrap
        self._monotonic_ms = monotonic_ms
        self._consumer: Consumer | None = None

    def open(self, positions: Mapping[PartitionKey, int]) -> None:
        """Read on from these offsets. Raises `Terminal` if the log ends before one of them."""
        self.close()
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "omium-projector-unused",  # Required by the client, never joined.
                "client.id": "omium-projector",
                "enable.auto.commit": False,  # Positions stand in the ledger, beside the rows.
                "auto.offset.reset": "earliest",
                "fetch.min.bytes": GATHER_BYTES,  # Rows may wait.
                "fetch.wait.max.ms": GATHER_MS,
                "fetch.queue.backoff.ms": 20,
                "queued.max.messages.kbytes": QUEUE_KIB_MAX,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 3,
            }
        )
        self._consumer = consumer
        for key, position in positions.items():
            if position:
                _check_position(consumer, key, position)
        consumer.assign([TopicPartition(*key, position) for key, position in positions.items()])

    def close(self) -> None:
        """Stop reading."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def take(self) -> list[LogRecord]:
        """The next batch; empty if nothing came for half a second."""
        assert self._consumer is not None, "the source is not open"
        first = self._consumer.poll(IDLE_WAIT_S)
        if first is None:
            return []
        records = _good([first])
        size = sum(_bytes(record) for record in records)
        deadline_ms = self._monotonic_ms() + BATCH_WAIT_MS
        while len(records) < BATCH_RECORDS_MAX and size < BATCH_BYTES_MAX:
            left_ms = deadline_ms - self._monotonic_ms()
            if left_ms <= 0:
                break
            chunk = _good(self._consumer.consume(CHUNK_RECORDS_MAX, left_ms / 1000))
            size += sum(_bytes(record) for record in chunk)
            records.extend(chunk)
        return records

    def again(self, part: Range) -> Iterator[LogRecord]:
        """The records of a range that was read before. Those that the log no longer holds are
        passed over."""
        for messages in scan(
            self._bootstrap, part.topic, part.partition, part.first_offset, part.last_offset + 1
        ):
            yield from _good(messages)


def first_offsets(bootstrap: str, keys: Iterable[PartitionKey]) -> dict[PartitionKey, int]:
    """The first offset that the log still holds, by partition. Raises `Retryable` without a
    broker."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "omium-projector-unused", "log_level": 3}
    )
    try:
        return {key: _watermarks(consumer, key)[0] for key in keys}
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, key: PartitionKey) -> tuple[int, int]:
    try:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(*key), timeout=WATERMARK_TIMEOUT_S
        )
    except KafkaException as error:
        raise Retryable(f"no watermarks of {key[0]}[{key[1]}]: {error}", 1000) from error
    return int(low), int(high)


def _check_position(consumer: Consumer, key: PartitionKey, position: int) -> None:
    low, high = _watermarks(consumer, key)
    if position > high:
        raise Terminal(
            f"{key[0]}[{key[1]}] ends at {high}, but rows stand up to {position - 1}: this is"
            " another log. Rebuild the tables from it with `omiumctl replay`."
        )
    if position < low:
        log.warning(
            "%s[%d]: records %d to %d were removed before they had rows", *key, position, low - 1
        )


def _good(messages: list[Message]) -> list[LogRecord]:
    records = []
    for message in messages:
        if (error := message.error()) is not None:
            log.warning("reading: %s", error.str())
            continue
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None and partition is not None and offset is not None
        records.append(
            LogRecord(topic, partition, offset, _raw(message.key()), _raw(message.value()))
        )
    return records


def _raw(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _bytes(record: LogRecord) -> int:
    return len(record.value or b"")
