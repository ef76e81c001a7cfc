"""`omiumctl schemas`: check, list, show and lock the schemas of all records; write their page."""

from __future__ import annotations

import argparse
from pathlib import Path

from ops.commands import Subparsers, command
from ops.exits import FAILED, OK, USAGE, CommandError
from ops.output import emit, say

DOCS_PATH = Path("docs/events.md")


def add(subparsers: Subparsers) -> None:
    """Add `schemas` and its actions."""
    summary = "Check, list, show and lock the Avro schemas of all records."
    parser = subparsers.add_parser("schemas", help=summary, description=summary)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    command(
        actions,
        "check",
        "Check that every schema parses, is documented, agrees with its class, keeps what was "
        "shipped, and that docs/events.md is current. Exit code 1 if not.",
        check,
        ("schemas check", "schemas check --json"),
    )
    command(actions, "list", "List every record with its topics.", show_all, ("schemas list",))
    shown = command(
        actions, "show", "Print a record's schema.", show, ("schemas show StepStarted",)
    )
    shown.add_argument("record", help="name of a record, full or without its namespace")
    command(
        actions,
        "lock",
        "Append the fingerprints of new and changed schemas to schemas/fingerprints.lock.",
        write_lock,
        ("schemas lock",),
    )
    command(
        actions, "docs", "Write docs/events.md from the schemas.", write_docs, ("schemas docs",)
    )


def check(arguments: argparse.Namespace) -> int:
    """Say everything that is wrong."""
    import schemas
    from ops.event_reference import render
    from ops.schema_check import ROOT, problems, removed_in_git

    lock_text = _lock_text()
    found = problems(lock_text)
    found += removed_in_git(ROOT, lock_text)
    page = ROOT / DOCS_PATH
    if page.parent.is_dir() and not found and _text(page) != render():
        found.append(f"{DOCS_PATH} is not current; run `omiumctl schemas docs` and commit it")
    if arguments.json:
        emit({"ok": not found, "schemas": len(schemas.sources()), "problems": found})
    else:
        for problem in found:
            print(problem)
        print(f"{len(schemas.sources())} schemas: {f'{len(found)} problems' if found else 'good'}")
    return FAILED if found else OK


def show_all(arguments: argparse.Namespace) -> int:
    """List the records."""
    import schemas
    from producers.subjects import compatibility, topics_of
    from schemas import lock
    from streams.codec import TYPES

    shipped = lock.shapes(_lock_text())
    rows = [
        {
            "record": name,
            "versions": sum(shape.record == name for shape in shipped),
            "compatibility": compatibility(TYPES[name]),
            "topics": [topic.name for topic in topics_of(TYPES[name])],
        }
        for name in schemas.sources()
        if name in TYPES
    ]
    if arguments.json:
        emit({"schemas": rows})
        return OK
    for row in rows:
        topics = " ".join(str(topic) for topic in row["topics"])  # type: ignore[attr-defined]
        print(f"{row['record']:<38} v{row['versions']}  {row['compatibility']:<20} {topics}")
    return OK


def show(arguments: argparse.Namespace) -> int:
    """Print one schema."""
    import json

    import schemas

    wanted: str = arguments.record
    names = [n for n in schemas.sources() if wanted in (n, n.rpartition(".")[2])]
    if len(names) != 1:
        raise CommandError(f"there is no record {wanted!r}; see `omiumctl schemas list`.", USAGE)
    if arguments.json:
        emit(json.loads(schemas.sources()[names[0]]))
    else:
        print(schemas.sources()[names[0]], end="")
    return OK


def write_lock(arguments: argparse.Namespace) -> int:
    """Append what is new, unless it breaks what was shipped."""
    import schemas
    from ops.schema_check import LOCK_PATH, ROOT
    from producers.subjects import compatibility
    from schemas import lock
    from streams.codec import TYPES

    path, text = ROOT / LOCK_PATH, _lock_text()
    levels = {name: compatibility(kind) for name, kind in TYPES.items()}
    broken = lock.broken_rules(text, schemas.sources(), levels)
    for problem in broken:
        say(problem)
    new = [] if broken else lock.unlocked(text, schemas.sources())
    if new:
        path.write_text((text or lock.HEADER) + "".join(shape.line for shape in new), "utf-8")
    appended = [f"{shape.record} v{shape.version}" for shape in new]
    if arguments.json:
        emit({"appended": appended, "problems": broken})
    else:
        print("\n".join(appended) or "nothing appended")
    return FAILED if broken else OK


def write_docs(arguments: argparse.Namespace) -> int:
    """Write the reference."""
    from ops.event_reference import render
    from ops.schema_check import ROOT

    page = ROOT / DOCS_PATH
    if not page.parent.is_dir():
        raise CommandError("there is no docs folder here: run it in a source tree.", USAGE)
    page.write_text(render(), "utf-8")
    if arguments.json:
        emit({"written": str(page)})
    else:
        print(f"wrote {page}")
    return OK


def _lock_text() -> str:
    import schemas

    return schemas.LOCK.read_text("utf-8") if schemas.LOCK.is_file() else ""


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""
