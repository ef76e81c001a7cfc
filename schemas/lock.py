"""The fingerprint lock: every shape of every record ever shipped, one line each, never removed.

A line is `record version crc64 sha256 form`: the two fingerprints are of the parsing canonical form
(what the bytes look like); the form also keeps defaults and aliases, so that a new shape is checked
against all old ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.compatibility import problems
from schemas.fingerprint import canonical, crc64, resolution_form, sha256
from schemas.model import InvalidSchema, parse

HEADER = (
    "# record version crc64 sha256 form. Append-only: run `omiumctl schemas lock`, never edit.\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shipped shape of one record."""

    record: str
    version: int
    form: str

    @property
    def line(self) -> str:
        """The shape as the lock holds it, with its line end."""
        plain = canonical(self.form)
        return f"{self.record} {self.version} {crc64(plain)} {sha256(plain)} {self.form}\n"


def shapes(lock: str) -> list[Shape]:
    """The shapes in a lock's text. ValueError, naming the line, if one was edited."""
    found: list[Shape] = []
    # Not splitlines: a form may hold characters that Python takes for line ends.
    for number, line in enumerate(lock.split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        parts = line.split(" ", 4)
        try:
            shape = Shape(record=parts[0], version=int(parts[1]), form=parts[4])
            is_whole = shape.line == line + "\n"
        except (IndexError, InvalidSchema, ValueError) as error:
            raise ValueError(f"fingerprints.lock:{number}: unreadable: {error}") from error
        if not is_whole:
            raise ValueError(f"fingerprints.lock:{number}: the fingerprints are not of this form")
        if shape.version != 1 + sum(each.record == shape.record for each in found):
            raise ValueError(f"fingerprints.lock:{number}: a version of {shape.record} is missing")
        found.append(shape)
    return found


def unlocked(lock: str, schemas: Mapping[str, str]) -> list[Shape]:
    """The shapes that the lock lacks: what `omiumctl schemas lock` appends."""
    by_record = _by_record(shapes(lock))
    new = []
    for record, text in sorted(schemas.items()):
        shipped, form = by_record.get(record, []), resolution_form(text)
        if not shipped or shipped[-1].form != form:
            new.append(Shape(record=record, version=len(shipped) + 1, form=form))
    return new


def broken_rules(lock: str, schemas: Mapping[str, str], levels: Mapping[str, str]) -> list[str]:
    """What must not ship: a shape that breaks its compatibility level, a record that is gone."""
    by_record = _by_record(shapes(lock))
    found = [
        f"{record}: its schema is gone, but records of it stay on the log; put it back"
        for record in by_record
        if record not in schemas
    ]
    for record, text in sorted(schemas.items()):
        level = levels.get(record, "FULL_TRANSITIVE")
        previous = [parse(shape.form) for shape in by_record.get(record, [])]
        for problem in problems(level, parse(text), previous):
            found.append(
                f"{record}: {problem} ({level}). "
                "Give a new field a default; a real break is a new record"
            )
    return found


def lost_lines(before: str, lock: str) -> list[str]:
    """The lines of an earlier lock that this one lacks."""
    kept = set(lock.split("\n"))
    return [line for line in before.split("\n") if line not in kept and not line.startswith("#")]


def _by_record(found: list[Shape]) -> dict[str, list[Shape]]:
    by_record: dict[str, list[Shape]] = {}
    for shape in found:
        by_record.setdefault(shape.record, []).append(shape)
    return by_record
