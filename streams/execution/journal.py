"""The journal: what an execution has asked of the world, and what came back (laws 3 and 7).

A fold over the execution's standing events. Unlike the execution's state it grows with every call,
so it is a mutable accumulator; `apply` is its only writer and rebuilding it from the same events
gives the same answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streams.execution import events as e
from streams.messages import Message


class EffectState(StrEnum):
    """How far a call got, as far as the log knows."""

    INTENDED = "intended"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True)
class Effect:
    """One call of a tool or a model."""

    call_id: str
    kind: str
    name: str
    step_key: str
    request_hash: str
    incarnation: int
    """Of its latest intent."""
    state: EffectState = EffectState.INTENDED
    result_type: str = ""
    result: bytes = b""
    error_type: str = ""
    error_message: str = ""
    asked_in: int = -1
    """The latest incarnation that asked for it; not part of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkRecord:
    """Framework state in log order, given back to the adapter on a resume."""

    step_key: str
    kind: str
    record: bytes


class Journal:
    """One execution's effects and framework records."""

    __slots__ = ("_recorded", "effects", "records")

    def __init__(self) -> None:
        self.effects: dict[str, Effect] = {}
        self.records: list[FrameworkRecord] = []
        self._recorded: set[str] = set()

    def apply(self, event: Message) -> None:
        """Takes one standing event. Applying an event twice is the same as applying it once."""
        match event:
            case e.ToolCallIntended():
                self._intended(event, "tool", event.tool)
            case e.LlmCallIntended():
                self._intended(event, "llm", event.model)
            case e.ToolCallCompleted(call_id=call_id) if call_id in self.effects:
                effect = self.effects[call_id]
                # The first outcome counts: a runner may have heard it already.
                if effect.state is EffectState.INTENDED:
                    effect.state = EffectState.COMPLETED
                    effect.result_type, effect.result = event.result_type, event.result
            case e.ToolCallFailed(call_id=call_id) if call_id in self.effects:
                effect = self.effects[call_id]
                if effect.state is EffectState.INTENDED:
                    effect.state = EffectState.FAILED
                    effect.error_type, effect.error_message = event.error_type, event.error_message
            case e.StepCompleted() if event.record:
                self._record(event.event_id, event.step_key, "step", event.record)
            case e.CheckpointSaved() if event.record:
                self._record(event.event_id, event.step_key, "checkpoint", event.record)
            case _:
                pass

    def unasked(self, step_key: str, kind: str, incarnation: int) -> list[Effect]:
        """Effects of this step from an earlier incarnation that the present one has not asked for
        yet.
        """
        return [
            effect
            for effect in self.effects.values()
            if effect.step_key == step_key
            and effect.kind == kind
            and effect.incarnation < incarnation
            and effect.asked_in < incarnation
        ]

    def _intended(
        self, event: e.ToolCallIntended | e.LlmCallIntended, kind: str, name: str
    ) -> None:
        known = self.effects.get(event.call_id)
        if known is not None:
            known.incarnation = max(known.incarnation, event.incarnation)
            return
        self.effects[event.call_id] = Effect(
            call_id=event.call_id,
            kind=kind,
            name=name,
            step_key=event.step_key,
            request_hash=event.request_hash,
            incarnation=event.incarnation,
        )

    def _record(self, identity: str, step_key: str, kind: str, record: bytes) -> None:
        if identity not in self._recorded:
            self._recorded.add(identity)
            self.records.append(FrameworkRecord(step_key=step_key, kind=kind, record=record))
