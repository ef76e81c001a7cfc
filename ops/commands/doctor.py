"""`omiumctl doctor`: whether this machine has what the stack needs, and the settings in effect."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK, UNAVAILABLE
from ops.output import emit

if TYPE_CHECKING:
    from ops.settings import Settings

PYTHON_MIN, PYTHON_BELOW = (3, 11), (3, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. What is not needed may be missing: it is a note."""

    name: str
    is_good: bool
    text: str
    is_needed: bool = True


def add(subparsers: Subparsers) -> None:
    """Add `doctor`."""
    command(
        subparsers,
        "doctor",
        "Check what the embedded stack needs, and print the effective settings (secrets masked).",
        handle,
        ("doctor", "doctor --json"),
    )


def handle(arguments: argparse.Namespace) -> int:
    """Print the findings; exit code 3 when something needed is missing."""
    from ops.settings import masked

    settings = settings_of(arguments)
    findings = [look(settings) for look in LOOKS]
    is_well = all(finding.is_good for finding in findings if finding.is_needed)
    if arguments.json:
        checks = {f.name: {"ok": f.is_good, "text": f.text} for f in findings}
        emit({"ok": is_well, "checks": checks, "settings": masked(settings)})
        return OK if is_well else UNAVAILABLE
    for finding in findings:
        word = "ok" if finding.is_good else "missing" if finding.is_needed else "note"
        print(f"{finding.name:<14} {word:<8} {finding.text}")
    print()
    for name, value in masked(settings).items():
        print(f"{name:<28} {value}")
    return OK if is_well else UNAVAILABLE


def _python(_: Settings) -> Finding:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(
        name="python",
        is_good=PYTHON_MIN <= sys.version_info[:2] < PYTHON_BELOW,
        text=f"{text} (3.11 to 3.13 are supported)",
    )


def _disk(settings: Settings) -> Finding:
    from ops.embedded import disk

    free = disk.free_mb(settings.data_dir)
    text = f"{free} MB free in {settings.data_dir}, new executions need {settings.min_free_mb} MB"
    return Finding(name="disk", is_good=free >= settings.min_free_mb, text=text)


def _memory(_: Settings) -> Finding:
    import psutil

    free = psutil.virtual_memory().available // (1024 * 1024)
    text = f"{free} MB available, the idle stack takes about 1500 MB"
    return Finding(name="memory", is_good=free >= 2048, text=text, is_needed=False)


def _ports(settings: Settings) -> Finding:
    from ops.embedded import ports
    from ops.supervisor_control import running

    if running(settings.data_dir) is not None:
        return Finding(name="ports", is_good=True, text="in use by the running stack")
    wanted = ports.natural(settings.port)
    _, moved = ports.choose(wanted, ports.load(settings.data_dir), ports.is_free)
    taken = ", ".join(f"{first} ({name})" for name, (first, _) in moved.items())
    text = f"taken: {taken}; `up` will use others" if moved else f"{settings.port} and up are free"
    return Finding(name="ports", is_good=not moved, text=text, is_needed=False)


def _java(_: Settings) -> Finding:
    from ops.embedded import java
    from ops.exits import CommandError

    try:
        return Finding(name="java", is_good=True, text=java.java())
    except CommandError as error:
        return Finding(name="java", is_good=False, text=str(error))


def _jars(settings: Settings) -> Finding:
    from ops.embedded import java

    has_jars = java.has_jars(settings.cache_dir)
    text = f"in {settings.cache_dir}" if has_jars else "`make setup` or the first `up` fetches them"
    return Finding(name="kafka jars", is_good=has_jars, text=text, is_needed=False)


def _aot(settings: Settings) -> Finding:
    from ops.embedded import aot

    is_made = aot.has_cache(settings.cache_dir)
    text = "Kafka starts faster by it" if is_made else "`make setup` makes it"
    return Finding(name="kafka aot", is_good=is_made, text=text, is_needed=False)


def _clickhouse(_: Settings) -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Finding(name="clickhouse", is_good=True, text=f"chdb-core {version('chdb-core')}")
    except PackageNotFoundError:
        text = "install the extra omium-platform[embedded], or set OMIUM_CLICKHOUSE_URL"
        return Finding(name="clickhouse", is_good=False, text=text)


def _triton(settings: Settings) -> Finding:
    from ops.embedded import triton, triton_venv

    why = triton.unavailable_because()
    if why is not None:
        text = f"{why}; LLM calls go to the upstream alone"
        return Finding(name="triton", is_good=False, text=text, is_needed=False)
    is_made = triton_venv.is_complete(settings.triton_venv)
    text = str(settings.triton_venv) if is_made else "`make setup` or the first `up` installs it"
    return Finding(name="triton", is_good=is_made, text=text, is_needed=False)


LOOKS: tuple[Callable[[Settings], Finding], ...] = (
    _python,
    _disk,
    _memory,
    _ports,
    _java,
    _jars,
    _aot,
    _clickhouse,
    _triton,
)
