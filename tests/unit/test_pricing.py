"""Laws of the price book: integers, one rounding, nothing free by accident."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.metering.pricing import BOOK, TokenUsage

COUNTS = st.integers(min_value=0, max_value=10_000_000)


def usage(
    input_tokens: int = 0, cached_tokens: int = 0, output_tokens: int = 0, reasoning_tokens: int = 0
) -> TokenUsage:
    return TokenUsage(
        input_tokens=input_tokens,
        cached_tokens=cached_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning_tokens,
    )


def test_a_known_model_costs_its_list_price() -> None:
    # gpt-4o-mini: $0.15 in, $0.075 cached, $0.60 out per million.
    cost = BOOK.cost_microusd("upstream", "gpt-4o-mini", usage(1_000_000, 400_000, 1_000_000))
    assert cost == 90_000 + 30_000 + 600_000


@pytest.mark.parametrize(
    "model", ["gpt-4o-2024-08-06", "openai/gpt-4o", "gpt-4o-0806", "openai/gpt-4o-2024-08-06"]
)
def test_a_dated_or_prefixed_name_costs_what_its_family_costs(model: str) -> None:
    assert BOOK.rate("upstream", model) == BOOK.upstream["gpt-4o"]


def test_an_unknown_upstream_model_costs_the_default_and_not_nothing() -> None:
    assert BOOK.rate("upstream", "somebody-elses-model") == BOOK.upstream_default
    assert BOOK.cost_microusd("upstream", "somebody-elses-model", usage(1000, 0, 1000)) == 12_500


def test_a_local_answer_costs_the_local_rate_whatever_the_model_is_called() -> None:
    assert BOOK.rate("local", "gpt-4o") == BOOK.local
    assert BOOK.cost_microusd("local", "gpt-oss-20b", usage(100, 0, 50)) == 7


def test_half_a_microdollar_rounds_up_and_less_rounds_down() -> None:
    # 25 local input tokens are exactly 0.5 micro-dollars, 24 are less.
    assert BOOK.cost_microusd("local", "m", usage(25)) == 1
    assert BOOK.cost_microusd("local", "m", usage(24)) == 0


def test_reasoning_tokens_are_part_of_the_output_and_not_charged_again() -> None:
    plain = BOOK.cost_microusd("upstream", "o3", usage(10, 0, 500))
    assert BOOK.cost_microusd("upstream", "o3", usage(10, 0, 500, 400)) == plain


@given(COUNTS, COUNTS, COUNTS, st.sampled_from(["upstream", "local"]))
def test_cost_is_a_whole_number_that_never_falls_with_use(
    asked: int, cached: int, answered: int, route: str
) -> None:
    cost = BOOK.cost_microusd(route, "gpt-4o", usage(asked, cached, answered))
    more = BOOK.cost_microusd(route, "gpt-4o", usage(asked + 1000, cached, answered + 1000))
    assert isinstance(cost, int)
    assert 0 <= cost < more


@given(COUNTS, COUNTS)
def test_a_cached_token_never_costs_more_than_a_fresh_one(asked: int, cached: int) -> None:
    for model in BOOK.upstream:
        fresh = BOOK.cost_microusd("upstream", model, usage(asked, 0))
        assert BOOK.cost_microusd("upstream", model, usage(asked, min(cached, asked))) <= fresh
