"""What a command prints: text for people, or with `--json` documents and nothing else on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

_documents: TextIO | None = None


@contextmanager
def json_on_stdout(is_json: bool) -> Iterator[None]:
    """Inside, with `is_json`, whatever prints goes to stderr; only `emit` still reaches stdout."""
    global _documents
    if not is_json:
        yield
        return
    _documents = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _documents = None


def emit(document: Mapping[str, object]) -> None:
    """Print one JSON document on one line of the real stdout."""
    stream = _documents or sys.stdout
    print(json.dumps(document, separators=(",", ":"), default=str), file=stream, flush=True)


def say(text: str) -> None:
    """Print progress for people, on stderr."""
    print(text, file=sys.stderr, flush=True)
