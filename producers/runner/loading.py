"""The user's object from its entrypoint, `/abs/file.py:attr` or `module:attr`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from zlib import crc32


class BadWorkflow(Exception):
    """The entrypoint leads to nothing that can run; the message says what to do."""


def load(entrypoint: str) -> object:
    """The object that the entrypoint names; raises `BadWorkflow`, or whatever the user's module
    raises.
    """
    place, colon, attribute = entrypoint.rpartition(":")
    if not colon or not place or not attribute:
        raise BadWorkflow(f"entrypoint {entrypoint!r} is not `file.py:attr` or `module:attr`")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_name(place)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = ", ".join(
                sorted(name for name in vars(module) if not name.startswith("_"))[:20]
            )
            raise BadWorkflow(f"{place} has no {attribute!r}; it has {known or 'nothing public'}")
        found = getattr(found, part)
    return found


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise BadWorkflow(f"there is no module {name!r} on the runner's path") from error
        raise


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadWorkflow(f"there is no file {path}")
    directory = str(path.parent)
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    name = module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadWorkflow(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def module_name(path: Path) -> str:
    """The module's natural name where it is free, so that its neighbours can import it; else one of
    its own.

    The same in every process: framework state on the log names classes by module.
    """
    stem = path.stem
    loaded = sys.modules.get(stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return stem
    if loaded is None and stem.isidentifier() and _resolves_to(stem, path):
        return stem
    return f"omium_workflow_{crc32(str(path).encode()):08x}"


def _resolves_to(stem: str, path: Path) -> bool:
    try:
        spec = importlib.util.find_spec(stem)
    except (ImportError, ValueError, AttributeError):
        return False
    return spec is not None and spec.origin == str(path)
