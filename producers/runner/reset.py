"""What a reused runner puts back between two executions. Globals of the user's modules stay: that
is said in the docs.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from collections.abc import MutableMapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The process's own state before its first execution."""

    environment: dict[str, str]
    directory: str
    arguments: list[str]
    path: list[str]
    filters: list[object]
    umask: int

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Baseline:
        """The state as it is now."""
        umask = os.umask(0o022)
        os.umask(umask)
        return cls(
            environment=dict(environment),
            directory=os.getcwd(),
            arguments=list(sys.argv),
            path=list(sys.path),
            filters=list(warnings.filters),
            umask=umask,
        )

    def restore(self, environment: MutableMapping[str, str]) -> None:
        """Puts the state back and draws a new random seed."""
        for name in [name for name in environment if name not in self.environment]:
            del environment[name]
        for name, value in self.environment.items():
            if environment.get(name) != value:
                environment[name] = value
        os.chdir(self.directory)
        os.umask(self.umask)
        sys.argv[:] = self.arguments
        sys.path[:] = self.path
        warnings.filters[:] = self.filters  # type: ignore[index]  # Typed as a sequence; it is a list.
        reseed()
        gc.collect()


def reseed() -> None:
    """New randomness: a forked or reused process must not repeat its parent's or predecessor's."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
