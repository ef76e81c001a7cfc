"""The schema log on Kafka: read whole at start, appended to by one writer at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from threading import get_native_id
from time import monotonic, sleep

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

import schemas
from producers.subjects import compatibility, subjects
from schemas.log import Entry, SchemaLog
from schemas.registry import RegistryError, register, set_level
from streams.codec import TYPES
from streams.errors import Retryable, Terminal
from streams.topics import SCHEMAS

logger = logging.getLogger("omium.registry")

READABLE_POLL_S = 0.01
READ_TIMEOUT_S = 30.0
"""A broker that has just started may take this long to serve its first fetch."""
POLL_S = 0.01
"""How long a read waits to fill its batch: every role waits for it, one fetch brings the log."""
APPEND_TRIES_MAX = 10
"""How often an append is decided anew after another writer came between."""
APPEND_BACKOFF_S = 0.05
APPEND_TIMEOUT_S = 30.0
TRANSACTIONAL_ID = "omium-schemas"
"""One for all: whoever begins fences every earlier writer; decide-and-append is atomic."""


def load(bootstrap: str) -> dict[str, int]:
    """The ids of our record schemas, by full name. LookupError if one is not registered."""
    return ids(read(bootstrap))


def ids(log: SchemaLog) -> dict[str, int]:
    """The ids of our record schemas in this log, by full name. LookupError if one is missing."""
    found = {name: log.id_of(schemas.compact(name)) for name in TYPES}
    absent = [name for name, number in found.items() if number is None]
    if absent:
        raise LookupError(f"not in the schema log, register them first: {', '.join(absent)}")
    return {name: number for name, number in found.items() if number is not None}


def read(bootstrap: str) -> SchemaLog:
    """The whole log, folded. Retryable if the broker does not answer in time."""
    return read_with_position(bootstrap)[0]


def read_with_position(bootstrap: str) -> tuple[SchemaLog, int]:
    """The whole log, folded, and the offset from which to follow it."""
    log, position = SchemaLog(), 0
    for message in _messages(bootstrap):
        position = (message.offset() or 0) + 1
        follow(log, message)
    return log, position


def follow(log: SchemaLog, message: Message) -> None:
    """Folds one record of the log in. A record that cannot be read is passed over and said."""
    key, value = message.key(), message.value()
    try:
        if key is not None:
            log.apply(bytes(key), None if value is None else bytes(value))
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s@%s is no registry record: %r", SCHEMAS.name, message.offset(), error)


def register_all(bootstrap: str) -> dict[str, int]:
    """The ids of our schemas, after registering those that were missing.

    Harmless to repeat, and to run in several processes at once. Terminal if the log holds an older
    schema that ours must not follow.
    """
    log = read(bootstrap)
    if missing(log):
        log = append(bootstrap, missing)
    return ids(log)


def missing(log: SchemaLog) -> list[Entry]:
    """The records that bring the log up to our schemas: ids by position, in a fixed order."""
    ahead, entries = log.copy(), []
    for subject, name in subjects():
        new: list[Entry] = []
        if subject not in ahead.levels:
            new += set_level(subject, compatibility(TYPES[name]))
            _apply(ahead, new)
        try:
            _, written = register(ahead, subject, schemas.compact(name))
        except RegistryError as error:
            raise Terminal(str(error)) from error
        _apply(ahead, written)
        entries += [*new, *written]
    return entries


def _apply(log: SchemaLog, entries: list[Entry]) -> None:
    for key, value in entries:
        log.apply(key, value)


def append(bootstrap: str, decide: Callable[[SchemaLog], list[Entry]]) -> SchemaLog:
    """The log after the records that `decide` asked for, as it stood when nobody else could write.

    `decide` may run several times; what it raises is passed on and nothing is written.
    """
    for number in range(APPEND_TRIES_MAX):
        # Writers that meet would keep fencing each other at the same pace.
        sleep(number * (APPEND_BACKOFF_S + get_native_id() % 16 / 100))
        try:
            producer = _writer(bootstrap)
            log = read(bootstrap)
            entries = decide(log)
            if entries:
                _commit(producer, entries)
                _until_readable(bootstrap)
        except KafkaException as error:
            reason = error.args[0]
            if not (reason.fatal() or reason.txn_requires_abort() or reason.retriable()):
                raise
            logger.info("the schema log: another writer came between: %s", reason.str())
            continue
        _apply(log, entries)
        return log
    raise Retryable("other writers of the schema log kept coming between", retry_after_ms=1_000)


def _writer(bootstrap: str) -> Producer:
    """A producer that has fenced all earlier ones."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": TRANSACTIONAL_ID,
            "acks": "all",  # A schema id must never be lost: records carry it for years.
            "compression.type": "zstd",
            "retry.backoff.ms": 10,  # The coordinator often answers "concurrent transactions" once.
            "log_level": 2,  # Being fenced is part of the plan, and is said by us.
        }
    )
    producer.init_transactions(APPEND_TIMEOUT_S)
    return producer


def _commit(producer: Producer, entries: list[Entry]) -> None:
    """All records or none. KafkaException if another writer came between."""
    producer.begin_transaction()
    try:
        for key, value in entries:
            producer.produce(SCHEMAS.name, key=key, value=value, partition=0)
        producer.commit_transaction(APPEND_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].txn_requires_abort():
            producer.abort_transaction(APPEND_TIMEOUT_S)
        raise


def _until_readable(bootstrap: str) -> None:
    """Returns once readers of committed records see all that stands now.

    A commit is answered when it is decided; its marker, which readers wait for, is written a moment
    later.
    """
    end = _end(bootstrap, "read_uncommitted")
    deadline = monotonic() + READ_TIMEOUT_S
    while _end(bootstrap, "read_committed") < end:
        if monotonic() > deadline:
            raise Retryable("the schema log's last records did not become readable", 1_000)
        sleep(READABLE_POLL_S)


def _end(bootstrap: str, isolation: str) -> int:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "omium-schemas",  # Required by the client; never joined, never committed.
            "isolation.level": isolation,
        }
    )
    try:
        place = TopicPartition(SCHEMAS.name, 0)
        return int(consumer.get_watermark_offsets(place, timeout=READ_TIMEOUT_S)[1])
    finally:
        consumer.close()


def _messages(bootstrap: str) -> Iterator[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "omium-schemas",  # Required by the client; never joined, never committed.
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "auto.offset.reset": "earliest",
        }
    )
    # Offset 0, not "beginning": that would cost the client a look-up and 500 ms.
    consumer.assign([TopicPartition(SCHEMAS.name, 0, 0)])
    deadline = monotonic() + READ_TIMEOUT_S
    try:
        while monotonic() < deadline:
            for message in consumer.consume(1_000, timeout=POLL_S):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                elif not error.retriable() and error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise KafkaException(error)
    finally:
        consumer.close()
    raise Retryable(f"the schema log could not be read within {READ_TIMEOUT_S:.0f} s", 1_000)
