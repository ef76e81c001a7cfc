"""Our schema registry, driven by Confluent's own client over HTTP, on a real Kafka."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from uuid import uuid4

import httpx
import pytest
import uvicorn
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, ServerConfig
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from starlette.applications import Starlette

import schemas
from gateway.registry import SchemaRegistry, routes
from producers import registry as schema_log
from producers.topology import create_topics
from producers.wire import Wire
from schemas.log import Entry, SchemaLog, id_entry, level_entry, tombstone
from schemas.registry import register
from streams import topics
from streams.execution.events import ExecutionPaused

STARTED = "omium.executions.v1-omium.execution.ExecutionStarted"


@dataclass(frozen=True)
class Server:
    url: str
    bootstrap: str
    registry: SchemaRegistry


@pytest.fixture(scope="module")
def server(kafka: str) -> Iterator[Server]:
    create_topics(kafka)
    schema_log.register_all(kafka)
    registry = SchemaRegistry(kafka)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await registry.start()
        yield
        await registry.stop()

    app = Starlette(routes=routes(registry), lifespan=lifespan)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        uvicorn_server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listening]})
        thread.start()
        deadline = time.monotonic() + 30
        while not uvicorn_server.started:
            assert time.monotonic() < deadline and thread.is_alive()
            time.sleep(0.01)
        yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}", kafka, registry)
        uvicorn_server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def client(server: Server) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": server.url}) as client:
        yield client


@pytest.fixture
def subject() -> str:
    """A subject of the test's own."""
    return f"test-{uuid4()}"


@pytest.fixture(scope="module", autouse=True)
def _leave_no_trace(kafka: str) -> Iterator[None]:
    """The broker may be one that others use, too."""
    yield
    schema_log.append(kafka, _gone)


def _gone(log: SchemaLog) -> list[Entry]:
    versions = [v for v in log.versions.values() if v.subject.startswith("test-")]
    levels = [name for name in log.levels if name.startswith("test-")]
    return [
        id_entry(log.id_max),
        *(tombstone(version) for version in versions),
        *(level_entry(name, None) for name in levels),
    ]


def avro(*fields: object, name: str = "") -> Schema:
    """A record schema, of a name nobody else uses unless one is given."""
    return Schema(
        json.dumps({"type": "record", "name": name or f"R{uuid4().hex}", "fields": list(fields)}),
        "AVRO",
    )


A: dict[str, object] = {"name": "a", "type": "long"}
B: dict[str, object] = {"name": "b", "type": "string"}
B_DEFAULT = {**B, "default": ""}


def test_a_registered_schema_has_one_id_everywhere(
    client: SchemaRegistryClient, subject: str
) -> None:
    schema = avro(A)

    number = client.register_schema(subject, schema)

    client.clear_caches()
    assert client.register_schema(subject, schema) == number
    assert json.loads(client.get_schema(number).schema_str or "") == json.loads(schema.schema_str)
    assert client.lookup_schema(subject, schema).version == 1
    latest = client.get_latest_version(subject)
    assert (latest.schema_id, latest.version, latest.subject) == (number, 1, subject)
    assert client.get_version(subject, 1).schema_id == number
    assert subject in client.get_subjects()
    assert [v.subject for v in client.get_schema_versions(number)] == [subject]


def test_white_space_and_key_order_make_no_new_version(
    client: SchemaRegistryClient, subject: str
) -> None:
    number = client.register_schema(subject, avro(A, name="Same"))
    laid_out = json.dumps(
        {"fields": [{"type": "long", "name": "a"}], "name": "Same", "type": "record"}, indent=3
    )

    assert client.register_schema(subject, Schema(laid_out, "AVRO")) == number
    assert client.get_versions(subject) == [1]


def test_an_incompatible_schema_is_refused_with_409(
    client: SchemaRegistryClient, subject: str
) -> None:
    client.register_schema(subject, avro(A, name="R"))
    broken = avro(A, B, name="R")

    assert client.test_compatibility(subject, broken) is False
    with pytest.raises(SchemaRegistryError) as refused:
        client.register_schema(subject, broken)

    assert (refused.value.http_status_code, refused.value.error_code) == (409, 409)
    assert "/b: has no default" in str(refused.value)
    assert client.get_versions(subject) == [1]


def test_a_compatible_schema_becomes_the_next_version(
    client: SchemaRegistryClient, subject: str
) -> None:
    first = client.register_schema(subject, avro(A, name="R"))
    better = avro(A, B_DEFAULT, name="R")

    assert client.test_compatibility(subject, better) is True
    second = client.register_schema(subject, better)

    assert second > first
    assert client.get_versions(subject) == [1, 2]


