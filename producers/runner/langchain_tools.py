"""LangChain tools under the journal, by a class-level patch of `BaseTool.run` and `arun`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import cast

from langchain_core.tools import BaseTool
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import GraphBubbleUp

from producers.runner import session as sessions
from producers.runner.session import Session
from producers.runner.tool_calls import Codec, Reconciler, ToolRequest, call_tool, call_tool_async

KEY_PARAMETER = "idempotency_key"
_MARK = "_omium_patched"

SERIALIZER = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=True)
"""Results and framework state as msgpack; never pickle. What it revives comes from the execution's
own log.
"""


def patch() -> None:
    """Puts every LangChain tool of this process under the journal; a second call changes
    nothing.
    """
    if getattr(BaseTool.run, _MARK, False):
        return
    run, arun = BaseTool.run, BaseTool.arun

    @wraps(run)
    def journaled_run(
        self: BaseTool, tool_input: object, *args: object, **kwargs: object
    ) -> object:
        session = sessions.current()
        plain = cast("Callable[..., object]", run)
        if session is None:
            return plain(self, tool_input, *args, **kwargs)
        request = _request(self, tool_input, session)
        result = call_tool(
            session, request, lambda: plain(self, _with_key(self, tool_input), *args, **kwargs)
        )
        return _addressed(result, kwargs.get("tool_call_id"))

    @wraps(arun)
    async def journaled_arun(
        self: BaseTool, tool_input: object, *args: object, **kwargs: object
    ) -> object:
        session = sessions.current()
        plain = cast("Callable[..., Awaitable[object]]", arun)
        if session is None:
            return await plain(self, tool_input, *args, **kwargs)
        request = _request(self, tool_input, session)
        result = await call_tool_async(
            session, request, lambda: plain(self, _with_key(self, tool_input), *args, **kwargs)
        )
        return _addressed(result, kwargs.get("tool_call_id"))

    for name, function in (("run", journaled_run), ("arun", journaled_arun)):
        setattr(function, _MARK, True)
        setattr(BaseTool, name, function)


def _request(tool: BaseTool, tool_input: object, session: Session) -> ToolRequest:
    return ToolRequest(
        tool=tool.name,
        arguments=_visible(tool, tool_input),
        codec=cast("Codec", SERIALIZER),
        reconciler=_reconciler(tool, session),
        is_pause=lambda error: isinstance(error, GraphBubbleUp),
    )


def _visible(tool: BaseTool, tool_input: object) -> object:
    """The arguments without injected ones, which hold state whose ids differ from process to
    process.
    """
    if not isinstance(tool_input, dict):
        return tool_input
    visible = tool._filter_injected_args(tool_input)
    visible.pop(KEY_PARAMETER, None)
    return visible


def _function(tool: BaseTool) -> Callable[..., object] | None:
    found = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
    return found if callable(found) else None


def _with_key(tool: BaseTool, tool_input: object) -> object:
    """The input with the call's key, where the tool has a parameter for it and the caller gave
    none.
    """
    if not isinstance(tool_input, Mapping) or KEY_PARAMETER in tool_input:
        return tool_input
    function = _function(tool) or tool._run
    if KEY_PARAMETER not in inspect.signature(function).parameters:
        return tool_input
    from producers.runner.context import idempotency_key

    return {**tool_input, KEY_PARAMETER: idempotency_key.get()}


def _reconciler(tool: BaseTool, session: Session) -> Reconciler | None:
    """The function that knows whether a call happened: declared by name, or found beside the
    tool.
    """
    tools = session.options.get("tools")
    declared = tools.get(tool.name) if isinstance(tools, Mapping) else None
    named = declared.get("reconcile") if isinstance(declared, Mapping) else None
    if isinstance(named, str) and ":" in named:
        module, _, attribute = named.partition(":")
        return cast("Reconciler", getattr(importlib.import_module(module), attribute))
    home = sys.modules.get(getattr(_function(tool) or type(tool), "__module__", ""))
    found = getattr(home, f"reconcile_{tool.name}", None)
    return cast("Reconciler", found) if callable(found) else None


def _addressed(result: object, tool_call_id: object) -> object:
    """A recorded answer to an equal call may carry that call's id."""
    if isinstance(tool_call_id, str) and getattr(result, "tool_call_id", None) is not None:
        setattr(result, "tool_call_id", tool_call_id)  # noqa: B010 - the attribute is checked by name
    return result
