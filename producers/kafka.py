"""Kafka for the event loop: an idempotent producer whose acknowledgements are futures, and a tail
reader.

Both keep librdkafka in one thread each and hand results to asyncio in batches, one wake-up for many
results: under load a `call_soon_threadsafe` per record costs more than the record.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streams.errors import Retryable
from streams.topics import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from producers.wire import Record

log = logging.getLogger("omium.kafka")

DELIVERY_TIMEOUT_MS = 120_000
"""How long a broker may be away before an append fails: a restart of the broker is ridden out."""
POLL_TIMEOUT_S = 0.5
BATCH_SIZE_MAX = 500
"""Records handed to the loop at once: at 20-40 us each a batch holds the loop for 10-20 ms at most.
"""
BACKLOG_BATCHES_MAX = 8
"""Batches that may wait for the loop before the tail stops reading: memory stays bounded."""
FETCH_BYTES_MAX = 8 * 1024 * 1024
QUEUE_KIB_MAX = 32 * 1024
GATHER_BYTES = 256 * 1024


Acknowledged = Callable[[int, KafkaError | None], None]
"""Takes the record's offset, or -1 and the error; must not raise."""


class AsyncProducer:
    """Appends records in order; each `send` resolves to the record's offset once all in-sync
    replicas have it.
    """

    def __init__(self, bootstrap: str, *, client_id: str, linger_ms: float = 0.0) -> None:
        self._config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "acks": "all",
            "enable.idempotence": True,  # Order and no duplicates across broker restarts.
            "linger.ms": linger_ms,
            "max.in.flight.requests.per.connection": 1,
            "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
            "message.max.bytes": MESSAGE_BYTES_MAX
            + 64 * 1024,  # Key and headers travel beside the value.
            "retry.backoff.ms": 20,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "socket.nagle.disable": True,
            "queue.buffering.max.messages": 100_000,
            "queue.buffering.max.kbytes": 256 * 1024,
            "statistics.interval.ms": 0,
            "log_level": 3,
        }
        self._producer: Producer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acks: deque[tuple[Acknowledged, int, KafkaError | None]] = deque()
        self._is_flush_due = False
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Starts the poll thread; the broker may still be away."""
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(self._config)
        self._thread = threading.Thread(target=self._poll, name="omium-producer", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Delivers what is queued, for at most 3 s, and ends the thread."""
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        await asyncio.get_running_loop().run_in_executor(None, producer.flush, 3.0)
        self._stopping.set()
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join, 2.0)

    def send(self, record: Record) -> asyncio.Future[int]:
        """Queues the record; the future is its offset, or `Retryable` when the broker did not take
        it.
        """
        assert self._loop is not None, "the producer is not started"
        future: asyncio.Future[int] = self._loop.create_future()

        def acknowledged(offset: int, error: KafkaError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(offset)
            else:
                future.set_exception(Retryable(f"append failed: {error.str()}", 1000))

        try:
            self.append(record, acknowledged)
        except Retryable as error:
            future.set_exception(error)
        return future

    def append(self, record: Record, acknowledged: Acknowledged) -> None:
        """Queues the record; `acknowledged` is called on the loop, in order of offsets per
        partition.

        For hot paths: a future costs two more rounds of the loop. Raises `Retryable` when the queue
        is full.
        """
        assert self._producer is not None, "the producer is not started"

        def delivered(error: KafkaError | None, message: Message) -> None:
            offset = -1 if error is not None else message.offset()
            self._resolve_soon(acknowledged, -1 if offset is None else offset, error)

        try:
            self._producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=[*record.headers],
                on_delivery=delivered,
            )
        except BufferError as error:
            raise Retryable("the producer's queue is full", 1000) from error
        except KafkaException as error:
            raise Retryable(f"cannot append to {record.topic}: {error}", 1000) from error

    def _poll(self) -> None:
        producer = self._producer
        assert producer is not None
        while not self._stopping.is_set():
            producer.poll(POLL_TIMEOUT_S)

    def _resolve_soon(
        self, acknowledged: Acknowledged, offset: int, error: KafkaError | None
    ) -> None:
        with self._lock:
            self._acks.append((acknowledged, offset, error))
            if self._is_flush_due:
                return
            self._is_flush_due = True
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._resolve_all)
        except RuntimeError:
            log.debug("the loop closed before %s acknowledgements arrived", len(self._acks))

    def _resolve_all(self) -> None:
        with self._lock:
            acks, self._acks = self._acks, deque()
            self._is_flush_due = False
        for acknowledged, offset, error in acks:
            try:
                acknowledged(offset, error)
            except Exception:  # One broken listener must not silence the others.
                log.exception("an acknowledgement at offset %s was not handled", offset)


