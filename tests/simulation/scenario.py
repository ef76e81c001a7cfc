"""One seed's world: who takes part, what is asked of them, what befalls them, and how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypedDict

from streams.execution import commands as c
from streams.execution import events as e
from streams.messages import Message, event_id
from streams.ownership import EpochFold
from tests.simulation import checks
from tests.simulation.broker import Broker, Group, Log
from tests.simulation.kernel import Kernel, Process
from tests.simulation.owner import PartitionOwner
from tests.simulation.routing import Gateways, Router
from tests.simulation.rules import Rules
from tests.simulation.runner import Runner
from tests.simulation.worker import Cluster, Machine, Worker
from tests.simulation.world import POLICIES, TOOL_TIMEOUT_MS, Provider, Tools, Workflow, workflow_of

TENANT = "acme"
FAULTS_UNTIL_MS = 60_000
QUIET_MS = 60_000
LIMIT_MS = 1_500_000
"""Liveness: everything ends within this; 60 s of faults, then windows, approvals and retries."""
ODDS = {"intent": 0.06, "send": 0.02, "ack": 0.02, "claim": 0.08, "act": 0.06, "pay": 0.06}
"""How likely something befalls a process at its most vulnerable moments."""
PAUSES_MS = ((500, 5_000), (6_500, 15_000), (15_000, 45_000), (50_000, 100_000))
"""Shorter than a session, longer, longer than W, longer than every window."""
OPTIONS = json.dumps(
    {
        "tools": {
            name: {
                "policy": policy.value,
                "timeout_s": TOOL_TIMEOUT_MS / 1000,
                "approval": name == "gate",
            }
            for name, policy in POLICIES.items()
        }
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one seed ended."""

    seed: int
    violations: tuple[str, ...]
    trace: tuple[str, ...]
    ended_ms: int
    faults: int


class Identity(TypedDict):
    """The fields that every command carries."""

    event_id: str
    tenant: str
    execution_id: str
    at_ms: int


