"""The supervisor with small processes in place of servers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from ops import supervisor_state as stack_file
from ops.exits import CommandError
from ops.supervisor import Supervisor
from ops.supervisor_part import Part
from ops.supervisor_state import PartState

WAIT_S = 30.0
SERVE = (
    "import sys, signal, time; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n'); time.sleep(99)"
)
STANDBY = "import sys; sys.stdin.readline(); import time; time.sleep(99)"
FAIL = "import sys; sys.exit('there is no tea')"
END_LOG = (
    "import signal, sys, time\n"
    "def end(*_):\n"
    "    open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "open(sys.argv[1] + '.' + sys.argv[2], 'w').close()\n"
    "time.sleep(99)"
)


def python(program: str, *words: str) -> Callable[[], list[str]]:
    """The command line of a small process."""
    return lambda: [sys.executable, "-c", program, *words]


def supervisor(data_dir: Path, *parts: Part, gated_by: frozenset[str] = frozenset()) -> Supervisor:
    """A supervisor of these parts."""
    mark = str(uuid4())
    return Supervisor(
        data_dir=data_dir,
        stack_id=mark,
        parts=parts,
        endpoints={},
        environment={**os.environ, stack_file.MARK: mark},
        say=lambda _: None,
        min_free_mb=1,
        gate=data_dir / "run" / "gate",
        gated_by=gated_by,
    )


@asynccontextmanager
async def serving(supervisor: Supervisor) -> AsyncIterator[None]:
    """Run it until the block ends, from the moment it is ready."""
    ready = asyncio.Event()
    task = asyncio.create_task(supervisor.run(ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    try:
        yield
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await task


def part(data_dir: Path, name: str) -> PartState:
    """One part as last written."""
    state = stack_file.read(data_dir / "run")
    assert state is not None
    return state.parts[name]


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_part_that_is_killed_runs_again(tmp_path: Path) -> None:
    # given
    server = Part(
        name="server",
        command=python(SERVE, str(tmp_path / "log"), "up"),
        is_ready=lambda _: (tmp_path / "log").exists(),
    )
    async with serving(supervisor(tmp_path, server)):
        first = part(tmp_path, "server")

        # when
        os.kill(first.pid, signal.SIGKILL)
        await eventually(lambda: part(tmp_path, "server").restarts == 1)
        await eventually(lambda: part(tmp_path, "server").phase == "ready")

        # then
        assert part(tmp_path, "server").pid != first.pid


async def test_a_part_that_never_comes_up_ends_the_start_with_its_last_words(
    tmp_path: Path,
) -> None:
    # given
    broken = Part(name="broken", command=python(FAIL), is_ready=lambda _: False)

    # when
    with pytest.raises(CommandError, match=r"broken ended 5 times while starting: there is no tea"):
        async with serving(supervisor(tmp_path, broken)):
            pass

    # then
    state = stack_file.read(tmp_path / "run")
    assert state is not None
    assert state.phase == "failed"
    assert "there is no tea" in state.problem


async def test_a_one_shot_is_done_once_and_the_gate_opens_after_it(tmp_path: Path) -> None:
    # given
    gate = tmp_path / "run" / "gate"
    once = Part(name="once", command=python("pass"), is_ready=lambda _: False, is_one_shot=True)
    server = Part(
        name="server",
        command=python(SERVE, str(tmp_path / "log"), "up"),
        is_ready=lambda _: gate.exists(),
    )

    # when
    async with serving(supervisor(tmp_path, once, server, gated_by=frozenset({"once"}))):
        # then
        assert part(tmp_path, "once").phase == "done"
        assert part(tmp_path, "server").phase == "ready"
    assert not gate.exists()


async def test_lower_waves_have_ended_before_higher_ones_are_told(tmp_path: Path) -> None:
    # given
    log = tmp_path / "ends"
    parts = [
        Part(
            name=name,
            command=python(END_LOG, str(log), name),
            is_ready=lambda _, name=name: Path(f"{log}.{name}").exists(),  # type: ignore[misc]
            stop_wave=wave,
        )
        for name, wave in (("store", 2), ("worker", 0), ("zygote", 1))
    ]

    # when
    async with serving(supervisor(tmp_path, *parts)):
        pass

    # then
    assert log.read_text().split() == ["worker", "zygote", "store"]
    assert stack_file.read(tmp_path / "run") is None


async def test_a_killed_part_is_taken_over_by_its_standby(tmp_path: Path) -> None:
    # given
    worker = Part(
        name="worker",
        command=python(SERVE, str(tmp_path / "log"), "cold"),
        standby_command=python(STANDBY),
        is_ready=lambda _: True,
    )
    async with serving(supervisor(tmp_path, worker)):
        first = part(tmp_path, "worker")
        await eventually(lambda: (tmp_path / "log").exists())

        # when
        os.kill(first.pid, signal.SIGKILL)
        await eventually(lambda: part(tmp_path, "worker").restarts == 1)
        await eventually(lambda: part(tmp_path, "worker").phase == "ready")

    # then
    assert (tmp_path / "log").read_text() == "cold\n"


async def test_what_a_part_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    # given
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
        "open(sys.argv[1] + '.new', 'w').write(str(child.pid))\n"
        "import os, time; os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(99)"
    )
    family = Part(
        name="family",
        command=python(program, str(tmp_path / "child")),
        is_ready=lambda _: (tmp_path / "child").exists(),
    )
    async with serving(supervisor(tmp_path, family)):
        child = int((tmp_path / "child").read_text())

        # when
        os.kill(part(tmp_path, "family").pid, signal.SIGKILL)

        # then
        await eventually(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    from ops.embedded import identity

    return identity.started(pid) != identity.GONE
