"""The schema log on Kafka: read whole at start, appended to by one writer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

import schemas
from producers.subjects import compatibility, subjects
from schemas.log import Entry, SchemaLog, Version, level_entry, schema_entry
from streams.codec import TYPES
from streams.errors import Retryable
from streams.topics import SCHEMAS

READ_TIMEOUT_S = 30.0
"""A broker that has just started may take this long to serve its first fetch."""
POLL_S = 0.01
"""How long a read waits to fill its batch: the log is usually there in one fetch, and every role waits for it."""
APPEND_TRIES_MAX = 5
"""How often an append is decided anew after another writer came between."""
APPEND_TIMEOUT_S = 30.0
TRANSACTIONAL_ID = "omium-schemas"
"""One for all: whoever initialises it fences every earlier writer, so decide-and-append is atomic."""


def load(bootstrap: str) -> dict[str, int]:
    """The ids of our record schemas, by full name. LookupError if one is not registered."""
    return ids(read(bootstrap))


def ids(log: SchemaLog) -> dict[str, int]:
    """The ids of our record schemas in this log, by full name. LookupError if one is missing."""
    known = {text: number for number, text in sorted(log.texts.items(), reverse=True)}
    missing = [name for name in TYPES if schemas.compact(name) not in known]
    if missing:
        raise LookupError(f"not in the schema log, register them first: {', '.join(missing)}")
    return {name: known[schemas.compact(name)] for name in TYPES}


def read(bootstrap: str) -> SchemaLog:
    """The whole log, folded. Retryable if the broker does not answer in time."""
    log = SchemaLog()
    for key, value in _entries(bootstrap):
        log.apply(key, value)
    return log


def register_all(bootstrap: str) -> dict[str, int]:
    """The ids of our schemas, after registering those that were missing.

    Harmless to repeat, and to run in several processes at once.
    """
    log = read(bootstrap)
    if missing(log):
        log = append(bootstrap, missing)
    return ids(log)


def missing(log: SchemaLog) -> list[Entry]:
    """The records that bring the log up to our schemas: ids by position, in a fixed order."""
    entries: list[Entry] = []
    given = {text: number for number, text in sorted(log.texts.items(), reverse=True)}
    id_max = log.id_max
    for subject, name in subjects():
        text = schemas.compact(name)
        versions = log.of_subject(subject, with_deleted=True)
        if not versions and subject not in log.levels:
            entries.append(level_entry(subject, compatibility(TYPES[name])))
        if any(version.schema == text and not version.is_deleted for version in versions):
            continue
        if text not in given:
            id_max += 1
            given[text] = id_max
        number = versions[-1].version + 1 if versions else 1
        entry = Version(subject=subject, version=number, id=given[text], schema=text)
        entries.append(schema_entry(entry))
    return entries


def append(bootstrap: str, decide: Callable[[SchemaLog], list[Entry]]) -> SchemaLog:
    """The log after the records that `decide` asked for, seen as it stood when nobody else could write.

    `decide` may run several times; what it raises is passed on and nothing is written.
    """
    for _ in range(APPEND_TRIES_MAX):
        producer = _writer(bootstrap)
        log = read(bootstrap)
        entries = decide(log)
        if not entries or _commit(producer, entries):
            for key, value in entries:
                log.apply(key, value)
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
        }
    )
    producer.init_transactions(APPEND_TIMEOUT_S)
    return producer


def _commit(producer: Producer, entries: list[Entry]) -> bool:
    """Whether the records were committed; false if another writer came between."""
    producer.begin_transaction()
    try:
        for key, value in entries:
            producer.produce(SCHEMAS.name, key=key, value=value, partition=0)
        producer.commit_transaction(APPEND_TIMEOUT_S)
    except KafkaException as error:
        reason = error.args[0]
        if not (reason.fatal() or reason.txn_requires_abort()):
            raise
        if reason.txn_requires_abort():
            producer.abort_transaction(APPEND_TIMEOUT_S)
        return False
    return True


def _entries(bootstrap: str) -> Iterator[Entry]:
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
                    key, value = message.key(), message.value()
                    if key is not None:
                        yield bytes(key), None if value is None else bytes(value)
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                elif not error.retriable() and error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise KafkaException(error)
    finally:
        consumer.close()
    raise Retryable(f"the schema log could not be read within {READ_TIMEOUT_S:.0f} s", 1_000)
