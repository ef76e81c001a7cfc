"""Laws 2, 3, 4 and 6 under faults: they hold with all rules on, and each rule that is dropped breaks one."""

from __future__ import annotations

import pytest

from tests.simulation.rules import Rules
from tests.simulation.run import explain
from tests.simulation.scenario import simulate

SEEDS = 60
"""Of every test run; CI runs 2,000 by `run.py`."""

VIOLATING: dict[str, int] = {
}
"""A seed that breaks a law once the rule is dropped; found by `run.py --without RULE`."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_law_holds_whatever_is_killed_and_whenever(seed: int) -> None:
    outcome = simulate(seed)

    assert not outcome.violations, explain(seed, Rules())


def test_every_rule_has_a_seed_that_needs_it() -> None:
    assert set(VIOLATING) == set(Rules.names())


@pytest.mark.parametrize("rule", sorted(VIOLATING))
def test_a_dropped_rule_is_missed(rule: str) -> None:
    seed = VIOLATING[rule]

    without, whole = simulate(seed, Rules().without(rule)), simulate(seed)

    assert without.violations, f"seed {seed} no longer needs {rule}"
    assert not whole.violations, explain(seed, Rules())


def test_a_seed_is_a_whole_history() -> None:
    first, second = (simulate(11, is_traced=True) for _ in range(2))

    assert first == second
    assert first.trace


def test_a_violation_tells_how_to_see_it_again() -> None:
    rule = "acts_after_standing"
    seed = VIOLATING[rule]

    told = explain(seed, Rules().without(rule), rule)

    assert f"seed {seed} at commit " in told
    assert f"run.py --seed {seed} --without {rule}" in told
    assert "without a standing intent" in told
