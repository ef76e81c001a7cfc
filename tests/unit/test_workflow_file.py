"""`FILE.py:OBJ` is understood without being imported, and what is wrong with it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.exits import CommandError
from ops.workflow_file import is_file_target, workflow_file


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_nothing_is_imported(tmp_path: Path) -> None:
    path = write(tmp_path / "flow.py", "raise SystemExit('imported')\ngraph = 1\n")
    assert workflow_file(f"{path}:graph").entrypoint == f"{path}:graph"


@pytest.mark.parametrize(
    ("text", "framework"),
    [
        ("from langgraph.graph import StateGraph\nobj = 1", "langgraph"),
        ("import crewai\nobj = 1", "crewai"),
        ("from autogen_agentchat.teams import RoundRobinGroupChat\nobj = 1", "autogen"),
        ("def make():\n    import langgraph\nobj = 1", "langgraph"),
        ("from openai import OpenAI\ndef obj(): ...", "python"),
    ],
)
def test_the_framework_is_the_one_that_is_imported(
    tmp_path: Path, text: str, framework: str
) -> None:
    path = write(tmp_path / "flow.py", text)
    assert workflow_file(f"{path}:obj").framework == framework


def test_the_framework_is_found_through_modules_beside_the_file(tmp_path: Path) -> None:
    package = tmp_path / "parts"
    package.mkdir()
    write(package / "__init__.py", "")
    write(package / "build.py", "from crewai import Crew")
    path = write(tmp_path / "flow.py", "from parts import build\nobj = build.x")
    assert workflow_file(f"{path}:obj").framework == "crewai"


@pytest.mark.parametrize(
    "text",
    [
        "obj: int = 1",
        "async def obj(): ...",
        "class obj: ...",
        "from other import thing as obj",
        "from other import *",
        "try:\n    obj = 1\nexcept ImportError:\n    obj = 2",
        "if True:\n    a, (obj, b) = 1, (2, 3)",
        "with open('x') as f:\n    obj = f",
    ],
)
def test_every_way_to_bind_a_name_is_seen(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "flow.py", text)
    assert workflow_file(f"{path}:obj").entrypoint.endswith(":obj")


def test_mistakes_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "flow.py", "graph = 1\ndef inner():\n    hidden = 2\n")
    broken = write(tmp_path / "broken.py", "def (")
    for target, words in (
        (f"{tmp_path}/none.py:graph", "no file"),
        (f"{path}:hidden", "it has graph, inner"),
        (f"{path}", "name the object"),
        (f"{broken}:x", "broken.py:1"),
        (f"{tmp_path}:x", "no file"),
    ):
        with pytest.raises(CommandError) as told:
            workflow_file(target if target != f"{tmp_path}:x" else f"{tmp_path}/x.py:x")
        assert words in str(told.value)
        assert told.value.exit_code == 2


def test_options_stand_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "flow.py", "graph = 1")
    options = write(
        tmp_path / "omium.toml",
        'budget_usd = 0.5\n[input_schema]\ntype = "object"\n'
        '[tools.mail]\npolicy = "at_most_once"\n',
    )
    found = workflow_file(f"{path}:graph")
    assert found.options == {"budget_usd": 0.5, "tools": {"mail": {"policy": "at_most_once"}}}
    assert found.input_schema == {"type": "object"}
    for text, words in (
        ("tool = 1", "unknown tool"),
        ("tools = [", "omium.toml"),
        ("budget_usd = 2020-01-01", "dates"),
    ):
        options.write_text(text)
        with pytest.raises(CommandError) as told:
            workflow_file(f"{path}:graph")
        assert words in str(told.value)


def test_the_name_says_where_it_comes_from(tmp_path: Path) -> None:
    folder = tmp_path / "loan advisor"
    folder.mkdir()
    path = write(folder / "graph.py", "graph = 1")
    assert workflow_file(f"{path}:graph").name == "loan_advisor.graph"


def test_a_registered_name_is_no_file() -> None:
    assert is_file_target("a.py:b")
    assert is_file_target("a.py")
    assert not is_file_target("loan_advisor.graph")
