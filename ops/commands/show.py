"""`omiumctl show`: one execution, with its steps and calls."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say


def add(subparsers: Subparsers) -> None:
    """Add `show`."""
    parser = command(
        subparsers,
        "show",
        "Show one execution: steps, calls, cost, output.",
        handle,
        ("show ID", "show ID --json"),
    )
    parser.add_argument("id", metavar="ID")


def handle(arguments: argparse.Namespace) -> int:
    """Print the execution."""
    from ops.client import client_of, segment

    with client_of(settings_of(arguments), say=say) as client:
        execution = client.get(f"/v1/executions/{segment(arguments.id)}")
    if arguments.json:
        emit(execution)
    else:
        _print(execution)
    return OK


def _print(execution: dict[str, object]) -> None:
    import json

    from ops.timeline import short, summary

    print(f"{execution['id']}  {execution['workflow']} ({execution['framework']})")
    print(f"input   {short(execution['input'])}\n")
    steps = execution["steps"]
    for step in steps if isinstance(steps, list) else []:
        took = "" if step["duration_ms"] is None else f"{step['duration_ms']} ms"
        again = f"  {step['attempts']} attempts" if step["attempts"] > 1 else ""
        print(f"{step['status']:<10} {step['step']:<24} {took:>9}{again}")
        for call in step["calls"]:
            tokens = (
                f"  {call['input_tokens']}+{call['output_tokens']} tokens"
                if call["kind"] == "llm"
                else ""
            )
            took = "" if call["duration_ms"] is None else f"{call['duration_ms']} ms"
            print(f"{call['status']:<10}   {call['kind']:<4} {call['name']:<17} {took:>9}{tokens}")
        if step["error"]:
            print(f"{'':<10}   {step['error']['type']}: {short(step['error']['message'])}")
    approvals = execution["approvals"]
    for approval in approvals if isinstance(approvals, list) else []:
        print(
            f"{approval['status']:<10} approval {approval['id']}  "
            f"{approval['kind']} {short(approval['payload'])}"
        )
    print(f"\n{summary(execution)}")
    error = execution["error"]
    if isinstance(error, dict):
        print(f"{error['type']}: {error['message']}")
    if execution["status"] == "completed":
        print(json.dumps(execution["output"], indent=2, ensure_ascii=False))
