"""The execution worker: composition and life cycle."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

import uvloop

from ops import clock
from ops.readiness import mark_ready
from ops.settings import Settings
from processors.execution import ExecutionConfig, ExecutionProcessor
from processors.faust_batch import batch_app
from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.topics import COMMANDS, partitions

log = logging.getLogger("omium.execution")

STOP_TIMEOUT_S = 4.0


def run(settings: Settings) -> int:
    """Serves until SIGTERM."""
    uvloop.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    wire = await asyncio.get_running_loop().run_in_executor(None, Wire.load, settings.kafka)
    producer = AsyncProducer(settings.kafka, client_id=f"execution-{settings.worker_id}")
    await producer.start()
    processor = ExecutionProcessor(_config(settings), wire, producer, clock)
    app = batch_app(
        "omium-execution",
        bootstrap=settings.kafka,
        topic=COMMANDS.name,
        partitions=partitions(COMMANDS),
        instance_id=f"execution-{settings.worker_id}",
        handler=processor,
        data_dir=str(settings.data_dir),
    )
    stopping = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopping.set)
    await app.start()
    mark_ready(settings, "execution")
    await stopping.wait()
    await processor.stop()
    try:
        await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)
    except TimeoutError:
        log.warning("Faust did not stop within %s s", STOP_TIMEOUT_S)
    await producer.stop()


def _config(settings: Settings) -> ExecutionConfig:
    return ExecutionConfig(
        bootstrap=settings.kafka,
        worker_id=settings.worker_id,
        host=socket.gethostname(),
        gateway_url=f"{settings.url or f'http://{settings.host}:{settings.port}'}/v1",
        runner_key=settings.secrets.runner_key,
        run_dir=settings.run_dir,
        logs_dir=settings.logs_dir,
        runners_max=settings.runners_max,
        is_reusing_runners=settings.runner_reuse,
    )