def test_our_events_are_full_transitive_and_our_commands_backward(
    client: SchemaRegistryClient,
) -> None:
    command = "omium.commands.v1-omium.command.StartExecution"
    assert client.get_compatibility(STARTED) == "FULL_TRANSITIVE"
    assert client.get_compatibility(command) == "BACKWARD_TRANSITIVE"

    current = json.loads(client.get_latest_version(STARTED).schema.schema_str or "")
    current["fields"] = current["fields"][:-1]
    dropped = Schema(json.dumps(current), "AVRO")

    assert client.test_compatibility(STARTED, dropped) is False
    with pytest.raises(SchemaRegistryError) as refused:
        client.register_schema(STARTED, dropped)
    assert refused.value.http_status_code == 409


def test_the_level_decides(client: SchemaRegistryClient, subject: str) -> None:
    client.register_schema(subject, avro(A, name="R"))
    wider = avro(A, B, name="R")
    assert client.test_compatibility(subject, wider) is False

    client.set_compatibility(subject, "FORWARD")

    assert client.get_compatibility(subject) == "FORWARD"
    assert client.get_config(subject) == ServerConfig(compatibility_level="FORWARD")
    assert client.test_compatibility(subject, wider) is True
    client.register_schema(subject, wider)


def test_serializers_of_confluent_and_our_wire_read_each_other(
    server: Server, client: SchemaRegistryClient
) -> None:
    message = ExecutionPaused(
        event_id=str(uuid4()), tenant="t", execution_id="x", epoch=7, at_ms=5, reason="user"
    )
    wire = Wire.load(server.bootstrap)
    record = wire.encode(message, topics.EXECUTIONS)
    context = SerializationContext(record.topic, MessageField.VALUE)

    theirs = AvroDeserializer(client)(record.value, context)
    assert theirs == asdict(message)

    serializer = AvroSerializer(
        client,
        schemas.sources()["omium.execution.ExecutionPaused"],
        conf={
            "auto.register.schemas": False,
            "subject.name.strategy": lambda context, name: f"{context.topic}-{name}",
        },
    )
    value = serializer(asdict(message), context)
    assert value == record.value
    assert wire.decode(value) == message


def test_a_record_of_a_newer_version_of_us_is_read_without_restart(
    server: Server, client: SchemaRegistryClient
) -> None:
    """A rolling update: the new worker has registered a field more, we have not."""
    wire = Wire.load(server.bootstrap)
    newer = json.loads(schemas.sources()["omium.execution.ExecutionPaused"])
    newer["fields"].append({"name": f"x{uuid4().hex}", "type": "string", "default": ""})
    topic = f"test-{uuid4()}"
    serializer = AvroSerializer(client, json.dumps(newer))
    message = ExecutionPaused(event_id="e", tenant="t", execution_id="x", reason="user")

    value = serializer(asdict(message), SerializationContext(topic, MessageField.VALUE))

    assert wire.decode(value) == message


def test_deletion_is_soft_first_and_the_id_stays_readable(
    client: SchemaRegistryClient, subject: str
) -> None:
    number = client.register_schema(subject, avro(A, name="R"))
    client.register_schema(subject, avro(A, B_DEFAULT, name="R"))

    assert client.delete_version(subject, 1) == 1
    assert client.get_versions(subject) == [2]
    assert client.delete_subject(subject) == [2]
    assert subject not in client.get_subjects()
    assert subject in client.get_subjects(deleted=True)
    assert client.delete_subject(subject, permanent=True) == [1, 2]
    assert subject not in client.get_subjects(deleted=True)
    client.clear_caches()
    assert client.get_schema(number).schema_str


def test_ids_are_not_given_again_after_a_deletion(
    server: Server, client: SchemaRegistryClient, subject: str
) -> None:
    number = client.register_schema(subject, avro(A))
    client.delete_subject(subject)
    client.delete_subject(subject, permanent=True)

    assert schema_log.read(server.bootstrap).id_max >= number
    assert client.register_schema(subject, avro(A)) > number


def test_what_one_registry_writes_another_serves(server: Server, subject: str) -> None:
    """The log is the truth: a registry started later, or beside, says the same."""
    schema = json.loads(avro(A).schema_str or "")
    answer = httpx.post(
        f"{server.url}/subjects/{subject}/versions", json={"schema": json.dumps(schema)}
    )

    log = schema_log.read(server.bootstrap)

    assert json.loads(log.texts[answer.json()["id"]]) == schema
    assert [v.id for v in log.of_subject(subject)] == [answer.json()["id"]]


