"""Runs seeds: `python tests/simulation/run.py --seeds 2000`, or one of them with `--seed N`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.simulation.rules import Rules  # noqa: E402  # Runs as a script too, from any directory.
from tests.simulation.scenario import Outcome, simulate  # noqa: E402

PROCESSES = 2
CHUNK_SEEDS = 25
TRACE_TAIL_LINES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run over many seeds found."""

    first: int
    seeds: int
    without: str
    faults: int
    duration_s: float
    violations: dict[int, tuple[str, ...]]


def main(arguments: list[str]) -> int:
    """0 if no seed broke a law, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run one seed and print its whole trace")
    parser.add_argument(
        "--without", default="", choices=["", *Rules.names()], help="a rule to drop"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args(arguments)
    rules = Rules().without(asked.without) if asked.without else Rules()
    if asked.seed is not None:
        return _replay(asked.seed, rules)
    report = run(range(asked.first, asked.first + asked.seeds), rules, asked.without)
    _print(report, is_json=asked.json)
    return 1 if report.violations else 0


def run(seeds: range, rules: Rules, without: str = "", processes: int = PROCESSES) -> Report:
    """Runs the seeds on a few processes."""
    began = time.monotonic()
    faults, violations = 0, {}
    with ProcessPoolExecutor(processes) as pool:
        outcomes: Iterable[Outcome] = pool.map(
            partial(simulate, rules=rules), seeds, chunksize=CHUNK_SEEDS
        )
        for outcome in outcomes:
            faults += outcome.faults
            if outcome.violations:
                violations[outcome.seed] = outcome.violations
    return Report(
        first=seeds.start,
        seeds=len(seeds),
        without=without,
        faults=faults,
        duration_s=round(time.monotonic() - began, 1),
        violations=violations,
    )


def explain(seed: int, rules: Rules, without: str = "") -> str:
    """Seed, commit, the command that replays it, what broke, and how it came to that."""
    outcome = simulate(seed, rules, is_traced=True)
    option = f" --without {without}" if without else ""
    return "\n".join(
        (
            f"seed {seed} at commit {_commit()}",
            f"replay: python tests/simulation/run.py --seed {seed}{option}",
            *(f"violated: {violation}" for violation in outcome.violations),
            *outcome.trace[-TRACE_TAIL_LINES:],
        )
    )


def _replay(seed: int, rules: Rules) -> int:
    outcome = simulate(seed, rules, is_traced=True)
    print("\n".join(outcome.trace))
    print(f"seed {seed} at commit {_commit()}: {len(outcome.violations)} violations")
    for violation in outcome.violations:
        print(f"violated: {violation}")
    return 1 if outcome.violations else 0


def _print(report: Report, *, is_json: bool) -> None:
    bad = report.violations
    for seed in list(bad)[:3]:
        rules = Rules().without(report.without) if report.without else Rules()
        print(explain(seed, rules, report.without), file=sys.stderr)
    if is_json:
        document = {
            "first": report.first,
            "seeds": report.seeds,
            "without": report.without,
            "faults": report.faults,
            "duration_s": report.duration_s,
            "violating_seeds": list(bad),
            "commit": _commit(),
        }
        print(json.dumps(document))
        return
    print(
        f"{report.seeds} seeds from {report.first}, {report.faults} faults,"
        f" {len(bad)} violating, {report.duration_s} s"
    )


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
