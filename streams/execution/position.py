"""The id of an event in a live stream: how far its reader has read each partition, with the highest
claim (rule 5).

A stream of one execution reads one partition of the executions topic and those partitions of the
responses topic where its LLM calls are answered, so an id is a short list: `e2:118:90` or
`e2:118:90,l0:7:3`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from streams.ownership import NO_CLAIM
from streams.topics import EXECUTIONS, LLM_RESPONSES

LETTERS = {EXECUTIONS.name: "e", LLM_RESPONSES.name: "l"}
TOPICS = {letter: topic for topic, letter in LETTERS.items()}
POSITION_CHARS_MAX = 2048
_PART = re.compile(r"([el])(\d{1,6}):(\d{1,19}):(-1|\d{1,19})")

Place = tuple[str, int]
"""A topic and a partition."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last offset read of one partition, and the highest claim known there."""

    offset: int
    highest_claim: int = NO_CLAIM


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has come; a place it does not name it has not begun."""

    marks: Mapping[Place, Mark]

    @staticmethod
    def start() -> Position:
        """Nothing read yet."""
        return Position({})

    @staticmethod
    def parse(text: str) -> Position:
        """The position that `str` wrote; raises `ValueError` on anything else."""
        if len(text) > POSITION_CHARS_MAX:
            raise ValueError("the position is too long")
        marks: dict[Place, Mark] = {}
        for part in text.split(",") if text else ():
            found = _PART.fullmatch(part)
            if found is None:
                raise ValueError(f"{part[:40]!r} is no log position")
            letter, partition, offset, claim = found.groups()
            marks[TOPICS[letter], int(partition)] = Mark(int(offset), int(claim))
        return Position(marks)

    def __str__(self) -> str:
        parts = (
            f"{LETTERS[topic]}{partition}:{mark.offset}:{mark.highest_claim}"
            for (topic, partition), mark in sorted(self.marks.items())
        )
        return ",".join(parts)

    def has_read(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the reader has had the record at this offset."""
        mark = self.marks.get((topic, partition))
        return mark is not None and offset <= mark.offset

    def after(self, topic: str, partition: int, offset: int, highest_claim: int) -> Position:
        """The position once that record was read too."""
        return Position({**self.marks, (topic, partition): Mark(offset, highest_claim)})
