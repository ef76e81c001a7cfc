"""Law 2: whoever reads a claimed partition, from wherever, drops the same events."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streams.ownership import EpochFold, Tenure
from tests.support.histories import LAW


@dataclass(frozen=True)
class Entry:
    """One record of a claimed partition: a claim, or an event by whoever made an earlier one."""

    claim: bool
    epoch: int


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """A partition on which any owner may still append after any later claim."""
    entries: list[Entry] = []
    claims: list[int] = []
    for offset in range(draw(st.integers(1, 20))):
        if not claims or draw(st.integers(0, 3)) == 0:
            claims.append(offset)
            entries.append(Entry(True, offset))
        else:
            entries.append(Entry(False, draw(st.sampled_from(claims))))
    return entries


def read(log: list[Entry], start: int, fold: EpochFold) -> tuple[list[int], EpochFold]:
    """Offsets of the standing events from `start`, and what the reader remembers at the end."""
    standing = []
    for offset, entry in enumerate(log[start:], start):
        if entry.claim:
            fold = fold.claimed(offset)
        elif not fold.is_void(entry.epoch):
            fold = fold.seen(entry.epoch)
            standing.append(offset)
    return standing, fold


@LAW
@given(logs(), st.data())
def test_a_reader_that_starts_anywhere_with_the_carried_claim_drops_the_same_events(
    log: list[Entry], data: st.DataObject
) -> None:
    whole, end = read(log, 0, EpochFold())
    start = data.draw(st.integers(0, len(log)))

    _, carried = read(log[:start], 0, EpochFold())
    rest, rest_end = read(log, start, carried)

    assert rest == [offset for offset in whole if offset >= start]
    assert rest_end == end


@LAW
@given(logs())
def test_what_stands_has_the_highest_claim_before_it(log: list[Entry]) -> None:
    standing, _ = read(log, 0, EpochFold())

    for offset in standing:
        assert log[offset].epoch == max(n for n, entry in enumerate(log[:offset]) if entry.claim)


@LAW
@given(logs())
def test_an_owner_that_reads_its_gaps_believes_exactly_what_every_reader_sees(
    log: list[Entry],
) -> None:
    standing, _ = read(log, 0, EpochFold())

    for claim in (n for n, entry in enumerate(log) if entry.claim):
        assert believed(log, claim) == [o for o in standing if log[o].epoch == claim]


def believed(log: list[Entry], claim: int) -> list[int]:
    """Which of its events an owner holds to stand, by acknowledgements and gaps alone."""
    tenure, mine = Tenure.begun(claim), []
    for offset in (n for n, e in enumerate(log) if not e.claim and e.epoch == claim):
        gap = tenure.gap_before(offset)
        if gap is not None and any(e.claim for e in log[gap.start : gap.end]):
            break
        tenure = tenure.stands(offset)
        mine.append(offset)
    return mine
