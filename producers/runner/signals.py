"""What unwinds a runner. They derive from `BaseException`, so that `except Exception` in user code
lets them pass.
"""

from __future__ import annotations


class Unwind(BaseException):
    """The execution must stop here, not because it failed."""


class Suspended(Unwind):
    """It waits for a person; a later incarnation goes on."""


class Cancelled(Unwind):
    """Its worker asked it to stop for good."""


class EffectDenied(PermissionError):
    """A person or a policy said no to this call. An ordinary error: user code may handle it."""


class RecordedEffectError(RuntimeError):
    """A recorded failure whose own type is unknown to this process."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(f"{error_type}: {message}")
        self.error_type = error_type


class UnrecordableResult(TypeError):
    """A tool returned something that cannot be written to the journal, so it could never be given
    back.
    """


def raise_recorded(error_type: str, message: str) -> None:
    """Raises the error that was recorded: of its own type where that is loaded and takes one
    message.
    """
    import sys

    module, _, name = error_type.rpartition(".")
    found: object = sys.modules.get(module or "builtins")
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            error = found(message)
        except Exception:
            raise RecordedEffectError(error_type, message) from None
        raise error
    raise RecordedEffectError(error_type, message)


def type_name(error: BaseException | type[BaseException]) -> str:
    """`module.Class`, or the bare class name of a built-in."""
    kind = error if isinstance(error, type) else type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
