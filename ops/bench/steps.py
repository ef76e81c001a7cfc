"""`bench steps`: what durability adds to a LangGraph step, against LangGraph by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.bench.workflows.ten_steps import STEPS
from ops.chaos.stand import tree_cpu_s
from ops.client import Client

WORKFLOW: Final = Path(__file__).parent / "workflows" / "ten_steps.py"
CONCURRENCY: Final = 16
WARM_UP: Final = 20
WARM_UP_S: Final = 8.0
WAIT: Final = {"wait_s": "10"}
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
BROKER: Final = "kafka"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One execution: when it was asked for, and when each step was entered."""

    asked_ns: int
    entered_ns: tuple[int, ...]

    @property
    def gaps_ms(self) -> list[float]:
        """Entry of one step to entry of the next."""
        pairs = zip(self.entered_ns, self.entered_ns[1:], strict=False)
        return [(after - before) / 1e6 for before, after in pairs]

    @property
    def start_ms(self) -> float:
        """From the request to the first step."""
        return (self.entered_ns[0] - self.asked_ns) / 1e6


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class StepsBench:
    """Runs the workflow on a stack, one at a time and sixteen at once."""

    def __init__(self, client: Client, pids: Callable[[], dict[str, object]], say: Say) -> None:
        self._client = client
        self._pids = pids
        self._say = say

    def register(self) -> None:
        """Makes the workflow known."""
        body: dict[str, object] = {
            "name": "bench_steps",
            "framework": "langgraph",
            "entrypoint": f"{WORKFLOW}:graph",
        }
        self._client.post("/v1/workflows", body, is_repeatable=True)

    def another_client(self) -> Client:
        """A client of its own for another thread."""
        return Client(self._client.url, self._client.api_key)

    def one(self, client: Client | None = None) -> Sample:
        """One execution, from request to result."""
        client = client or self._client
        asked_ns = time.monotonic_ns()
        accepted = client.post(
            "/v1/executions", {"workflow": "bench_steps", "input": {"data": "x"}}
        )
        path = f"/v1/executions/{accepted['id']}"
        while (execution := client.get(path, WAIT))["status"] not in ENDED:
            continue
        output = execution["output"]
        if not isinstance(output, dict):
            raise RuntimeError(f"a bench execution ended as {execution['status']}: {execution}")
        return Sample(asked_ns=asked_ns, entered_ns=tuple(output["entered_ns"]))

    def alone(self, seconds: float) -> tuple[list[Sample], dict[str, float]]:
        """One at a time; samples, and CPU-ms per step by part."""
        # The stack's standbys import for some seconds after it is ready, and the broker compiles.
        self._many(WARM_UP_S)
        for _ in range(WARM_UP):
            self.one()
        before, until, samples = tree_cpu_s(self._pids()), time.monotonic() + seconds, []
        while time.monotonic() < until:
            samples.append(self.one())
        return samples, self._cpu_ms(before, len(samples) * STEPS)

    def together(self, seconds: float) -> tuple[float, list[Sample], dict[str, float]]:
        """Sixteen at once: steps a second, samples, and CPU-ms per step by part."""
        self._many(2.0)
        before, began = tree_cpu_s(self._pids()), time.monotonic()
        samples = self._many(seconds)
        rate = len(samples) * STEPS / (time.monotonic() - began)
        return rate, samples, self._cpu_ms(before, len(samples) * STEPS)

    def _many(self, seconds: float) -> list[Sample]:
        samples: list[Sample] = []
        began = time.monotonic()

        def work() -> None:
            client = self.another_client()
            while time.monotonic() - began < seconds:
                samples.append(self.one(client))
            client.close()

        threads = [threading.Thread(target=work) for _ in range(CONCURRENCY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return samples

    def _cpu_ms(self, before: dict[str, float], steps: int) -> dict[str, float]:
        after = tree_cpu_s(self._pids())
        return {
            part: (spent - before.get(part, 0.0)) * 1000 / max(1, steps)
            for part, spent in after.items()
        }


def stream_delay_ms(client: Client, count: int) -> list[float]:
    """From an event's making (its time on the log) to its arrival at an SSE client, over some
    executions.
    """
    delays: list[float] = []
    for _ in range(count):
        accepted = client.post(
            "/v1/executions", {"workflow": "bench_steps", "input": {"data": "x"}}
        )
        for frame in client.follow(f"/v1/executions/{accepted['id']}/events"):
            if frame.event == "end":
                break
            if frame.event == "StepCompleted":
                delays.append(time.time() * 1000 - float(str(frame.data["time_ms"])))
    return delays


def peer(name: str, seconds: float) -> dict[str, float]:
    """LangGraph by itself, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "ops.bench.peers", name, str(seconds)],
        capture_output=True,
        text=True,
        timeout=seconds * 10 + 120,
        check=True,
    )
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def figures(bench: StepsBench, client: Client, seconds: float, say: Say) -> dict[str, object]:
    """The contract's figures for one stack."""
    say("one execution at a time …")
    alone, cpu_alone = bench.alone(seconds)
    say("sixteen at once …")
    rate, crowd, cpu = bench.together(seconds)
    say("the stream …")
    delays = stream_delay_ms(client, 10)
    gaps = [gap for sample in alone for gap in sample.gaps_ms]
    crowded = [gap for sample in crowd for gap in sample.gaps_ms]
    starts = [sample.start_ms for sample in alone]
    return {
        "step_added_ms_p50": percentile(gaps, 0.5),
        "step_added_ms_p99": percentile(gaps, 0.99),
        "steps_per_s": rate,
        "crowded_step_added_ms_p50": percentile(crowded, 0.5),
        "crowded_step_added_ms_p99": percentile(crowded, 0.99),
        "cpu_ms_per_step": sum(cpu.values()),
        "broker_cpu_ms_per_step": cpu.get(BROKER, 0.0),
        "alone_cpu_ms_per_step": sum(cpu_alone.values()),
        "alone_cpu_ms_per_step_by_part": {k: round(v, 3) for k, v in cpu_alone.items()},
        "cpu_ms_per_step_by_part": {part: round(value, 3) for part, value in cpu.items()},
        "start_ms_p50": percentile(starts, 0.5),
        "start_ms_p95": percentile(starts, 0.95),
        "sse_ms_p50": percentile(delays, 0.5),
        "sse_ms_p95": percentile(delays, 0.95),
        "executions": len(alone) + len(crowd),
    }
