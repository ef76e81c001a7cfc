"""The style guide as a test (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "schemas", "producers", "processors", "projections", "gateway", "ops")
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
BANNED_WORDS = re.compile(r"\b(TODO|FIXME|XXX)\b(?!.*#\d)")
BANNED_NAMES = re.compile(r"(Manager|Helper|Util)s?$")
MACHINE_PATH = re.compile(r"(?<![\w.\"'/:-])/(?:work|farm|root)/")
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "python" + "hosted",
    "registry.npm" + "js",
    "repo1.maven" + ".org",
)


def tracked(*suffixes: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [ROOT / name for name in listed if name.endswith(suffixes) and (ROOT / name).is_file()]


def library() -> list[Path]:
    return [path for path in tracked(".py") if path.relative_to(ROOT).parts[0] in PACKAGES]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_a_module_is_one_idea() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in library()
        if (lines := path.read_text("utf-8").count("\n")) > MODULE_LINES_MAX
    }
    assert not long


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in library()
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in library()
        if path.read_text("utf-8").strip()
        and ast.get_docstring(ast.parse(path.read_text("utf-8"))) is None
    ]
    assert not silent


def test_no_name_says_nothing() -> None:
    empty = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in library()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and BANNED_NAMES.search(node.name)
    ]
    assert not empty


def test_no_error_is_swallowed() -> None:
    swallowed = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in library()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and len(node.body) == 1
        and isinstance(node.body[0], ast.Pass)
    ]
    assert not swallowed


@pytest.mark.parametrize("word", ["eval(", "exec(", "pickle.loads("])
def test_data_is_never_executed(word: str) -> None:
    call = re.compile(rf"(?<![\w.]){re.escape(word)}")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in library()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if call.search(line)
    ]
    assert not found


def test_nothing_is_left_open() -> None:
    this = Path(__file__)
    open_ends = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked(".py")
        if path != this
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if BANNED_WORDS.search(line) or "NotImplementedError" in line
    ]
    assert not open_ends


def test_only_ops_reads_the_environment() -> None:
    readers = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in library()
        if path.relative_to(ROOT).parts[0] != "ops"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if "os.getenv" in line or "os.environ.get" in line
    ]
    assert not readers


def test_history_could_be_published() -> None:
    this = Path(__file__)
    found = []
    for path in tracked(".py", ".md", ".toml", ".yml", ".lock", ".txt", ".json", "Makefile"):
        if path == this:
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if MACHINE_PATH.search(line) or any(host in line for host in REGISTRY_HOSTS):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found


def test_all_packages_are_ours() -> None:
    """PyPI has an `ops` and a `schemas` of other people's: whoever installs them beside us must
    hear of it.
    """
    parents = set()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        parents.add(Path(spec.origin).parents[1])
    assert len(parents) == 1
