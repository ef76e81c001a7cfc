"""`omiumctl chaos`: the crash matrix, with real kills of real processes."""

from __future__ import annotations

import argparse
import statistics
from typing import TYPE_CHECKING

from ops.commands import Subparsers, command, settings_of
from ops.exits import FAILED, OK
from ops.output import emit, say

if TYPE_CHECKING:
    from ops.chaos.matrix import Outcome


def add(subparsers: Subparsers) -> None:
    """Add `chaos`."""
    parser = command(
        subparsers,
        "chaos",
        "Kill -9 every part at every event boundary of a ten-step execution, and check the laws.",
        handle,
        (
            "chaos --sample 3",
            "chaos --victims runner,execution --json",
            "chaos --undeclared --sample 5 --seed 7",
        ),
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="boundaries per victim (default: all)"
    )
    parser.add_argument("--seed", type=int, default=1, help="which sample (default 1)")
    parser.add_argument("--victims", default="", help="separated by commas (default: all)")
    parser.add_argument(
        "--undeclared", action="store_true", help="tools without a policy: a person says yes"
    )


def handle(arguments: argparse.Namespace) -> int:
    """Run the matrix on a stack of its own."""
    from ops.chaos.matrix import VICTIMS, Matrix, cells
    from ops.chaos.stand import stand

    victims = [v for v in arguments.victims.split(",") if v] or list(VICTIMS)
    chosen = cells(arguments.sample, arguments.seed, victims, not arguments.undeclared)
    with stand(settings_of(arguments)) as stack:
        stack.scratch.mkdir(exist_ok=True)
        matrix = Matrix(stack.client, stack.data_dir, stack.upstream_log, stack.scratch)
        outcomes = list(matrix.run(chosen, _tell))
        matrix.close()
    report = _report(outcomes, arguments.seed)
    emit(report) if arguments.json else say(str(report["summary"]))
    return OK if not report["violations"] else FAILED


def _tell(outcome: Outcome) -> None:
    verdict = "ok" if not outcome.violations else "; ".join(outcome.violations)
    resumed = "-" if outcome.resumed_ms is None else f"{outcome.resumed_ms} ms"
    say(
        f"{outcome.cell.victim:<11}after event {outcome.cell.boundary:>3} {outcome.at_event:<19}"
        f"next step {resumed:>9}  repeats {outcome.llm_repeats}  {verdict}"
    )


def _report(outcomes: list[Outcome], seed: int) -> dict[str, object]:
    figures: dict[str, object] = {}
    for victim in dict.fromkeys(o.cell.victim for o in outcomes):
        times = [o.resumed_ms for o in outcomes if o.cell.victim == victim and o.resumed_ms]
        if times:
            figures[victim] = {
                "cells": len([o for o in outcomes if o.cell.victim == victim]),
                "resumed_ms_p50": int(statistics.median(times)),
                "resumed_ms_max": max(times),
            }
    violations = [o.as_json() for o in outcomes if o.violations]
    return {
        "seed": seed,
        "cells": len(outcomes),
        "figures": figures,
        "violations": violations,
        "summary": f"{len(outcomes)} kills, {len(violations)} violations, seed {seed}: {figures}",
    }
