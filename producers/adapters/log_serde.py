"""Framework state as bytes, in which a list that grew costs what it grew by (law 12).

A list becomes `("list", parts)`, one part an item. Whoever stores a new version of it shares the
parts that it has in common with the last one, in memory and on the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

LIST: Final = "list"
ITEMS_MAX: Final = 10_000
"""A longer list is stored whole: its parts would cost more than they save."""

Parts = Sequence[bytes]


class LogSerializer(JsonPlusSerializer):
    """Msgpack, never pickle; lists in parts. What it revives comes from the execution's own log."""

    def __init__(self) -> None:
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=True)

    def dumps_typed(self, obj: Any) -> tuple[str, Any]:
        """The value's type and bytes; a list's parts instead of bytes."""
        if type(obj) is list and _is_worth_it(obj):
            return LIST, tuple(super(LogSerializer, self).dumps_typed([item])[1] for item in obj)
        return super().dumps_typed(obj)

    def loads_typed(self, data: tuple[str, Any]) -> Any:
        """The value again."""
        if data[0] != LIST:
            return super().loads_typed(data)
        return [super(LogSerializer, self).loads_typed(("msgpack", part))[0] for part in data[1]]


def common(old: Parts, new: Parts) -> int:
    """How many parts both begin with."""
    count = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        count += 1
    return count


def _is_worth_it(items: list[Any]) -> bool:
    return 0 < len(items) <= ITEMS_MAX and not any(isinstance(i, int | float) for i in items)
