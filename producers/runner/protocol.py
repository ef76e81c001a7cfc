"""Frames between a worker and its runner: `u32 length | u32 header length | header JSON | blob`,
big-endian.

Worker → runner: `start`, `record` × n, `go`, `reply`, `cancel`, `stop`. Runner → worker: `ready`,
`step_started`, `token` (not awaited); `step_completed`, `step_failed`, `checkpoint`,
`tool_intended`, `tool_completed`, `tool_failed`, `llm_intended` (awaited: they carry `seq`); and
exactly one of `interrupted`, `finished`, `failed`, `suspended` at the end of an execution.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypedDict

import orjson

FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
"""Largest frame, all parts together. Both sides refuse a larger one instead of buffering it."""

FINAL_KINDS: Final = frozenset({"interrupted", "finished", "failed", "suspended"})
AWAITED_KINDS: Final = frozenset(
    {
        "step_completed", "step_failed", "checkpoint",
        "tool_intended", "tool_completed", "tool_failed", "llm_intended",
    }
)  # fmt: skip

Decision = Literal["go", "recorded", "reconcile", "suspend", "deny"]
ErrorClass = Literal["exception", "bad_workflow", "bad_input"]
Header = Mapping[str, object]

_LENGTHS = struct.Struct(">II")
_PREFIX_BYTES = 4


class FrameError(ValueError):
    """The bytes are not a frame: the connection they came by is of no more use."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `header` holds everything but the kind and the opaque bytes."""

    kind: str
    header: Header
    blob: bytes = b""

    def text(self, name: str, default: str = "") -> str:
        """The header's string of that name."""
        value = self.header.get(name, default)
        return value if isinstance(value, str) else default

    def number(self, name: str, default: int = 0) -> int:
        """The header's integer of that name."""
        value = self.header.get(name, default)
        return value if isinstance(value, int) else default


class StartHeader(TypedDict):
    """What the worker says to begin or resume an execution; `records` `record` frames and `go`
    follow.
    """

    execution_id: str
    tenant: str
    workflow: str
    framework: str
    entrypoint: str
    input_json: str
    options_json: str
    incarnation: int
    attempt: int
    gateway_url: str
    api_key: str
    deadline_at_ms: int | None
    is_resume: bool
    resume_values: dict[str, str]
    """Interrupt or approval id → the JSON a person answered."""
    records: int
    is_reusable: bool


def encode(kind: str, header: Header, blob: bytes = b"") -> bytes:
    """The frame's bytes; raises `FrameError` when it would be over the limit."""
    head = orjson.dumps({**header, "kind": kind})
    rest = _PREFIX_BYTES + len(head) + len(blob)
    if rest + _PREFIX_BYTES > FRAME_BYTES_MAX:
        raise FrameError(f"{kind} frame of {rest} bytes; at most {FRAME_BYTES_MAX}")
    return b"".join((_LENGTHS.pack(rest, len(head)), head, blob))


class FrameDecoder:
    """Turns bytes as they come into frames; keeps at most one unfinished frame."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that `data` completes, in order; raises `FrameError` on anything else than
        frames.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= _LENGTHS.size:
            rest, head_bytes = _LENGTHS.unpack_from(buffer, start)
            if rest + _PREFIX_BYTES > FRAME_BYTES_MAX or head_bytes + _PREFIX_BYTES > rest:
                raise FrameError(f"impossible frame lengths {rest}, {head_bytes}")
            end = start + _PREFIX_BYTES + rest
            if len(buffer) < end:
                break
            frames.append(_frame(buffer, start + _LENGTHS.size, head_bytes, end))
            start = end
        if start:
            del buffer[:start]
        return frames


def _frame(buffer: bytearray, start: int, head_bytes: int, end: int) -> Frame:
    middle = start + head_bytes
    try:
        header = orjson.loads(memoryview(buffer)[start:middle])
    except orjson.JSONDecodeError as error:
        raise FrameError(f"header is not JSON: {error}") from error
    if not isinstance(header, dict) or not isinstance(kind := header.pop("kind", None), str):
        raise FrameError("header is not an object with a kind")
    return Frame(kind, header, bytes(memoryview(buffer)[middle:end]))
