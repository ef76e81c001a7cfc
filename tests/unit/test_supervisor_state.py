"""Which processes belong to a stack, and what its state file says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from ops import supervisor_state as stack_file
from ops.embedded import identity
from ops.supervisor_state import PartState, StackState

SLEEP = "import sys; print(flush=True); sys.stdin.read()"
DEAF = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True);"
    "sys.stdin.read()"
)


@contextmanager
def started(program: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own that waits to be ended."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,
    ) as process:
        # It speaks once its own environment is in place, and not the one before exec.
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of nobody's."""
    with started(SLEEP) as process:
        yield process


def _state(parts: dict[str, PartState]) -> StackState:
    return StackState(
        phase="ready",
        supervisor_pid=os.getpid(),
        supervisor_started=identity.started(os.getpid()),
        endpoints={"gateway": "http://127.0.0.1:1", "triton": None},
        parts=parts,
    )


def test_a_recorded_process_is_an_orphan_while_it_lives(sleeper: subprocess.Popen[bytes]) -> None:
    # given
    start = identity.started(sleeper.pid)
    state = _state({"kafka": PartState(phase="ready", pid=sleeper.pid, started=start)})

    # then
    assert stack_file.orphans(state, "") == [(sleeper.pid, start)]

    # when
    sleeper.kill()
    sleeper.wait()

    # then
    assert stack_file.orphans(state, "") == []


def test_a_reused_pid_is_never_ours(sleeper: subprocess.Popen[bytes]) -> None:
    # given
    earlier = str(int(identity.started(sleeper.pid)) - 1)
    state = _state({"kafka": PartState(phase="ready", pid=sleeper.pid, started=earlier)})

    # when
    found = stack_file.orphans(state, "")
    identity.end_all([(sleeper.pid, earlier)], wait_s=0.0)

    # then
    assert found == []
    assert sleeper.poll() is None


def test_a_process_that_carries_the_mark_is_found_without_any_record() -> None:
    # given
    ours, theirs = str(uuid4()), str(uuid4())
    with (
        started(SLEEP, **{stack_file.MARK: ours}) as marked,
        started(SLEEP, **{stack_file.MARK: theirs}) as other,
    ):
        # when
        found = stack_file.orphans(None, ours)
        identity.end_all(found, wait_s=5.0)

        # then
        assert [pid for pid, _ in found] == [marked.pid]
        assert marked.wait(5) == -15
        assert other.poll() is None


def test_without_an_id_nobody_is_marked(sleeper: subprocess.Popen[bytes]) -> None:
    assert stack_file.orphans(None, "") == []


def test_a_process_that_ignores_sigterm_is_ended_all_the_same() -> None:
    with started(DEAF) as deaf:
        # when
        identity.end_group(deaf.pid, identity.started(deaf.pid), wait_s=0.1)

        # then
        assert deaf.wait(5) == -9


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    # given
    state = _state({"kafka": PartState(phase="ready", pid=1, started="2", ready_ms=3, restarts=4)})

    # when
    stack_file.write(tmp_path, state)

    # then
    assert stack_file.read(tmp_path) == state
    assert [file.name for file in tmp_path.iterdir()] == [stack_file.FILE_NAME]


def test_where_no_stack_was_there_is_no_state(tmp_path: Path) -> None:
    assert stack_file.read(tmp_path) is None


def test_one_supervisor_holds_a_data_directory(tmp_path: Path) -> None:
    # given
    held = stack_file.must_hold_lock(tmp_path)

    # then
    assert stack_file.hold_lock(tmp_path) is None

    # when
    held.close()

    # then
    again = stack_file.hold_lock(tmp_path)
    assert again is not None
    again.close()
