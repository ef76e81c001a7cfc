"""A projector in a process of its own, for tests that kill it: `python -m
tests.support.sink_process SPEC`."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from uuid import uuid4

from producers.wire import Wire
from projections.clickhouse import ClickHouseStore
from projections.dead_letters import KafkaDeadLetters
from projections.http import ClickHouse, Endpoint
from projections.sink import Sink
from projections.source import LogSource


def main() -> None:
    """Project the topics of the spec until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    spec = json.loads(sys.argv[1])
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    wire = Wire.load(spec["kafka"])
    Sink(
        source=LogSource(spec["kafka"], _monotonic_ms),
        store=ClickHouseStore(ClickHouse(Endpoint(*spec["clickhouse"]))),
        dead_letters=KafkaDeadLetters(spec["kafka"], wire, "projector", lambda: 0),
        decode=wire.decode,
        partitions={
            (topic, partition): claimed for topic, partition, claimed in spec["partitions"]
        },
        writer=str(uuid4()),
        wait=lambda milliseconds: stopping.wait(milliseconds / 1000),
        monotonic_ms=_monotonic_ms,
        on_ready=lambda: print("ready", flush=True),
    ).run()


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


if __name__ == "__main__":
    main()
