"""Laws 2, 3, 4 and 6 under faults: they hold, and each rule that is dropped breaks one."""

from __future__ import annotations

import pytest

from tests.simulation.rules import Rules
from tests.simulation.run import explain
from tests.simulation.scenario import simulate

SEEDS = 60
"""Of every test run; CI runs 2,000 by `run.py`."""

VIOLATING: dict[str, int] = {
    "waits_for_what_was_sent": 25365,
    "gateway_drops_void": 252,
    "proves_every_runner": 2129,
    "kills_stopped": 644,
    "waits_window": 97,
    "reads_gaps": 2,
    "acts_after_standing": 0,
    "keeps_lease": 173,
    "ends_runner_before_next": 555,
    "tools_keep_contract": 4,
    "reclaims": 2,
    "commits_after_standing": 1,
    "redoes_interrupted": 1,
    "marks_carry_claim": 0,
    "marks_keep_open": 0,
    "remembers_ended": 319,
    "marks_count_commands": 56,
    "resumes_with_claim": 4,
    "routes_after_standing": 0,
    "rebuilds_router": 31,
    "gateway_dedupes": 16,
    "confirms_nothing_to_do": 102440,
}
"""A seed that breaks a law once the rule is dropped; found by `run.py --without RULE`."""


FOUND = (1343, 100481)
"""Seeds that broke a law once: a tool that never answered, a mark that said less than before."""


@pytest.mark.parametrize("seed", [*range(SEEDS), *FOUND])
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
