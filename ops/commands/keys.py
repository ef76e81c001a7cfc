"""`omiumctl keys`: API keys: list them, issue one, revoke one."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say

SCOPES = ("admin", "executions", "llm", "sql")


def add(subparsers: Subparsers) -> None:
    """Add `keys`."""
    parser = command(
        subparsers,
        "keys",
        "List API keys, issue one, or revoke one.",
        handle,
        ("keys", "keys --issue --scope executions", "keys --revoke KEY_ID"),
    )
    parser.add_argument("--issue", action="store_true", help="make a key; it is shown once")
    parser.add_argument(
        "--scope", action="append", choices=SCOPES, default=[], help="default: executions, llm, sql"
    )
    parser.add_argument("--revoke", default="", metavar="KEY_ID")


def handle(arguments: argparse.Namespace) -> int:
    """Do what was asked; list the keys by default."""
    from ops.client import client_of, segment

    with client_of(settings_of(arguments), say=say) as client:
        if arguments.revoke:
            answer = client.delete(f"/v1/keys/{segment(arguments.revoke)}")
            text = f"revoked: {arguments.revoke}"
        elif arguments.issue:
            answer = client.post(
                "/v1/keys", {"scopes": arguments.scope or ["executions", "llm", "sql"]}
            )
            text = f"{answer['key']}\n(key id {answer['id']}; it is shown only now)"
        else:
            answer = client.get("/v1/keys")
            text = _table(answer["keys"])
    if arguments.json:
        emit(answer)
    else:
        print(text)
    return OK


def _table(keys: object) -> str:
    rows = keys if isinstance(keys, list) else []
    return "\n".join(f"{key['id']:<36}  {', '.join(key['scopes'])}" for key in rows)
