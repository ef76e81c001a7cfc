"""The role `topology`: makes every topic and schema, then ends. Harmless when they are there."""

from __future__ import annotations

import time

from ops.embedded.ports import LOOPBACK
from ops.exits import UNAVAILABLE, CommandError
from ops.settings import Settings
from producers.registry import register_all
from producers.topology import create_topics

BROKER_WAIT_S = 110.0
POLL_S = 0.03


def run(settings: Settings) -> int:
    """Make them as soon as the broker answers."""
    _wait_for_broker(settings.kafka)
    create_topics(settings.kafka, settings.kafka_replicas)
    register_all(settings.kafka)
    return 0


def _wait_for_broker(bootstrap: str) -> None:
    from ops.embedded.kafka import answers

    host, _, port = bootstrap.partition(":")
    deadline = time.monotonic() + BROKER_WAIT_S
    # A broker elsewhere is waited for by the client itself.
    while host == LOOPBACK and not answers(int(port)):
        if time.monotonic() > deadline:
            raise CommandError(f"Kafka at {bootstrap} did not answer.", UNAVAILABLE)
        time.sleep(POLL_S)
