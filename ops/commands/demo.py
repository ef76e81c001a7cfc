"""`omiumctl demo`, which is `make run`: the stack, one real execution on the local model, and then
it stays.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import say

if TYPE_CHECKING:
    from ops.settings import Settings
    from ops.supervisor_control import Document

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "loan_advisor" / "loan_advisor.py"
INPUT: Final = '{"applicant": "Ada Lovelace", "amount": 12000, "purpose": "a new roof"}'
DEMO_TIMEOUT_S: Final = 300.0


def add(subparsers: Subparsers) -> None:
    """Add `demo`."""
    parser = command(
        subparsers,
        "demo",
        "Start the stack, run examples/loan_advisor on the local model, stay up until Ctrl-C.",
        handle,
        ("demo", "demo --data-dir /tmp/try --port 9700"),
    )
    parser.add_argument("--port", type=int, help="the gateway's port (default 8700)")


def handle(arguments: argparse.Namespace) -> int:
    """Serve the stack and tell the story once it is ready."""
    from ops.supervisor_control import serve

    settings = settings_of(arguments)
    if arguments.port is not None:
        settings = settings.model_copy(update={"port": arguments.port})

    def tell(document: Document) -> None:
        threading.Thread(target=_story, args=(settings, document), daemon=True).start()

    serve(settings, [], say, tell)
    return OK


def _story(settings: Settings, document: Document) -> None:
    """Runs the example as a user would, then says where everything is."""
    has_model = document["triton"] is not None or settings.openai_base_url
    if has_model:
        say(f"\nRunning {EXAMPLE.name}: three LangGraph agents and a tool, no Omium import.\n")
        _run_example(settings)
    else:
        say("\nNo local model, no upstream (OMIUM_OPENAI_BASE_URL): the demo is left out.")
    say(f"\nAPI      {document['gateway']}/v1   (docs: {document['gateway']}/docs)")
    say(f"API key  {document['api_key']}")
    say(f"Data     {document['data_dir']}")
    say("\nTry      omiumctl ps · omiumctl sql 'SELECT type, count() FROM events GROUP BY type'")
    print(
        f"Dashboard {document['gateway']}/#key={document['api_key']} — Ctrl-C stops everything.",
        flush=True,
    )


def _run_example(settings: Settings) -> None:
    command_line = [
        *(sys.executable, "-m", "ops.main", "run", f"{EXAMPLE}:graph", "--input", INPUT),
        *("--data-dir", str(settings.data_dir)),
    ]
    try:
        ended = subprocess.run(command_line, timeout=DEMO_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        say(f"The demo execution did not end within {DEMO_TIMEOUT_S:.0f} s; it goes on.")
        return
    if ended.returncode != 0:
        say(f"The demo execution ended with exit code {ended.returncode}.")
