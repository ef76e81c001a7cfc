"""`python -m ops.embedded.setup`: fetch and make once what the embedded stack needs, with progress.

`make setup` calls it; `omiumctl up` does the same for what is missing, but for the AOT cache.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ops.embedded import aot, disk, java, triton, triton_venv
from ops.exits import UNAVAILABLE, CommandError
from ops.output import say
from ops.settings import TRITON_OFF, Settings

NEEDED_MB = 1500
"""What Kafka's jars, the AOT cache and Triton's venv take together, with room to unpack."""


def main() -> int:
    """Set everything up; one sentence and exit code 3 when something cannot be."""
    settings = Settings()
    try:
        _room(settings)
        java.java()
        _step("Kafka's jars", java.has_jars(settings.cache_dir), lambda: _jars(settings))
        _step("Kafka's AOT cache", aot.has_cache(settings.cache_dir), lambda: _aot(settings))
        _triton(settings)
    except CommandError as error:
        say(f"setup: {error}")
        return UNAVAILABLE
    return 0


def _room(settings: Settings) -> None:
    is_done = aot.has_cache(settings.cache_dir) and triton_venv.is_complete(settings.triton_venv)
    free = disk.free_mb(settings.cache_dir)
    if not is_done and free < NEEDED_MB:
        raise CommandError(
            f"{free} MB of disk are free in {settings.cache_dir}, setting up needs {NEEDED_MB} MB."
        )


def _step(name: str, is_done: bool, make: Callable[[], None]) -> None:
    if is_done:
        return
    say(f"setup: {name} …")
    begun = time.monotonic()
    make()
    say(f"setup: {name} done in {time.monotonic() - begun:.0f} s")


def _jars(settings: Settings) -> None:
    java.class_path(settings.cache_dir)


def _aot(settings: Settings) -> None:
    if not aot.ensure(settings.cache_dir):
        say("setup: this Java writes no AOT cache; Kafka will start a second or two slower")


def _triton(settings: Settings) -> None:
    why = triton.unavailable_because()
    if settings.triton_url == TRITON_OFF or why is not None:
        say(f"setup: without Triton ({why or 'OMIUM_TRITON_URL=off'})")
        return
    is_done = triton_venv.is_complete(settings.triton_venv)
    _step("Triton", is_done, lambda: triton_venv.ensure(settings.triton_venv, lambda _: None))


if __name__ == "__main__":
    sys.exit(main())
