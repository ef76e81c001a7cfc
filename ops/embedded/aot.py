"""Kafka's AOT cache: one training broker, once per machine, halves the start of every later one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from ops.embedded import identity, java, kafka, ports
from ops.embedded.kafka import Kafka
from ops.embedded.process import spawn
from ops.exits import CommandError

START_WAIT_S = 120.0
WRITE_WAIT_S = 180.0
"""The JVM writes the cache after SIGTERM."""
POLL_S = 0.05
FIRST_PORT = 21000
PRODUCE_WAIT_S = 30


def has_cache(cache_dir: Path) -> bool:
    """Whether the cache has been made."""
    return java.aot_cache(cache_dir).exists()


def ensure(cache_dir: Path) -> bool:
    """Make the cache unless it is there; whether there is one now. Kafka starts without it, too."""
    target = java.aot_cache(cache_dir)
    with java.locked(target.with_suffix(".lock")):
        if target.exists():
            return True
        folder = Path(tempfile.mkdtemp(prefix="omium-aot-", dir=cache_dir))
        try:
            written = _train(folder, cache_dir)
            if written.exists():
                written.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return target.exists()


def _train(folder: Path, cache_dir: Path) -> Path:
    chosen, _ = ports.choose(ports.natural(FIRST_PORT), {}, ports.is_free)
    broker = Kafka(
        home=folder / "kafka",
        logs_dir=folder / "logs",
        cache_dir=cache_dir,
        port=chosen.kafka,
        controller_port=chosen.kafka_controller,
    )
    broker.prepare()
    written = folder / "kafka.aot"
    process = spawn(broker.training_command(written), folder / "logs" / "kafka.log", os.environ)
    try:
        deadline = time.monotonic() + START_WAIT_S
        while not kafka.answers(broker.port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the training broker did not start: see {folder}.")
            time.sleep(POLL_S)
        _exercise(broker.bootstrap)
        process.terminate()
        process.wait(WRITE_WAIT_S)
    finally:
        identity.end_group(process.pid, identity.started(process.pid), 0)
    return written


def _exercise(bootstrap: str) -> None:
    """Have the broker load what it needs for producers and consumers, too."""
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    topic = f"training-{uuid4()}"
    # Named, since a client that nobody holds takes its pending answers with it.
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(PRODUCE_WAIT_S)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    producer.produce(topic, b"training")
    producer.flush(PRODUCE_WAIT_S)
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    consumer.poll(PRODUCE_WAIT_S)
    consumer.close()
