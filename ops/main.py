"""`omiumctl`: finds the commands, runs one, turns its errors into a sentence and an exit code."""

from __future__ import annotations

import argparse
import errno
import importlib
import pkgutil
import sys
from collections.abc import Sequence

from ops import commands
from ops.exits import UNAVAILABLE, USAGE, CommandError
from ops.output import json_on_stdout, say
from streams.errors import OmiumError, Rejected

INTERRUPTED = 130

EXAMPLES = """examples:
  omiumctl up --detach              start the embedded stack in the background
  omiumctl status                   what runs, where, and since when
  omiumctl run my_graph.py:graph --input '{"topic": "tea"}'
  omiumctl down                     stop it

exit codes: 0 ok, 1 the execution failed, 2 usage, 3 service unavailable,
            4 waiting for a person or paused"""


def parser() -> argparse.ArgumentParser:
    """The parser with every command that `ops/commands/` holds."""
    root = argparse.ArgumentParser(
        prog="omiumctl",
        description="Run agent workflows durably on Kafka.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda module: module.name):
        importlib.import_module(f"{commands.__name__}.{module.name}").add(subparsers)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; its exit code, and never a traceback for an error of our own."""
    arguments = parser().parse_args(argv)
    with json_on_stdout(getattr(arguments, "json", False)):
        try:
            return int(arguments.handler(arguments))
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            # Whoever read our output has gone (`omiumctl logs | head`): nobody is left to tell.
            sys.stderr.close()
            return 0
        except OmiumError as error:
            say(f"omiumctl: {error}")
            return _exit_code(error)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            say(
                f"omiumctl: the disk is full ({error.filename or 'data directory'}): "
                "free some space and try again."
            )
            return UNAVAILABLE
        except ValueError as error:
            if type(error).__name__ != "ValidationError":
                raise
            say(f"omiumctl: a setting is wrong: {_setting_errors(error)}")
            return USAGE


def _exit_code(error: OmiumError) -> int:
    match error:
        case CommandError():
            return error.exit_code
        case Rejected():
            return USAGE
        case _:
            return UNAVAILABLE


def _setting_errors(error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"OMIUM_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors() if e["loc"]
    )


if __name__ == "__main__":
    sys.exit(main())
