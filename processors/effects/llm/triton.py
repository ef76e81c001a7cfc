"""A model behind Triton's vLLM backend, asked over a gRPC stream: token by token, cancelled when
unwanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

import grpc  # type: ignore[import-untyped]  # It ships no types.
import numpy as np
import orjson
from tritonclient import grpc as tritongrpc
from tritonclient.grpc import aio as tritonaio
from tritonclient.utils import InferenceServerException

from processors.effects.llm.chat_template import ChatTemplate, Prompt
from processors.effects.llm.openai_shapes import ChatShape, wants_usage
from processors.effects.llm.port import (
    DONE,
    Answer,
    BadRequest,
    FirstToken,
    Overloaded,
    Piece,
    ProviderCall,
    ProviderError,
    ProviderEvent,
    Unavailable,
    Unsupported,
)
from streams.metering.pricing import TokenUsage

MAX_TOKENS_DEFAULT: Final = 256
"""Generated at most when the client sets no limit; vLLM's own default of 16 cuts answers
mid-sentence.
"""
OVERLOAD_RETRY_AFTER_MS: Final = 1000
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
CHANNEL: Final = [
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # gRPC waits up to two minutes before it tries a restarted server again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
OUTPUTS: Final = ("text_output", "finish_reason", "num_input_tokens", "num_output_tokens")
FLAGS: Final = (
    "stream",
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
SAMPLING_NAMES: Final = (
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "min_p",
    "repetition_penalty",
)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


class _Responses(Protocol):
    """What `stream_infer` returns; its package says nothing of types."""

    def __aiter__(
        self,
    ) -> AsyncIterator[tuple[tritongrpc.InferResult | None, InferenceServerException | None]]: ...
    def cancel(self) -> bool: ...


class TritonBackend:
    """One model of one Triton server."""

    def __init__(self, url: str, *, model: str, template: ChatTemplate) -> None:
        self._url = url
        self._model = model
        self._template = template
        self._client: tritonaio.InferenceServerClient | None = None

    async def ask(self, call: ProviderCall) -> AsyncIterator[ProviderEvent]:
        """Streams from Triton even if the client does not: only so can a first token be awaited."""
        prompt = self._template.render(call.body.get("messages"))
        sampling = sampling_parameters(call.body, prompt)
        shape = ChatShape(call_id=call.call_id, model=self._model, created_s=call.created_s)
        texts: list[str] = []
        input_tokens = output_tokens = 0
        finish_reason = ""
        async for token in self._tokens(prompt.text, sampling):
            if not texts:
                yield FirstToken()
                if call.is_stream:
                    yield Piece(shape.chunk({"role": "assistant", "content": ""}))
            texts.append(token.text)
            input_tokens = max(input_tokens, token.input_tokens)
            output_tokens += token.output_tokens
            finish_reason = token.finish_reason or finish_reason
            if call.is_stream and token.text:
                yield Piece(shape.chunk({"content": token.text}))
        if not finish_reason:
            raise Unavailable("Triton ended the stream before the model was done")
        usage = TokenUsage(
            input_tokens=input_tokens,
            cached_tokens=0,
            output_tokens=output_tokens,
            reasoning_tokens=0,
        )
        if call.is_stream:
            body = _stream_end(shape, finish_reason, usage, wants_usage(call.body))
        else:
            body = shape.completion("".join(texts), finish_reason, usage)
        yield Answer(body=body, model=self._model, usage=usage, usage_source="provider")

    async def close(self) -> None:
        """Closes the channel."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _tokens(self, prompt: str, sampling: Mapping[str, object]) -> AsyncIterator[_Token]:
        client = self._connected()
        is_over = asyncio.Event()

        async def requests() -> AsyncIterator[Mapping[str, object]]:
            yield _request(self._model, prompt, sampling)
            await is_over.wait()  # Ending the request side would end the stream before its answers.

        responses = cast(_Responses, client.stream_infer(requests()))
        try:
            async for result, error in responses:
                if error is not None:
                    raise _as_provider_error(error)
                assert result is not None, "Triton sent neither result nor error"
                token = _token(result)
                yield token
                if token.finish_reason or _is_final(result):
                    return
        except InferenceServerException as error:
            raise _as_provider_error(error) from error
        except grpc.RpcError as error:
            raise Unavailable(f"Triton: {error}") from error
        finally:
            is_over.set()
            responses.cancel()

    def _connected(self) -> tritonaio.InferenceServerClient:
        if self._client is None:
            self._client = tritonaio.InferenceServerClient(self._url, channel_args=CHANNEL)
        return self._client


