"""What a call costs: a versioned price book of integers, and one rounding rule (law 8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TOKENS_PER_RATE: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """What a provider counted. Cached tokens are part of the input, reasoning tokens part of the
    output.
    """

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Micro-dollars per million tokens."""

    input_microusd: int
    cached_microusd: int
    output_microusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """The rates that hold under one version; a settled call names the version, so it can be checked
    for ever.
    """

    version: str
    local: Rate
    """What the operator's own hardware is charged at."""
    upstream: Mapping[str, Rate]
    upstream_default: Rate
    """For a model that the book does not know: dear on purpose, so that a budget errs on the safe
    side.
    """

    def rate(self, route: str, model: str) -> Rate:
        """The rate of a model on a route; dated snapshots (`gpt-4o-2024-08-06`) cost what their
        family costs.
        """
        if route == "local":
            return self.local
        name = model.rpartition("/")[2]
        return self.upstream.get(name) or self.upstream.get(
            _SNAPSHOT.sub("", name), self.upstream_default
        )

    def cost_microusd(self, route: str, model: str, usage: TokenUsage) -> int:
        """The cost of one call, rounded once, half up."""
        rate = self.rate(route, model)
        cached = min(usage.cached_tokens, usage.input_tokens)
        total = (
            (usage.input_tokens - cached) * rate.input_microusd
            + cached * rate.cached_microusd
            + usage.output_tokens * rate.output_microusd
        )
        return (total + TOKENS_PER_RATE // 2) // TOKENS_PER_RATE


_SNAPSHOT: Final = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4})$")


def _rate(input_microusd: int, cached_microusd: int, output_microusd: int) -> Rate:
    return Rate(
        input_microusd=input_microusd,
        cached_microusd=cached_microusd,
        output_microusd=output_microusd,
    )


BOOK: Final = PriceBook(
    version="2025-08",
    local=_rate(20_000, 20_000, 100_000),
    # Public list prices of August 2025; operators with other contracts replace the book.
    upstream={
        "gpt-4o": _rate(2_500_000, 1_250_000, 10_000_000),
        "gpt-4o-mini": _rate(150_000, 75_000, 600_000),
        "gpt-4.1": _rate(2_000_000, 500_000, 8_000_000),
        "gpt-4.1-mini": _rate(400_000, 100_000, 1_600_000),
        "gpt-4.1-nano": _rate(100_000, 25_000, 400_000),
        "gpt-5": _rate(1_250_000, 125_000, 10_000_000),
        "gpt-5-mini": _rate(250_000, 25_000, 2_000_000),
        "gpt-5-nano": _rate(50_000, 5_000, 400_000),
        "o3": _rate(2_000_000, 500_000, 8_000_000),
        "o4-mini": _rate(1_100_000, 275_000, 4_400_000),
    },
    upstream_default=_rate(2_500_000, 2_500_000, 10_000_000),
)
"""The book in use. Prices in full, per tenant and over time, are metering's (a later issue)."""