class Scenario:
    """The world of one seed."""

    def __init__(self, seed: int, rules: Rules, *, is_traced: bool) -> None:
        self.kernel = kernel = Kernel(seed, rules, is_traced=is_traced)
        self.violations: list[str] = []
        self._broker = Broker(kernel)
        partitions = kernel.between(1, 2)
        self._commands = [Log(f"commands-{p}") for p in range(partitions)]
        self._executions = [Log(f"executions-{p}") for p in range(partitions)]
        self._marks = [Log(f"marks-{p}") for p in range(partitions)]
        self._requests, self._responses = Log("requests"), Log("responses")
        self._tools = Tools(kernel)
        self._provider = Provider(kernel, dedupes=kernel.chance(0.3))
        self._gateways = Gateways(kernel, self._broker, self._requests, self._responses)
        self._workflows: dict[str, Workflow] = {}
        self._parents: dict[Process, Process] = {}
        self._runners: list[Runner] = []
        self._ended: set[str] = set()
        self._budget = kernel.between(0, 8)
        self.faults = 0
        self._group = Group(kernel, partitions)
        self._routing = Group(kernel, 1)
        self._cluster = Cluster(
            kernel,
            self._broker,
            self._group,
            (self._commands, self._executions, self._marks),
            self._fork,
            self._workflows,
            self._rebuilt,
        )
        self._workers: list[Worker] = []
        self._routers: list[Router] = []
        kernel.hazard = self._hazard
        self._begin()

    def run(self) -> Outcome:
        """Lets the seed take its course, then judges it."""
        kernel, quiet_since = self.kernel, -1
        while kernel.now_ms < LIMIT_MS:
            kernel.run(kernel.now_ms + 10_000)
            kernel.now_ms = max(kernel.now_ms, (kernel.now_ms // 10_000 + 1) * 10_000)
            is_over = len(self._ended) == len(self._workflows)
            if not is_over or kernel.now_ms < FAULTS_UNTIL_MS:
                quiet_since = -1
            elif quiet_since < 0:
                quiet_since = kernel.now_ms
            elif kernel.now_ms - quiet_since >= QUIET_MS:
                break
        logs = [*self._executions, self._responses]
        self.violations += [
            *checks.ends(self._commands, self._executions),
            *checks.tool_runs(self._executions, self._tools),
            *checks.results(self._executions, self._responses, TENANT),
            *checks.payments(self._responses, self._provider),
            *checks.readers(logs, kernel.rules, kernel.random),
            *checks.marks(self._executions, self._marks, kernel.rules),
        ]
        return Outcome(
            seed=kernel.seed,
            violations=tuple(self.violations),
            trace=tuple(kernel.trace),
            ended_ms=kernel.now_ms,
            faults=self.faults,
        )

    # Who takes part -----------------------------------------------------------------------------

    def _begin(self) -> None:
        kernel = self.kernel
        machines = [Machine(f"h{n}") for n in range(kernel.between(1, 3))]
        for n in range(kernel.between(2, 3)):
            self._start_worker(f"w{n}", machines[n % len(machines)])
        for n in range(2):
            self._start_router(f"r{n}")
        for log in self._executions:
            self._watch(log)
        for log, marks in zip(self._executions, self._marks, strict=True):
            marks.listeners.append(
                lambda _, mark, log=log: self._marked(log, mark)  # type: ignore[misc]
            )
        for n in range(kernel.between(1, 4)):
            self._ask_for(f"x{n}", kernel.between(10, 20_000))
        for _ in range(kernel.between(0, 4)):
            kernel.after(kernel.between(0, 40_000), self._rebalance)
        if kernel.chance(0.3):
            at_ms = kernel.between(0, 40_000)
            kernel.after(at_ms, lambda: kernel.kill(self._gateways.current.process))

    def _start_worker(self, name: str, machine: Machine) -> None:
        worker = Worker(self._cluster, name, machine)
        self._workers.append(worker)
        worker.process.on_death.append(
            lambda: self.kernel.after(
                self.kernel.between(300, 4_000), lambda: self._start_worker(name, machine)
            )
        )
        self._group.join(worker)

    def _start_router(self, name: str) -> None:
        logs = (self._requests, self._responses)
        router = Router(self.kernel, self._broker, self._routing, logs, self._provider, name)
        self._routers.append(router)
        router.process.on_death.append(
            lambda: self.kernel.after(
                self.kernel.between(300, 4_000), lambda: self._start_router(name)
            )
        )
        self._routing.join(router)

    def _fork(self, worker: Process, name: str) -> Runner:
        runner = Runner(self.kernel, self._tools, self._gateways, worker, name)
        self._parents[runner.process] = worker
        self._runners.append(runner)
        return runner

    def _rebuilt(self, owner: PartitionOwner, epoch: int) -> None:
        self.violations += checks.rebuilt_differs(owner.log, epoch, owner.hosted)

    def _marked(self, log: Log, mark: Message) -> None:
        assert isinstance(mark, e.PartitionMarked)
        self.violations += checks.mark_passes_open(log, mark)

    # What befalls them --------------------------------------------------------------------------

    def _hazard(self, process: Process, where: str) -> None:
        kernel = self.kernel
        if self._budget <= 0 or kernel.now_ms > FAULTS_UNTIL_MS or not kernel.chance(ODDS[where]):
            return
        self._budget -= 1
        self.faults += 1
        if where in ("send", "ack") and kernel.chance(0.25):
            kernel.say(f"rebalance at {where} of {process.name}")
            kernel.after(kernel.between(0, 5), self._rebalance)
            return
        target = process
        if where == "intent" and kernel.chance(0.6):
            # The reply to a runner is then told much later than its intent was sent.
            kernel.after(1, lambda: kernel.pause(process, kernel.between(*PAUSES_MS[-1])))
            return
        if process in self._parents and kernel.chance(0.4):
            target = self._parents[process]
        kernel.say(f"fault at {where} of {process.name}")
        kernel.after(kernel.between(0, 2), lambda: self._befall(target))

    def _befall(self, process: Process) -> None:
        kernel = self.kernel
        luck = kernel.random.random()
        mine = [r.process for r in self._runners if self._parents[r.process] is process]
        also = mine if kernel.chance(0.3) else []
        duration_ms = kernel.between(*PAUSES_MS[int(luck * 4)])
        if kernel.chance(0.35):
            for each in also:
                kernel.pause(each, duration_ms)
            kernel.kill(process)
            return
        for each in (process, *also):
            kernel.pause(each, duration_ms)

    def _rebalance(self) -> None:
        kernel = self.kernel
        is_routing = kernel.chance(0.25)
        group = self._routing if is_routing else self._group
        partition = 0 if is_routing else kernel.between(0, len(self._commands) - 1)
        luck = kernel.random.random()
        if luck < 0.3:
            group.renew(partition)
        else:
            group.move(partition)
        if luck > 0.7:
            # There and back again, faster than the owner hears of it.
            kernel.after(kernel.between(1, 600), lambda: group.move(partition))

    # What is asked of them ----------------------------------------------------------------------

    def _send(self, command: c.ExecutionCommand, after_ms: int) -> None:
        """A client's command; now and then the client's retry appends it twice."""
        kernel = self.kernel
        log = self._commands[int(command.execution_id[1:]) % len(self._commands)]
        kernel.after(after_ms, lambda: self._append(log, command))
        if kernel.chance(0.15):
            is_start = isinstance(command, c.StartExecution)
            latest_ms = 15 if is_start and kernel.rules.gateway_dedupes else 150_000
            kernel.after(
                after_ms + kernel.between(1, latest_ms), lambda: self._append(log, command)
            )

    def _append(self, log: Log, command: c.ExecutionCommand) -> None:
        self._broker.append(log, command)

    def _identity(self, execution_id: str, name: str) -> Identity:
        identity = event_id(TENANT, execution_id, "", 0, "command", name)
        return {"event_id": identity, "tenant": TENANT, "execution_id": execution_id, "at_ms": 0}

    def _ask_for(self, execution_id: str, at_ms: int) -> None:
        kernel = self.kernel
        self._workflows[execution_id] = workflow_of(kernel)
        start = c.StartExecution(
            **self._identity(execution_id, "start"),
            workflow="w",
            workflow_version="1",
            framework="python",
            entrypoint="w:w",
            input_json="{}",
            options_json=OPTIONS,
            labels_json="{}",
            deadline_at_ms=None,
        )
        self._send(start, at_ms)
        if kernel.chance(0.2):
            pause = c.PauseExecution(**self._identity(execution_id, "pause"), reason="")
            resume = c.ResumeExecution(**self._identity(execution_id, "resume"), reason="")
            paused_ms = at_ms + kernel.between(100, 4_000)
            kernel.after(paused_ms, lambda: self._append(self._log_of(execution_id), pause))
            self._send(resume, paused_ms + kernel.between(1, 20_000))
        if kernel.chance(0.08):
            self._cancel(execution_id, at_ms + kernel.between(20, 10_000))

    def _cancel(self, execution_id: str, after_ms: int) -> None:
        cancel = c.CancelExecution(**self._identity(execution_id, "cancel"), reason="")
        self._send(cancel, after_ms)

    def _log_of(self, execution_id: str) -> Log:
        return self._commands[int(execution_id[1:]) % len(self._commands)]

    def _watch(self, log: Log) -> None:
        """Persons read what stands and answer what they are asked."""
        epochs = EpochFold()

        def appended(offset: int, event: Message) -> None:
            nonlocal epochs
            if isinstance(event, e.OwnerClaimed):
                epochs = epochs.claimed(offset)
            elif epochs.is_void(event.epoch):
                return
            elif isinstance(event, e.ApprovalRequested):
                self._answer(event)
            elif isinstance(event, e.StepCompleted) and self.kernel.chance(0.03):
                self._cancel(event.execution_id, self.kernel.between(0, 8))
            elif isinstance(event, checks.ENDS):
                self._ended.add(event.execution_id)

        log.listeners.append(appended)

    def _answer(self, asked: e.ApprovalRequested) -> None:
        kernel = self.kernel
        resolve = c.ResolveApproval(
            **self._identity(asked.execution_id, f"resolve {asked.approval_id}"),
            approval_id=asked.approval_id,
            is_granted=kernel.chance(0.9),
            resolved_by="ann",
            reason="",
            value_json="null",
        )
        is_quick = kernel.chance(0.5)
        self._send(resolve, kernel.between(5, 500) if is_quick else kernel.between(500, 20_000))


def simulate(seed: int, rules: Rules | None = None, *, is_traced: bool = False) -> Outcome:
    """The outcome of one seed under the rules; the same whenever and wherever it is asked for."""
    return Scenario(seed, rules or Rules(), is_traced=is_traced).run()
