"""Every setting of Omium: one prefix, `OMIUM_`, read from the environment here and nowhere else."""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ops import credentials
from ops.credentials import Secrets

PREFIX = "OMIUM_"
TRITON_OFF = "off"


class Settings(BaseSettings):
    """The effective settings. An empty value means unset; arguments win over the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", validate_default=True
    )

    # Where things are.
    data_dir: Path = Path(".omium")
    cache_dir: Path = Path("~/.cache/omium")
    """Downloads shared between data directories: Kafka's jars and its AOT cache."""
    triton_venv: Path = Path(sys.prefix).parent / ".venv-triton"
    """Where Triton's wheel lives, beside our own venv."""
    host: str = "127.0.0.1"
    port: int = 8700

    # What Omium talks to. Empty in the embedded profile until the supervisor has chosen ports.
    kafka: str = ""
    kafka_replicas: int = 1
    """Copies of every record: 3 in the cluster profile, of which 2 must be in sync."""
    clickhouse_url: str = ""
    clickhouse_user: str = "admin"
    clickhouse_password: SecretStr = SecretStr("")
    """Set in the cluster profile; otherwise `clickhouse_admin_password` reads `secrets.json`."""
    schema_registry_url: str = ""
    triton_url: str = ""
    """gRPC address `host:port` of Triton; `off` runs without a local model."""
    openai_base_url: str = ""
    openai_api_key: SecretStr = SecretStr("")

    # What clients and runners use.
    url: str = ""
    api_key: SecretStr = SecretStr("")

    # One process.
    stack_id: str = ""
    """Set by the supervisor on every process it starts."""
    worker_id: str = "0"
    """Names this instance of a role; stable over restarts (static group membership)."""
    framework: str = ""
    """Which framework a zygote imports."""
    log_level: str = "INFO"

    # What the gateway lets in.
    worker_allow: str = ""
    """Module prefixes, separated by commas, whose objects may be registered as workflows."""
    allow_files: bool = True
    """Whether `/absolute/file.py:attr` may be registered; off where clients are not operators."""
    cors_origins: str = ""
    """Origins of pages, separated by commas, that may use the API from a browser."""

    # Limits.
    min_free_mb: int = 512
    """Below this much free disk new executions are refused with 503; running ones go on."""
    executions_max: int = 64
    """Executions that one worker runs at a time; further ones wait on the log."""
    runners_max: int = 16
    """Runner processes that one worker holds at a time."""
    runner_reuse: bool = False
    """Whether a runner serves one tenant and workflow version again; forks isolate better."""

    @field_validator("data_dir", "cache_dir", "triton_venv", mode="after")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @cached_property
    def secrets(self) -> Secrets:
        """The secrets of the data directory, as they were when first asked for."""
        return credentials.load(self.data_dir)

    @property
    def run_dir(self) -> Path:
        """Sockets, ready files and `stack.json`."""
        return self.data_dir / "run"

    @property
    def logs_dir(self) -> Path:
        """One log file per role."""
        return self.data_dir / "logs"

    @property
    def objects_dir(self) -> Path:
        """Payloads that took the claim check (law 12)."""
        return self.data_dir / "objects"

    @property
    def clickhouse_admin_password(self) -> str:
        """Password of `clickhouse_user`, who owns the tables."""
        return self.clickhouse_password.get_secret_value() or self.secrets.clickhouse_admin_password

    @property
    def client_api_key(self) -> str:
        """The key a client sends: the given one, else that of tenant `local`."""
        return self.api_key.get_secret_value() or self.secrets.api_key

    @property
    def has_triton(self) -> bool:
        """Whether a local model may be asked."""
        return self.triton_url not in {"", TRITON_OFF}


def masked(settings: Settings) -> dict[str, str]:
    """The effective values by environment name; of a secret only whether it is set."""
    shown: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = "**********" if value.get_secret_value() else ""
        shown[PREFIX + name.upper()] = str(value)
    return shown


def child_environment(**omium: str) -> dict[str, str]:
    """The environment of a process we start: our own, with the given settings on top."""
    return dict(os.environ) | {PREFIX + name.upper(): value for name, value in omium.items()}