def sampling_parameters(body: Mapping[str, object], prompt: Prompt) -> dict[str, object]:
    """The request's parameters under vLLM's names; `Unsupported` for what one raw completion cannot
    give.
    """
    if body.get("n") not in (None, 1):
        raise Unsupported("n: the local model gives one answer a request")
    if body.get("logprobs"):
        raise Unsupported("logprobs: not given by the local model")
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or MAX_TOKENS_DEFAULT
    if not isinstance(limit, int) or limit < 1:
        raise BadRequest("max_tokens: must be a positive integer")
    parameters: dict[str, object] = {"max_tokens": limit, "stop": [*prompt.stop, *_stops(body)]}
    parameters |= {name: body[name] for name in SAMPLING_NAMES if body.get(name) is not None}
    schema = _schema(body.get("response_format"))
    return parameters if schema is None else parameters | {"guided_decoding": {"json": schema}}


def _stops(body: Mapping[str, object]) -> list[object]:
    stop = body.get("stop")
    if stop is None:
        return []
    return stop if isinstance(stop, list) else [stop]


def _schema(response_format: object) -> object | None:
    match response_format:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case {"type": "json_object"}:
            return {"type": "object"}
        case _:
            return None


def _request(model: str, prompt: str, sampling: Mapping[str, object]) -> Mapping[str, object]:
    text = tritongrpc.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([prompt.encode()], dtype=np.object_))
    parameters = tritongrpc.InferInput("sampling_parameters", [1], "BYTES")
    parameters.set_data_from_numpy(np.array([orjson.dumps(sampling)], dtype=np.object_))
    flags = [tritongrpc.InferInput(name, [1], "BOOL") for name in FLAGS]
    for flag in flags:
        flag.set_data_from_numpy(np.array([True]))
    return {
        "model_name": model,
        "inputs": [text, parameters, *flags],
        "outputs": [tritongrpc.InferRequestedOutput(name) for name in OUTPUTS],
    }


def _is_final(result: tritongrpc.InferResult) -> bool:
    parameters = result.get_response().parameters
    return "triton_final_response" in parameters and bool(
        parameters["triton_final_response"].bool_param
    )


def _token(result: tritongrpc.InferResult) -> _Token:
    reason = _value(result, "finish_reason")
    text = _value(result, "text_output")
    return _Token(
        text=text.decode() if isinstance(text, bytes) else "",
        finish_reason=_finish_reason(reason),
        input_tokens=_int(_value(result, "num_input_tokens")),
        output_tokens=_int(_value(result, "num_output_tokens")),
    )


def _finish_reason(reason: object) -> str:
    """The backend writes Python's `None` as text while the model is not done."""
    text = reason.decode() if isinstance(reason, bytes) else ""
    return "" if text in ("", "None") else text


def _value(result: tritongrpc.InferResult, name: str) -> object:
    values = result.as_numpy(name)
    return None if values is None else values.reshape(-1)[0]


def _int(value: object) -> int:
    return int(value) if isinstance(value, int | np.integer) else 0


def _stream_end(
    shape: ChatShape, finish_reason: str, usage: TokenUsage, is_usage_wanted: bool
) -> bytes:
    tail = shape.usage_chunk(usage) if is_usage_wanted else b""
    return shape.chunk({}, finish_reason) + tail + DONE


def _as_provider_error(error: InferenceServerException) -> ProviderError:
    message = error.message() or str(error)
    status = error.status() or ""
    if "maximum queue size" in message or "RESOURCE_EXHAUSTED" in status:
        return Overloaded(message, retry_after_ms=OVERLOAD_RETRY_AFTER_MS)
    if "exceeds the available context" in message or "maximum context length" in message:
        return Unsupported(message)
    if "sampling_parameters" in message or "INVALID_ARGUMENT" in status:
        return BadRequest(message)
    return Unavailable(message)
