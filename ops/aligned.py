"""Rows as a table for people: aligned, numbers to the right, long values cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

CELL_CHARS_MAX: Final = 60
GAP: Final = "  "


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """The lines of the table, header first."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(len(name), *(len(row[index]) for row in cells), 0) for index, name in enumerate(columns)
    ]
    is_number = [
        bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        for index in range(len(columns))
    ]
    yield _line(columns, widths, is_number)
    yield GAP.join("-" * width for width in widths)
    for row in cells:
        yield _line(row, widths, is_number)


def _line(cells: Sequence[str], widths: Sequence[int], is_number: Sequence[bool]) -> str:
    placed = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, is_number, strict=True)
    )
    return GAP.join(placed).rstrip()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    text = text.replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 1] + "…"
