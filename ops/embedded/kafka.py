"""The embedded Kafka: one real broker and controller in one JVM, on loopback, bounded."""

from __future__ import annotations

import base64
import shutil
import socket
import struct
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from ops.embedded import java
from ops.embedded.ports import LOOPBACK
from ops.exits import CommandError

FORMAT_WAIT_S = 120
PROBE_WAIT_S = 2.0
API_VERSIONS = 18
META, BOOTSTRAP = "meta.properties", "bootstrap.checkpoint"

LOG4J = """rootLogger.level=WARN
rootLogger.appenderRef.file.ref=file
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c %m%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=8MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
logger.start.name=kafka.server.KafkaRaftServer
logger.start.level=INFO
"""

# Static voters, not `--standalone`: the controller's port may differ from one start to the next.
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=250
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=4194304
log.segment.bytes=134217728
auto.create.topics.enable=false
message.max.bytes=4259840
replica.fetch.max.bytes=4259840
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """Where one embedded broker keeps its files and listens."""

    home: Path
    logs_dir: Path
    cache_dir: Path
    port: int
    controller_port: int

    @property
    def bootstrap(self) -> str:
        """What clients connect to."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def _properties(self) -> Path:
        return self.home / "server.properties"

    def prepare(self) -> None:
        """Write the configuration and format the storage, unless an earlier start has done so."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.logs_dir.mkdir(parents=True, exist_ok=True)
        log_dir = self.home / "log"
        self._properties.write_text(
            PROPERTIES.format(
                host=LOOPBACK, port=self.port, controller_port=self.controller_port, log_dir=log_dir
            ),
            "utf-8",
        )
        (self.home / "log4j2.properties").write_text(
            LOG4J.format(log=self.logs_dir / "kafka-server.log"), "utf-8"
        )
        if not (log_dir / META).exists():
            self._format(log_dir)

    def _format(self, log_dir: Path) -> None:
        """Copy formatted storage and give it ids of its own: what takes the tool 3 s takes 1 ms."""
        template = self._template()
        log_dir.mkdir(parents=True, exist_ok=True)
        shutil.copy2(template / BOOTSTRAP, log_dir / BOOTSTRAP)
        ids = {"cluster.id": _kafka_uuid(), "directory.id": _kafka_uuid()}
        lines = (template / META).read_text("utf-8").splitlines()
        kept = [line for line in lines if line.partition("=")[0] not in ids]
        # Last: storage counts as formatted once this file is there.
        (log_dir / META).write_text(
            "\n".join([*kept, *(f"{name}={value}" for name, value in ids.items()), ""]), "utf-8"
        )

    def _template(self) -> Path:
        """Storage formatted by Kafka's own tool, once per cache folder."""
        template = java.home(self.cache_dir) / "formatted"
        with java.locked(template.with_suffix(".lock")):
            if not (template / META).exists():
                shutil.rmtree(template, ignore_errors=True)
                self._run_format_tool(template)
        return template

    def _run_format_tool(self, template: Path) -> None:
        properties = template.with_suffix(".properties")
        properties.write_text(
            PROPERTIES.format(host=LOOPBACK, port=1, controller_port=2, log_dir=template), "utf-8"
        )
        tool = ("kafka.tools.StorageTool", "format", "-t", _kafka_uuid(), "-c", str(properties))
        done = subprocess.run(
            [*self._java(), *tool],
            capture_output=True,
            text=True,
            timeout=FORMAT_WAIT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise CommandError(f"Kafka's storage could not be formatted: {' '.join(reason)}")

    def command(self) -> list[str]:
        """The command line of the broker, with the AOT cache when there is one."""
        return [*self._java(), "kafka.Kafka", str(self._properties)]

    def training_command(self, aot: Path) -> list[str]:
        """A broker that writes the AOT cache when it is stopped by SIGTERM."""
        return [*self._java(f"-XX:AOTCacheOutput={aot}"), "kafka.Kafka", str(self._properties)]

    def _java(self, *flags: str) -> list[str]:
        aot = java.aot_cache(self.cache_dir)
        if not flags and aot.exists():
            flags = (f"-XX:AOTCache={aot}", "-Xlog:disable", "-Xlog:all=error:stderr")
        return [
            java.java(),
            *java.JVM_FLAGS,
            *flags,
            f"-Dlog4j2.configurationFile={self.home / 'log4j2.properties'}",
            "-cp",
            java.class_path(self.cache_dir),
        ]


def _kafka_uuid() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def answers(port: int) -> bool:
    """Whether a broker on the loopback port serves requests: it is asked for its API versions.

    An open port alone says nothing: Kafka listens before it answers.
    """
    header = struct.pack(">hhih", API_VERSIONS, 0, 1, -1)
    try:
        with socket.create_connection((LOOPBACK, port), timeout=PROBE_WAIT_S) as connection:
            connection.sendall(struct.pack(">i", len(header)) + header)
            return len(connection.recv(8)) == 8
    except OSError:
        return False
