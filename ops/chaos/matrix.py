"""The crash matrix: kill -9 of one part at one event boundary of one execution, and the laws
afterwards.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.chaos.watch import Seen, Watch
from ops.client import Client
from ops.exits import CommandError
from ops.supervisor_control import document

VICTIMS: Final = ("runner", "execution", "routing", "gateway", "projector", "kafka", "clickhouse")
BOUNDARIES: Final = 83
"""Events of an uncrashed run: begin 2, ten steps of 8, end 1."""
STEPS: Final = 10
END_TIMEOUT_S: Final = 120.0
ROWS_TIMEOUT_S: Final = 60.0
TERMINAL: Final = frozenset({"ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled"})
PROGRESS: Final = frozenset(
    {"StepStarted", "StepCompleted", "ToolCallIntended", "ToolCallCompleted", "LlmCallIntended",
     "LlmCallRequested", "LlmCallCompleted", "ApprovalRequested", "ExecutionCompleted"}
)  # fmt: skip
WORKFLOW: Final = Path(__file__).parent / "workflows" / "ten_effects.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kill: whom, and after which event of the execution."""

    victim: str
    boundary: int
    is_declared: bool = True
    """Whether the tools are declared `reconcile`; else they are undeclared, and a person may have
    to say yes.
    """


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    status: str
    at_event: str
    resumed_ms: int | None
    llm_calls: int
    llm_repeats: int
    approvals: int
    violations: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """For the report."""
        return {
            "victim": self.cell.victim, "boundary": self.cell.boundary,
            "declared": self.cell.is_declared, "status": self.status, "at_event": self.at_event,
            "resumed_ms": self.resumed_ms, "llm_calls": self.llm_calls,
            "llm_repeats": self.llm_repeats, "approvals": self.approvals,
            "violations": self.violations,
        }  # fmt: skip


def cells(sample: int | None, seed: int, victims: Sequence[str], is_declared: bool) -> list[Cell]:
    """All cells, or a seeded sample spread evenly over the victims."""
    chosen: list[Cell] = []
    for victim in victims:
        boundaries = list(range(1, BOUNDARIES))
        if sample is not None:
            boundaries = sorted(random.Random(f"{seed}/{victim}").sample(boundaries, sample))
        chosen.extend(Cell(victim=victim, boundary=b, is_declared=is_declared) for b in boundaries)
    return chosen