def test_writers_at_once_get_one_id_for_one_schema(server: Server, subject: str) -> None:
    """Three writers with their own producers: each decides on the log as nobody else changes it."""
    schema = avro(A).schema_str or ""
    other = avro(A).schema_str or ""
    threads = [
        threading.Thread(target=_append, args=(server.bootstrap, f"{subject}-{i}", text))
        for i, text in enumerate((schema, schema, other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    log = schema_log.read(server.bootstrap)
    found = [[v.id for v in log.of_subject(f"{subject}-{i}")] for i in range(3)]
    assert found[0] == found[1] != found[2]
    assert all(len(numbers) == 1 for numbers in found)


def _append(bootstrap: str, subject: str, text: str) -> None:
    schema_log.append(bootstrap, lambda log: register(log, subject, text)[1])


JSON = {"content-type": "application/vnd.schemaregistry.v1+json"}
INT = '{"schema": "\\"int\\""}'
REFUSED = [
    ("GET", "/subjects/nobody/versions", "", 404, 40401),
    ("GET", "/subjects/nobody/versions/1", "", 404, 40401),
    ("GET", f"/subjects/{STARTED}/versions/999", "", 404, 40402),
    ("GET", f"/subjects/{STARTED}/versions/0", "", 422, 42202),
    ("GET", f"/subjects/{STARTED}/versions/x", "", 422, 42202),
    ("GET", "/schemas/ids/999999", "", 404, 40403),
    ("GET", "/schemas/ids/x", "", 404, 40403),
    ("POST", "/subjects/nobody", INT, 404, 40401),
    ("POST", f"/subjects/{STARTED}", INT, 404, 40403),
    ("POST", "/subjects/nobody/versions", '{"schema": "\\"text\\""}', 422, 42201),
    ("POST", "/subjects/nobody/versions", '{"schema": "{"}', 422, 42201),
    ("POST", "/subjects/nobody/versions", "{}", 422, 42201),
    ("POST", "/subjects/nobody/versions", "[]", 422, 42201),
    ("POST", "/subjects/nobody/versions", "{", 400, 400),
    ("POST", "/subjects/nobody/versions",
     '{"schema": "syntax", "schemaType": "PROTOBUF"}', 422, 42201),
    ("POST", "/compatibility/subjects/nobody/versions/1", INT, 404, 40401),
    ("POST", f"/compatibility/subjects/{STARTED}/versions/999", INT, 404, 40402),
    ("PUT", "/config/nobody", '{"compatibility": "SOMEWHAT"}', 422, 42203),
    ("GET", "/config/nobody", "", 404, 40408),
    ("PUT", "/mode", '{"mode": "IMPORT"}', 422, 42204),
    ("DELETE", "/subjects/nobody", "", 404, 40401),
    ("DELETE", f"/subjects/{STARTED}?permanent=true", "", 404, 40405),
    ("DELETE", f"/subjects/{STARTED}/versions/1?permanent=true", "", 404, 40407),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"), REFUSED, ids=[f"{m} {p}" for m, p, *_ in REFUSED]
)
def test_refusals_carry_confluents_codes(
    server: Server, method: str, path: str, body: str, status: int, code: int
) -> None:
    answer = httpx.request(method, server.url + path, content=body or None, headers=JSON)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert answer.json()["message"]
    assert answer.headers["content-type"] == JSON["content-type"]


def test_a_form_that_any_page_could_post_is_refused(server: Server) -> None:
    answer = httpx.post(
        f"{server.url}/subjects/nobody/versions",
        content=INT,
        headers={"content-type": "text/plain"},
    )
    assert answer.status_code == 415


def test_a_body_is_bounded(server: Server) -> None:
    answer = httpx.post(
        f"{server.url}/subjects/nobody/versions", content=b" " * (2 * 1024 * 1024), headers=JSON
    )
    assert answer.status_code == 413


def test_the_rest_of_the_interface_answers(server: Server, subject: str) -> None:
    def get(path: str) -> object:
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    number = httpx.post(
        f"{server.url}/subjects/{subject}/versions", json={"schema": avro(A).schema_str}
    ).json()["id"]
    assert get("/schemas/types") == ["AVRO"]
    assert get("/config") == {"compatibilityLevel": "BACKWARD"}
    assert get(f"/config/{subject}?defaultToGlobal=true") == {"compatibilityLevel": "BACKWARD"}
    assert get("/mode") == {"mode": "READWRITE"}
    assert get(f"/subjects?subjectPrefix={subject}") == [subject]
    assert get(f"/schemas/ids/{number}/subjects") == [subject]
    assert get(f"/subjects/{subject}/versions/latest/referencedby") == []
    assert get(f"/subjects/{subject}/versions/-1/schema") == get(f"/schemas/ids/{number}/schema")
    assert [s["id"] for s in get(f"/schemas?subjectPrefix={subject}&latestOnly=true")] == [number]


def test_a_read_only_subject_takes_no_schema(server: Server, subject: str) -> None:
    httpx.put(f"{server.url}/mode/{subject}", json={"mode": "READONLY"})
    answer = httpx.post(
        f"{server.url}/subjects/{subject}/versions", json={"schema": avro(A).schema_str}
    )
    httpx.delete(f"{server.url}/mode/{subject}")
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42205)


def test_the_log_is_read_quickly_enough_for_every_start(server: Server) -> None:
    """Every role waits for it; the goal is well under half a second."""
    best = min(_timed(server.bootstrap) for _ in range(5))
    assert best < 0.5


def _timed(bootstrap: str) -> float:
    began = time.perf_counter()
    Wire.load(bootstrap)
    return time.perf_counter() - began
