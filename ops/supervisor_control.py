"""What commands do with a stack: bring it up (here or as a daemon), read it, take it down."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ops import credentials
from ops import supervisor_state as stack_file
from ops.embedded import disk, identity, ports
from ops.exits import CommandError
from ops.settings import Settings, child_environment
from ops.supervisor import Supervisor
from ops.supervisor_stack import GATE, GATED_BY, selected, stack
from ops.supervisor_state import StackState

UP_WAIT_S = 900.0
"""The first start fetches a few hundred megabytes; each part has its own, shorter deadline."""
DOWN_WAIT_S = 60.0
ORPHANS_WAIT_S = 15.0
POLL_S = 0.05
Say = Callable[[str], None]
Document = dict[str, object]


def serve(
    settings: Settings, only: Sequence[str], say: Say, on_ready: Callable[[Document], None]
) -> None:
    """Run the stack in this process until SIGTERM or Ctrl-C; `on_ready` gets its document."""
    selected(only)
    disk.must_have_room(settings.data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with stack_file.must_hold_lock(settings.run_dir):
        secrets = credentials.ensure(settings.data_dir)
        _clear_orphans(settings.run_dir, secrets.stack_id, say)
        chosen = _choose_ports(settings, say)
        parts = stack(settings, secrets, chosen, only, say)
        supervisor = Supervisor(
            data_dir=settings.data_dir,
            stack_id=secrets.stack_id,
            parts=parts.parts,
            endpoints=parts.endpoints,
            environment=parts.environment,
            say=say,
            min_free_mb=settings.min_free_mb,
            gate=settings.run_dir / GATE,
            gated_by=GATED_BY,
        )
        asyncio.run(supervisor.run(lambda: on_ready(document(settings.data_dir))))


def bring_up(settings: Settings, only: Sequence[str], say: Say) -> Document:
    """The document of the ready stack, started as a daemon unless it runs already."""
    selected(only)
    disk.must_have_room(settings.data_dir)
    log = settings.logs_dir / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _wait_ended(settings.data_dir)
    daemon = _daemon(settings, only, log) if running(settings.data_dir) is None else None
    try:
        return _wait_ready(settings.data_dir, daemon, log, say)
    except KeyboardInterrupt:
        take_down(settings.data_dir, say)
        raise


def take_down(data_dir: Path, say: Say) -> bool:
    """Stop exactly that stack, a killed supervisor's orphans included; whether there was one."""
    run_dir = data_dir / "run"
    state = stack_file.read(run_dir)
    was_running = state is not None and state.is_supervised
    if state is not None and was_running:
        supervisor = (state.supervisor_pid, state.supervisor_started)
        identity.end_all([supervisor], DOWN_WAIT_S)
    cleared = _clear_orphans(run_dir, credentials.load(data_dir).stack_id, say)
    (run_dir / stack_file.FILE_NAME).unlink(missing_ok=True)
    # A stack that ended well removes its file: one that is there was cut short.
    return state is not None or cleared > 0


def running(data_dir: Path) -> StackState | None:
    """The state of the stack whose supervisor runs now."""
    state = stack_file.read(data_dir / "run")
    return state if state is not None and state.is_supervised else None


def document(data_dir: Path) -> Document:
    """What `up --json` and `status --json` print: endpoints, key, and pids of what runs now."""
    state = running(data_dir)
    if state is None:
        raise CommandError(f"no stack runs in {data_dir}: `omiumctl up --detach` starts one.")
    secrets = credentials.load(data_dir)
    shown: Document = {
        "gateway": state.endpoints["gateway"],
        "api_key": secrets.api_key,
        "kafka": state.endpoints["kafka"],
        "clickhouse": state.endpoints["clickhouse"],
        "schema_registry": state.endpoints["schema_registry"],
        "triton": state.endpoints["triton"],
        "data_dir": str(data_dir),
        "pids": {
            name: part.pid
            for name, part in state.parts.items()
            if part.pid and identity.is_alive(part.pid, part.started)
        },
    }
    return shown | ({"problem": state.problem} if state.problem else {})


def _daemon(settings: Settings, only: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ops.main", "up", "--data-dir", str(settings.data_dir)]
    command += ["--port", str(settings.port), "--is-daemon"]
    if only:
        command += ["--only", ",".join(only)]
    log.write_bytes(b"")
    with log.open("ab") as output:
        # It gets nothing of ours: who waits for our output's end must not wait for the daemon.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=child_environment(),
            start_new_session=True,
        )


def _wait_ended(data_dir: Path) -> None:
    """Let a stack that is being stopped go first."""
    state = running(data_dir)
    if state is not None and state.phase in {"stopping", "failed"}:
        identity.wait_gone([(state.supervisor_pid, state.supervisor_started)], DOWN_WAIT_S)


def _wait_ready(
    data_dir: Path, daemon: subprocess.Popen[bytes] | None, log: Path, say: Say
) -> Document:
    """Show the daemon's progress until it is ready, or raise what it died of."""
    deadline = time.monotonic() + UP_WAIT_S
    with log.open("r", encoding="utf-8", errors="replace") as progress:
        while time.monotonic() < deadline:
            has_ended = daemon is not None and daemon.poll() is not None
            state = running(data_dir)
            for line in progress:
                # The sentence of its end is raised below, not shown twice.
                if not line.startswith("omiumctl: "):
                    say(line.rstrip())
            if state is not None and state.phase == "ready":
                return document(data_dir)
            if state is None and daemon is None:
                raise CommandError("the stack was stopped while it started.")
            if has_ended and state is None:
                raise CommandError(disk.last_line(log).removeprefix("omiumctl: ") or f"see {log}.")
            time.sleep(POLL_S)
    raise CommandError(f"the stack was not ready after {UP_WAIT_S:.0f} s; see {log}.")


def _clear_orphans(run_dir: Path, stack_id: str, say: Say) -> int:
    found = stack_file.orphans(stack_file.read(run_dir), stack_id)
    if found:
        say(f"clearing {len(found)} processes of this stack that its supervisor left behind")
        identity.end_all(found, ORPHANS_WAIT_S)
    return len(found)


def _choose_ports(settings: Settings, say: Say) -> ports.Ports:
    remembered = ports.load(settings.data_dir)
    chosen, moved = ports.choose(ports.natural(settings.port), remembered, ports.is_free)
    for name, (wanted, port) in moved.items():
        say(f"port {wanted} is taken, {name.replace('_', ' ')} uses {port}")
    if not moved:
        ports.remember(settings.data_dir, chosen)
    return chosen
