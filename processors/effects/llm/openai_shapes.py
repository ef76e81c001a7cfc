"""The JSON that OpenAI's clients expect, and what can be read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from streams.metering.pricing import TokenUsage

CHARS_PER_TOKEN: Final = 4
"""OpenAI's rule of thumb for English; used only when a provider sends no usage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatShape:
    """What all chunks of one answer share."""

    call_id: str
    model: str
    created_s: int

    @property
    def answer_id(self) -> str:
        """The completion's id: the call's, so that it is the same in every try."""
        return f"chatcmpl-{self.call_id.replace('-', '')}"

    def completion(self, text: str, finish_reason: str, usage: TokenUsage) -> bytes:
        """A whole answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return orjson.dumps(
            self._head("chat.completion") | {"choices": [choice], "usage": usage_json(usage)}
        )

    def chunk(self, delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
        """One server-sent event with a piece of the answer."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(self._head("chat.completion.chunk") | {"choices": [choice]})

    def usage_chunk(self, usage: TokenUsage) -> bytes:
        """The event that ends a stream whose client asked for `include_usage`."""
        head = self._head("chat.completion.chunk")
        return event(head | {"choices": [], "usage": usage_json(usage)})

    def _head(self, kind: str) -> dict[str, object]:
        return {
            "id": self.answer_id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
        }


def event(document: Mapping[str, object]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


def usage_json(usage: TokenUsage) -> dict[str, object]:
    """Usage as OpenAI writes it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def usage_of(document: Mapping[str, object]) -> TokenUsage | None:
    """The usage that an answer or a chunk carries, if it does."""
    usage = document.get("usage")
    if not isinstance(usage, Mapping):
        return None
    return TokenUsage(
        input_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def counted(request_chars: int, answer_chars: int) -> TokenUsage:
    """An estimate for a provider that counted nothing; marked as such wherever it goes."""
    return TokenUsage(
        input_tokens=-(-request_chars // CHARS_PER_TOKEN),
        cached_tokens=0,
        output_tokens=-(-answer_chars // CHARS_PER_TOKEN),
        reasoning_tokens=0,
    )


def wants_usage(body: Mapping[str, object]) -> bool:
    """Whether the client of a stream asked for its usage."""
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def has_tools(body: Mapping[str, object]) -> bool:
    """Whether the request offers the model tools that it may call."""
    return bool(body.get("tools") or body.get("functions")) and body.get("tool_choice") != "none"


def _count(document: object, name: str) -> int:
    value = document.get(name) if isinstance(document, Mapping) else None
    return value if isinstance(value, int) and value > 0 else 0
