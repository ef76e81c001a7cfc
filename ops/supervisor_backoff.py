"""How long a part that ended waits before it starts again."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY_S = 0.1
DELAY_S_MAX = 10.0
HEALTHY_AFTER_S = 30.0
"""A part that ran this long has recovered: its next restart is immediate again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often in a row a part ended soon after its start."""

    ends: int = 0

    def ended(self, ran_s: float) -> Backoff:
        """The backoff after an end of a part that ran so long."""
        return Backoff(ends=1 if ran_s >= HEALTHY_AFTER_S else self.ends + 1)

    @property
    def delay_s(self) -> float:
        """The wait before the next start: none after the first end, then doubling to the limit."""
        if self.ends <= 1:
            return 0.0
        # The exponent is bounded before it is used: a part may end very often.
        return min(DELAY_S_MAX, FIRST_DELAY_S * 2.0 ** min(self.ends - 2, 16))
