"""A TEST STAND-IN: an OpenAI-compatible upstream that answers by script and counts what it was
asked.

`python -m processors.effects.llm.scripted --port N --log FILE`. It is no model: its answer is a
function of the request. Every call is one JSON line in FILE *before* it is answered, so the counts
survive a kill of any part.

The last user message steers it, one directive a line, the rest is what it talks about:

    !delay_ms=500        wait before the answer           !tokens=40       words in the answer
    !chunk_ms=20         wait between streamed words      !status=429      refuse with this status
    !retry_after=3       with the refusal                 !fail_times=2    refuse only the first so
    many times
    !break_after=5       drop the stream after so many    !no_usage=1      send no usage
    !tool=name:{"a": 1}  call this tool, if it is offered !say=text        answer exactly this
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

from aiohttp import web

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
TOKENS_DEFAULT: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What one request asks the stand-in to do."""

    delay_ms: int
    chunk_ms: int
    tokens: int
    status: int
    retry_after: str
    fail_times: int
    break_after: int
    has_usage: bool
    say: str
    tool_name: str
    tool_arguments: str


@dataclass(slots=True, kw_only=True)
class ScriptedUpstream:
    """The server's state: the log, and how often each idempotency key came. Defaults hold where no
    directive does.
    """

    log: TextIO
    delay_ms: int = 0
    chunk_ms: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/calls", self.calls)
        return app

    async def calls(self, _: web.Request) -> web.Response:
        """How often each key came since this process started."""
        return web.json_response(dict(self.seen))

    async def models(self, _: web.Request) -> web.Response:
        """One model, by name."""
        return web.json_response(
            {"object": "list", "data": [{"id": "scripted", "object": "model"}]}
        )

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Logs, waits, answers."""
        body = await request.json()
        key = request.headers.get("Idempotency-Key", "")
        self.seen[key] += 1
        self._write(key, body)
        script = script_of(body, delay_ms=self.delay_ms, chunk_ms=self.chunk_ms)
        await asyncio.sleep(script.delay_ms / 1000)
        is_refused = script.status != 200 and self.seen[key] <= script.fail_times
        if is_refused:
            return _refusal(script)
        if body.get("stream"):
            return await _stream(request, body, script)
        return web.json_response(_completion(body, script))

    def _write(self, key: str, body: Mapping[str, object]) -> None:
        line = {"key": key, "at": time.time(), "model": body.get("model"), "body": body}
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()


def script_of(body: Mapping[str, object], *, delay_ms: int = 0, chunk_ms: int = 0) -> Script:
    """The script in a request's last user message."""
    orders = dict(
        line[1:].split("=", 1)
        for line in _topic(body).splitlines()
        if line.startswith("!") and "=" in line
    )
    name, _, arguments = orders.get("tool", "").partition(":")
    return Script(
        delay_ms=int(orders.get("delay_ms", delay_ms)),
        chunk_ms=int(orders.get("chunk_ms", chunk_ms)),
        tokens=int(orders.get("tokens", TOKENS_DEFAULT)),
        status=int(orders.get("status", 200)),
        retry_after=orders.get("retry_after", ""),
        fail_times=int(orders.get("fail_times", sys.maxsize)),
        break_after=int(orders.get("break_after", sys.maxsize)),
        has_usage="no_usage" not in orders,
        say=orders.get("say", ""),
        tool_name=name if name in _offered(body) else "",
        tool_arguments=arguments or "{}",
    )


def answer_text(body: Mapping[str, object], script: Script) -> str:
    """The answer: the same for the same messages, different for different ones."""
    if script.say:
        return script.say
    seed = hashlib.sha256(json.dumps(body.get("messages"), sort_keys=True).encode()).hexdigest()
    return " ".join(
        f"w{index}-{seed[index % 60 : index % 60 + 4]}" for index in range(script.tokens)
    )


