"""A runner: works through a workflow, asks before every effect, dies as `producers/runner` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.execution.effects import Answer, Question, Verdict
from streams.execution.journal import EffectState, FrameworkRecord
from streams.messages import event_id
from tests.simulation.kernel import Act, Kernel, Process
from tests.simulation.world import Effect, Tools, Workflow

if TYPE_CHECKING:
    from tests.simulation.routing import Gateways
    from tests.simulation.session import Session

LEASE_MS = 5_000
WINDOW_MS = 20_000
ARMED_EVERY_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the worker tells a runner to begin with."""

    tenant: str
    execution_id: str
    workflow: Workflow
    records: tuple[FrameworkRecord, ...]
    resume_values: Mapping[str, str]


class Runner:
    """One forked process that works on one execution for one worker."""

    def __init__(
        self, kernel: Kernel, tools: Tools, gateway: Gateways, worker: Process, name: str
    ) -> None:
        self.process = Process(name)
        self.session: Session | None = None
        self._kernel = kernel
        self._tools = tools
        self._gateway = gateway
        self._worker = worker
        self._is_over = False
        self._is_cancelled = False
        self._start: Start | None = None
        self._step = 0
        self._open_branches = 0
        self._answers: dict[str, str] = {}
        self._results: dict[str, str] = {}
        self._outputs: list[dict[str, str]] = []
        worker.on_death.append(self._orphaned)
        self.process.on_death.append(self._lost)
        self.process.on_pause.append(self._watch_stop)

    # Life and death -----------------------------------------------------------------------------

    def _orphaned(self) -> None:
        """A thread sees the socket's end, at once or just after another instruction or two."""
        delay_ms = self._kernel.between(0, 2)
        self._kernel.after(delay_ms, lambda: self._kernel.kill(self.process), self.process)

    def _watch_stop(self) -> None:
        if not self._kernel.rules.kills_stopped:
            return
        since_ms = self._kernel.now_ms
        left_ms = WINDOW_MS - self._kernel.between(0, ARMED_EVERY_MS)

        def alarm() -> None:
            if self.process.is_paused and self._kernel.now_ms - since_ms >= left_ms:
                self._kernel.kill(self.process)

        self._kernel.after(left_ms, alarm)

    def _lost(self) -> None:
        session = self.session
        if session is not None:
            self._kernel.after(1, session.on_lost, self._worker)

    def _say(self, frame: Callable[[Session], None]) -> None:
        """Sends a frame to the worker."""
        session = self.session
        if session is not None and not self._is_over:
            self._kernel.after(1, lambda: frame(session), self._worker)

    def reply(self, act: Act) -> None:
        """Takes a frame from the worker."""
        self._kernel.after(1, act, self.process)

    # The workflow -------------------------------------------------------------------------------

    def start(self, start: Start) -> None:
        """Begins or resumes."""
        self._start = start
        for record in start.records:
            if record.kind == "checkpoint":
                self._answers.update(json.loads(record.record))
            else:
                self._outputs.append(json.loads(record.record))
        self._step = len(self._outputs)
        news = {k: v for k, v in start.resume_values.items() if self._answers.get(k) != v}
        if news:
            # A framework saves the answer to an interrupt before it goes on with it.
            self._answers.update(news)
            saved = json.dumps(self._answers, sort_keys=True)
            self._say(lambda s: s.checkpoint(saved, self._run_step))
        else:
            self._run_step()

    def cancel(self) -> None:
        """Unwinds at the next boundary."""
        self._is_cancelled = True

    def _is_unwinding(self) -> bool:
        if self._is_cancelled and not self._is_over:
            self._say(lambda s: s.suspended())
            self._is_over = True
        return self._is_over

    def _run_step(self) -> None:
        if self._is_unwinding():
            return
        start = self._started
        if self._step == len(start.workflow):
            output = json.dumps(self._outputs, sort_keys=True)
            self._say(lambda s: s.finished(output))
            self._is_over = True
            return
        branches = start.workflow[self._step]
        self._results = {}
        self._open_branches = len(branches)
        for branch in range(len(branches)):
            self._go_on(branch, 0)

    @property
    def _started(self) -> Start:
        assert self._start is not None
        return self._start

    def _go_on(self, branch: int, place: int) -> None:
        if self._is_unwinding():
            return
        effects = self._started.workflow[self._step][branch]
        if place < len(effects):
            self._do(effects[place], branch, place)
            return
        self._open_branches -= 1
        if self._open_branches == 0:
            record = json.dumps(self._results, sort_keys=True)
            step_key = f"s#{self._step}"
            self._say(lambda s: s.step_completed(step_key, record, self._step_done))

    def _step_done(self) -> None:
        self._outputs.append(self._results)
        self._step += 1
        self._run_step()

    def _do(self, effect: Effect, branch: int, place: int) -> None:
        start, step_key = self._started, f"s#{self._step}"
        identity = f"{effect.kind}:{effect.name}:{branch}.{place}"
        call = event_id(start.tenant, start.execution_id, step_key, 1, "call", identity)
        if effect.kind == "interrupt":
            if call in self._answers:
                self._got(call, self._answers[call], branch, place)
                return
            self._say(lambda s: s.interrupted(call))
            self._is_over = True
            return
        question = Question(
            kind=effect.kind,
            name=effect.name,
            call_id=call,
            step="s",
            step_key=step_key,
            agent="s",
            request_hash=identity,
            ordinal=0,
            arguments_json="{}",
        )
        self._ask(question, lambda value: self._got(call, value, branch, place))

    def _got(self, call: str, value: str, branch: int, place: int) -> None:
        self._results[call] = value
        self._go_on(branch, place + 1)

    # Effects ------------------------------------------------------------------------------------

    def _ask(self, question: Question, got: Callable[[str], None]) -> None:
        sent_ms = self._kernel.now_ms
        self._say(
            lambda s: s.asked(question, lambda answer: self._told(question, answer, sent_ms, got))
        )

    def _told(
        self, question: Question, answer: Answer, sent_ms: int, got: Callable[[str], None]
    ) -> None:
        if self._is_unwinding():
            return
        kernel = self._kernel
        match answer.verdict:
            case Verdict.GO:
                is_stale = kernel.now_ms - sent_ms > LEASE_MS
                if is_stale and kernel.rules.keeps_lease:
                    self._ask(question, got)
                    return
                # A stop between the check and the act is what W and its timer are for.
                kernel.hazard(self.process, "act")
                kernel.after(0, lambda: self._act(question, got), self.process)
            case Verdict.RECORDED:
                assert answer.effect is not None
                failed = answer.effect.state is EffectState.FAILED
                got("failed" if failed else answer.effect.result.decode())
            case Verdict.RECONCILE:
                self._tools.reconcile(
                    question.call_id,
                    question.name,
                    self.process,
                    lambda done: self._knows(question, done, got),
                )
            case Verdict.SUSPEND:
                self._say(lambda s: s.suspended())
                self._is_over = True
            case _:
                self._say(lambda s: s.failed(answer.reason))
                self._is_over = True

    def _act(self, question: Question, got: Callable[[str], None]) -> None:
        if question.kind == "llm":
            self._gateway.chat(self._started.tenant, question.call_id, self.process, got)
            return
        self._tools.call(
            question.call_id,
            question.name,
            self.process,
            lambda result: self._report(question, result, "returned", got),
        )

    def _knows(self, question: Question, done: str | None, got: Callable[[str], None]) -> None:
        if done is None:
            self._ask(question, got)
        else:
            self._report(question, done, "reconciled", got)

    def _report(
        self, question: Question, result: str, how: str, got: Callable[[str], None]
    ) -> None:
        self._say(lambda s: s.tool_completed(question, result, how, lambda: got(result)))
