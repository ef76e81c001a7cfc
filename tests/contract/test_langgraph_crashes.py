"""A runner killed at any frame: tools ran once, LLM calls kept their keys, every step stands once
(laws 3 to 5).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.runner import ROOT, FakeGateway, TinyWorker

TEN_STEPS = f"{ROOT}/tests/support/workflows/ten_steps.py:graph"
SHAPES = f"{ROOT}/tests/support/workflows/shapes.py"
AWAITED = 40
"""Ten steps of llm_intended, tool_intended, tool_completed, step_completed."""


def ten_steps(zygote: Path, upstream: FakeGateway, directory: Path) -> TinyWorker:
    return TinyWorker(
        zygote=zygote,
        entrypoint=TEN_STEPS,
        input={"directory": str(directory), "said": []},
        gateway=upstream.url,
    )


def check(worker: TinyWorker, upstream: FakeGateway, directory: Path, crashes: int) -> None:
    rows = {path.name: path.read_text() for path in directory.iterdir()}
    assert rows == {f"row{i}": "row\n" for i in range(10)}
    keys = Counter(upstream.keys)
    assert len(keys) == 10
    assert sum(keys.values()) <= 10 + crashes
    completed = [f.text("step_key") for f in worker.log if f.kind == "step_completed"]
    assert completed == [f"n{i}#{i + 1}" for i in range(10)]
    assert worker.log[-1].kind == "finished"
    assert worker.log[-1].text("output_json").count("wrote") == 10


@pytest.mark.parametrize("is_before", [False, True], ids=["frame stands", "frame lost"])
@pytest.mark.parametrize("boundary", [1, 2, 3, 4, 5, 18, 19, 20, 21, 37, 38, 39, 40])
def test_a_runner_killed_at_a_frame_boundary_is_resumed_without_paying_twice(
    langgraph_zygote: Path, upstream: FakeGateway, tmp_path: Path, boundary: int, is_before: bool
) -> None:
    worker = ten_steps(langgraph_zygote, upstream, tmp_path)
    worker.kill_at, worker.is_kill_before_append = boundary, is_before
    killed = worker.run()
    assert (killed.final, killed.status) == (None, -9)

    worker.kill_at = 0
    worker.run_to_end()

    check(worker, upstream, tmp_path, crashes=1)


def test_a_runner_killed_at_every_fourth_frame_again_and_again_still_ends_once(
    langgraph_zygote: Path, upstream: FakeGateway, tmp_path: Path
) -> None:
    worker = ten_steps(langgraph_zygote, upstream, tmp_path)
    worker.kill_at = 4

    worker.run_to_end()

    check(worker, upstream, tmp_path, crashes=worker.incarnation)
    assert worker.incarnation > 5


@pytest.mark.parametrize("boundary", range(1, 8))
def test_a_finished_branch_of_a_killed_superstep_is_not_run_again(
    langgraph_zygote: Path, upstream: FakeGateway, tmp_path: Path, boundary: int
) -> None:
    worker = TinyWorker(
        zygote=langgraph_zygote,
        entrypoint=f"{SHAPES}:parallel",
        input={"directory": str(tmp_path), "said": []},
        gateway=upstream.url,
        kill_at=boundary,
    )
    worker.run()
    done = {f.text("step") for f in worker.log if f.kind == "step_completed"} & {"a", "b", "c"}
    before = {name: (tmp_path / name).read_text() for name in done}

    worker.kill_at = 0
    worker.run_to_end()

    assert {name: (tmp_path / name).read_text() for name in done} == before
    assert len(set(upstream.keys)) == 3
    completed = Counter(f.text("step_key") for f in worker.log if f.kind == "step_completed")
    assert completed == {"a#1": 1, "b#1": 1, "c#1": 1, "join#2": 1}
    assert "joined 3" in worker.log[-1].text("output_json")


@pytest.mark.parametrize("boundary", range(1, 7))
@pytest.mark.parametrize("graph", ["nested", "fan", "asynchronous", "functional"])
def test_every_graph_shape_survives_a_kill_with_the_same_keys(
    langgraph_zygote: Path, upstream: FakeGateway, tmp_path: Path, graph: str, boundary: int
) -> None:
    inputs: object = (
        [1, 2, 3] if graph == "functional" else {"directory": str(tmp_path), "said": []}
    )
    expected = {"nested": 1, "fan": 3, "asynchronous": 2, "functional": 3}[graph]
    worker = TinyWorker(
        zygote=langgraph_zygote,
        entrypoint=f"{SHAPES}:{graph}",
        input=inputs,
        gateway=upstream.url,
        kill_at=boundary,
    )
    worker.run()

    worker.kill_at = 0
    worker.run_to_end()

    assert worker.log[-1].kind == "finished"
    assert len(set(upstream.keys)) == expected
    completed = Counter(f.text("step_key") for f in worker.log if f.kind == "step_completed")
    assert set(completed.values()) == {1}
