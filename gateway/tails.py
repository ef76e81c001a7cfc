"""The gateway's readers: control, executions, LLM answers and commands, folded into the views as
they arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import Message as KafkaRecord

from gateway.auth import KeyRing
from gateway.envelope import is_told
from gateway.live import Live, Workflows
from gateway.metrics import Metrics
from producers.kafka import Tail, end_offset
from producers.wire import Wire
from streams.control.events import ApiKeyIssued, WorkflowRegistered
from streams.execution.commands import StartExecution
from streams.execution.events import OwnerClaimed
from streams.execution.position import Mark, Place
from streams.messages import Message
from streams.ownership import EpochFold
from streams.topics import COMMANDS, CONTROL, EXECUTIONS, LLM_RESPONSES, Topic, partitions

log = logging.getLogger("omium.gateway")

TAILED: Final[tuple[Topic, ...]] = (CONTROL, EXECUTIONS, LLM_RESPONSES, COMMANDS)
CLAIMED: Final = frozenset(topic.name for topic in TAILED if topic.is_claimed)
END_TIMEOUT_S: Final = 30.0
SKIPPED_TYPES: Final = frozenset({b"omium.llm.LlmCallRouted", b"omium.llm.LlmCallRequested"})
"""Told by the header, so that their bodies need not be decoded."""


def places(topics: Sequence[Topic] = TAILED) -> list[Place]:
    """Every partition of the topics."""
    return [(topic.name, number) for topic in topics for number in range(partitions(topic))]


GATHER_MS = 20
"""How long the broker may gather before people see an event: a fifth of what SSE promises."""


def ends(bootstrap: str, wanted: Sequence[Place]) -> dict[Place, int]:
    """Where each partition ends now. Blocks; raises `Retryable` without a broker."""
    return {
        (topic, number): end_offset(bootstrap, topic, number, END_TIMEOUT_S)
        for topic, number in wanted
    }


class Reader:
    """Folds records of all tailed topics; knows when it has read what stood at its start."""

    def __init__(
        self,
        *,
        bootstrap: str,
        client_id: str,
        wire: Wire,
        keys: KeyRing,
        workflows: Workflows,
        live: Live,
        metrics: Metrics,
        starts: Mapping[Place, Mark],
        targets: Mapping[Place, int],
    ) -> None:
        """`starts` names the last record not to be read, with the highest claim up to it; `targets`
        the ends.
        """
        self._wire = wire
        self._keys = keys
        self._workflows = workflows
        self._live = live
        self._metrics = metrics
        self._epochs = {place: EpochFold(mark.highest_claim) for place, mark in starts.items()}
        self._positions = {
            place: starts[place].offset + 1 if place in starts else 0 for place in targets
        }
        self._behind = {place for place, end in targets.items() if self._positions[place] < end}
        self._targets = targets
        self._caught_up = asyncio.Event()
        self._tail = Tail(
            bootstrap,
            client_id=client_id,
            positions=dict(self._positions),
            on_batch=self._take,
            gather_ms=GATHER_MS,
        )
        self._check_caught_up()

    async def start(self) -> None:
        """Begin to read."""
        await self._tail.start()

    async def stop(self) -> None:
        """Stop reading."""
        await self._tail.stop()

    async def caught_up(self, timeout_s: float) -> bool:
        """Whether everything that stood at the start was read within the time."""
        try:
            await asyncio.wait_for(self._caught_up.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    @property
    def is_caught_up(self) -> bool:
        """Whether everything that stood at the start was read."""
        return self._caught_up.is_set()

    def position(self, place: Place) -> int:
        """The offset that is read next."""
        return self._positions[place]

    def _take(self, records: list[KafkaRecord]) -> None:
        for record in records:
            place = (str(record.topic()), int(record.partition() or 0))
            offset = int(record.offset() or 0)
            self._one(place, offset, record)
            self._positions[place] = offset + 1
            if place in self._behind and offset + 1 >= self._targets[place]:
                self._behind.discard(place)
        self._check_caught_up()

    def _check_caught_up(self) -> None:
        if not self._behind:
            self._caught_up.set()

    def _one(self, place: Place, offset: int, record: KafkaRecord) -> None:
        value = record.value()
        if value is None or _type_of(record) in SKIPPED_TYPES:
            return
        try:
            message = self._wire.decode(value)
        except ValueError as error:
            # A record put there by hand: the processors send it to the DLQ, readers pass over it.
            log.warning("%s[%s]@%s: unreadable: %s", *place, offset, error)
            self._metrics.count("omium_gateway_unreadable_records_total", topic=place[0])
            return
        try:
            self._fold(place, offset, message)
        except Exception:
            log.exception("%s[%s]@%s: cannot be shown", *place, offset)

    def _fold(self, place: Place, offset: int, message: Message) -> None:
        topic = place[0]
        match message:
            case OwnerClaimed():
                self._epochs[place] = self._epoch(place).claimed(offset)
            case ApiKeyIssued():
                self._keys.fold(message)
            case WorkflowRegistered():
                self._workflows.fold(message)
            case StartExecution():
                self._live.accept(message, is_fresh=offset >= self._targets[place])
            case _ if topic in CLAIMED and message.execution_id:
                self._standing(place, offset, message)
            case _:
                pass

    def _standing(self, place: Place, offset: int, message: Message) -> None:
        epochs = self._epoch(place)
        if epochs.is_void(message.epoch):
            return
        self._epochs[place] = epochs = epochs.seen(message.epoch)
        if is_told(place[0], message):
            self._live.fold(message, *place, offset, epochs.highest_claim)

    def _epoch(self, place: Place) -> EpochFold:
        return self._epochs.get(place, EpochFold())


def _type_of(record: KafkaRecord) -> bytes:
    headers = record.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    for name, value in pairs:
        if name == "ce_type":
            return value if isinstance(value, bytes) else str(value).encode()
    return b""
