"""The cluster profile, checked without a Docker engine: structure, references, same stack."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from ops.compose import prepare
from ops.embedded import kafka
from ops.embedded.clickhouse import tenant_tables, users_xml
from ops.settings import PREFIX, Settings
from ops.supervisor_stack import ROLES, TOPOLOGY

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "ops" / "compose" / "Dockerfile"
Service = dict[str, Any]

TEXTS: Final = {"type": "array", "items": {"type": "string"}}
SCALARS: Final = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
SERVICE_SCHEMA: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "image": {"type": "string"},
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
        },
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "init": {"type": "boolean"},
        "pid": {"type": "string", "pattern": "^service:"},
        "stop_grace_period": {"type": "string", "pattern": "^[0-9]+s$"},
        "shm_size": {"type": "string"},
        "profiles": TEXTS,
        "command": TEXTS,
        "volumes": TEXTS,
        "ports": TEXTS,
        "environment": SCALARS,
        "ulimits": {"type": "object"},
        "deploy": {"type": "object"},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["condition"],
                "properties": {
                    "condition": {"enum": ["service_healthy", "service_completed_successfully"]}
                },
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test", "interval", "timeout", "retries", "start_period"],
            "properties": {
                "test": TEXTS,
                "interval": {"type": "string"},
                "timeout": {"type": "string"},
                "retries": {"type": "integer"},
                "start_period": {"type": "string"},
            },
        },
    },
}
"""The part of the Compose specification that this file uses; a key outside it is a typo."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The file, anchors and merges resolved."""
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, Service]:
    """Its services."""
    found = document["services"]
    assert isinstance(found, dict)
    return found


def test_every_service_is_valid_compose(services: dict[str, Service]) -> None:
    for service in services.values():
        jsonschema.validate(service, SERVICE_SCHEMA)


def test_every_image_is_pinned(services: dict[str, Service]) -> None:
    for name, service in services.items():
        image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", service["image"])
        assert re.search(r":\d[\w.-]*$", image), name


def test_whoever_is_waited_for_can_say_that_it_is_ready(services: dict[str, Service]) -> None:
    for service in services.values():
        for name, dependency in service.get("depends_on", {}).items():
            if dependency["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
            else:
                assert services[name]["restart"] in ("no", "on-failure")
        if "pid" in service:
            assert service["pid"].removeprefix("service:") in services


def test_every_volume_is_declared_and_used(
    document: dict[str, Any], services: dict[str, Service]
) -> None:
    mounts = {mount.split(":")[0] for s in services.values() for mount in s.get("volumes", [])}
    named = {mount for mount in mounts if not mount.startswith(".")}
    assert named == set(document["volumes"])
    assert all((ROOT / mount).exists() for mount in mounts - named)


def test_every_role_of_the_embedded_stack_runs_here_too(services: dict[str, Service]) -> None:
    started = {s["command"][-1].split()[-1] for s in services.values() if "omium" in s["image"]}
    assert set(ROLES) | {TOPOLOGY} <= started


def test_every_omium_variable_is_a_setting(services: dict[str, Service]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for service in services.values():
        given = {name for name in service.get("environment", {}) if name.startswith(PREFIX)}
        assert given <= known


def test_nothing_listens_beyond_loopback_but_by_choice(services: dict[str, Service]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:${OMIUM_PORT:-8700}:8700"]


def brokers(services: dict[str, Service]) -> list[dict[str, Any]]:
    """The environments of the Kafka nodes."""
    return [s["environment"] for name, s in services.items() if name.startswith("kafka-")]


def test_three_brokers_form_one_quorum_and_two_must_have_a_record(
    services: dict[str, Service],
) -> None:
    nodes = brokers(services)
    assert sorted(node["KAFKA_NODE_ID"] for node in nodes) == [1, 2, 3]
    voters = ",".join(f"{n}@kafka-{n}:9093" for n in (1, 2, 3))
    for node in nodes:
        number = node["KAFKA_NODE_ID"]
        assert node["KAFKA_CONTROLLER_QUORUM_VOTERS"] == voters
        assert node["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://kafka-{number}:9092"
        assert node["KAFKA_MIN_INSYNC_REPLICAS"] == 2
        replicas = {v for name, v in node.items() if name.endswith("REPLICATION_FACTOR")}
        assert replicas == {3}
    topology = services["topology"]["environment"]
    assert topology["OMIUM_KAFKA_REPLICAS"] == 3
    assert topology["OMIUM_KAFKA"] == "kafka-1:9092,kafka-2:9092,kafka-3:9092"


def test_brokers_have_the_settings_of_the_embedded_one(services: dict[str, Service]) -> None:
    embedded = dict(line.split("=", 1) for line in kafka.PROPERTIES.split() if "=" in line)
    shared = (
        "auto.create.topics.enable",
        "message.max.bytes",
        "replica.fetch.max.bytes",
        "group.initial.rebalance.delay.ms",
        "group.min.session.timeout.ms",
        "offsets.topic.num.partitions",
        "transaction.state.log.num.partitions",
    )
    for node in brokers(services):
        for name in shared:
            assert str(node["KAFKA_" + name.upper().replace(".", "_")]) == embedded[name]


def test_the_image_holds_every_package_and_the_locked_dependencies() -> None:
    text = DOCKERFILE.read_text("utf-8")
    for package in (
        "streams",
        "schemas",
        "producers",
        "processors",
        "projections",
        "gateway",
        "ops",
    ):
        assert f"COPY {package} {package}" in text
    assert "--require-hashes -r requirements.lock" in text
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


def networks_of(user: ET.Element) -> list[str | None]:
    """The networks a user may come from."""
    return [ip.text for ip in user.findall("networks/ip")]


def test_the_clusters_users_are_the_embedded_ones_from_other_networks(tmp_path: Path) -> None:
    prepare.main(tmp_path / "data", tmp_path / "users")
    written = (tmp_path / "users" / prepare.FILE_NAME).read_text("utf-8")
    users = ET.fromstring(written).find("users")
    assert users is not None
    by_name = {user.tag: user for user in users}
    assert networks_of(by_name["default"]) == ["127.0.0.1", "::1"]
    assert networks_of(by_name["admin"]) == networks_of(by_name["tenant_local"]) == ["::/0"]
    expected = ET.fromstring(users_xml("a", "b", tenant_tables())).find(
        "users/tenant_local/databases"
    )
    given = by_name["tenant_local"].find("databases")
    assert expected is not None
    assert given is not None
    assert ET.tostring(given) == ET.tostring(expected)


def test_preparing_twice_keeps_the_secrets(tmp_path: Path) -> None:
    prepare.main(tmp_path, tmp_path / "users")
    first = (tmp_path / "secrets.json").read_text("utf-8")
    prepare.main(tmp_path, tmp_path / "users")
    assert (tmp_path / "secrets.json").read_text("utf-8") == first
