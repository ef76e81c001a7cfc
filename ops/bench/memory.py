"""`bench memory`: what the idle stack holds, and whether executions make it grow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

import psutil

from ops.bench.steps import CONCURRENCY, StepsBench

MIB: Final = 1024 * 1024
WARM_UP_SHARE: Final = 4
"""A quarter of the executions comes first: caches fill once, a leak goes on."""

Say = Callable[[str], None]


def pss_mb(pids: Mapping[str, object]) -> dict[str, float]:
    """Proportional set size of every part with its children: shared pages are counted once."""
    held: dict[str, float] = {}
    for role, pid in pids.items():
        if not isinstance(pid, int):
            continue
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
            held[role] = sum(one.memory_full_info().pss for one in family) / MIB
        except psutil.NoSuchProcess:
            continue
    return held


def figures(
    bench: StepsBench, pids: Mapping[str, object], executions: int, say: Say
) -> dict[str, object]:
    """Idle memory, memory after a warm-up, and after all executions, in MiB."""
    idle = pss_mb(pids)
    warm_up = executions // WARM_UP_SHARE
    say(f"{warm_up} executions to warm up ...")
    _run(bench, warm_up)
    warm = pss_mb(pids)
    say(f"{executions - warm_up} more ...")
    _run(bench, executions - warm_up)
    after = pss_mb(pids)
    return {
        "idle_mb": sum(idle.values()),
        "warm_mb": sum(warm.values()),
        "after_mb": sum(after.values()),
        "growth_mb": sum(after.values()) - sum(warm.values()),
        "idle_mb_by_part": {part: round(value, 1) for part, value in idle.items()},
        "growth_mb_by_part": {
            part: round(value - warm.get(part, 0.0), 1) for part, value in after.items()
        },
    }


def _run(bench: StepsBench, count: int) -> None:
    left = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        client = bench.another_client()
        while True:
            with lock:
                if next(left, None) is None:
                    break
            bench.one(client)
        client.close()

    threads = [threading.Thread(target=work) for _ in range(CONCURRENCY // 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
