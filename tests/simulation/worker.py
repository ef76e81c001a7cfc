"""The simulated shell of `processors/execution.py`: assignment, runners, proofs of death."""

from __future__ import annotations

from collections.abc import Callable

from streams.execution import decider
from streams.execution.commands import ExecutionCommand
from streams.execution.state import Status
from tests.simulation.broker import Broker, Group, Log
from tests.simulation.kernel import Act, Kernel, Process
from tests.simulation.owner import PartitionOwner
from tests.simulation.runner import Runner, Start
from tests.simulation.session import Hosted, Session
from tests.simulation.world import Workflow

COMMIT_EVERY_MS = 500
STOP_GRACE_MS = 2_000


class Machine:
    """What workers of one host share: the files that name each execution's runners."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runners: dict[str, list[Runner]] = {}


class Cluster:
    """What workers share with the rest of the world."""

    def __init__(
        self,
        kernel: Kernel,
        broker: Broker,
        group: Group,
        logs: tuple[list[Log], list[Log], list[Log]],
        fork: Callable[[Process, str], Runner],
        workflows: dict[str, Workflow],
        rebuilt: Callable[[PartitionOwner, int], None],
    ) -> None:
        self.kernel = kernel
        self.broker = broker
        self.group = group
        self.commands, self.executions, self.marks = logs
        self.fork = fork
        self.workflows = workflows
        self.rebuilt = rebuilt


class _Intake:
    """How far a worker has read a command partition, and what of it is done."""

    def __init__(self, generation: int, position: int) -> None:
        self.generation = generation
        self.read_to = position
        self.committed = position
        self.done: set[int] = set()


class Worker:
    """One life of one execution worker."""

    def __init__(self, cluster: Cluster, name: str, machine: Machine) -> None:
        self.process = Process(name)
        self.name = name
        self.host = machine.name
        self._cluster = cluster
        self._kernel = cluster.kernel
        self._machine = machine
        self._owners: dict[int, PartitionOwner] = {}
        self._intakes: dict[int, _Intake] = {}
        self._forks = 0
        for partition, log in enumerate(cluster.commands):
            log.listeners.append(lambda _, __, p=partition: self._fetch_soon(p))  # type: ignore[misc]

    # The group ----------------------------------------------------------------------------------

    def assigned(self, partition: int, generation: int, position: int) -> None:
        """Begins to own the partition, or reads it again from the committed position."""
        self._intakes[partition] = _Intake(generation, position)
        if partition not in self._owners:
            cluster = self._cluster
            self._owners[partition] = PartitionOwner(
                self._kernel,
                cluster.broker,
                self,
                partition,
                cluster.executions[partition],
                cluster.marks[partition],
            )
        self._fetch_soon(partition)

    def revoked(self, partition: int) -> None:
        """Stops owning it."""
        self._commit(partition)
        self._intakes.pop(partition, None)
        owner = self._owners.pop(partition, None)
        if owner is not None:
            owner.end()

    def _fetch_soon(self, partition: int) -> None:
        if self.process.is_alive and partition in self._intakes:
            delay_ms = self._kernel.between(1, 5)
            self._kernel.after(delay_ms, lambda: self._fetch(partition), self.process)

    def _fetch(self, partition: int) -> None:
        intake, owner = self._intakes.get(partition), self._owners.get(partition)
        if intake is None or owner is None:
            return
        log = self._cluster.commands[partition]
        while intake.read_to < len(log.records):
            offset, command = intake.read_to, log.records[intake.read_to]
            intake.read_to += 1
            assert isinstance(command, ExecutionCommand)
            owner.take(offset, command)

    def done(self, partition: int, offset: int) -> None:
        """A command needs no more attention; the group hears of it with the next commit."""
        intake = self._intakes.get(partition)
        if intake is None:
            return
        if not intake.done:
            self._kernel.after(COMMIT_EVERY_MS, lambda: self._commit(partition), self.process)
        intake.done.add(offset)

    def done_to(self, partition: int) -> int:
        """Every command below this offset is done."""
        intake = self._intakes.get(partition)
        if intake is None:
            return 0
        while intake.committed in intake.done:
            intake.done.discard(intake.committed)
            intake.committed += 1
        intake.done = {offset for offset in intake.done if offset > intake.committed}
        return intake.committed

    def commands_end(self, partition: int) -> int:
        """The offset that the partition's next command will get."""
        return len(self._cluster.commands[partition].records)

    def _commit(self, partition: int) -> None:
        intake = self._intakes.get(partition)
        if intake is None:
            return
        self.done_to(partition)
        self._cluster.group.commit(partition, self.name, intake.generation, intake.committed)

    def rebuilt(self, owner: PartitionOwner, epoch: int) -> None:
        """The owner has folded the log up to its claim."""
        self._cluster.rebuilt(owner, epoch)

    # Runners ------------------------------------------------------------------------------------

    def advance(self, owner: PartitionOwner, hosted: Hosted, reason: str) -> None:
        """Acts on what the execution's state asks for, once the events that led there stand."""
        if hosted.state.status.is_terminal:
            self._finish(owner, hosted)
        elif hosted.state.status is Status.PAUSED and hosted.runner is not None:
            runner = hosted.runner
            runner.reply(runner.cancel)
        elif hosted.is_runnable:
            self._begin(owner, hosted, reason)

    def _begin(self, owner: PartitionOwner, hosted: Hosted, reason: str) -> None:
        hosted.is_starting = True
        kernel = self._kernel

        def forked() -> None:
            if not owner.is_current(hosted):
                return
            hosted.is_starting = False
            # The state may have changed while the zygote forked.
            events = decider.begin(hosted.state, f"{self.host}/{self.name}", reason)
            if not events:
                return
            runner = self._fork(hosted)
            runner.session = Session(kernel, owner, hosted, runner)
            hosted.runner = runner
            owner.post(hosted, events, lambda: self._start(hosted, runner))

        def safe() -> None:
            kernel.after(kernel.between(5, 60), forked, self.process)

        if hosted.state.incarnation >= 0 and kernel.rules.ends_runner_before_next:
            self.prove(owner, hosted, safe)
        else:
            safe()

    def _fork(self, hosted: Hosted) -> Runner:
        self._forks += 1
        execution_id = hosted.state.execution_id
        runner = self._cluster.fork(self.process, f"{self.name}.{execution_id}.{self._forks}")
        files = self._machine.runners.setdefault(execution_id, [])
        if not self._kernel.rules.proves_every_runner:
            files.clear()
        files.append(runner)
        return runner

    def _start(self, hosted: Hosted, runner: Runner) -> None:
        state = hosted.state
        start = Start(
            tenant=state.tenant,
            execution_id=state.execution_id,
            workflow=self._cluster.workflows[state.execution_id],
            records=tuple(hosted.journal.records),
            resume_values=decider.resume_values(state),
        )
        runner.reply(lambda: runner.start(start))

    def ended(self, owner: PartitionOwner, hosted: Hosted, how: str) -> None:
        """The runner's session is over: kill it, or begin again."""
        runner, hosted.runner = hosted.runner, None
        if runner is not None:
            runner.session = None
            self._kernel.after(
                STOP_GRACE_MS, lambda: self._kernel.kill(runner.process), self.process
            )
        if hosted.state.status.is_terminal:
            self._finish(owner, hosted)
        elif how == "lost":
            self.prove(owner, hosted, lambda: self._resume_lost(owner, hosted))
        elif hosted.is_runnable:
            self.advance(owner, hosted, "approval")

    def _resume_lost(self, owner: PartitionOwner, hosted: Hosted) -> None:
        if not owner.is_current(hosted):
            return
        state = hosted.state
        is_stuck = state.progress == hosted.progress_at_loss
        hosted.losses = hosted.losses + 1 if is_stuck else 1
        hosted.progress_at_loss = state.progress
        ending = decider.runner_lost(state, hosted.losses, "")
        if ending:
            owner.post(hosted, ending, lambda: self._finish(owner, hosted))
        elif hosted.is_runnable:
            self._begin(owner, hosted, "runner_lost")

    def prove(self, owner: PartitionOwner, hosted: Hosted, then: Act) -> None:
        """Kills every earlier runner on this host; only those are known to be dead."""
        rules = self._kernel.rules
        latest = hosted.state.worker_id.partition("/")[0]
        lived = hosted.hosts if rules.proves_every_runner else {latest}
        for runner in self._machine.runners.get(hosted.state.execution_id, ()):
            self._kernel.kill(runner.process)
        hosted.is_predecessor_dead = lived <= {self.host}
        self._kernel.after(self._kernel.between(1, 8), then, self.process)

    def _finish(self, owner: PartitionOwner, hosted: Hosted) -> None:
        runner, hosted.runner = hosted.runner, None
        if runner is not None:
            if runner.session is not None:
                runner.session.close()
            runner.session = None
            self._kernel.after(
                STOP_GRACE_MS, lambda: self._kernel.kill(runner.process), self.process
            )
        owner.forget(hosted)

    def drop(self, hosted: Hosted) -> None:
        """Kills a runner whose partition is no longer ours."""
        runner, hosted.runner = hosted.runner, None
        if runner is not None:
            if runner.session is not None:
                runner.session.close()
            runner.session = None
            self._kernel.kill(runner.process)
