"""The rules under test, each of which can be switched off to show that it is needed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What every part of the simulated system keeps to. Numbers are those of SPINE."""

    reads_gaps: bool = True
    """An acknowledgement behind a gap stands once the gap was read (instead of a read-back)."""
    acts_after_standing: bool = True
    """A runner hears GO only when its intent stands."""
    keeps_lease: bool = True
    """Rule 1: a runner acts within L of sending its intent, or asks again."""
    waits_window: bool = True
    """Rule 1: doubts are resolved after L + W + tool + network, or on proof of death."""
    kills_stopped: bool = True
    """Rule 1: a runner that was stopped longer than W never executes another instruction."""
    proves_every_runner: bool = True
    """Rule 1: death is proven of every earlier runner, not of the latest only."""
    ends_runner_before_next: bool = True
    """Rule 1: a suspended runner is known to be dead before the next incarnation begins."""
    tools_keep_contract: bool = True
    """Rule 1: a reconcile tool dies with its runner, or reconciling voids calls under way."""
    reclaims: bool = True
    """Rule 2: a deposed owner claims again while the group says that the partition is its own."""
    commits_after_standing: bool = True
    """Rule 3: a command's offset moves when its event stands, not when it is acknowledged."""
    redoes_interrupted: bool = True
    """Rule 3: commands whose events became void are decided again under the next claim."""
    waits_for_what_was_sent: bool = True
    """Rule 3: a command that leads to nothing is done when everything sent before it stands."""
    confirms_nothing_to_do: bool = True
    """Rule 3: who finds that a command leads to nothing makes sure that no foreign claim stands."""
    marks_carry_claim: bool = True
    """Rule 4: a mark carries the highest claim below its position."""
    marks_keep_open: bool = True
    """Rule 4: a mark lies before the first event of every open execution."""
    remembers_ended: bool = True
    """Rule 4: a start may come twice: what ended lately is remembered, marks lie before it."""
    marks_count_commands: bool = True
    """Rule 4: an execution that a rebuild no longer sees is not begun again by its old command."""
    resumes_with_claim: bool = True
    """Rule 5: a reader's position carries the highest claim."""
    routes_after_standing: bool = True
    """Rule 6: a provider is called only when `LlmCallRouted` stands."""
    rebuilds_router: bool = True
    """Rule 6: a router reads the partition to its own claim before it serves."""
    gateway_drops_void: bool = True
    """Rule 6: a void answer is no answer."""
    gateway_dedupes: bool = True
    """A repeated start is appended again within moments only, not after the execution ended."""

    @staticmethod
    def names() -> tuple[str, ...]:
        """Every rule's name."""
        return tuple(field.name for field in fields(Rules))

    def without(self, name: str) -> Rules:
        """The same rules with one switched off."""
        assert name in Rules.names(), f"no rule is called {name}"
        return replace(self, **{name: False})
