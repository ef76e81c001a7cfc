"""The embedded servers are the real ones."""

from __future__ import annotations

from typing import Protocol
from uuid import uuid4

import clickhouse_connect
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic


class ClickHouseServer(Protocol):
    url: str
    user: str
    password: str


def test_an_acknowledged_record_is_read_back(kafka: str) -> None:
    # given
    topic = f"stack-{uuid4()}"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": kafka, "acks": "all", "enable.idempotence": True})

    # when
    producer.produce(topic, b"kept")
    assert producer.flush(30) == 0

    # then
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.value() == b"kept"


def test_clickhouse_answers_its_admin_over_http(clickhouse: ClickHouseServer) -> None:
    # when
    client = clickhouse_connect.get_client(
        dsn=clickhouse.url, username=clickhouse.user, password=clickhouse.password
    )

    # then
    assert client.query("SELECT version(), currentUser()").result_rows[0] == ("26.9.2.1", "admin")
