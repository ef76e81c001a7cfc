"""A worker made for tests: a zygote, a tiny journal in memory, and the choice of when to kill a
runner.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from producers.runner.forking import Runner, fork_runner
from producers.runner.protocol import AWAITED_KINDS, FINAL_KINDS, Frame, FrameDecoder, encode

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0


@contextmanager
def zygote(directory: Path, framework: str = "langgraph") -> Iterator[Path]:
    """A running zygote; yields its socket."""
    path = directory / "z.sock"
    code = (
        "import os, sys, pathlib\n"
        "from producers.runner import zygote\n"
        f"path, framework = pathlib.Path({str(path)!r}), {framework!r}\n"
        "sys.exit(zygote.run(path, framework, os.environ, lambda: print('up', flush=True)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "up"
    try:
        yield path
    finally:
        process.terminate()
        process.wait(WAIT_S)
        process.stdout.close()


@dataclass
class End:
    """How one incarnation ended."""

    final: Frame | None
    output: str
    status: int | None
    frames: list[str]


@dataclass
class TinyWorker:
    """One execution's owner. Its lists are the log."""

    zygote: Path
    entrypoint: str
    input: object = None
    options: dict[str, object] = field(default_factory=dict)
    gateway: str = "http://127.0.0.1:1/v1"
    framework: str = "langgraph"
    policy: str = "reconcile"
    resume_values: dict[str, str] = field(default_factory=dict)
    approved: set[str] = field(default_factory=set)
    needs_approval: set[str] = field(default_factory=set)
    incarnation: int = 0
    records: list[tuple[str, str, bytes]] = field(default_factory=list)
    effects: dict[str, dict[str, object]] = field(default_factory=dict)
    log: list[Frame] = field(default_factory=list)
    kill_at: int = 0
    """Kill the runner at its n-th awaited frame of this incarnation (from 1); 0: never."""
    is_kill_before_append: bool = False
    is_reusable: bool = False
    on_frame: Callable[[Frame, Runner], None] = lambda frame, runner: None

    def run(self) -> End:
        """One incarnation, to its end."""
        return asyncio.run(self._run())

    async def _run(self) -> End:
        runner = await fork_runner(self.zygote)
        output = bytearray()
        loop = asyncio.get_running_loop()
        loop.add_reader(runner.output_fd, _read_output, loop, runner.output_fd, output)
        try:
            async with asyncio.timeout(WAIT_S):
                final, kinds = await self.converse(runner)
                status = await runner.ended()
        finally:
            loop.remove_reader(runner.output_fd)
            _read_output(loop, runner.output_fd, output)
            os.close(runner.output_fd)
            runner.channel.close()
            runner.watch.close()
        return End(final, output.decode(), status, kinds)

    async def converse(self, runner: Runner) -> tuple[Frame | None, list[str]]:
        """Speaks with one runner until its final frame or its end."""
        loop = asyncio.get_running_loop()
        decoder, kinds, awaited = FrameDecoder(), [], 0
        self.begin(runner.channel)
        while True:
            try:
                data = await loop.sock_recv(runner.channel, 1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                return None, kinds
            for frame in decoder.feed(data):
                kinds.append(frame.kind)
                self.on_frame(frame, runner)
                if frame.kind in FINAL_KINDS:
                    self.log.append(frame)
                    return frame, kinds
                if frame.kind not in AWAITED_KINDS:
                    if frame.kind != "ready":
                        self.log.append(frame)
                    continue
                awaited += 1
                is_last = awaited == self.kill_at
                if is_last and self.is_kill_before_append:
                    os.kill(runner.pid, signal.SIGKILL)
                    continue
                reply = self.append(frame)
                if is_last:
                    os.kill(runner.pid, signal.SIGKILL)
                    continue
                await loop.sock_sendall(runner.channel, reply)

    def begin(self, channel: socket.socket) -> None:
        """Sends start, records and go."""
        self.incarnation += 1
        start = {
            "execution_id": "11111111-1111-5111-8111-111111111111",
            "tenant": "local",
            "workflow": "w",
            "framework": self.framework,
            "entrypoint": self.entrypoint,
            "input_json": json.dumps(self.input),
            "options_json": json.dumps(self.options),
            "incarnation": self.incarnation,
            "attempt": 1,
            "gateway_url": self.gateway,
            "api_key": "omk_test",
            "deadline_at_ms": None,
            "is_resume": self.incarnation > 1,
            "resume_values": self.resume_values,
            "records": len(self.records),
            "is_reusable": self.is_reusable,
        }
        data = encode("start", start)
        for kind, step_key, blob in self.records:
            data += encode("record", {"step_key": step_key, "record_kind": kind}, blob)
        channel.setblocking(True)
        channel.sendall(data + encode("go", {}))
        channel.setblocking(False)

    def append(self, frame: Frame) -> bytes:
        """Takes an awaited frame onto the log and answers it."""
        reply: dict[str, object] = {"seq": frame.header["seq"]}
        blob = b""
        match frame.kind:
            case "step_completed" | "checkpoint":
                kind = "step" if frame.kind == "step_completed" else "checkpoint"
                if frame.blob:
                    self.records.append((kind, frame.text("step_key"), frame.blob))
            case "tool_intended":
                decision, blob = self._decide(frame)
                reply |= decision
            case "tool_completed" | "tool_failed":
                self.effects[frame.text("call_id")] |= {
                    **frame.header,
                    "state": frame.kind,
                    "blob": frame.blob,
                }
            case "llm_intended":
                reply["decision"] = "go"
            case _:
                pass
        self.log.append(frame)
        return encode("reply", reply, blob)

    def _decide(self, frame: Frame) -> tuple[dict[str, object], bytes]:
        call_id = frame.text("call_id")
        effect = self.effects.get(call_id)
        if frame.text("tool") in self.needs_approval and call_id not in self.approved:
            return {"decision": "suspend", "reason": "approval"}, b""
        if effect is None:
            self.effects[call_id] = {
                **frame.header,
                "state": "intended",
                "incarnation": self.incarnation,
            }
            return {"decision": "go"}, b""
        if effect["state"] == "intended":
            if effect["incarnation"] == self.incarnation:
                return {"decision": "go"}, b""
            effect["incarnation"] = self.incarnation
            return {"decision": "reconcile" if self.policy == "reconcile" else "go"}, b""
        known = {
            name: effect.get(name, "") for name in ("result_type", "error_type", "error_message")
        }
        blob = effect["blob"]
        assert isinstance(blob, bytes)
        return {"decision": "recorded", **known}, blob

    def kinds(self) -> Counter[str]:
        """How many frames of each kind the log holds."""
        return Counter(frame.kind for frame in self.log)

    def run_to_end(self, incarnations_max: int = 50) -> End:
        """Incarnations until one sends its final frame."""
        for _ in range(incarnations_max):
            end = self.run()
            if end.final is not None:
                return end
        raise AssertionError(f"no end after {incarnations_max} incarnations")


def _read_output(loop: asyncio.AbstractEventLoop, fd: int, output: bytearray) -> None:
    os.set_blocking(fd, False)
    try:
        while data := os.read(fd, 1 << 16):
            output += data
        loop.remove_reader(fd)
    except BlockingIOError:
        return


class FakeGateway(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers a key it knows with what it said before."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Chat)
        self.keys: list[str] = []
        self.seen: list[dict[str, str]] = []
        self.script: list[object] = []
        """Statuses (int) or `break` after n bytes (negative int) for the next requests."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeGateway

    def setup(self) -> None:
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.keys.append(self.headers.get("idempotency-key", ""))
            self.server.seen.append(
                {k.lower(): v for k, v in self.headers.items()} | {"path": self.path}
            )
            order = self.server.script.pop(0) if self.server.script else None
        if isinstance(order, int) and order > 0:
            self._send(order, b"{}", "application/json")
            return
        if body.get("stream"):
            data = _sse(body)
            if isinstance(order, int):
                self._break(data, -order)
            else:
                self._send(200, data, "text/event-stream")
            return
        text = f"answer to {body['messages'][-1]['content']}" if "messages" in body else "x"
        message = {"role": "assistant", "content": text}
        answer = {
            "id": "c1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }  # fmt: skip
        self._send(200, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _break(self, data: bytes, after: int) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:after])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _sse(body: dict[str, object]) -> bytes:
    words = ["one ", "two ", "three ", "four"]
    chunks = [
        {
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
            "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
            ],
        }
        for word in words
    ]  # fmt: skip
    return (
        b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks) + b"data: [DONE]\n\n"
    )


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    """A running fake gateway."""
    server = FakeGateway()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT_S)


def until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Returns when the condition holds; fails after the timeout."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true in time"
        threading.Event().wait(0.01)
