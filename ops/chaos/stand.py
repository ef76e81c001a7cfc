"""A stack of its own for chaos and benches: scripted upstream, scratch folder, everything gone
afterwards.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.client import Client
from ops.exits import UNAVAILABLE, CommandError
from ops.output import say
from ops.settings import Settings, child_environment
from ops.supervisor_control import Document, document

UP_TIMEOUT_S: Final = 240.0
FIRST_PORT: Final = 28700
SCRIPTED: Final = (sys.executable, "-m", "processors.effects.llm.scripted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """A running stack and its scripted upstream."""

    client: Client
    data_dir: Path
    scratch: Path
    upstream_log: Path

    def document(self) -> Document:
        """Where everything is now."""
        return document(self.data_dir)


@contextmanager
def stand(settings: Settings, **omium: str) -> Iterator[Stand]:
    """Brings a stack up for the block and takes it down after it. `omium` are settings of the
    stack.
    """
    with tempfile.TemporaryDirectory(prefix="omium-stand-") as folder:
        root = Path(folder)
        log, port = root / "upstream.jsonl", _free_port()
        log.touch()
        upstream = subprocess.Popen(
            [*SCRIPTED, "--port", str(port), "--log", str(log)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        told = {
            "triton_url": "off",
            "openai_base_url": f"http://127.0.0.1:{port}/v1",
            "openai_api_key": "sk-scripted",
            "data_dir": str(root / "data"),
            "port": str(FIRST_PORT),
        }
        environment = child_environment(**(told | omium))
        try:
            _omiumctl(environment, "up", "--detach", timeout_s=UP_TIMEOUT_S)
            found = document(root / "data")
            client = Client(str(found["gateway"]), str(found["api_key"]), say=say)
            try:
                yield Stand(
                    client=client,
                    data_dir=root / "data",
                    scratch=root / "scratch",
                    upstream_log=log,
                )
            finally:
                client.close()
        finally:
            _omiumctl(environment, "down", timeout_s=60.0)
            upstream.send_signal(signal.SIGTERM)
            upstream.wait(10)


def _omiumctl(environment: Mapping[str, str], *arguments: str, timeout_s: float) -> None:
    command = [sys.executable, "-m", "ops.main", *arguments]
    ended = subprocess.run(
        command, env=dict(environment), timeout=timeout_s, stdout=subprocess.DEVNULL, check=False
    )
    if ended.returncode != 0:
        raise CommandError(
            f"omiumctl {' '.join(arguments)} ended with {ended.returncode}.", UNAVAILABLE
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tree_cpu_s(pids: Mapping[str, object]) -> dict[str, float]:
    """CPU seconds so far of every part, its children included."""
    import psutil

    spent: dict[str, float] = {}
    for role, pid in pids.items():
        for each in [pid] if isinstance(pid, int) else list(pid if isinstance(pid, list) else []):
            try:
                process = psutil.Process(each)
                for one in [process, *process.children(recursive=True)]:
                    times = one.cpu_times()
                    spent[role] = spent.get(role, 0.0) + times.user + times.system
            except psutil.NoSuchProcess:
                continue
    return spent
