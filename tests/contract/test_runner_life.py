"""A runner's birth, death and reuse."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from producers.runner.forking import Runner, fork_runner
from producers.runner.protocol import Frame, FrameDecoder, encode
from tests.support.runner import ROOT, FakeGateway, TinyWorker, until, zygote

FUNCTIONS = f"{ROOT}/tests/support/workflows/functions.py"
SHAPES = f"{ROOT}/tests/support/workflows/shapes.py"


def worker_of(path: Path, function: str, arguments: object, gateway: str = "") -> TinyWorker:
    return TinyWorker(
        zygote=path,
        entrypoint=f"{FUNCTIONS}:{function}",
        input=arguments,
        framework="python",
        gateway=gateway or "http://127.0.0.1:1/v1",
    )


def close(runner: Runner) -> None:
    runner.channel.close()
    runner.watch.close()
    os.close(runner.output_fd)


async def started(worker: TinyWorker, marker: Path) -> Runner:
    runner = await fork_runner(worker.zygote)
    worker.begin(runner.channel)
    await asyncio.to_thread(until, lambda: marker.exists() and marker.read_text() != "")
    return runner


async def test_a_runner_dies_with_its_worker_even_in_the_middle_of_user_code(
    langgraph_zygote: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "pid"
    runner = await started(worker_of(langgraph_zygote, "wait", {"path": str(marker)}), marker)

    runner.channel.close()

    async with asyncio.timeout(5):
        assert await runner.ended() == 70
    runner.watch.close()
    os.close(runner.output_fd)


async def test_a_runner_dies_with_its_zygote(tmp_path: Path) -> None:
    with zygote(tmp_path, "python") as path:
        marker = tmp_path / "pid"
        runner = await started(worker_of(path, "wait", {"path": str(marker)}), marker)
        os.kill(psutil.Process(runner.pid).ppid(), signal.SIGKILL)
        await asyncio.to_thread(until, lambda: not psutil.pid_exists(runner.pid))
        assert await runner.ended() is None
        close(runner)


async def test_a_cancelled_execution_unwinds_at_its_next_boundary(
    langgraph_zygote: Path, upstream: FakeGateway
) -> None:
    worker = worker_of(langgraph_zygote, "ask", {"question": "q", "times": 50}, upstream.url)

    def cancel(frame: Frame, runner: Runner) -> None:
        if frame.kind == "llm_intended" and frame.number("ordinal") == 2:
            runner.channel.send(encode("cancel", {"reason": "enough"}))

    worker.on_frame = cancel
    end = await worker._run()

    assert end.final is not None
    assert end.final.text("error_type") == "omium.Cancelled"
    assert len(upstream.keys) == 2


async def test_code_that_swallows_everything_cannot_swallow_a_suspension(
    langgraph_zygote: Path, upstream: FakeGateway
) -> None:
    worker = worker_of(langgraph_zygote, "swallow", {"question": "q"}, upstream.url)
    runner = await fork_runner(worker.zygote)
    worker.begin(runner.channel)
    kinds: list[str] = []
    decoder = FrameDecoder()
    loop = asyncio.get_running_loop()
    while not kinds or kinds[-1] not in {"suspended", "finished"}:
        for frame in decoder.feed(await loop.sock_recv(runner.channel, 65536)):
            kinds.append(frame.kind)
            if "seq" in frame.header:
                reply = {"seq": frame.header["seq"], "decision": "suspend"}
                await loop.sock_sendall(runner.channel, encode("reply", reply))

    assert kinds[-1] == "suspended"
    assert upstream.keys == []
    await runner.ended()
    close(runner)


def test_a_hundred_kilobytes_of_output_reach_the_worker(langgraph_zygote: Path) -> None:
    worker = worker_of(langgraph_zygote, "chatty", {"lines": 1000})

    end = worker.run()

    assert end.final is not None
    assert len(end.output) == 100_000


async def test_a_reused_runner_finds_what_a_fresh_one_finds(
    langgraph_zygote: Path, upstream: FakeGateway
) -> None:
    worker = worker_of(langgraph_zygote, "state", {}, upstream.url)
    worker.is_reusable = True
    runner = await fork_runner(worker.zygote)
    found = []
    for _ in range(3):
        final, _ = await worker.converse(runner)
        assert final is not None
        assert final.kind == "finished", final
        found.append(json.loads(final.text("output_json")))

    randoms = {one.pop("random") for one in found}
    visits = [one.pop("visits") for one in found]

    assert found[0] == found[1] == found[2]
    assert found[0]["context"] == ""
    assert found[0]["base_url"] == upstream.url
    assert len(randoms) == 3
    assert visits == [0, 1, 2], "globals of the user's own module persist, and the docs say so"
    await asyncio.get_running_loop().sock_sendall(runner.channel, encode("stop", {}))
    assert await runner.ended() == 0
    close(runner)


async def test_calls_of_a_reused_runner_are_counted_anew(
    langgraph_zygote: Path, upstream: FakeGateway
) -> None:
    worker = worker_of(langgraph_zygote, "ask", {"question": "q", "times": 2}, upstream.url)
    worker.is_reusable = True
    runner = await fork_runner(worker.zygote)

    for _ in range(2):
        await worker.converse(runner)

    assert upstream.keys[:2] == upstream.keys[2:]
    close(runner)


def test_a_zygote_survives_garbage_and_serves_on(langgraph_zygote: Path) -> None:
    for garbage in (b"", b"\x00" * 4096, b"[1,2]", b"{}", b'{"pid": 1}' * 10, b"{" * 70_000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(langgraph_zygote))
            try:
                client.sendall(garbage)
            except (BrokenPipeError, ConnectionResetError):
                continue
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(str(langgraph_zygote))

    end = worker_of(langgraph_zygote, "chatty", {"lines": 1}).run()

    assert end.final is not None
    silent.close()


async def test_many_forks_leave_no_child_no_descriptor_and_no_memory_behind(tmp_path: Path) -> None:
    with zygote(tmp_path, "python") as path:

        async def fork_many(count: int) -> psutil.Process:
            for _ in range(count):
                runner = await fork_runner(path)
                runner.channel.close()
                assert await runner.ended() == 70
                runner.watch.close()
                os.close(runner.output_fd)
            children = psutil.Process().children()
            (process,) = (child for child in children if str(path) in " ".join(child.cmdline()))
            return process

        process = await fork_many(20)
        before = (process.num_fds(), len(process.children()), process.memory_info().rss)
        process = await fork_many(80)
        after = (process.num_fds(), len(process.children()), process.memory_info().rss)

    assert after[:2] == before[:2]
    assert after[2] - before[2] < 4 * 1024 * 1024


def test_a_runner_stopped_longer_than_its_window_never_executes_again(tmp_path: Path) -> None:
    """With a window of half a second: the kernel's timer runs on while the process is stopped."""
    marker = tmp_path / "turns"
    code = (
        "import socket, sys, time\n"
        "from producers.runner import guard\n"
        "guard.WINDOW_S, guard.HEARTBEAT_S = 0.5, 0.1\n"
        "a, b = socket.socketpair()\n"
        "guard.start(a.fileno())\n"
        "while True:\n"
        f"    open({str(marker)!r}, 'a').write('x')\n"
        "    time.sleep(0.005)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    until(lambda: marker.exists() and marker.stat().st_size > 150)
    process.send_signal(signal.SIGSTOP)
    watched = psutil.Process(process.pid)
    until(lambda: watched.status() == psutil.STATUS_STOPPED)
    turns = marker.stat().st_size
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)

    process.send_signal(signal.SIGCONT)

    assert process.wait(5) == -signal.SIGALRM
    assert marker.stat().st_size == turns
