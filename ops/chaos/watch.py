"""Sees every event of one execution arrive on the log, void ones included."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from producers.kafka import end_offset
from producers.wire import Wire
from streams.messages import Message
from streams.topics import EXECUTIONS, LLM_REQUESTS, LLM_RESPONSES, partitions

WATCHED: Final = (EXECUTIONS, LLM_REQUESTS, LLM_RESPONSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One record of the watched execution."""

    topic: str
    partition: int
    offset: int
    at_s: float
    """When it was seen, on the monotonic clock."""
    message: Message

    @property
    def kind(self) -> str:
        """The event's type."""
        return type(self.message).__name__


class Watch:
    """Watches from the end of the log on; `of(id)` gives what was seen of one execution so far."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._wire = Wire.load(bootstrap)
        self._seen: dict[str, list[Seen]] = {}
        self._arrived = threading.Condition()
        self._stopping = threading.Event()
        places = [(t.name, p) for t in WATCHED for p in range(partitions(t))]
        self._start = [TopicPartition(t, p, end_offset(bootstrap, t, p)) for t, p in places]
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def of(self, execution_id: str) -> list[Seen]:
        """What was seen of the execution, in order of arrival."""
        with self._arrived:
            return list(self._seen.get(execution_id, ()))

    def wait(self, execution_id: str, count: int, timeout_s: float) -> bool:
        """Whether that many of its events came in time."""
        with self._arrived:
            return self._arrived.wait_for(
                lambda: len(self._seen.get(execution_id, ())) >= count, timeout_s
            )

    def stop(self) -> None:
        """Ends the watch."""
        self._stopping.set()
        self._thread.join(5)

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "omium-watch-unused",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 100,
                "log_level": 2,
            }
        )
        consumer.assign(self._start)
        while not self._stopping.is_set():
            record = consumer.poll(0.2)
            if record is None or record.error() is not None:
                continue
            value, topic = record.value(), record.topic()
            if not isinstance(value, bytes) or topic is None:
                continue
            try:
                message = self._wire.decode(value)
            except ValueError:
                continue  # Put there by hand: nobody's event.
            seen = Seen(
                topic=topic,
                partition=int(record.partition() or 0),
                offset=int(record.offset() or 0),
                at_s=time.monotonic(),
                message=message,
            )
            with self._arrived:
                self._seen.setdefault(message.execution_id, []).append(seen)
                self._arrived.notify_all()
        consumer.close()