def _completion(body: Mapping[str, object], script: Script) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": answer_text(body, script)}
    reason = "stop"
    if script.tool_name:
        message = {"role": "assistant", "content": None, "tool_calls": [_tool_call(script)]}
        reason = "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    answer = _head(body, "chat.completion") | {"choices": [choice]}
    return answer | ({"usage": _usage(body, script)} if script.has_usage else {})


async def _stream(
    request: web.Request, body: Mapping[str, object], script: Script
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for index, (delta, reason) in enumerate(_deltas(body, script)):
        if index >= script.break_after and request.transport is not None:
            request.transport.abort()
            return response
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        await _send(response, _head(body, "chat.completion.chunk") | {"choices": [choice]})
        await asyncio.sleep(script.chunk_ms / 1000)
    options = body.get("stream_options")
    if script.has_usage and isinstance(options, Mapping) and options.get("include_usage"):
        usage = {"choices": [], "usage": _usage(body, script)}
        await _send(response, _head(body, "chat.completion.chunk") | usage)
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _deltas(
    body: Mapping[str, object], script: Script
) -> list[tuple[dict[str, object], str | None]]:
    if script.tool_name:
        call = {"index": 0, **_tool_call(script)}
        return [({"role": "assistant", "tool_calls": [call]}, None), ({}, "tool_calls")]
    words = answer_text(body, script).split(" ")
    spaced = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    contents: list[tuple[dict[str, object], str | None]] = [({"content": w}, None) for w in spaced]
    return [({"role": "assistant", "content": ""}, None), *contents, ({}, "stop")]


async def _send(response: web.StreamResponse, document: Mapping[str, object]) -> None:
    await response.write(b"data: " + json.dumps(document).encode() + b"\n\n")


def _head(body: Mapping[str, object], kind: str) -> dict[str, object]:
    seed = hashlib.sha256(json.dumps(body.get("messages")).encode()).hexdigest()
    return {"id": f"scripted-{seed[:12]}", "object": kind, "created": 0, "model": body.get("model")}


def _usage(body: Mapping[str, object], script: Script) -> dict[str, int]:
    asked = len(json.dumps(body.get("messages")).split())
    answered = len(answer_text(body, script).split())
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _tool_call(script: Script) -> dict[str, object]:
    function = {"name": script.tool_name, "arguments": script.tool_arguments}
    digest = hashlib.sha256(f"{function}".encode()).hexdigest()
    return {"id": f"call_{digest[:16]}", "type": "function", "function": function}


def _refusal(script: Script) -> web.Response:
    headers = {"Retry-After": script.retry_after} if script.retry_after else {}
    error = {"message": f"scripted refusal {script.status}", "type": "scripted", "code": None}
    return web.json_response({"error": error}, status=script.status, headers=headers)


def _offered(body: Mapping[str, object]) -> set[str]:
    """The tools that a call may name: those offered, unless one was just answered."""
    messages, tools = body.get("messages"), body.get("tools")
    if not isinstance(tools, list) or not isinstance(messages, list):
        return set()
    if messages and messages[-1].get("role") == "tool":
        return set()
    return {str(tool.get("function", {}).get("name")) for tool in tools}


def _topic(body: Mapping[str, object]) -> str:
    messages = body.get("messages")
    asked = [m for m in messages if m.get("role") == "user"] if isinstance(messages, list) else []
    content = asked[-1].get("content") if asked else ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    return str(content or "")


def main() -> int:
    """Serves on loopback until a signal."""
    parser = argparse.ArgumentParser(
        description="Scripted OpenAI-compatible upstream (test stand-in)"
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--delay-ms", type=int, default=0)
    parser.add_argument("--chunk-ms", type=int, default=0)
    options = parser.parse_args()
    with options.log.open("a", encoding="utf-8") as log:
        upstream = ScriptedUpstream(log=log, delay_ms=options.delay_ms, chunk_ms=options.chunk_ms)
        web.run_app(
            upstream.app(), host="127.0.0.1", port=options.port, print=None, access_log=None
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
