"""The errors that Omium raises.

OmiumError
├── Rejected           a rule said no; carries the field and what to do
├── Retryable          may work later; carries how long to wait
├── Terminal           will never work
├── Poison             a record that cannot be read; goes to the DLQ
└── Deposed            another owner claimed the partition; stop acting on it
"""

from __future__ import annotations


class OmiumError(Exception):
    """The root of every error that is Omium's own."""


class Rejected(OmiumError):
    """A rule said no. `field` names the part of the request, `code` is stable for machines."""

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class Retryable(OmiumError):
    """May work later."""

    def __init__(self, message: str, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Terminal(OmiumError):
    """Will never work, however often it is tried."""


class Poison(OmiumError):
    """A record that cannot be decoded or handled: its place, and why."""

    def __init__(self, topic: str, partition: int, offset: int, reason: str) -> None:
        super().__init__(f"{topic}[{partition}]@{offset}: {reason}")
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.reason = reason


class Deposed(OmiumError):
    """A later claim stands on the partition: whatever this owner still does is void."""

    def __init__(self, topic: str, partition: int, claim_offset: int) -> None:
        super().__init__(f"{topic}[{partition}]: a later owner claimed at offset {claim_offset}")
        self.claim_offset = claim_offset
