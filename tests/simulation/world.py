"""What lies outside: tools that act, a provider that is paid, and what workflows ask of both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from streams.execution.options import Policy
from tests.simulation.kernel import Kernel, Process

TOOL_TIMEOUT_MS = 2_000
NETWORK_MS = 10_000
"""As `streams.execution.effects` assumes it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a workflow asks for."""

    kind: str
    """`tool`, `llm` or `interrupt`."""
    name: str


Branch = tuple[Effect, ...]
Step = tuple[Branch, ...]
Workflow = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One time that a tool was really called."""

    started_ms: int
    by: str


class Tools:
    """Applies calls some time after they leave the runner, whatever becomes of the runner."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.runs: dict[str, list[Run]] = defaultdict(list)
        self.applied: dict[str, list[str]] = defaultdict(list)
        self.policies: dict[str, Policy] = {}
        self._voided: dict[str, int] = {}
        self._slow_share = 0.4 if kernel.chance(0.4) else 0.07

    def call(self, key: str, tool: str, process: Process, answer: Callable[[str], None]) -> None:
        """The tool gets the call now, acts later and answers later still."""
        kernel, policy = self._kernel, POLICIES[tool]
        number = len(self.runs[key])
        kernel.say(f"{process.name} calls {policy.value} tool {key[:6]}")
        self.policies[key] = policy
        self.runs[key].append(Run(kernel.now_ms, process.name))

        def act() -> None:
            if number < self._voided.get(key, 0):
                kernel.say(f"tool {key[:6]} refuses {process.name}: voided")
                kernel.after(1, lambda: answer("refused"), process)
                return
            result = f"{key[:6]}#{len(self.applied[key])}"
            self.applied[key].append(result)
            kernel.say(f"tool {key[:6]} acts for {process.name}")
            kernel.after(kernel.between(1, 20), lambda: answer(result), process)

        is_inside = tool == INSIDE and kernel.rules.tools_keep_contract
        kernel.after(self._duration_ms(), act, process if is_inside else None)

    def reconcile(
        self, key: str, tool: str, process: Process, answer: Callable[[str | None], None]
    ) -> None:
        """Whether the call was applied, and its result; what is still under way never will be."""
        kernel = self._kernel

        def look() -> None:
            applied = self.applied.get(key)
            done = applied[0] if applied else None
            if kernel.rules.tools_keep_contract and tool != INSIDE:
                self._voided[key] = len(self.runs.get(key, ()))
            kernel.after(1, lambda: answer(done), process)

        kernel.after(kernel.between(1, 10), look)

    def _duration_ms(self) -> int:
        luck = self._kernel.random.random()
        if luck > 1 - self._slow_share:
            return self._kernel.between(TOOL_TIMEOUT_MS, TOOL_TIMEOUT_MS + NETWORK_MS)
        if luck < 0.2:
            return self._kernel.between(50, TOOL_TIMEOUT_MS)
        return self._kernel.between(1, 50)


class Provider:
    """An upstream that is paid for every answer it gives; it may know its own idempotency keys."""

    def __init__(self, kernel: Kernel, *, dedupes: bool) -> None:
        self._kernel = kernel
        self._dedupes = dedupes
        self.paid: dict[str, list[str]] = defaultdict(list)
        self.paid_at_ms: dict[str, list[int]] = defaultdict(list)

    def ask(self, call: str, process: Process, answer: Callable[[str], None]) -> None:
        """Charges now, answers later."""
        kernel = self._kernel
        known = self.paid[call]
        if not (self._dedupes and known):
            known.append(f"{call[:6]}${len(known)}")
            self.paid_at_ms[call].append(kernel.now_ms)
        text = known[-1]
        kernel.say(f"{process.name} pays for call {call[:6]} ({len(known)})")
        is_slow = kernel.chance(0.15)
        kernel.after(
            kernel.between(1_000, 15_000) if is_slow else kernel.between(20, 400),
            lambda: answer(text),
            process,
        )


def workflow_of(kernel: Kernel) -> Workflow:
    """A workflow of a few steps, some with parallel branches."""
    return tuple(
        tuple(
            tuple(_effect(kernel) for _ in range(kernel.between(1, 2)))
            for _ in range(2 if kernel.chance(0.3) else 1)
        )
        for _ in range(kernel.between(1, 3))
    )


def _effect(kernel: Kernel) -> Effect:
    luck = kernel.random.random()
    if luck < 0.3:
        return Effect("llm", "gpt-oss-20b")
    if luck < 0.37:
        return Effect("interrupt", "ask")
    return Effect("tool", kernel.random.choice(("look", "book", "book", "book", "pay", "gate")))


INSIDE = "book"
"""Acts inside the runner and dies with it; the other tools are remote and act all the same."""
POLICIES = {
    "look": Policy.IDEMPOTENT,
    "book": Policy.RECONCILE,
    "pay": Policy.AT_MOST_ONCE,
    "gate": Policy.RECONCILE,
}