BatchHandler = Callable[[list[Message]], None]


class Tail:
    """Reads given partitions from given offsets for ever and hands batches, in order, to the event
    loop.

    `on_batch` runs on the loop and must not block. A partition that stops existing or a broker that
    restarts is waited for. Positions below the log's start begin at its start.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str,
        positions: Mapping[tuple[str, int], int],
        on_batch: BatchHandler,
        gather_ms: int = 0,
    ) -> None:
        """With `gather_ms` the broker may hold records back so long to send more at once: under
        load one fetch per append is most of what a reader costs the broker.
        """
        self._config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "group.id": f"{client_id}-unused",  # Required, never joined: we assign.
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.min.bytes": GATHER_BYTES if gather_ms else 1,
            "fetch.wait.max.ms": gather_ms or 500,  # Without: at once.
            "fetch.queue.backoff.ms": 5,
            "fetch.message.max.bytes": FETCH_BYTES_MAX,
            "queued.max.messages.kbytes": QUEUE_KIB_MAX,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "enable.partition.eof": False,
            "log_level": 3,
        }
        self._positions = dict(positions)
        self._on_batch = on_batch
        self._stopping = threading.Event()
        self._room = threading.Semaphore(BACKLOG_BATCHES_MAX)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Starts the reading thread."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._read, name="omium-tail", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends the reading thread; no batch is handed over afterwards."""
        self._stopping.set()
        self._room.release()
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join, 3.0)

    def _read(self) -> None:
        consumer = Consumer(self._config)
        consumer.assign([TopicPartition(t, p, o) for (t, p), o in self._positions.items()])
        try:
            while not self._stopping.is_set():
                messages = self._take(consumer)
                if messages and not self._hand_over(messages):
                    return
        finally:
            consumer.close()

    def _take(self, consumer: Consumer) -> list[Message]:
        first = consumer.poll(POLL_TIMEOUT_S)
        if first is None:
            return []
        batch = [first, *consumer.consume(BATCH_SIZE_MAX - 1, 0)]
        good = [m for m in batch if m.error() is None]
        for message in batch:
            if (error := message.error()) is not None:
                log.warning("reading: %s", error.str())
        return good

    def _hand_over(self, messages: list[Message]) -> bool:
        self._room.acquire()
        if self._stopping.is_set() or self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(self._deliver, messages)
        except RuntimeError:
            return False
        return True

    def _deliver(self, messages: list[Message]) -> None:
        self._room.release()
        if not self._stopping.is_set():
            self._on_batch(messages)


def scan(
    bootstrap: str, topic: str, partition: int, start: int, end: int, *, timeout_ms: int = 60_000
) -> Iterator[list[Message]]:
    """Yields, in batches, a partition's records with `start <= offset < end`. Blocks the calling
    thread.

    Offsets that the log no longer holds are passed over. Raises `Retryable` when nothing comes for
    `timeout_ms`.
    """
    if start >= end:
        return
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "omium-scan-unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,  # Compaction may leave nothing below `end`.
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": QUEUE_KIB_MAX,
            "log_level": 3,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        waited_ms = 0
        while waited_ms < timeout_ms:
            first = consumer.poll(0.1)
            waited_ms = 0 if first is not None else waited_ms + 100
            batch = [] if first is None else [first, *consumer.consume(BATCH_SIZE_MAX - 1, 0)]
            is_eof = any(_is_end(message) for message in batch)
            good = [m for m in batch if m.error() is None and (m.offset() or 0) < end]
            if good:
                yield good
            last = max((m.offset() or 0 for m in batch if m.error() is None), default=-1)
            if is_eof or last >= end - 1:
                return
        raise Retryable(f"no answer from {topic}[{partition}] for {timeout_ms} ms", 1000)
    finally:
        consumer.close()


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def end_offset(bootstrap: str, topic: str, partition: int, timeout_s: float = 30.0) -> int:
    """The offset that the next record of the partition will get. Blocks; raises `Retryable` without
    a broker.
    """
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "omium-scan-unused", "log_level": 3}
    )
    try:
        _, high = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=timeout_s
        )
        return int(high)
    except KafkaException as error:
        raise Retryable(f"cannot read the end of {topic}[{partition}]: {error}", 1000) from error
    finally:
        consumer.close()
