"""What must hold of every history, whatever was killed and whenever: laws 2, 3, 4 and 6."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from random import Random

from streams.execution import events as e
from streams.execution.commands import StartExecution
from streams.execution.journal import Effect, FrameworkRecord, Journal
from streams.execution.options import Policy
from streams.execution.state import Execution, evolve
from streams.llm.events import LlmCallCompleted, LlmCallRouted
from streams.messages import Message, call_id
from streams.ownership import EpochFold
from tests.simulation.broker import Log, Reader
from tests.simulation.rules import Rules
from tests.simulation.session import Hosted
from tests.simulation.world import Provider, Tools

ENDS = (e.ExecutionCompleted, e.ExecutionFailed, e.ExecutionCancelled)
CUTS = 4
Standing = list[tuple[int, Message]]
Folded = dict[str, tuple[Execution, list[Effect], list[FrameworkRecord]]]


def standing_of(log: Log) -> Standing:
    """The events that count: void ones dropped first, repeated ones second."""
    seen: set[str] = set()
    kept: Standing = []
    for offset, event in Reader(log).read():
        if event.event_id not in seen:
            seen.add(event.event_id)
            kept.append((offset, event))
    return kept


def rebuilt_differs(log: Log, epoch: int, hosted: dict[str, Hosted]) -> Iterator[str]:
    """Whether a mark and the tail give another state than the whole log."""
    states: dict[str, Execution | None] = {}
    journals: dict[str, Journal] = {}
    for _, event in Reader(log).read(epoch + 1):
        key = event.execution_id
        states[key] = evolve(states.get(key), event)
        journals.setdefault(key, Journal()).apply(event)
    whole = {k: s for k, s in states.items() if s is not None and not s.status.is_terminal}
    if whole.keys() != hosted.keys():
        yield f"{log.name}: the rebuild at {epoch} has {sorted(hosted)}, the log {sorted(whole)}"
    for key in whole.keys() & hosted.keys():
        mine, journal = hosted[key], journals[key]
        is_same = mine.state == whole[key] and mine.journal.effects == journal.effects
        if not is_same or mine.journal.records != journal.records:
            yield f"{log.name}: the rebuild at {epoch} folds {key} differently than the log"


def ends(commands: list[Log], executions: list[Log]) -> Iterator[str]:
    """Every accepted command ends in one terminal event."""
    counts: Counter[str] = Counter()
    for log in executions:
        counts.update(ev.execution_id for _, ev in standing_of(log) if isinstance(ev, ENDS))
    asked = {
        c.execution_id for log in commands for c in log.records if isinstance(c, StartExecution)
    }
    for execution in sorted(asked):
        if counts[execution] != 1:
            yield f"{execution} has {counts[execution]} ends"


def tool_runs(executions: list[Log], tools: Tools) -> Iterator[str]:
    """Every effect has a standing intent before it, and a finished one ran once."""
    intents: dict[str, list[int]] = {}
    doubts_settled: Counter[str] = Counter()
    for log in executions:
        doubts: dict[str, str] = {}
        for _, event in standing_of(log):
            match event:
                case e.ApprovalRequested(kind="tool_in_doubt"):
                    doubts[event.approval_id] = event.call_id.split(":")[1]
                case e.ApprovalGranted() if event.approval_id in doubts:
                    doubts_settled[doubts[event.approval_id]] += 1
        for offset, event in Reader(log).read():
            if isinstance(event, e.ToolCallIntended):
                intents.setdefault(event.call_id, []).append(log.times_ms[offset])
    for key, runs in tools.runs.items():
        stood = intents.get(key, [])
        for run in runs:
            if not any(time <= run.started_ms for time in stood):
                yield f"{run.by} ran tool {key[:6]} at {run.started_ms} without a standing intent"
        most = {
            Policy.RECONCILE: 1,
            Policy.AT_MOST_ONCE: 1 + doubts_settled[key],
            Policy.IDEMPOTENT: max(1, len(stood)),
        }[tools.policies[key]]
        if len(tools.applied[key]) > most:
            by = ", ".join(f"{run.by} at {run.started_ms}" for run in runs)
            policy, times = tools.policies[key].value, len(tools.applied[key])
            yield f"{policy} tool {key[:6]} acted {times} times: {by}"


def results(executions: list[Log], responses: Log, tenant: str) -> Iterator[str]:
    """What executions built on is what stands on the log: no void event was visible."""
    answers = {
        event.call_id: event.response.decode()
        for _, event in standing_of(responses)
        if isinstance(event, LlmCallCompleted)
    }
    for log in executions:
        tool: dict[str, str] = {}
        llm: set[str] = set()
        for _, event in standing_of(log):
            match event:
                case e.LlmCallIntended():
                    llm.add(event.call_id)
                case e.ToolCallCompleted():
                    tool.setdefault(event.call_id, event.result.decode())
                case e.StepCompleted():
                    for call, value in json.loads(event.record).items():
                        if call in llm:
                            held = answers.get(call_id(tenant, call))
                        else:
                            held = tool.get(call, value)
                        if held != value:
                            yield f"{event.execution_id} built on {value} where the log has {held}"


def payments(responses: Log, provider: Provider) -> Iterator[str]:
    """A call's usage counts once; what was paid more than once was in doubt, and says so."""
    completed: dict[str, list[LlmCallCompleted]] = {}
    routed: dict[str, list[int]] = {}
    for offset, event in standing_of(responses):
        if isinstance(event, LlmCallCompleted):
            completed.setdefault(event.call_id, []).append(event)
        elif isinstance(event, LlmCallRouted):
            routed.setdefault(event.call_id, []).append(responses.times_ms[offset])
    for call, usage in completed.items():
        if len(usage) != 1:
            yield f"call {call[:6]} has {len(usage)} usages"
    for call, times in provider.paid_at_ms.items():
        for paid_ms in times:
            if not any(time <= paid_ms for time in routed.get(call, [])):
                yield f"call {call[:6]} was paid at {paid_ms} without a standing intent"
        usage = completed.get(call, [])
        if len(times) > 1 and any(each.status != "unconfirmed" for each in usage):
            yield f"call {call[:6]} was paid {len(times)} times and is called settled"


