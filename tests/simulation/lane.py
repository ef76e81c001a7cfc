"""The simulated shell of `processors/lane.py`: its protocol on callbacks, the real `Tenure`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from streams.execution.events import OwnerClaimed
from streams.messages import Event, Message, event_id
from streams.ownership import EpochFold, Tenure
from tests.simulation.broker import Broker, Log, Reader
from tests.simulation.kernel import Act, Kernel, Process

Fold = Callable[[int, Message], None]


class Lane:
    """One stay of one worker on one partition."""

    def __init__(
        self, kernel: Kernel, broker: Broker, process: Process, log: Log, deposed: Act
    ) -> None:
        self.log = log
        self.epoch = -1
        self.is_deposed = False
        self._kernel = kernel
        self._broker = broker
        self._process = process
        self._tell_deposed = deposed
        self._tenure: Tenure | None = None
        self._unsettled: deque[tuple[int, Callable[[int], None]]] = deque()
        self._is_judging = False

    def claim(
        self, fold: Fold, start: int, epochs: EpochFold, claimed: Act, *, rebuilds: bool = True
    ) -> None:
        """Appends the claim, then folds every standing event from `start` up to it."""
        claim = OwnerClaimed(
            event_id=event_id("", "", self.log.name, 0, self._process.name, self._kernel.now_ms),
            tenant="",
            execution_id="",
            worker_id=self._process.name,
            generation=self._kernel.now_ms,
            topic=self.log.name,
            partition=0,
        )

        def acked(offset: int) -> None:
            self._kernel.after(self._kernel.between(1, 40), lambda: rebuild(offset), self._process)

        def rebuild(offset: int) -> None:
            reader = Reader(self.log, start, epochs)
            if rebuilds:
                for at, event in reader.read(offset + 1):
                    fold(at, event)
            self._tenure = Tenure.begun(offset)
            self.epoch = offset
            claimed()

        self._broker.send(self._process, self.log, claim, acked, self.depose)

    def post(
        self, event: Event, stood: Callable[[int], None], acknowledged: Act = lambda: None
    ) -> None:
        """Appends; `stood` is called when the event stands, never if it does not."""
        if self.is_deposed or self._tenure is None:
            return
        stamped = replace(event, epoch=self.epoch, at_ms=self._kernel.now_ms)

        def acked(offset: int) -> None:
            acknowledged()
            self._acked(offset, stood)

        self._broker.send(self._process, self.log, stamped, acked, self.depose)

    def _acked(self, offset: int, stood: Callable[[int], None]) -> None:
        self._unsettled.append((offset, stood))
        self._settle()

    def _settle(self) -> None:
        tenure = self._tenure
        assert tenure is not None
        while self._unsettled and not self._is_judging and not self.is_deposed:
            offset, stood = self._unsettled[0]
            gap = tenure.gap_before(offset)
            if gap is not None and self._kernel.rules.reads_gaps:
                self._is_judging = True
                reading_ms = self._kernel.between(1, 1_500 if self._kernel.chance(0.2) else 20)
                self._kernel.after(
                    reading_ms,
                    lambda g=gap: self._judge(g.start, g.end),  # type: ignore[misc]
                    self._process,
                )
                return
            self._tenure = tenure = tenure.stands(offset)
            self._unsettled.popleft()
            stood(offset)

    def _judge(self, start: int, end: int) -> None:
        self._is_judging = False
        if any(isinstance(self.log.records[at], OwnerClaimed) for at in range(start, end)):
            self.depose()
            return
        assert self._tenure is not None
        self._tenure = self._tenure.stands(end - 1)
        self._settle()

    def confirm(self, then: Act) -> None:
        """Calls `then` if nobody else has claimed by now, as far as the log's end tells."""

        def look() -> None:
            if self.is_deposed or self._tenure is None:
                return
            gap = self._tenure.gap_before(max(len(self.log.records), self.epoch))
            if gap is not None and any(
                isinstance(self.log.records[at], OwnerClaimed) for at in range(gap.start, gap.end)
            ):
                self.depose()
            else:
                then()

        self._kernel.after(self._kernel.between(1, 20), look, self._process)

    def depose(self) -> None:
        """Ends the tenure; whoever waits for an event to stand is never called."""
        if self.is_deposed:
            return
        self.is_deposed = True
        self._unsettled.clear()
        self._kernel.say(f"{self._process.name} is deposed from {self.log.name} epoch {self.epoch}")
        self._tell_deposed()

    def end(self) -> None:
        """Ends the tenure without a word: the group took the partition away."""
        self.is_deposed = True
        self._unsettled.clear()
