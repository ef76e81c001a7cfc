"""The routing worker: composition and life cycle."""

from __future__ import annotations

import asyncio
import logging
import signal

import uvloop

from ops import clock
from ops.readiness import mark_ready
from ops.settings import Settings
from processors.effects.llm.chat_template import ChatMl
from processors.effects.llm.openai_compatible import OpenAiCompatibleBackend
from processors.effects.llm.port import LlmBackend
from processors.effects.llm.triton import TritonBackend
from processors.faust_batch import batch_app
from processors.routing import NAME, Router, RoutingShell
from processors.routing_asking import Asker, AskingLimits
from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.metering.pricing import BOOK
from streams.routing.rules import Provider
from streams.topics import LLM_REQUESTS, partitions

log = logging.getLogger("omium.routing")

LOCAL_MODEL = "gpt-oss-20b"
"""The model's name in the Triton repository (`ops/triton/models`)."""
STOP_TIMEOUT_S = 4.0


def run(settings: Settings) -> int:
    """Serves until SIGTERM."""
    uvloop.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    wire = await asyncio.get_running_loop().run_in_executor(None, Wire.load, settings.kafka)
    producer = AsyncProducer(settings.kafka, client_id=f"routing-{settings.worker_id}")
    await producer.start()
    router = Router(_shell(settings, wire, producer))
    app = batch_app(
        NAME,
        bootstrap=settings.kafka,
        topic=LLM_REQUESTS.name,
        partitions=partitions(LLM_REQUESTS),
        instance_id=f"routing-{settings.worker_id}",
        handler=router,
        data_dir=str(settings.data_dir),
    )
    stopping = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopping.set)
    await app.start()
    readiness = asyncio.get_running_loop().create_task(_tell_ready(router, settings))
    await stopping.wait()
    readiness.cancel()
    await router.stop()
    try:
        await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)
    except TimeoutError:
        log.warning("Faust did not stop within %s s", STOP_TIMEOUT_S)
    await producer.stop()


async def _tell_ready(router: Router, settings: Settings) -> None:
    await router.wait_until_ready()
    mark_ready(settings, "routing")


def _shell(settings: Settings, wire: Wire, producer: AsyncProducer) -> RoutingShell:
    asker = Asker(backends=_backends(settings), limits=AskingLimits(), book=BOOK, clock=clock)
    return RoutingShell(
        bootstrap=settings.kafka,
        worker_id=f"routing-{settings.worker_id}",
        generation=clock.now_ms(),
        producer=producer,
        wire=wire,
        clock=clock,
        asker=asker,
    )


def _backends(settings: Settings) -> list[tuple[Provider, LlmBackend]]:
    found: list[tuple[Provider, LlmBackend]] = []
    if settings.has_triton:
        template = ChatMl()
        local = Provider(
            route="local", name="triton", model=LOCAL_MODEL, has_tools=template.has_tools
        )
        found.append(
            (local, TritonBackend(settings.triton_url, model=LOCAL_MODEL, template=template))
        )
    if settings.openai_base_url:
        upstream = Provider(route="upstream", name="upstream", model="", has_tools=True)
        key = settings.openai_api_key.get_secret_value()
        found.append((upstream, OpenAiCompatibleBackend(settings.openai_base_url, api_key=key)))
    if not found:
        log.warning("no model is configured: every LLM call will be refused")
    return found