def readers(logs: list[Log], rules: Rules, random: Random) -> Iterator[str]:
    """Readers that stop anywhere and go on later see what a reader of the whole log sees."""
    for log in logs:
        whole = Reader(log).read()
        for _ in range(CUTS):
            cut = random.randint(0, len(log.records))
            first = Reader(log)
            seen = first.read(cut)
            carried = first.epochs if rules.resumes_with_claim else EpochFold()
            seen += Reader(log, cut, carried).read()
            if [offset for offset, _ in seen] != [offset for offset, _ in whole]:
                yield f"{log.name}: a reader that went on at {cut} saw other events"


def marks(logs: list[Log], marks: list[Log], rules: Rules) -> Iterator[str]:
    """A rebuild from any mark sees the events that a rebuild from the start sees."""
    for log, marked in zip(logs, marks, strict=True):
        whole = [offset for offset, _ in Reader(log).read()]
        for mark in marked.records:
            assert isinstance(mark, e.PartitionMarked)
            carried = EpochFold(mark.highest_claim) if rules.marks_carry_claim else EpochFold()
            tail = [offset for offset, _ in Reader(log, mark.position, carried).read()]
            if tail != [offset for offset in whole if offset >= mark.position]:
                yield f"{log.name}: a rebuild from the mark at {mark.position} sees other events"


def mark_passes_open(log: Log, mark: e.PartitionMarked) -> Iterator[str]:
    """A mark is true when it is written: what began before it and is not above it has ended."""
    begun: set[str] = set()
    for offset, event in Reader(log).read():
        if isinstance(event, e.ExecutionQueued) and offset < mark.position:
            begun.add(event.execution_id)
        elif isinstance(event, ENDS):
            begun.discard(event.execution_id)
    if begun:
        yield f"{log.name}: the mark at {mark.position} passes {sorted(begun)}, which are open"
