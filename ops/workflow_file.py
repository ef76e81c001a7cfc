"""`FILE.py:OBJ` as a user types it: checked, its framework guessed and its options read, without
importing anything.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.exits import USAGE, CommandError
from streams.execution.options import KEYS

OPTIONS_FILE: Final = "omium.toml"
FILES_READ_MAX: Final = 50
"""Local modules followed to learn the framework."""
FRAMEWORKS: Final = {
    "langgraph": "langgraph",
    "crewai": "crewai",
    "autogen_agentchat": "autogen",
    "autogen_core": "autogen",
    "autogen_ext": "autogen",
    "autogen": "autogen",
}
PYTHON: Final = "python"
EXTRA_KEYS: Final = frozenset({"input_schema"})
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_.-]+")
NAME_CHARS_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFile:
    """A workflow in a file, ready to be registered."""

    name: str
    framework: str
    entrypoint: str
    options: dict[str, object]
    input_schema: object


def is_file_target(target: str) -> bool:
    """Whether the user means a file rather than the name of a registered workflow."""
    return target.endswith(".py") or ".py:" in target


def workflow_file(target: str, framework: str = "") -> WorkflowFile:
    """What `FILE.py:OBJ` means; raises `CommandError` that says what is missing."""
    place, _, attribute = target.rpartition(":") if ".py:" in target else (target, "", "")
    path = Path(place).expanduser().absolute()
    tree = _parsed(path)
    names = set(_top_level(tree))
    if not attribute:
        shown = ", ".join(sorted(names)) or "none"
        raise CommandError(f"name the object: {place}:OBJ (it has: {shown}).", USAGE)
    # `from x import *` may bring any name; then only the import can tell.
    if attribute.partition(".")[0] not in names and "*" not in names:
        shown = ", ".join(sorted(names)) or "no names at all"
        raise CommandError(f"{place} has no {attribute!r}; it has {shown}.", USAGE)
    options = _options(path.with_name(OPTIONS_FILE))
    schema = options.pop("input_schema", None)
    return WorkflowFile(
        name=_name(path, attribute),
        framework=framework or _framework(path, tree),
        entrypoint=f"{path}:{attribute}",
        options=options,
        input_schema=schema,
    )


def _parsed(path: Path) -> ast.Module:
    if not path.exists():
        raise CommandError(f"there is no file {path}.", USAGE)
    if not path.is_file():
        raise CommandError(f"{path} is no file.", USAGE)
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        raise CommandError(f"{path}:{error.lineno}: {error.msg}.", USAGE) from error
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read: {error}.", USAGE) from error


def _top_level(tree: ast.Module) -> Iterator[str]:
    """Names that the module binds, also inside top-level `if`, `try` and `with`."""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            case ast.Assign(targets=targets):
                yield from (name for target in targets for name in _bound(target))
            case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
                yield from _bound(target)
            case ast.If() | ast.For() | ast.While() | ast.With() | ast.Try():
                for part in ("body", "orelse", "finalbody"):
                    pending += getattr(node, part, [])
                for handler in getattr(node, "handlers", []):
                    pending += handler.body
            case _:
                pass


def _bound(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name(id=name):
            yield name
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield from _bound(element)
        case _:
            pass


def _framework(path: Path, tree: ast.Module) -> str:
    """The framework that the file, or a module beside it, imports first; else plain Python."""
    pending, seen = [(path, tree)], {path}
    while pending:
        here, module = pending.pop(0)
        for imported in _imports(module):
            root = imported.partition(".")[0]
            if root in FRAMEWORKS:
                return FRAMEWORKS[root]
            for beside in _beside(here, path.parent, imported):
                if beside not in seen and len(seen) < FILES_READ_MAX:
                    seen.add(beside)
                    pending.append((beside, _parsed(beside)))
    return PYTHON


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names):
                if module:
                    yield module
                yield from (f"{module}.{alias.name}" if module else alias.name for alias in names)
            case _:
                pass


def _beside(importer: Path, root: Path, imported: str) -> Iterator[Path]:
    """Files of ours that an import may mean, from the importer's folder or the workflow's."""
    for folder in {importer.parent, root}:
        place = folder.joinpath(*imported.split("."))
        for candidate in (place.with_suffix(".py"), place / "__init__.py"):
            if candidate.is_file():
                yield candidate


def _options(path: Path) -> dict[str, object]:
    try:
        options = tomllib.loads(path.read_text("utf-8"))
        json.dumps(options)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: {error}.", USAGE) from error
    except TypeError as error:
        raise CommandError(f"{path}: dates are not supported here: {error}.", USAGE) from error
    unknown = sorted(options.keys() - KEYS - EXTRA_KEYS)
    if unknown:
        known = ", ".join(sorted(KEYS | EXTRA_KEYS))
        raise CommandError(f"{path}: unknown {', '.join(unknown)}; known: {known}.", USAGE)
    return options


def _name(path: Path, attribute: str) -> str:
    parts = [path.parent.name, path.stem, attribute]
    kept = [part for index, part in enumerate(parts) if part and part not in parts[:index]]
    name = _UNNAMEABLE.sub("_", ".".join(kept))[-NAME_CHARS_MAX:]
    return name if re.match(r"[A-Za-z0-9_]", name) else f"_{name}"
