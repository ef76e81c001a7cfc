"""Laws 2 and 3: one writer per partition without transactions.

A claim is a record; its offset is the epoch of every event its owner writes. All readers see one
order, so all drop the same events. The owner learns that its own event *stands* (no later claim
precedes it) from offsets alone: it is the partition's only writer, so acknowledged offsets are
dense; a gap means somebody else wrote there, and only then is the gap read. Source:
design/SPINE.md, with the read-back replaced by the gap rule (ADR 0002).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

NO_CLAIM = -1


@dataclass(frozen=True, slots=True)
class EpochFold:
    """What a reader must remember of a claimed partition beside its position (rule 5)."""

    highest_claim: int = NO_CLAIM

    def claimed(self, offset: int) -> EpochFold:
        """The fold after an `OwnerClaimed` at `offset`."""
        return replace(self, highest_claim=max(self.highest_claim, offset))

    def is_void(self, epoch: int) -> bool:
        """Whether an event of this epoch never counts: a later claim stands before it."""
        return epoch < self.highest_claim

    def seen(self, epoch: int) -> EpochFold:
        """The fold after an event: one of a higher epoch proves a claim that this reader began
        behind.
        """
        return self.claimed(epoch) if epoch > self.highest_claim else self


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets from `start` to before `end` were written by somebody else and must be read before
    judging.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tenure:
    """One owner's stay on one partition: everything below `dense_to` is known to hold no later
    claim.
    """

    epoch: int
    dense_to: int

    @staticmethod
    def begun(claim_offset: int) -> Tenure:
        """The tenure right after the claim was acknowledged at `claim_offset` and the log read up
        to it.
        """
        return Tenure(claim_offset, claim_offset + 1)

    def gap_before(self, acked_offset: int) -> Gap | None:
        """What must be read before the event at `acked_offset` is known to stand; `None`: it stands
        already.
        """
        assert acked_offset >= self.epoch, "an acknowledgement below one's own claim"
        return Gap(self.dense_to, acked_offset) if acked_offset > self.dense_to else None

    def stands(self, acked_offset: int) -> Tenure:
        """The tenure once everything up to and with `acked_offset` is known to hold no foreign
        claim.
        """
        return Tenure(self.epoch, max(self.dense_to, acked_offset + 1))
