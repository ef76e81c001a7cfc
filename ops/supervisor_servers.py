"""The three servers of the embedded stack as parts: Kafka, ClickHouse, Triton."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ops.credentials import Secrets
from ops.embedded import clickhouse, java, kafka, triton, triton_venv
from ops.embedded.clickhouse import ClickHouse
from ops.embedded.kafka import Kafka
from ops.embedded.ports import LOOPBACK, Ports
from ops.embedded.triton import Triton
from ops.settings import TRITON_OFF, Settings
from ops.supervisor_part import Part

SERVER_WAVE = 2
"""What others rest on is stopped last."""
KAFKA_STOP_WAIT_S = 20.0
TRITON_STOP_WAIT_S = 12.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Which servers the stack starts, and where each is, whoever runs it."""

    parts: dict[str, Part]
    kafka: str
    clickhouse_url: str
    clickhouse_reader_url: str
    triton_grpc: str
    """`off` without a local model."""
    triton_http: str | None


def servers(
    settings: Settings, secrets: Secrets, ports: Ports, names: frozenset[str], say: Say
) -> Servers:
    """The servers among `names`. One that a setting points elsewhere is used there, not started."""
    parts: dict[str, Part] = {}
    if "kafka" in names and not settings.kafka:
        parts["kafka"] = _kafka(settings, ports, say)
    store = _store(settings, secrets, ports)
    if "clickhouse" in names and not settings.clickhouse_url:
        parts["clickhouse"] = _clickhouse(store)
    if "triton" in names and _starts_triton(settings, say):
        parts["triton"] = _triton(settings, ports, say)
    return Servers(
        parts=parts,
        kafka=settings.kafka or f"{LOOPBACK}:{ports.kafka}",
        clickhouse_url=settings.clickhouse_url or store.url,
        clickhouse_reader_url=settings.clickhouse_url or store.reader_url,
        triton_grpc=_triton_grpc(settings, ports, "triton" in parts),
        triton_http=f"http://{LOOPBACK}:{ports.triton_http}" if "triton" in parts else None,
    )


def _kafka(settings: Settings, ports: Ports, say: Say) -> Part:
    broker = Kafka(
        home=settings.data_dir / "kafka",
        logs_dir=settings.logs_dir,
        cache_dir=settings.cache_dir,
        port=ports.kafka,
        controller_port=ports.kafka_controller,
    )

    def prepare() -> None:
        if not java.has_jars(settings.cache_dir):
            say("kafka             fetching its jars (43 MB, once) …")
        broker.prepare()

    return Part(
        name="kafka",
        prepare=prepare,
        command=broker.command,
        is_ready=lambda _: kafka.answers(ports.kafka),
        address=broker.bootstrap,
        stop_wave=SERVER_WAVE,
        stop_wait_s=KAFKA_STOP_WAIT_S,
    )


def _store(settings: Settings, secrets: Secrets, ports: Ports) -> ClickHouse:
    return ClickHouse(
        home=settings.data_dir / "clickhouse",
        logs_dir=settings.logs_dir,
        http_port=ports.clickhouse_http,
        native_port=ports.clickhouse_native,
        admin_password=secrets.clickhouse_admin_password,
        tenant_password=secrets.clickhouse_tenant_password,
    )


def _clickhouse(store: ClickHouse) -> Part:
    return Part(
        name="clickhouse",
        prepare=store.prepare,
        command=store.command,
        is_ready=lambda _: clickhouse.answers(store.http_port),
        address=store.url,
        stop_wave=SERVER_WAVE,
    )


def _starts_triton(settings: Settings, say: Say) -> bool:
    if settings.triton_url == TRITON_OFF:
        say("triton            off (OMIUM_TRITON_URL): LLM calls go to the upstream alone")
        return False
    if settings.triton_url:
        return False
    why = triton.unavailable_because()
    if why is not None:
        say(f"triton            not started: {why}; LLM calls go to the upstream alone")
    return why is None


def _triton(settings: Settings, ports: Ports, say: Say) -> Part:
    server = Triton(
        home=settings.data_dir / "triton",
        venv=settings.triton_venv,
        http_port=ports.triton_http,
        grpc_port=ports.triton_grpc,
    )

    def prepare() -> None:
        triton_venv.ensure(settings.triton_venv, say)
        server.prepare()

    return Part(
        name="triton",
        prepare=prepare,
        command=server.command,
        environment=server.environment(),
        is_ready=lambda _: triton.answers(ports.triton_http),
        address=f"{server.url} (gRPC; a stand-in model on the CPU)",
        stop_wave=SERVER_WAVE,
        stop_wait_s=TRITON_STOP_WAIT_S,
    )


def _triton_grpc(settings: Settings, ports: Ports, is_ours: bool) -> str:
    return f"{LOOPBACK}:{ports.triton_grpc}" if is_ours else settings.triton_url or TRITON_OFF
