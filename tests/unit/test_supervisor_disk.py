"""What is said about the disk, and how logs stay small."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.embedded import disk
from ops.exits import CommandError


def test_enough_space_is_no_problem(tmp_path: Path) -> None:
    assert disk.problem(tmp_path, min_free_mb=0) == ""


def test_too_little_space_is_one_sentence_with_the_limit(tmp_path: Path) -> None:
    # when
    problem = disk.problem(tmp_path / "not" / "there" / "yet", min_free_mb=10**9)

    # then
    assert "MB of disk are free" in problem
    assert str(10**9) in problem


def test_a_full_disk_refuses_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(disk, "free_mb", lambda _: 3)

    # then
    with pytest.raises(CommandError, match="the disk is full: 3 MB"):
        disk.must_have_room(tmp_path)


def test_a_log_that_grew_too_large_keeps_its_end_while_its_writer_goes_on(tmp_path: Path) -> None:
    # given
    log = tmp_path / "role.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 1000 + b"last words\n")

        # when
        disk.bound_logs(tmp_path, bytes_max=1000, bytes_kept=15)
        writer.write(b"new\n")

    # then
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "role.log.1").read_bytes() == b"old\nlast words\n"


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    # given
    log = tmp_path / "role.log"
    log.write_bytes(b"words\n")

    # when
    disk.bound_logs(tmp_path)

    # then
    assert log.read_bytes() == b"words\n"
    assert list(tmp_path.iterdir()) == [log]


def test_the_last_line_of_a_log_is_its_last_that_says_something(tmp_path: Path) -> None:
    # given
    log = tmp_path / "role.log"
    log.write_text("first\nthe reason\n\n  \n")

    # then
    assert disk.last_line(log) == "the reason"
    assert disk.last_line(tmp_path / "none.log") == ""
