"""How the supervisor paces restarts."""

from __future__ import annotations

from ops.supervisor_backoff import DELAY_S_MAX, HEALTHY_AFTER_S, Backoff


def test_the_first_restart_is_immediate() -> None:
    assert Backoff().ended(ran_s=0.2).delay_s == 0.0


def test_restarts_in_a_row_wait_twice_as_long_each_up_to_the_limit() -> None:
    # given
    backoff = Backoff()
    delays = []

    # when
    for _ in range(40):
        backoff = backoff.ended(ran_s=0.2)
        delays.append(backoff.delay_s)

    # then
    assert delays[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == DELAY_S_MAX


def test_a_part_that_ran_well_restarts_at_once_again() -> None:
    # given
    backoff = Backoff()
    for _ in range(8):
        backoff = backoff.ended(ran_s=0.2)

    # when
    after_health = backoff.ended(ran_s=HEALTHY_AFTER_S)

    # then
    assert after_health.delay_s == 0.0
    assert after_health.ended(ran_s=0.2).delay_s > 0.0


def test_however_often_a_part_ends_the_delay_stays_a_number() -> None:
    assert Backoff(ends=10**9).delay_s == DELAY_S_MAX
