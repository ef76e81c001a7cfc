"""Triton's own venv, made when it is missing: its wheel's wishes conflict with ours."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from ops.embedded.java import locked
from ops.embedded.triton import FILES
from ops.exits import CommandError

REQUIREMENTS = FILES / "requirements.txt"
STAMP = "omium-requirements.sha256"
INSTALL_WAIT_S = 900


def is_complete(folder: Path) -> bool:
    """Whether the venv holds exactly what the requirements of this version name."""
    stamp = folder / STAMP
    return stamp.exists() and stamp.read_text("ascii") == _digest()


def ensure(folder: Path, say: Callable[[str], None]) -> None:
    """Make the venv unless it is complete; one process at a time."""
    if is_complete(folder):
        return
    with locked(folder.with_name(f"{folder.name}.lock")):
        if is_complete(folder):
            return
        say("triton            setting up its venv (200 MB, once) …")
        shutil.rmtree(folder, ignore_errors=True)
        _install(folder)
        (folder / STAMP).write_text(_digest(), "ascii")


def _install(folder: Path) -> None:
    uv = _uv()
    # By the symlinked interpreter: Triton's stub needs the libpython of the very Python we run on.
    venv.create(folder, symlinks=True, with_pip=uv is None)
    python = str(folder / "bin" / "python")
    flags = ["--no-deps", "--require-hashes", "--quiet", "-r", str(REQUIREMENTS)]
    installer = (
        [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    )
    done = subprocess.run(
        [*installer, *flags],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=INSTALL_WAIT_S,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = next(
            (line for line in lines if "error" in line.lower()), lines[-1] if lines else ""
        )
        raise CommandError(
            f"Triton could not be installed ({reason.strip()}); "
            "OMIUM_TRITON_URL=off goes on without it."
        )


def _uv() -> str | None:
    """The path of `uv`: that of `make setup`, or one on the PATH."""
    tools = Path(sys.prefix).parent / ".venv-tools" / "bin" / "uv"
    return str(tools) if tools.exists() else shutil.which("uv")


def _digest() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()
