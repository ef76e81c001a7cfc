"""What a warm parent does once so that no forked runner has to: lazy imports, caches, the TLS
certificate store.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from types import ModuleType

_ANSWER = {
    "id": "rehearsal",
    "object": "chat.completion",
    "created": 1,
    "model": "rehearsal",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def sdk() -> None:
    """The OpenAI SDK: one sync and one async call that never leave the process."""
    import openai
    import openai.resources  # 1.4 s of CPU that the SDK puts off to the first call

    share_certificates()
    http = _http_of(openai)
    body = json.dumps(_ANSWER).encode()
    transport = http.MockTransport(
        lambda request: http.Response(
            200, content=body, headers={"content-type": "application/json"}
        )
    )
    messages = [{"role": "user", "content": "rehearsal"}]
    with openai.OpenAI(api_key="none", http_client=http.Client(transport=transport)) as client:
        client.chat.completions.create(model="rehearsal", messages=messages)  # type: ignore[arg-type]
    asyncio.run(_async_call(openai, http.AsyncClient(transport=transport), messages))


async def _async_call(openai: ModuleType, http_client: object, messages: object) -> None:
    async with openai.AsyncOpenAI(api_key="none", http_client=http_client) as client:
        await client.chat.completions.create(model="rehearsal", messages=messages)


def langgraph() -> None:
    """A two-node graph with a chat model and a tool, on a checkpointer whose log is nowhere."""
    import openai
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from langgraph.graph import END, START, StateGraph
    from pydantic import SecretStr

    from producers.adapters.log_saver import Entry, LogSaver

    class Nowhere:
        def begin(self, entry: Entry) -> object:
            return None

        def settle(self, ticket: object) -> None:
            return None

        async def settle_async(self, ticket: object) -> None:
            return None

    class State(TypedDict):
        text: str

    @tool
    def rehearse(text: str) -> str:
        """Rehearse."""
        return text

    http = _http_of(openai)
    body = json.dumps(_ANSWER).encode()
    transport = http.MockTransport(
        lambda request: http.Response(
            200, content=body, headers={"content-type": "application/json"}
        )
    )
    model = ChatOpenAI(
        model="rehearsal",
        api_key=SecretStr("none"),
        http_client=http.Client(transport=transport),
    )

    def ask(state: State) -> State:
        return {"text": str(model.invoke(state["text"]).content)}

    def act(state: State) -> State:
        return {"text": str(rehearse.invoke({"text": state["text"]}))}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("act", act)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "act")
    builder.add_edge("act", END)
    graph = builder.compile(checkpointer=LogSaver(Nowhere()))
    config = {"configurable": {"thread_id": "rehearsal"}}
    graph.invoke({"text": "rehearsal"}, config, durability="sync")  # type: ignore[call-overload]


def share_certificates() -> None:
    """One default TLS context for all clients of a process and its children: reading the store
    costs 20 ms.
    """
    for name in ("httpx", "httpx2"):
        try:
            module = importlib.import_module(f"{name}._transports.default")
        except ImportError:
            continue
        create = module.create_ssl_context
        if not hasattr(create, "cache_info"):
            setattr(module, "create_ssl_context", _shared(create))  # noqa: B010 - a module attribute


def _shared(create: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    @lru_cache(maxsize=4)
    def default(trust_env: bool, paths: object) -> ssl.SSLContext:
        return create(verify=True, cert=None, trust_env=trust_env)

    def shared(
        verify: ssl.SSLContext | str | bool = True, cert: object = None, trust_env: bool = True
    ) -> ssl.SSLContext:
        if verify is True and cert is None:
            return default(trust_env, ssl.get_default_verify_paths())
        return create(verify=verify, cert=cert, trust_env=trust_env)

    setattr(shared, "cache_info", default.cache_info)  # noqa: B010 - marks it as shared
    default(True, ssl.get_default_verify_paths())
    return shared


def _http_of(openai: ModuleType) -> ModuleType:
    """The HTTP library that this SDK speaks through: httpx in 2.x, httpx2 in 3.x."""
    base = openai.OpenAI.__init__.__globals__.get("httpx")
    return base if base is not None else importlib.import_module("httpx2")
