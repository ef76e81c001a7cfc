"""What Omium needs from a framework: recognise its objects, run and resume them, and be loaded
ahead of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from producers.runner.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """A question that a workflow asks a person."""

    interrupt_id: str
    payload: object
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The workflow's result."""

    output: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """The workflow waits for answers."""

    interrupts: tuple[Interruption, ...]


Outcome = Finished | Interrupted


class BadInput(Exception):
    """The input does not fit the workflow; the message names the field."""


class FrameworkAdapter(Protocol):
    """One framework. Everything about a run is on the session: identity, records of earlier
    incarnations, journal.
    """

    name: str

    def preload(self) -> None:
        """Imports the framework and puts its effects under the journal, in the warm parent;
        repeatable.
        """
        ...

    def rehearse(self) -> None:
        """Does once, in the warm parent, what would cost every runner time. Leaves no thread
        behind.
        """
        ...

    def detect(self, target: object) -> bool:
        """Whether the object is one of this framework's."""
        ...

    def run(self, target: object, inputs: object, session: Session) -> Outcome:
        """Runs or resumes the object to its end. Raises what the user's code raises, or an
        `Unwind`.
        """
        ...

    def describe(self, target: object) -> Mapping[str, object]:
        """What is to be seen of the object before it runs: its steps, agents and tools."""
        ...
