"""One module per `omiumctl` command; each has `add(subparsers)`, which `ops.main` finds and calls.

A handler takes the parsed arguments and returns an exit code (`ops.exits`). It imports what is
heavy inside itself, so that `omiumctl --help` stays quick, and prints through `ops.output`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ops.settings import Settings

# A string, since argparse exports no public name for what `add_subparsers` returns.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Handler = Callable[[argparse.Namespace], int]


def command(
    subparsers: Subparsers,
    name: str,
    summary: str,
    handler: Handler,
    examples: tuple[str, ...] = (),
) -> argparse.ArgumentParser:
    """A new command with what all share: `--json`, `--data-dir`, and examples under its help."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog="examples:\n" + "\n".join(f"  omiumctl {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON on stdout, the rest on stderr"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="data directory of the stack (default: OMIUM_DATA_DIR, ./.omium)",
    )
    parser.set_defaults(handler=handler)
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings, with `--data-dir` winning over the environment."""
    from ops.settings import Settings

    if arguments.data_dir is not None:
        return Settings(data_dir=arguments.data_dir)
    return Settings()
