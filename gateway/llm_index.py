"""Where recorded answers stand on the log, and which owner's events count there: bounded, built
from keys alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from typing import Final

from streams.llm.events import LlmCallCompleted
from streams.ownership import NO_CLAIM, EpochFold

CALLS_MAX: Final = 200_000
"""Answers that a gateway can find again; older keys are new calls."""
CACHE_BYTES_MAX: Final = 32 * 1024 * 1024
CLAIMS_MAX: Final = 10_000
"""Claims remembered per partition; each is a change of owner."""


class Claims:
    """The claims of one partition: judges any event, also one behind a later claim."""

    def __init__(self) -> None:
        self._offsets: list[int] = []

    @property
    def highest(self) -> int:
        """The last claim known."""
        return self._offsets[-1] if self._offsets else NO_CLAIM

    def claimed(self, offset: int) -> None:
        """Takes a claim, or the epoch of an event, which proves one."""
        if offset > self.highest:
            self._offsets.append(offset)
            del self._offsets[:-CLAIMS_MAX]

    def is_void(self, offset: int, epoch: int) -> bool:
        """Whether an event at `offset` never counts."""
        place = bisect_left(self._offsets, offset)
        before = self._offsets[place - 1] if place else NO_CLAIM
        return EpochFold(before).is_void(epoch)


class AnswerIndex:
    """Call id to the places of its recorded answers: one, or more where a deposed owner wrote as
    well.
    """

    def __init__(self, calls_max: int = CALLS_MAX) -> None:
        self._places: OrderedDict[bytes, tuple[int, tuple[int, ...]]] = OrderedDict()
        self._calls_max = calls_max

    def add(self, call: bytes, partition: int, offset: int) -> None:
        """An answer of the call stands at the offset, unless it is void."""
        _, offsets = self._places.pop(call, (partition, ()))
        self._places[call] = (partition, (*offsets, offset))
        if len(self._places) > self._calls_max:
            self._places.popitem(last=False)

    def places(self, call: bytes) -> tuple[int, tuple[int, ...]] | None:
        """Partition and offsets to look at, in log order."""
        return self._places.get(call)

    def __len__(self) -> int:
        return len(self._places)


class AnswerCache:
    """The answers given last, so that a quick retry does not read the log."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._answers: OrderedDict[str, LlmCallCompleted] = OrderedDict()
        self._bytes = 0
        self._bytes_max = bytes_max

    def get(self, call: str) -> LlmCallCompleted | None:
        """The answer, if it was given lately."""
        return self._answers.get(call)

    def put(self, answer: LlmCallCompleted) -> None:
        """Keeps an answer and lets the oldest go."""
        if answer.call_id in self._answers:
            return
        self._answers[answer.call_id] = answer
        self._bytes += len(answer.response)
        while self._bytes > self._bytes_max:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= len(oldest.response)