class Matrix:
    """Runs cells against one stack whose upstream is the scripted one."""

    def __init__(self, client: Client, data_dir: Path, upstream_log: Path, scratch: Path) -> None:
        self._client = client
        self._data_dir = data_dir
        self._upstream_log = upstream_log
        self._scratch = scratch
        self._watch = Watch(str(document(data_dir)["kafka"]))

    def run(self, chosen: Sequence[Cell], tell: Callable[[Outcome], None]) -> Iterator[Outcome]:
        """Every cell's outcome, told as it comes."""
        self._client.post(
            "/v1/workflows",
            {"name": "ten_effects", "framework": "langgraph", "entrypoint": f"{WORKFLOW}:graph"},
            is_repeatable=True,
        )
        for number, cell in enumerate(chosen):
            outcome = self._cell(cell, number)
            tell(outcome)
            yield outcome

    def close(self) -> None:
        """Ends the watch."""
        self._watch.stop()

    def _cell(self, cell: Cell, number: int) -> Outcome:
        rows = self._scratch / f"{number}-{cell.victim}-{cell.boundary}"
        rows.mkdir(parents=True, exist_ok=True)
        body: dict[str, object] = {"workflow": "ten_effects", "input": {"directory": str(rows)}}
        if cell.is_declared:
            body["tools"] = {"write_row": {"policy": "reconcile"}}
        accepted = self._client.post("/v1/executions", body, idempotency_key=str(rows))
        execution_id = str(accepted["id"])
        self._watch.wait(execution_id, cell.boundary, END_TIMEOUT_S)
        before = self._watch.of(execution_id)
        killed_at_s = time.monotonic()
        self._kill(cell.victim, execution_id)
        execution, approvals = self._ended(execution_id)
        outcome = Outcome(
            cell=cell,
            status=str(execution["status"]),
            at_event=before[-1].kind if before else "",
            resumed_ms=_resumed_ms(self._watch.of(execution_id), killed_at_s),
            llm_calls=0,
            llm_repeats=0,
            approvals=approvals,
        )
        self._judge(outcome, execution_id, rows)
        return outcome

    def _kill(self, victim: str, execution_id: str) -> None:
        for pid in self._pids(victim, execution_id):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # It was between two lives.

    def _pids(self, victim: str, execution_id: str) -> list[int]:
        if victim == "runner":
            marks = (self._data_dir / "run" / "runners").glob(f"{execution_id}.*")
            return [int(mark.suffix[1:]) for mark in marks if mark.suffix[1:].isdigit()]
        pids = document(self._data_dir)["pids"]
        found = pids.get(victim) if isinstance(pids, Mapping) else None
        return [found] if isinstance(found, int) else list(found or [])

    def _ended(self, execution_id: str) -> tuple[dict[str, object], int]:
        """The execution at its end; questions on the way are answered with yes."""
        deadline_s, approvals = time.monotonic() + END_TIMEOUT_S, 0
        execution: dict[str, object] = {"status": "unknown", "approvals": []}
        while time.monotonic() < deadline_s:
            execution = self._client.get(f"/v1/executions/{execution_id}")
            if execution["status"] in ("completed", "failed", "cancelled"):
                return execution, approvals
            listed = execution["approvals"]
            for approval in listed if isinstance(listed, list) else []:
                if approval["status"] == "pending" and self._approve(str(approval["id"])):
                    approvals += 1
            time.sleep(0.1)
        return execution, approvals

    def _approve(self, approval_id: str) -> bool:
        try:
            self._client.post(f"/v1/approvals/{approval_id}/approve", {})
        except CommandError:
            return False  # Answered already.
        return True

    def _judge(self, outcome: Outcome, execution_id: str, rows: Path) -> None:
        bad = outcome.violations
        if outcome.status != "completed":
            bad.append(f"it ended as {outcome.status}")
        calls = self._upstream_calls(str(rows))
        outcome.llm_calls, outcome.llm_repeats = len(calls), sum(calls.values()) - len(calls)
        if len(calls) != STEPS:
            bad.append(f"{len(calls)} different LLM calls reached the upstream, not {STEPS}")
        if outcome.llm_repeats > 1:
            bad.append(
                f"{outcome.llm_repeats} LLM calls were repeated, at most the one in flight may"
            )
        written = [
            (path.read_text().count("\n") if path.exists() else 0)
            for path in (rows / f"{number}.rows" for number in range(STEPS))
        ]
        extra_max = 0 if outcome.cell.is_declared else outcome.approvals
        if min(written) < 1 or sum(written) - STEPS > extra_max:
            bad.append(f"rows per tool: {written}")
        self._judge_log(outcome, execution_id)

    def _judge_log(self, outcome: Outcome, execution_id: str) -> None:
        deadline_s = time.monotonic() + ROWS_TIMEOUT_S
        while True:
            seen = self._watch.of(execution_id)
            # A fact told twice under one id is one fact: readers drop the repeat.
            told = len({s.message.event_id for s in seen})
            in_store = self._rows(execution_id)
            if in_store == told or time.monotonic() > deadline_s:
                break
            time.sleep(0.2)
        ends = [s for s in _standing(seen) if s.kind in TERMINAL]
        if len({s.message.event_id for s in ends}) != 1:
            outcome.violations.append(f"terminal events: {[s.kind for s in ends]}")
        if in_store != told:
            outcome.violations.append(f"{told} events on the log, {in_store} rows")
        finished = Counter(
            s.message.event_id for s in _standing(seen) if s.kind == "ToolCallCompleted"
        )
        if any(count > 1 for count in finished.values()):
            outcome.violations.append("a tool finished twice")

    def _rows(self, execution_id: str) -> int:
        query = (
            "SELECT uniqExact(event_id) FROM ("
            f"SELECT event_id FROM events WHERE execution = '{execution_id}' UNION ALL "
            f"SELECT event_id FROM events_void WHERE execution = '{execution_id}')"
        )
        try:
            answer = self._client.post("/v1/sql", {"query": query}, is_repeatable=True)
        except CommandError:
            return -1
        rows = answer["rows"]
        return int(rows[0][0]) if isinstance(rows, list) else -1

    def _upstream_calls(self, directory: str) -> Counter[str]:
        calls: Counter[str] = Counter()
        for line in self._upstream_log.read_text().splitlines():
            entry = json.loads(line)
            if f'{directory}"' in json.dumps(entry["body"]):
                calls[entry["key"]] += 1
        return calls


def _standing(seen: Sequence[Seen]) -> list[Seen]:
    """Of the execution's own events, those of the highest epoch at their place."""
    standing: list[Seen] = []
    highest = -1
    for each in sorted(
        (s for s in seen if s.topic.startswith("omium.exec")), key=lambda s: s.offset
    ):
        highest = max(highest, each.message.epoch)
        if each.message.epoch == highest:
            standing.append(each)
    return standing


def _resumed_ms(seen: Sequence[Seen], killed_at_s: float) -> int | None:
    """From the kill to the next sign of progress on the log; what was in flight at the kill does
    not count.
    """
    resumed = False
    for each in seen:
        if each.at_s <= killed_at_s:
            continue
        resumed = resumed or each.kind == "ExecutionResumed"
        if resumed and each.kind in PROGRESS:
            return int((each.at_s - killed_at_s) * 1000)
    later = [s for s in seen if s.at_s > killed_at_s + 0.02 and s.kind in PROGRESS]
    return int((later[0].at_s - killed_at_s) * 1000) if later else None
