"""The execution processor: owns command partitions by Faust's assignment, and their executions by
claim.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from processors.execution_host import Hosted, Session
from processors.execution_partition import PartitionOwner
from processors.faust_batch import Batch
from processors.runner_pool import PoolConfig, Runner, RunnerPool
from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.execution import decider
from streams.execution.state import Status

log = logging.getLogger("omium.execution")

CANCEL_GRACE_S = 2.0
"""How long a cancelled runner may tidy up before it is killed."""
SPAWN_RETRY_S = 0.2
DEADLINE_MS_DEFAULT = 24 * 60 * 60 * 1000
"""An execution without a deadline of its own ends after this: nothing runs for ever unseen."""


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """What one execution worker needs to know."""

    bootstrap: str
    worker_id: str
    host: str
    gateway_url: str
    runner_key: str
    run_dir: Path
    logs_dir: Path
    runners_max: int
    is_reusing_runners: bool
    general_framework: str = "langgraph"
    """Whose zygote runs what has none of its own."""


class ExecutionProcessor:
    """Hosts executions: claims partitions, decides commands, runs runners, resumes what an owner
    before it left.
    """

    def __init__(
        self, config: ExecutionConfig, wire: Wire, producer: AsyncProducer, clock: Clock
    ) -> None:
        self.config = config
        self.wire = wire
        self.producer = producer
        self.clock = clock
        self.pool = RunnerPool(
            PoolConfig(
                run_dir=config.run_dir,
                logs_dir=config.logs_dir,
                host=config.host,
                general_framework=config.general_framework,
            )
        )
        self._partitions: dict[int, PartitionOwner] = {}
        self._waiting: deque[tuple[PartitionOwner, str, str]] = deque()
        self._running = 0
        self._idle: dict[tuple[str, str, str], list[Runner]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._sessions: dict[str, Session] = {}

    async def assigned(self, partitions: set[int]) -> None:
        """Begins to own the partitions that are new."""
        for partition in sorted(partitions - self._partitions.keys()):
            self._partitions[partition] = owner = PartitionOwner(self, partition)
            owner.begin()

    async def revoked(self, partitions: set[int]) -> None:
        """Stops owning them: runners die, nothing is appended any more."""
        for partition in partitions & self._partitions.keys():
            await self._partitions.pop(partition).end()

    async def handle(self, batch: Batch) -> None:
        """Queues the batch with its partition's owner; waits while that one is busy."""
        owner = self._partitions.get(batch.partition)
        if owner is not None:
            await owner.inbox.put(batch)

    async def stop(self) -> None:
        """Ends all partitions and idle runners."""
        await self.revoked(set(self._partitions))
        for runners in self._idle.values():
            for runner in runners:
                runner.kill("the worker stops")
        for task in list(self._tasks):
            task.cancel()

    def advance(self, owner: PartitionOwner, hosted: Hosted, reason: str) -> None:
        """Acts on what the execution's state asks for; its events stand."""
        execution_id = hosted.state.execution_id
        if hosted.state.status.is_terminal:
            self._finish(owner, hosted)
        elif hosted.state.status is Status.PAUSED and hosted.runner is not None:
            hosted.runner.send("cancel", {"reason": "pause"})
        elif hosted.is_runnable and not hosted.has_slot:
            if self._running >= self.config.runners_max:
                self._waiting.append((owner, execution_id, reason))
                return
            self._take_slot(hosted)
            self._spawn_task(self._run(owner, hosted, reason))
        elif hosted.is_runnable:
            self._spawn_task(self._run(owner, hosted, reason))

    def _take_slot(self, hosted: Hosted) -> None:
        hosted.has_slot = True
        self._running += 1

    def _give_slot(self, hosted: Hosted) -> None:
        if not hosted.has_slot:
            return
        hosted.has_slot = False
        self._running -= 1
        while self._waiting and self._running < self.config.runners_max:
            owner, execution_id, reason = self._waiting.popleft()
            waiting = owner.hosted.get(execution_id)
            if waiting is not None and waiting.is_runnable and not waiting.has_slot:
                self.advance(owner, waiting, reason)

    async def _run(self, owner: PartitionOwner, hosted: Hosted, reason: str) -> None:
        """Begins the next incarnation on a runner, when no earlier one can act any more."""
        hosted.is_starting = True
        try:
            if hosted.state.incarnation >= 0:
                await self._prove_dead(hosted)
            runner = await self._runner_for(owner, hosted)
            if runner is None:
                return
            begun = decider.begin(hosted.state, self.worker_name, reason)
            if not begun or not owner.has(hosted):
                runner.kill("its execution needs it no longer")
                self._give_slot(hosted)
                return
            session = Session(owner, hosted, runner)
            hosted.runner = runner
            runner.on_frame, runner.on_lost = session.on_frame, session.on_lost
            self._sessions[hosted.state.execution_id] = session
            await owner.posted(hosted, begun)
            self._send_start(hosted, runner)
            self._watch_deadline(owner, hosted)
            if runner.is_lost:
                session.on_lost("it died before it began")
        finally:
            hosted.is_starting = False

    async def _prove_dead(self, hosted: Hosted) -> None:
        """Kills what earlier runners are left on this host. Doubt once stated is not taken back."""
        is_dead = await self.pool.prove_dead(hosted.state.execution_id, hosted.hosts)
        if not is_dead and hosted.is_predecessor_dead:
            hosted.doubted_at_ms = self.clock.now_ms()
        hosted.is_predecessor_dead = hosted.is_predecessor_dead and is_dead

    @property
    def worker_name(self) -> str:
        """`host/worker`: tells the next owner where this one's runners live."""
        return f"{self.config.host}/{self.config.worker_id}"

    async def _runner_for(self, owner: PartitionOwner, hosted: Hosted) -> Runner | None:
        state = hosted.state
        idle = self._idle.get(self._reuse_key(hosted))
        while idle:
            runner = idle.pop()
            if not runner.is_lost:
                self.pool.assign(state.execution_id, runner)
                return runner
        while owner.is_open and not hosted.state.status.is_terminal:
            try:
                return await self.pool.spawn(state.framework, state.execution_id)
            except OSError as error:
                log.warning("no runner for %s yet: %s", state.execution_id, error)
                await asyncio.sleep(SPAWN_RETRY_S)
        self._give_slot(hosted)
        return None

    def _reuse_key(self, hosted: Hosted) -> tuple[str, str, str]:
        state = hosted.state
        return (state.tenant, state.entrypoint, state.workflow_version)

    def _send_start(self, hosted: Hosted, runner: Runner) -> None:
        state, records = hosted.state, hosted.journal.records
        runner.send(
            "start",
            {
                "execution_id": state.execution_id,
                "tenant": state.tenant,
                "workflow": state.workflow,
                "framework": state.framework,
                "entrypoint": state.entrypoint,
                "input_json": state.input_json,
                "options_json": state.options_json,
                "incarnation": state.incarnation,
                "attempt": 0,
                "gateway_url": self.config.gateway_url,
                "api_key": self.config.runner_key,
                "deadline_at_ms": state.deadline_at_ms,
                "is_resume": state.incarnation > 0,
                "resume_values": decider.resume_values(state),
                "records": len(records),
                "is_reusable": self.config.is_reusing_runners,
            },
        )
        for record in records:
            runner.send(
                "record", {"step_key": record.step_key, "record_kind": record.kind}, record.record
            )
        runner.send("go", {})

    def ended(self, owner: PartitionOwner, hosted: Hosted, how: str) -> None:
        """The runner's session is over: keep it, kill it, or begin again."""
        runner, hosted.runner = hosted.runner, None
        self._sessions.pop(hosted.state.execution_id, None)
        self._unwatch(hosted.state.execution_id)
        if runner is not None and not runner.is_lost:
            if how == "finished" and self.config.is_reusing_runners:
                self._keep(self._reuse_key(hosted), runner)
            else:
                runner.send("stop", {})
                asyncio.get_running_loop().call_later(
                    CANCEL_GRACE_S, runner.kill, "it was told to stop"
                )
        if hosted.state.status.is_terminal:
            self._finish(owner, hosted)
        elif how == "lost":
            self._spawn_task(self._resume_lost(owner, hosted))
        else:
            self._give_slot(hosted)
            if hosted.is_runnable:
                self.advance(owner, hosted, "approval")

    def _keep(self, key: tuple[str, str, str], runner: Runner) -> None:
        """Keeps an idle runner for the next execution of the same tenant and workflow version."""
        runner.on_frame, runner.on_lost = _ignore, _ignore
        idle = self._idle.setdefault(key, [])
        idle[:] = [each for each in idle if not each.is_lost]
        idle.append(runner)
        if sum(map(len, self._idle.values())) > self.config.runners_max:
            oldest = next(runners for runners in self._idle.values() if runners)
            oldest.pop(0).kill("there are enough idle runners")

    async def _resume_lost(self, owner: PartitionOwner, hosted: Hosted) -> None:
        state = hosted.state
        while (
            hosted.is_starting
        ):  # It died before its begin stood; that ends either way within the append.
            await asyncio.sleep(0.01)
        is_stuck = state.progress == hosted.progress_at_loss
        hosted.losses = hosted.losses + 1 if is_stuck else 1
        hosted.progress_at_loss = state.progress
        ending = decider.runner_lost(state, hosted.losses, "see the execution's log")
        if ending:
            await owner.posted(hosted, ending)
            self._finish(owner, hosted)
        elif hosted.is_runnable:
            await self._run(owner, hosted, "runner_lost")
        else:
            self._give_slot(hosted)

    def _finish(self, owner: PartitionOwner, hosted: Hosted) -> None:
        """Forgets a finished execution and frees what it held."""
        execution_id = hosted.state.execution_id
        session = self._sessions.pop(execution_id, None)
        if session is not None:
            session.close()
        if hosted.runner is not None:
            runner, hosted.runner = hosted.runner, None
            runner.on_frame, runner.on_lost = _ignore, _ignore
            runner.send("cancel", {"reason": "over"})
            asyncio.get_running_loop().call_later(
                CANCEL_GRACE_S, runner.kill, "the execution is over"
            )
        self._unwatch(execution_id)
        self.pool.forget(execution_id)
        owner.forget(execution_id)
        self._give_slot(hosted)

    def drop(self, hosted: Hosted) -> None:
        """Kills a runner whose partition is no longer ours: its effects would be void."""
        session = self._sessions.pop(hosted.state.execution_id, None)
        if session is not None:
            session.close()
        self._unwatch(hosted.state.execution_id)
        if hosted.runner is not None:
            runner, hosted.runner = hosted.runner, None
            runner.on_lost = _ignore
            runner.kill("its partition has another owner")
        self._give_slot(hosted)

    def _watch_deadline(self, owner: PartitionOwner, hosted: Hosted) -> None:
        state = hosted.state
        deadline_ms = state.deadline_at_ms or self.clock.now_ms() + DEADLINE_MS_DEFAULT
        delay_s = max(0.0, (deadline_ms - self.clock.now_ms()) / 1000)
        loop = asyncio.get_running_loop()
        self._unwatch(state.execution_id)
        self._deadlines[state.execution_id] = loop.call_later(
            delay_s, lambda: self._spawn_task(self._time_out(owner, hosted))
        )

    def _unwatch(self, execution_id: str) -> None:
        timer = self._deadlines.pop(execution_id, None)
        if timer is not None:
            timer.cancel()

    async def _time_out(self, owner: PartitionOwner, hosted: Hosted) -> None:
        failure = decider.Failure(
            error_class="timeout",
            error_type="DeadlineExceeded",
            error_message="the execution's deadline has passed",
        )
        if hosted.runner is not None:
            runner = hosted.runner
            runner.on_frame, runner.on_lost = _ignore, _ignore
            runner.kill("its deadline has passed")
        await owner.posted(hosted, decider.fail(hosted.state, failure))
        self._finish(owner, hosted)

    def _spawn_task(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a runner's task ended: %s", error)


def _ignore(_: object) -> None:
    return None
