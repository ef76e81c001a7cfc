"""What one partition remembers of its calls: enough to know an answered one, bounded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from streams.llm.events import LlmCallCompleted, LlmCallFailed, LlmCallRouted
from streams.messages import Message
from streams.routing.call import CallState, evolve

CALLS_KEPT_MAX: Final = 50_000
"""Calls remembered per partition. A key that comes back after so many others is a new call: docs
say so.
"""
_UNKNOWN: Final = CallState()


class RecentCalls:
    """The states of the calls that changed last."""

    def __init__(self, kept_max: int = CALLS_KEPT_MAX) -> None:
        self._states: OrderedDict[str, CallState] = OrderedDict()
        self._kept_max = kept_max

    def state(self, call: str) -> CallState:
        """What is known of a call; an unknown one has no history."""
        return self._states.get(call, _UNKNOWN)

    def fold(self, _: int, event: Message) -> None:
        """Takes one standing event of the partition, in log order."""
        if isinstance(event, LlmCallRouted | LlmCallCompleted | LlmCallFailed):
            self._states[event.call_id] = evolve(self.state(event.call_id), event)
            self._states.move_to_end(event.call_id)
            if len(self._states) > self._kept_max:
                self._states.popitem(last=False)

    def __len__(self) -> int:
        return len(self._states)
