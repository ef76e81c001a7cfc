"""Messages as flat records and back: what every serialisation (Avro, JSON) starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from types import ModuleType

from streams.control import events as control_events
from streams.execution import commands as execution_commands
from streams.execution import events as execution_events
from streams.llm import events as llm_events
from streams.messages import Message

MODULES: tuple[ModuleType, ...] = (
    control_events,
    execution_commands,
    execution_events,
    llm_events,
)
"""Where record types are declared; a dataclass in one of them is a record type."""


def full_name(kind: type[Message]) -> str:
    """The name of the type's Avro record, `omium.<aggregate>.<Record>`."""
    return f"{kind.namespace}.{kind.__name__}"


def _is_record_type(value: object) -> bool:
    """Whether it is a concrete message class; bases such as `Event` are no dataclasses."""
    return (
        isinstance(value, type)
        and issubclass(value, Message)
        and (value is not Message and "__dataclass_fields__" in vars(value))
    )


TYPES: dict[str, type[Message]] = {
    full_name(kind): kind
    for module in MODULES
    for kind in vars(module).values()
    if _is_record_type(kind)
}
"""Every record type by full name."""

_NAMES: dict[type[Message], tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind)) for kind in TYPES.values()
}
_VALUES: dict[type[Message], Callable[[Message], tuple[object, ...]]] = {
    kind: attrgetter(*names) for kind, names in _NAMES.items()
}
Setter = tuple[Callable[[Message, object], None], str]


def _setters(kind: type[Message], *, of_sequences: bool) -> tuple[Setter, ...]:
    """Writes the slots directly: the `__init__` of a frozen dataclass takes twice as long."""
    assert not hasattr(kind, "__post_init__"), "it would be skipped"
    return tuple(
        (getattr(kind, field.name).__set__, field.name)
        for field in fields(kind)
        if str(field.type).startswith("tuple[") is of_sequences
    )


_SETTERS = {kind: _setters(kind, of_sequences=False) for kind in TYPES.values()}
_SEQUENCE_SETTERS = {kind: _setters(kind, of_sequences=True) for kind in TYPES.values()}


def to_record(message: Message) -> dict[str, object]:
    """The message's fields by name. Values are shared, not copied; they are immutable."""
    kind = type(message)
    return dict(zip(_NAMES[kind], _VALUES[kind](message), strict=True))


def from_record(name: str, record: Mapping[str, object]) -> Message:
    """The message of a decoded record. ValueError if its type or a field is unknown or missing."""
    kind = TYPES.get(name)
    if kind is None:
        raise ValueError(f"unknown record type {name}")
    if len(record) != len(_NAMES[kind]):
        raise ValueError(f"{name}: fields {sorted(record)} instead of {sorted(_NAMES[kind])}")
    message: Message = object.__new__(kind)
    try:
        for setter, field in _SETTERS[kind]:
            setter(message, record[field])
        for setter, field in _SEQUENCE_SETTERS[kind]:
            setter(message, tuple(record[field]))  # type: ignore[arg-type]  # a list, by the schema
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name}: {error!r}") from error
    return message
