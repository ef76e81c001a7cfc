"""The one supervisor of a stack: starts its parts, restarts what ends, stops all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ops import supervisor_state as stack_file
from ops.embedded import disk, identity
from ops.embedded.process import spawn
from ops.exits import CommandError
from ops.readiness import ready_file
from ops.supervisor_backoff import Backoff
from ops.supervisor_part import READY_WAIT_S, Part
from ops.supervisor_standby import Standbys
from ops.supervisor_state import PartPhase, PartState, StackState

READY_POLL_S = 0.03
DISK_POLL_S = 2.0
FIRST_STARTS_MAX = 5
"""A part that ended this often without ever being ready will not get there by itself."""
SWEEP_WAIT_S = 5.0
DONE = ""


@dataclass(slots=True)
class Child:
    """A started process of a part."""

    process: subprocess.Popen[bytes]
    started: str
    since_s: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Runs the parts of one data directory, on one event loop in the main thread."""

    def __init__(
        self,
        data_dir: Path,
        stack_id: str,
        parts: Sequence[Part],
        endpoints: Mapping[str, str | None],
        environment: Mapping[str, str],
        say: Callable[[str], None],
        min_free_mb: int,
        gate: Path,
        gated_by: frozenset[str],
    ) -> None:
        self._data_dir = data_dir
        self._run_dir = data_dir / "run"
        self._stack_id = stack_id
        self._parts = {part.name: part for part in parts}
        self._environment = dict(environment)
        self._say = say
        self._min_free_mb = min_free_mb
        self._gate = gate
        self._gated_by = gated_by & set(self._parts)
        self._children: dict[str, Child] = {}
        self._standbys = Standbys(data_dir / "logs", environment)
        self._seen_ready: set[str] = set()
        self._is_stopping = False
        self._stop_asked = asyncio.Event()
        self._state = StackState(
            phase="starting",
            supervisor_pid=os.getpid(),
            supervisor_started=identity.started(os.getpid()),
            endpoints=dict(endpoints),
            parts={name: PartState() for name in self._parts},
        )

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then stop everything; raises if the stack cannot start."""
        self._listen()
        self._gate.unlink(missing_ok=True)
        self._publish()
        keepers = [asyncio.create_task(self._keep(part)) for part in self._parts.values()]
        failed = asyncio.create_task(_first_failure(keepers))
        stop = asyncio.create_task(self._stop_asked.wait())
        ready = asyncio.create_task(self._all_ready())
        watch = asyncio.create_task(self._watch_disk())
        try:
            await asyncio.wait({ready, stop, failed}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                self._change(phase="ready")
                on_ready()
                for part in self._parts.values():
                    self._standbys.refill(part)
                await asyncio.wait({stop, failed}, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
        except CommandError as error:
            self._change(phase="failed", problem=str(error))
            raise
        finally:
            for task in (watch, ready, stop, failed):
                task.cancel()
            await self._stop_all(keepers)

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop_asked.set)

    def _reap(self) -> None:
        for child in self._children.values():
            if child.process.poll() is not None:
                child.ended.set()
        self._standbys.reap()

    # One part.

    async def _keep(self, part: Part) -> None:
        """Start the part, and start it again whenever it ends."""
        if part.prepare is not None:
            await asyncio.to_thread(part.prepare)
        backoff, restarts = Backoff(), 0
        while not self._is_stopping:
            begun_s = time.monotonic()
            reason = await self._live(part, restarts)
            if reason == DONE or self._is_stopping:
                return
            restarts += 1
            if part.name not in self._seen_ready and restarts >= FIRST_STARTS_MAX:
                raise CommandError(self._complaint(part, f"ended {restarts} times while starting"))
            backoff = backoff.ended(time.monotonic() - begun_s)
            self._set_part(part.name, phase="waiting", pid=0, started=identity.GONE)
            self._say(f"{part.name:<17} ended ({reason}), again in {backoff.delay_s:.1f} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_asked.wait(), backoff.delay_s or 0.001)

    async def _live(self, part: Part, restarts: int) -> str:
        """One life of the part, from its start to its end; why it ended."""
        try:
            child = self._start(part, restarts)
        except OSError as error:
            # On a full disk not even its log can be opened; later it can.
            return f"could not start: {error.strerror}"
        if await self._until_ready(part, child, restarts):
            self._seen_ready.add(part.name)
        elif not child.ended.is_set():
            self._kill(child)
            if part.name not in self._seen_ready:
                raise CommandError(
                    self._complaint(part, f"was not ready after {READY_WAIT_S:.0f} s")
                )
        await child.ended.wait()
        self._clear_group(child)
        code = child.process.returncode
        return DONE if part.is_one_shot and code == 0 else _reason(code)

    def _start(self, part: Part, restarts: int) -> Child:
        ready_file(self._run_dir, part.name).unlink(missing_ok=True)
        process = self._standbys.take(part) or spawn(
            part.command(),
            self._data_dir / "logs" / f"{part.name}.log",
            {**self._environment, **part.environment},
        )
        child = Child(process, identity.started(process.pid), time.monotonic())
        self._children[part.name] = child
        self._set_part(
            part.name, phase="starting", pid=process.pid, started=child.started, restarts=restarts
        )
        # It may have ended before it was in the table.
        self._reap()
        return child

    async def _until_ready(self, part: Part, child: Child, restarts: int) -> bool:
        """Whether it came up: false when it ended first, or was given up."""
        deadline = child.since_s + READY_WAIT_S
        while time.monotonic() < deadline and not child.ended.is_set():
            if not part.is_one_shot and await asyncio.to_thread(part.is_ready, child.process.pid):
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(child.ended.wait(), READY_POLL_S)
        is_done = part.is_one_shot and child.process.returncode == 0
        if not is_done and (child.ended.is_set() or time.monotonic() >= deadline):
            return False
        took_s = time.monotonic() - child.since_s
        self._set_part(part.name, phase="done" if is_done else "ready", ready_ms=int(took_s * 1000))
        word = "again " if restarts else ""
        self._say(f"{part.name:<17} {word}ready in {took_s:4.1f} s  {part.address}".rstrip())
        self._open_gate()
        if self._state.phase == "ready":
            # Not before: a standby must not slow the first start down.
            self._standbys.refill(part)
        return True

    def _open_gate(self) -> None:
        """Let the roles in once everything that they rest on is there."""
        states = self._state.parts
        if all(states[name].phase in {"ready", "done"} for name in self._gated_by):
            self._gate.parent.mkdir(parents=True, exist_ok=True)
            self._gate.touch()

    async def _all_ready(self) -> None:
        while not all(part.phase in {"ready", "done"} for part in self._state.parts.values()):
            await asyncio.sleep(READY_POLL_S)

    def _complaint(self, part: Part, what: str) -> str:
        logs = self._data_dir / "logs"
        log = logs / f"{part.name}.log"
        # The servers keep a log of their own, and say on stderr only what comes before it.
        words = disk.last_line(logs / f"{part.name}-server.log") or disk.last_line(log)
        return f"{part.name} {what}: {words or 'it said nothing'} (log: {log})"

    # The end.

    async def _stop_all(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Stop every part, wave by wave, and whatever else carries the stack's mark."""
        self._is_stopping = True
        self._stop_asked.set()
        if self._state.phase != "failed":
            self._change(phase="stopping")
        self._standbys.end()
        waves = sorted({part.stop_wave for part in self._parts.values()})
        for wave in waves:
            names = [name for name, part in self._parts.items() if part.stop_wave == wave]
            await asyncio.gather(*(self._stop(name) for name in names))
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        rest = identity.marked(stack_file.MARK, self._stack_id)
        await asyncio.to_thread(identity.end_all, rest, SWEEP_WAIT_S)
        self._gate.unlink(missing_ok=True)
        if self._state.phase != "failed":
            (self._run_dir / stack_file.FILE_NAME).unlink(missing_ok=True)

    async def _stop(self, name: str) -> None:
        child = self._children.get(name)
        if child is None or child.ended.is_set():
            return
        begun = time.monotonic()
        with suppress(ProcessLookupError):
            child.process.terminate()
        try:
            await asyncio.wait_for(child.ended.wait(), self._parts[name].stop_wait_s)
        except TimeoutError:
            self._kill(child)
            await child.ended.wait()
        self._clear_group(child)
        self._say(f"{name:<17} stopped in {time.monotonic() - begun:4.1f} s")

    @staticmethod
    def _kill(child: Child) -> None:
        with suppress(ProcessLookupError):
            child.process.kill()

    @staticmethod
    def _clear_group(child: Child) -> None:
        """End what the process left in its group: it led the group, so no other is hit."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)

    # What others see.

    async def _watch_disk(self) -> None:
        while True:
            try:
                await asyncio.to_thread(disk.bound_logs, self._data_dir / "logs")
                problem = await asyncio.to_thread(disk.problem, self._data_dir, self._min_free_mb)
            except OSError as error:
                # Even the tail of a log may not fit any more; the next look is soon.
                problem = f"the disk fails: {error.strerror}"
            if bool(problem) != bool(self._state.problem):
                self._say(problem or "the disk has enough free space again")
            if problem != self._state.problem:
                self._change(problem=problem)
            await asyncio.sleep(DISK_POLL_S)

    def _set_part(
        self,
        name: str,
        phase: PartPhase,
        pid: int | None = None,
        started: str | None = None,
        ready_ms: int | None = None,
        restarts: int | None = None,
    ) -> None:
        now = self._state.parts[name]
        part = PartState(
            phase=phase,
            pid=now.pid if pid is None else pid,
            started=now.started if started is None else started,
            ready_ms=now.ready_ms if ready_ms is None else ready_ms,
            restarts=now.restarts if restarts is None else restarts,
        )
        self._state = self._state.with_part(name, part)
        self._publish()

    def _change(
        self, phase: stack_file.StackPhase | None = None, problem: str | None = None
    ) -> None:
        self._state = replace(
            self._state,
            phase=phase or self._state.phase,
            problem=self._state.problem if problem is None else problem,
        )
        self._publish()

    def _publish(self) -> None:
        try:
            stack_file.write(self._run_dir, self._state)
        except OSError as error:
            # A full disk must not stop the supervisor: the next change writes it again.
            self._say(f"stack.json could not be written: {error.strerror}")


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


async def _first_failure(keepers: Sequence[asyncio.Task[None]]) -> None:
    """Raise what the first failing keeper raised; a keeper that ends well says nothing."""
    for keeper in asyncio.as_completed(keepers):
        await keeper
    await asyncio.Event().wait()
