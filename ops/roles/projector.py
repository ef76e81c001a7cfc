"""The projector: the log into ClickHouse."""

from __future__ import annotations

import logging
import signal
import threading
from functools import partial

from ops import clock
from ops.readiness import mark_ready
from ops.settings import Settings
from ops.store import owner_endpoint
from producers.wire import Wire
from projections.clickhouse import ClickHouseStore
from projections.dead_letters import KafkaDeadLetters
from projections.http import ClickHouse
from projections.sink import Sink
from projections.source import LogSource, partitions
from streams.errors import Retryable

log = logging.getLogger("omium.projector")

START_RETRY_MS = 250


def run(settings: Settings) -> int:
    """Serve until SIGTERM."""
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # A line per insert would fill the log.
    stopping = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stopping.set())
    sink = _sink(settings, stopping)
    if sink is not None:
        sink.run()
    return 0


def _sink(settings: Settings, stopping: threading.Event) -> Sink | None:
    """The sink once its two servers answer; None if told to stop before."""
    store = ClickHouseStore(ClickHouse(owner_endpoint(settings)))
    while not stopping.is_set():
        try:
            applied = store.migrate()
            wire = Wire.load(settings.kafka)
        except (Retryable, LookupError) as error:
            log.warning("not ready yet: %s", error)
            stopping.wait(START_RETRY_MS / 1000)
            continue
        if applied:
            log.info("applied migrations: %s", ", ".join(applied))
        return Sink(
            source=LogSource(settings.kafka, clock.monotonic_ms),
            store=store,
            dead_letters=KafkaDeadLetters(settings.kafka, wire, "projector", clock.now_ms),
            decode=wire.decode,
            partitions=partitions(),
            writer=f"{settings.worker_id}-{clock.new_id()}",
            wait=lambda milliseconds: stopping.wait(milliseconds / 1000),
            monotonic_ms=clock.monotonic_ms,
            on_ready=partial(mark_ready, settings, "projector"),
        )
    return None
