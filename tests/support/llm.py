"""The LLM path as processes that can be killed: scripted upstream, routing worker, data plane; and
what they counted.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from producers.registry import register_all
from producers.topology import create_topics

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 60.0
TENANT = "acme"
KEY = f"omk_{TENANT}"
OTHER_KEY = "omk_globex"


@contextmanager
def own_broker(folder: Path) -> Iterator[str]:
    """A broker for one test file: routers of two files on one broker would share partitions."""
    given = os.environ.get("OMIUM_TEST_KAFKA")
    if given:
        yield given
        return
    from ops.embedded import identity
    from ops.embedded.throwaway import kafka_in
    from ops.settings import Settings

    server = kafka_in(folder, Settings().cache_dir)
    yield server.address
    identity.end_group(server.pid, server.started, 15.0)


@contextmanager
def llm_path(folder: Path) -> Iterator[LlmPath]:
    """A running path on a broker of its own."""
    with own_broker(folder) as kafka:
        path = LlmPath(kafka=kafka, folder=folder)
        path.start()
        try:
            yield path
        finally:
            path.stop()


def until(condition: Callable[[], bool], what: str, deadline_s: float = START_DEADLINE_S) -> None:
    """Waits for a condition; says what did not happen."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        time.sleep(0.02)


@dataclass(kw_only=True)
class Part:
    """One process of the path."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    is_ready: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=ROOT, stdout=log, stderr=log
            )
        until(self.is_ready, f"{self.name} is ready:\n{self.log.read_text()[-3000:]}")

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process = None


@dataclass(kw_only=True)
class LlmPath:
    """The whole path on one broker."""

    kafka: str
    folder: Path
    wait_ms: int = 60_000
    has_upstream: bool = True
    triton_url: str = "off"
    upstream_port: int = field(default_factory=lambda: free_port())
    gateway_port: int = field(default_factory=lambda: free_port())

    def __post_init__(self) -> None:
        create_topics(self.kafka)
        register_all(self.kafka)
        self.calls_log = self.folder / "calls.jsonl"
        self.upstream = self._upstream()
        self.router = self._router("0")
        self.gateway = self._gateway()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}/v1"

    def start(self) -> None:
        for part in (self.upstream, self.gateway, self.router):
            part.start()

    def stop(self) -> None:
        for part in (self.gateway, self.router, self.upstream):
            part.end()

    def calls(self) -> list[dict[str, object]]:
        """Every call that reached the upstream, whoever was killed meanwhile."""
        if not self.calls_log.exists():
            return []
        return [json.loads(line) for line in self.calls_log.read_text().splitlines()]

    def counts(self) -> Counter[str]:
        """Calls per idempotency key."""
        return Counter(str(call["key"]) for call in self.calls())

    def second_router(self) -> Part:
        """Another worker of the same group."""
        return self._router("1")

    def _upstream(self) -> Part:
        module = "processors.effects.llm.scripted"
        port = self.upstream_port
        command = [sys.executable, "-m", module, "--port", str(port), "--log", str(self.calls_log)]
        return self._part("upstream", command, {}, lambda: is_open(port))

    def _gateway(self) -> Part:
        port = self.gateway_port
        command = [sys.executable, "-m", "tests.support.llm_gateway"]
        command += ["--kafka", self.kafka, "--port", str(port), "--wait-ms", str(self.wait_ms)]
        return self._part("gateway", command, {}, lambda: is_open(port))

    def _router(self, worker: str) -> Part:
        data_dir = self.folder / f"router-{worker}"
        data_dir.mkdir(exist_ok=True)
        ready = data_dir / "run" / "routing.ready"
        environment = {
            "OMIUM_DATA_DIR": str(data_dir),
            "OMIUM_KAFKA": self.kafka,
            "OMIUM_TRITON_URL": self.triton_url,
            "OMIUM_WORKER_ID": worker,
            "OMIUM_OPENAI_API_KEY": "upstream-key",
        }
        if self.has_upstream:
            url = f"http://127.0.0.1:{self.upstream_port}/v1"
            environment["OMIUM_OPENAI_BASE_URL"] = url
        part = self._part(
            f"router-{worker}",
            [sys.executable, "-m", "ops.main", "worker", "routing"],
            environment,
            lambda: (
                part.process is not None
                and ready.exists()
                and ready.read_text() == str(part.process.pid)
            ),
        )
        return part

    def _part(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        is_ready: Callable[[], bool],
    ) -> Part:
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMIUM_", "OPENAI_"))}
        return Part(
            name=name,
            command=command,
            environment=plain | {"PYTHONPATH": str(ROOT)} | environment,
            log=self.folder / f"{name}.log",
            is_ready=is_ready,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def chat(text: str, **fields: object) -> dict[str, object]:
    """A chat-completion body."""
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}


def client(path: LlmPath, key: str = KEY) -> httpx.Client:
    return httpx.Client(
        base_url=path.url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
    )
