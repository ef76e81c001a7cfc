"""Exit codes of `omiumctl`, and the errors that carry one."""

from __future__ import annotations

from streams.errors import OmiumError

OK = 0
FAILED = 1
"""The execution failed."""
USAGE = 2
UNAVAILABLE = 3
WAITING = 4
"""The execution waits for a person, or is paused."""


class CommandError(OmiumError):
    """A command cannot do what was asked. Its text is one sentence for the person who typed it."""

    def __init__(self, message: str, exit_code: int = UNAVAILABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
