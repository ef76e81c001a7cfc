"""Frames between worker and runner."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.runner.channel import ChannelClosed, RunnerChannel
from producers.runner.protocol import FRAME_BYTES_MAX, Frame, FrameDecoder, FrameError, encode

headers = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "kind"),
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=20)),
    max_size=4,
)
frames = st.builds(
    Frame, st.sampled_from(["start", "reply", "token"]), headers, st.binary(max_size=64)
)


@given(st.lists(frames, max_size=6), st.integers(1, 40))
def test_frames_arrive_as_sent_however_the_bytes_are_cut(sent: list[Frame], piece: int) -> None:
    data = b"".join(encode(frame.kind, frame.header, frame.blob) for frame in sent)
    decoder = FrameDecoder()

    received = [
        frame for i in range(0, len(data), piece) for frame in decoder.feed(data[i : i + piece])
    ]

    assert received == sent


@given(st.binary(min_size=8, max_size=200))
def test_garbage_is_an_error_or_an_unfinished_frame_and_never_something_else(data: bytes) -> None:
    try:
        assert all(isinstance(frame, Frame) for frame in FrameDecoder().feed(data))
    except FrameError:
        return


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", FRAME_BYTES_MAX, 2) + b"{}",
        struct.pack(">II", 5, 2) + b"{",
        struct.pack(">II", 6, 2) + b"[]",
        struct.pack(">II", 6, 2) + b"{}",
        struct.pack(">II", 6, 2) + b"xx",
    ],
    ids=["too long", "header longer than frame", "not an object", "no kind", "not JSON"],
)
def test_an_impossible_frame_is_refused_before_its_bytes_are_buffered(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameDecoder().feed(data)


def test_a_frame_over_the_limit_is_never_sent() -> None:
    with pytest.raises(FrameError):
        encode("tool_completed", {}, bytes(FRAME_BYTES_MAX))


def _echo(sock: socket.socket, answers: int, batch: int = 1) -> None:
    """Answers `answers` frames, `batch` at a time and in reverse order."""
    decoder, waiting = FrameDecoder(), []
    while answers > 0 and (data := sock.recv(1 << 16)):
        waiting += decoder.feed(data)
        while len(waiting) >= batch:
            some, waiting = waiting[:batch], waiting[batch:]
            for frame in reversed(some):
                echoed = {"seq": frame.header["seq"], "text": frame.header["text"]}
                sock.sendall(encode("reply", echoed))
                answers -= 1


def test_every_thread_gets_the_reply_to_its_own_question() -> None:
    ours, theirs = socket.socketpair()
    channel = RunnerChannel(ours)
    threads, rounds, wrong = 8, 200, []
    server = threading.Thread(target=_echo, args=(theirs, threads * rounds))
    server.start()

    def ask(name: int) -> None:
        for turn in range(rounds):
            reply = channel.ask("llm_intended", {"text": f"{name}:{turn}"})
            if reply.text("text") != f"{name}:{turn}":
                wrong.append(reply)

    askers = [threading.Thread(target=ask, args=(name,)) for name in range(threads)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(30)

    assert not any(asker.is_alive() for asker in askers)
    assert wrong == []
    server.join(10)
    ours.close()
    theirs.close()


def test_replies_in_another_order_reach_sleeping_followers() -> None:
    ours, theirs = socket.socketpair()
    channel = RunnerChannel(ours)
    server = threading.Thread(target=_echo, args=(theirs, 40, 4))
    server.start()
    answered: list[str] = []

    def ask(name: int) -> None:
        for _ in range(10):
            answered.append(channel.ask("llm_intended", {"text": str(name)}).text("text"))

    askers = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(30)

    assert sorted(answered) == sorted(str(name) for name in range(4) for _ in range(10))
    server.join(10)
    ours.close()
    theirs.close()


async def test_a_coroutine_waits_for_a_late_reply_without_holding_its_loop() -> None:
    import asyncio

    ours, theirs = socket.socketpair()
    channel = RunnerChannel(ours)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while ticks < 5:
            ticks += 1
            await asyncio.sleep(0.01)
        theirs.sendall(encode("reply", {"seq": 1, "text": "late"}))

    reply, _ = await asyncio.gather(channel.ask_async("checkpoint", {}), tick())

    assert reply.text("text") == "late"
    assert ticks == 5
    ours.close()
    theirs.close()


def test_a_waiting_thread_learns_that_the_worker_is_gone() -> None:
    ours, theirs = socket.socketpair()
    channel = RunnerChannel(ours)
    ticket = channel.begin("checkpoint", {})
    theirs.close()

    with pytest.raises(ChannelClosed):
        channel.wait(ticket)
    ours.close()


def test_a_cancel_between_replies_is_remembered() -> None:
    ours, theirs = socket.socketpair()
    channel = RunnerChannel(ours)
    theirs.sendall(encode("cancel", {"reason": "user"}) + encode("reply", {"seq": 1}))

    channel.ask("checkpoint", {})

    assert channel.cancel_reason == "user"
    ours.close()
    theirs.close()
