"""`omiumctl run`: execute a file's object or a registered workflow, and follow it."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.commands import Subparsers, command, settings_of
from ops.exits import FAILED, OK, USAGE, WAITING, CommandError
from ops.output import emit, say

if TYPE_CHECKING:
    from ops.client import Client, Frame, Json

WAITING_STATUSES: Final = frozenset({"waiting_approval", "paused"})
MAY_WAIT: Final = frozenset({"ApprovalRequested", "ExecutionPaused"})
SETTLE_S: Final = 5.0
SETTLE_POLL_S: Final = 0.1
SHOWN: Final = ("id", "status", "output")
COUNTED: Final = ("llm_calls", "tool_calls", "cost_microusd")


def add(subparsers: Subparsers) -> None:
    """Add `run`."""
    parser = command(
        subparsers,
        "run",
        "Run a workflow: the object of a Python file, or a registered name.",
        handle,
        (
            'run my_graph.py:graph --input \'{"topic": "tea"}\'',
            "run crew.py:crew --input @inputs.json --json",
            "run my_graph.py:graph --detach",
        ),
    )
    parser.add_argument("target", metavar="FILE.py:OBJ|WORKFLOW")
    parser.add_argument(
        "--input", default="{}", metavar="JSON|@FILE", help="a JSON object (default: {})"
    )
    parser.add_argument(
        "--follow", action="store_true", help="print the timeline with --json as well (on stderr)"
    )
    parser.add_argument(
        "--detach", action="store_true", help="return once the execution is accepted"
    )
    parser.add_argument(
        "--framework", choices=("langgraph", "crewai", "autogen", "python"), default=""
    )
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--deadline-s", type=float, metavar="SECONDS")
    parser.add_argument(
        "--idempotency-key", default="", help="the same key and input are the same execution"
    )


def handle(arguments: argparse.Namespace) -> int:
    """Start it, follow it, and say how it ended."""
    from ops.client import client_of
    from ops.clock import new_id
    from ops.timeline import summary

    body = _body(arguments)
    if not arguments.idempotency_key.isascii():
        raise CommandError("--idempotency-key holds ASCII characters only.", USAGE)
    with client_of(settings_of(arguments), say=say) as client:
        body |= _workflow(client, arguments.target, arguments.framework)
        key = arguments.idempotency_key or new_id()
        accepted = client.post("/v1/executions", body, idempotency_key=key)
        execution_id = str(accepted["id"])
        if arguments.detach:
            _print_accepted(arguments.json, accepted)
            return OK
        print(f"execution {execution_id}  {client.url}/#{execution_id}")
        try:
            execution = followed(
                client, execution_id, is_shown=not arguments.json or arguments.follow
            )
        except KeyboardInterrupt:
            say(f"\nIt goes on without you: omiumctl logs -f {execution_id}")
            raise
        print(summary(execution))
        _say_what_to_do(execution)
        if arguments.json:
            emit(result(execution))
        elif execution["status"] == "completed":
            print(json.dumps(execution["output"], indent=2, ensure_ascii=False))
        return exit_code(execution)


def followed(client: Client, execution_id: str, *, is_shown: bool) -> Json:
    """The execution at its end, or as it waits for a person; its events are printed on the way."""
    from ops.timeline import Timeline

    timeline = Timeline()
    for frame in client.follow(f"/v1/executions/{execution_id}/events"):
        if is_shown and (line := timeline.line(frame)):
            print(line, flush=True)
        if frame.event == "end":
            return _settled(client, frame.data)
        if frame.event in MAY_WAIT and (waiting := _waiting(client, frame, execution_id)):
            return waiting
    raise CommandError("the stream of events ended early.")


def result(execution: Json) -> Json:
    """What `--json` prints."""
    counts = {name: execution[name] for name in COUNTED}
    return {
        **{name: execution[name] for name in SHOWN},
        "steps": execution["step_count"],
        **counts,
        "incidents": execution["incidents"],
    }


def exit_code(execution: Json) -> int:
    """0 completed, 1 failed or cancelled, 4 waiting."""
    match execution["status"]:
        case "completed":
            return OK
        case "failed" | "cancelled":
            return FAILED
        case _:
            return WAITING


def json_argument(text: str, name: str) -> object:
    """The value of a `JSON|@FILE` argument; raises `CommandError`."""
    try:
        return json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise CommandError(
            f"{name}: {text[1:]} cannot be read: {error.strerror}.", USAGE
        ) from error
    except ValueError as error:
        raise CommandError(f"{name} is not JSON: {error}.", USAGE) from error


def _waiting(client: Client, frame: Frame, execution_id: str) -> Json | None:
    """The execution if it still waits: on a resumed stream the question may have been answered long
    ago.
    """
    execution = client.get(f"/v1/executions/{execution_id}")
    return execution if execution["status"] in WAITING_STATUSES else None


def _settled(client: Client, execution: Json) -> Json:
    """The execution once its cost is final; an LLM answer may reach the gateway after the end."""
    from ops.clock import monotonic_ms

    deadline_ms = monotonic_ms() + SETTLE_S * 1000
    while not execution["is_settled"] and monotonic_ms() < deadline_ms:
        time.sleep(SETTLE_POLL_S)
        execution = client.get(f"/v1/executions/{execution['id']}")
    return execution


def _body(arguments: argparse.Namespace) -> Json:
    value = json_argument(arguments.input, "--input")
    if not isinstance(value, dict):
        raise CommandError("--input must be a JSON object.", USAGE)
    body: Json = {"input": value}
    labels = dict(_label(text) for text in arguments.label)
    if labels:
        body["labels"] = labels
    if arguments.deadline_s is not None:
        body["deadline_s"] = arguments.deadline_s
    return body


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise CommandError(f"--label {text}: write NAME=VALUE.", USAGE)
    return name, value


def _workflow(client: Client, target: str, framework: str) -> Json:
    """Which workflow to ask for: the file's, registered first, or the one of that name."""
    from ops.workflow_file import is_file_target, workflow_file

    if not is_file_target(target):
        return {"workflow": target}
    found = workflow_file(target, framework)
    registered = client.post(
        "/v1/workflows",
        {
            "name": found.name,
            "framework": found.framework,
            "entrypoint": found.entrypoint,
            "options": found.options,
            "input_schema": found.input_schema,
        },
        is_repeatable=True,
    )
    # Another file may take the name at any time: this version is the one that was meant.
    return {"workflow": found.name, "workflow_version": registered["version"]}


def _print_accepted(is_json: bool, accepted: Json) -> None:
    if is_json:
        emit(accepted)
    else:
        print(accepted["id"])


def _say_what_to_do(execution: Json) -> None:
    approvals = execution["approvals"]
    for approval in approvals if isinstance(approvals, list) else []:
        if approval["status"] == "pending":
            say(
                f"omiumctl approve {approval['id']}   "
                f"# or reject; {approval['kind']} {approval['tool'] or approval['step']}"
            )
    if execution["status"] == "paused":
        say(f"omiumctl resume {execution['id']}")
    error = execution["error"]
    if isinstance(error, dict):
        say(f"{error['type']}: {error['message']}")
