"""Role `zygote-<framework>`: the warm parent of runners; outlives workers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ops.readiness import mark_ready
from ops.settings import PREFIX, Settings
from producers.runner import zygote

DEFAULT_FRAMEWORK = "langgraph"


def run(settings: Settings) -> int:
    """Serves fork requests until SIGTERM."""
    framework = settings.framework or DEFAULT_FRAMEWORK
    path = _socket_path(settings.run_dir, framework)
    _forget_secrets()
    return zygote.run(
        path, framework, os.environ, lambda: mark_ready(settings, f"zygote-{framework}")
    )


def _forget_secrets() -> None:
    """User code runs in this process's children: it gets its own key by the channel, and no
    other.
    """
    for name in list(os.environ):
        if name.startswith(PREFIX) and name.endswith(("_KEY", "_PASSWORD")):
            del os.environ[name]


def _socket_path(run_dir: Path, framework: str) -> Path:
    """In the run directory; where that name is too long for a socket, in a short private place that
    it points to.
    """
    direct = run_dir / f"zygote-{framework}.sock"
    if len(os.fsencode(direct)) <= zygote.SOCKET_PATH_BYTES_MAX:
        return direct
    run_dir.mkdir(parents=True, exist_ok=True)
    pointer = direct.with_suffix(".path")
    if pointer.exists() and (known := Path(pointer.read_text("utf-8"))).parent.is_dir():
        return known
    short = Path(tempfile.mkdtemp(prefix="omium-")) / "z.sock"
    pointer.write_text(str(short), "utf-8")
    return short
