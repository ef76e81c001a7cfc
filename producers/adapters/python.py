"""Plain Python: a function, sync or async, called with the input as keyword arguments. The whole
function is one step.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import cast

from producers.adapters.port import BadInput, Finished, Outcome
from producers.runner import llm_calls, rehearsal
from producers.runner.render import to_json
from producers.runner.session import Session, StepInfo, failure_header, is_unwind


class PythonAdapter:
    """On a resume the function starts over and gets every finished call from the journal."""

    name = "python"

    def preload(self) -> None:
        """Puts HTTP clients under the journal."""
        llm_calls.patch()

    def rehearse(self) -> None:
        """Makes a call to nowhere."""
        rehearsal.sdk()

    def detect(self, target: object) -> bool:
        """Anything that can be called."""
        return callable(target) and not isinstance(target, type)

    def describe(self, target: object) -> Mapping[str, object]:
        """The function's parameters."""
        signature = inspect.signature(cast("Callable[..., object]", target))
        return {
            "steps": [_name(target)],
            "parameters": [str(p) for p in signature.parameters.values()],
        }

    def run(self, target: object, inputs: object, session: Session) -> Outcome:
        """Calls the function."""
        function = cast("Callable[..., object]", target)
        arguments = _arguments(function, inputs)
        name = _name(target)
        info = StepInfo(
            step=name, step_key=f"{name}#1", agent=name, attempt=session.start["attempt"], ordinal=1
        )
        session.locate = lambda: info
        started_s = time.monotonic()
        session.tell("step_started", info.header())
        try:
            output = function(**arguments)
            if inspect.iscoroutine(output):
                output = asyncio.run(cast("Coroutine[object, object, object]", output))
        except BaseException as error:
            if not is_unwind(error) and not session.is_suspended:
                _fail(session, info, error, started_s)
            raise
        done = {
            "output_json": to_json(output),
            "duration_ms": _since_ms(started_s),
            "effects": session.take_effects(info.step_key),
        }
        session.report("step_completed", {**info.header(), **done})
        return Finished(output=output)


adapter = PythonAdapter()


def _fail(session: Session, info: StepInfo, error: BaseException, started_s: float) -> None:
    session.failed_step = info.step
    duration = {"duration_ms": _since_ms(started_s)}
    session.report("step_failed", {**info.header(), **failure_header(error), **duration})


def _arguments(function: Callable[..., object], inputs: object) -> dict[str, object]:
    """The input as keyword arguments; raises `BadInput` that names what does not fit."""
    if inputs is None:
        inputs = {}
    if not isinstance(inputs, dict):
        raise BadInput("a function's input is an object of its keyword arguments")
    try:
        inspect.signature(function).bind(**inputs)
    except TypeError as error:
        raise BadInput(
            f"the input does not fit {_name(function)}{inspect.signature(function)}: {error}"
        ) from None
    return inputs


def _name(target: object) -> str:
    return getattr(target, "__name__", type(target).__name__)


def _since_ms(started_s: float) -> int:
    return round((time.monotonic() - started_s) * 1000)
