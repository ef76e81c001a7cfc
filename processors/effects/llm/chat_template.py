"""From chat messages to the one text that a raw completion model reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from processors.effects.llm.port import BadRequest, Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The text, and the strings at which the model's turn is over."""

    text: str
    stop: tuple[str, ...]


class ChatTemplate(Protocol):
    """How one model family writes a conversation down. gpt-oss will need harmony here; the stand-in
    speaks ChatML.
    """

    @property
    def has_tools(self) -> bool:
        """Whether tool definitions reach the model, and its tool calls the client."""
        ...

    def render(self, messages: object) -> Prompt:
        """The prompt that asks for the assistant's next turn; `BadRequest` names the message that
        is wrong.
        """
        ...


DEFAULT_SYSTEM: Final = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
ROLES: Final[Mapping[str, str]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}


class ChatMl:
    """The template that SmolLM2-Instruct was trained on, its default system message included."""

    has_tools = False

    def render(self, messages: object) -> Prompt:
        """ChatML; control tokens inside contents are broken up, so that no content can end its own
        turn.
        """
        turns = [_turn(index, message) for index, message in enumerate(_listed(messages))]
        if turns[0][0] != "system":
            turns.insert(0, ("system", DEFAULT_SYSTEM))
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
        return Prompt(text=f"{text}<|im_start|>assistant\n", stop=("<|im_end|>",))


def _listed(messages: object) -> Sequence[object]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages: must be a list with at least one message")
    return messages


def _turn(index: int, message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise BadRequest(f"messages[{index}]: must be an object")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(f"messages[{index}].role: must be one of {', '.join(ROLES)}")
    content = _content(index, message.get("content"))
    calls = message.get("tool_calls")
    if role == "assistant" and calls:
        content = f"{content}\n{json.dumps(calls)}".strip()
    if role in ("tool", "function"):
        content = f"Tool result: {content}"
    return ROLES[role], content.replace("<|im_", "<| im_")


def _content(index: int, content: object) -> str:
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "".join(_part(index, part) for part in content)
        case _:
            raise BadRequest(f"messages[{index}].content: must be text or a list of parts")


def _part(index: int, part: object) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Unsupported(f"messages[{index}].content: the local model reads text parts only")
