"""The Avro schemas of every record that Omium writes, read from the package they ship in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

AVRO = files(__name__) / "avro"
LOCK = files(__name__) / "fingerprints.lock"


@cache
def sources() -> Mapping[str, str]:
    """The text of every `.avsc`, by the record's full name, sorted by it."""
    found: dict[str, str] = {}
    for place, text in _walk(AVRO):
        schema = json.loads(text)
        full_name = f"{schema['namespace']}.{schema['name']}"
        if place != f"{schema['namespace'].rpartition('.')[2]}/{schema['name']}.avsc":
            raise ValueError(f"schemas/avro/{place} declares {full_name}")
        found[full_name] = text
    return dict(sorted(found.items()))


@cache
def compact(full_name: str) -> str:
    """The schema as it is registered: the source without its white space, docs included."""
    return json.dumps(json.loads(sources()[full_name]), separators=(",", ":"), ensure_ascii=False)


def _walk(avro: Traversable) -> Iterator[tuple[str, str]]:
    for aggregate in avro.iterdir():
        if aggregate.is_dir():
            for file in aggregate.iterdir():
                if file.name.endswith(".avsc"):
                    yield f"{aggregate.name}/{file.name}", file.read_text(encoding="utf-8")
