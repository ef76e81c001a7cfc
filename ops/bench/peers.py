"""LangGraph by itself on the bench's graph: in memory (the floor) and on SQLite, in a process of
its own.

`python -m ops.bench.peers memory|sqlite SECONDS` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from ops.bench.workflows.ten_steps import BYTES, STEPS, State

CONCURRENCY: Final = 16
WARM_UP: Final = 5


def _graph(entered_ns: list[int]) -> Any:
    from langgraph.graph import END, START, StateGraph

    def step_of(number: int) -> Any:
        def step(state: State) -> State:
            entered_ns.append(time.monotonic_ns())
            return {"data": chr(ord("a") + number) * BYTES}

        return step

    builder = StateGraph(State)
    names = [f"step_{number}" for number in range(STEPS)]
    for number, name in enumerate(names):
        builder.add_node(name, step_of(number))
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder


def _saver(peer: str, folder: Path) -> Any:
    if peer == "memory":
        from langgraph.checkpoint.memory import InMemorySaver

        return InMemorySaver()
    import sqlite3

    from langgraph.checkpoint.sqlite import SqliteSaver

    connection = sqlite3.connect(folder / "peer.sqlite", check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    return SqliteSaver(connection)


def _invoke(app: Any, thread: str) -> None:
    app.invoke({"data": "x"}, {"configurable": {"thread_id": thread}}, durability="sync")


def measure(peer: str, seconds: float) -> dict[str, float]:
    """Gaps between step entries at concurrency 1, and steps a second at 16."""
    with tempfile.TemporaryDirectory() as folder:
        saver = _saver(peer, Path(folder))
        entered_ns: list[int] = []
        app = _graph(entered_ns).compile(checkpointer=saver)
        for number in range(WARM_UP):
            _invoke(app, f"warm-{number}")
        gaps_ms: list[float] = []
        cpu_s, until, runs = time.process_time(), time.monotonic() + seconds, 0
        while time.monotonic() < until:
            entered_ns.clear()
            _invoke(app, f"one-{runs}")
            runs += 1
            gaps_ms.extend((b - a) / 1e6 for a, b in pairwise(entered_ns))
        cpu_ms = (time.process_time() - cpu_s) * 1000 / max(1, runs * STEPS)
        rate = _together(app, seconds)
    gaps_ms.sort()
    return {
        "step_added_ms_p50": gaps_ms[len(gaps_ms) // 2],
        "step_added_ms_p99": gaps_ms[int(len(gaps_ms) * 0.99)],
        "steps_per_s": rate,
        "cpu_ms_per_step": cpu_ms,
    }


def _together(app: Any, seconds: float) -> float:
    done = [0] * CONCURRENCY
    began = time.monotonic()

    def work(worker: int) -> None:
        while time.monotonic() - began < seconds:
            _invoke(app, f"many-{worker}-{done[worker]}")
            done[worker] += 1

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(CONCURRENCY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) * STEPS / (time.monotonic() - began)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], float(sys.argv[2]))))
