"""Laws 2 and 3 by offsets alone: which events are void, and when one's own event stands."""

from __future__ import annotations

import pytest

from streams.ownership import NO_CLAIM, EpochFold, Gap, Tenure


def test_an_event_of_a_lower_epoch_than_the_highest_claim_is_void() -> None:
    fold = EpochFold().claimed(3).claimed(8)

    assert fold.is_void(3)
    assert not fold.is_void(8)


def test_an_event_is_not_void_before_any_later_claim() -> None:
    fold = EpochFold().claimed(3)

    assert not fold.is_void(3)


def test_before_the_first_claim_nothing_is_void() -> None:
    assert EpochFold().highest_claim == NO_CLAIM
    assert not EpochFold().is_void(NO_CLAIM)


def test_claims_never_sink() -> None:
    fold = EpochFold(highest_claim=9)

    assert fold.claimed(4) == fold


def test_an_event_of_a_higher_epoch_proves_a_claim_that_the_reader_began_behind() -> None:
    fold = EpochFold(highest_claim=3)

    seen = fold.seen(8)

    assert seen.is_void(3)
    assert seen.seen(5) == seen


def test_a_dense_acknowledgement_stands_at_once() -> None:
    tenure = Tenure.begun(10)

    assert tenure.gap_before(11) is None
    assert tenure.stands(11).gap_before(12) is None


def test_a_gap_must_be_read_before_the_event_behind_it_is_judged() -> None:
    tenure = Tenure.begun(10).stands(11)

    assert tenure.gap_before(15) == Gap(12, 15)


def test_a_gap_that_was_read_is_not_read_again() -> None:
    gap = Gap(11, 14)

    tenure = Tenure.begun(10).stands(gap.end - 1)

    assert tenure.gap_before(14) is None


def test_what_is_known_is_never_forgotten() -> None:
    tenure = Tenure.begun(10).stands(20)

    assert tenure.stands(15) == tenure


def test_an_acknowledgement_below_the_own_claim_is_a_bug_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="below one's own claim"):
        Tenure.begun(10).gap_before(9)
