"""The stack's own secrets: made once per data directory, readable by its owner only."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILE_NAME = "secrets.json"
TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What `<data_dir>/secrets.json` holds; empty where there is no such file (cluster profile)."""

    stack_id: str = ""
    """Marks every process of this stack in its environment: orphans are found, others are safe."""
    api_key: str = ""
    """Key of tenant `local`, for clients."""
    runner_key: str = ""
    """Key that runners use towards the gateway's LLM routes."""
    clickhouse_admin_password: str = ""
    clickhouse_tenant_password: str = ""


def load(data_dir: Path) -> Secrets:
    """The secrets of a data directory; all empty when it has none yet."""
    path = data_dir / FILE_NAME
    if not path.exists():
        return Secrets()
    stored = json.loads(path.read_text("utf-8"))
    return Secrets(**{f.name: str(stored.get(f.name, "")) for f in fields(Secrets)})


def ensure(data_dir: Path) -> Secrets:
    """The secrets of a data directory; a missing one is drawn and stored first (mode 0600)."""
    present = load(data_dir)
    drawn = asdict(present)
    for name in (name for name, value in drawn.items() if not value):
        prefix = "omk_" if name in {"api_key", "runner_key"} else ""
        drawn[name] = prefix + secrets.token_urlsafe(TOKEN_BYTES)
    complete = Secrets(**drawn)
    if complete != present:
        write_private(data_dir / FILE_NAME, json.dumps(drawn, indent=1))
    return complete


def write_private(path: Path, text: str) -> None:
    """Replace a file at once with text that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
