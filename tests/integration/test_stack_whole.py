"""The whole embedded stack: up, within its memory, over the death of every role, and gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops import credentials
from ops import supervisor_state as stack_file
from ops.commands.status import memory_mb
from ops.embedded import identity
from ops.supervisor_stack import ROLES

UP_WAIT_S = 300
BACK_WAIT_S = 60.0
MEMORY_MB_MAX = 2560
MEMORY_WITHOUT_MODEL_MB_MAX = 1536
PORT = 29000 + os.getpid() % 100 * 20


def omiumctl(*words: str) -> subprocess.CompletedProcess[str]:
    """One command line, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ops.main", *words],
        capture_output=True,
        text=True,
        timeout=UP_WAIT_S,
        check=False,
    )


def parts(data_dir: Path) -> dict[str, stack_file.PartState]:
    """All parts as the supervisor last wrote them."""
    state = stack_file.read(data_dir / "run")
    assert state is not None
    return dict(state.parts)


def marked(data_dir: Path) -> list[int]:
    """Every process of the stack, standbys and children included."""
    stack_id = credentials.load(data_dir).stack_id
    return [pid for pid, _ in identity.marked(stack_file.MARK, stack_id)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The whole stack, running."""
    data_dir = tmp_path_factory.mktemp("whole")
    words = ("--detach", "--json", "--data-dir", str(data_dir), "--port", str(PORT))
    done = omiumctl("up", *words)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    yield data_dir, json.loads(done.stdout)
    omiumctl("down", "--data-dir", str(data_dir))


@pytest.mark.timeout(UP_WAIT_S + 60)
def test_every_part_is_ready_and_named(whole: tuple[Path, dict[str, Any]]) -> None:
    # given
    data_dir, document = whole

    # then
    assert {"kafka", "clickhouse", *ROLES} <= set(document["pids"])
    assert {part.phase for part in parts(data_dir).values()} == {"ready", "done"}


def test_the_idle_stack_fits_its_memory(whole: tuple[Path, dict[str, Any]]) -> None:
    # given
    data_dir, document = whole
    state = stack_file.read(data_dir / "run")
    assert state is not None

    # when
    by_part = {name: memory_mb(pid) for name, pid in document["pids"].items()}
    everything = sum(_pss_mb(pid) for pid in (*marked(data_dir), state.supervisor_pid))

    # then
    print({**by_part, "with supervisor and standbys": everything})
    assert everything < MEMORY_MB_MAX
    assert everything - by_part.get("triton", 0) < MEMORY_WITHOUT_MODEL_MB_MAX


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_role_is_back_under_a_new_pid(
    whole: tuple[Path, dict[str, Any]], role: str
) -> None:
    # given
    data_dir, _ = whole
    killed = parts(data_dir)[role]
    begun = time.monotonic()

    # when
    os.kill(killed.pid, signal.SIGKILL)

    # then
    while (now := parts(data_dir)[role]).phase != "ready" or now.pid == killed.pid:
        assert time.monotonic() - begun < BACK_WAIT_S, f"{role} did not come back"
        time.sleep(0.02)
    print(f"{role} back in {time.monotonic() - begun:.2f} s")


def test_down_leaves_no_process_of_the_stack(whole: tuple[Path, dict[str, Any]]) -> None:
    # given
    data_dir, _ = whole
    assert marked(data_dir)

    # when
    done = omiumctl("down", "--data-dir", str(data_dir))

    # then
    assert done.returncode == 0
    assert marked(data_dir) == []
    assert stack_file.read(data_dir / "run") is None


def _pss_mb(pid: int) -> int:
    full = psutil.Process(pid).memory_full_info()
    return int(getattr(full, "pss", full.rss)) // (1024 * 1024)
