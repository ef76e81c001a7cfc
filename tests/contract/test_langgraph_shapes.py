"""LangGraph as its users write it: interrupts, breakpoints, approvals, failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.runner import ROOT, FakeGateway, TinyWorker

SHAPES = f"{ROOT}/tests/support/workflows/shapes.py"


@pytest.fixture
def worker(langgraph_zygote: Path, upstream: FakeGateway, tmp_path: Path) -> TinyWorker:
    return TinyWorker(
        zygote=langgraph_zygote,
        entrypoint="",
        input={"directory": str(tmp_path), "said": []},
        gateway=upstream.url,
    )


def interrupts(worker: TinyWorker) -> list[dict[str, str]]:
    final = worker.log[-1]
    assert final.kind == "interrupted", final
    found = final.header["interrupts"]
    assert isinstance(found, list)
    return found


def said(worker: TinyWorker) -> list[str]:
    final = worker.log[-1]
    assert final.kind == "finished", final
    output = json.loads(final.text("output_json"))["said"]
    assert isinstance(output, list)
    return output


def test_answers_reach_the_interrupts_that_asked(worker: TinyWorker, tmp_path: Path) -> None:
    worker.entrypoint = f"{SHAPES}:asking"
    worker.run()
    (first,) = interrupts(worker)
    assert (first["step"], first["payload_json"]) == ("ask", '{"question":"go on?"}')

    worker.resume_values = {first["interrupt_id"]: '"yes"'}
    worker.run()
    (second,) = interrupts(worker)
    worker.resume_values[second["interrupt_id"]] = "42"
    worker.run()

    assert said(worker) == ["before", "person said yes", "beside", "too: 42"]
    assert (tmp_path / "asked").read_text() == "row\nrow\n"


def test_a_resume_without_an_answer_asks_again_and_runs_nothing_finished(
    worker: TinyWorker,
) -> None:
    worker.entrypoint = f"{SHAPES}:asking"
    worker.run()
    asked = interrupts(worker)

    worker.run()

    assert interrupts(worker) == asked
    completed = [f.text("step") for f in worker.log if f.kind == "step_completed"]
    assert sorted(completed) == ["before", "beside"]


def test_an_answer_that_was_given_survives_a_crash(worker: TinyWorker) -> None:
    worker.entrypoint = f"{SHAPES}:asking"
    worker.run()
    worker.resume_values = {interrupts(worker)[0]["interrupt_id"]: '"yes"'}
    worker.kill_at = 1
    worker.run()

    worker.kill_at = 0
    worker.run()

    assert interrupts(worker)[0]["step"] == "ask_too"


@pytest.mark.parametrize("graph", ["asking_twice", "asking_below"])
def test_two_questions_of_one_node_are_two_questions(worker: TinyWorker, graph: str) -> None:
    worker.entrypoint = f"{SHAPES}:{graph}"
    worker.run()
    (first,) = interrupts(worker)
    worker.resume_values = {first["interrupt_id"]: '"one"'}
    worker.kill_at = 2
    worker.run()

    # The worker does not repeat an answer once something else stands.
    worker.kill_at, worker.resume_values = 0, {}
    worker.run()
    (second,) = interrupts(worker)
    worker.run()
    assert interrupts(worker) == [second]
    worker.resume_values = {second["interrupt_id"]: '"two"'}
    worker.run()

    assert first["interrupt_id"] != second["interrupt_id"]
    assert said(worker) == ["one two answer to after one"]


def test_a_breakpoint_of_the_users_waits_for_a_yes_even_after_a_crash(worker: TinyWorker) -> None:
    worker.entrypoint = f"{SHAPES}:guarded"
    worker.run()
    (breakpoint_,) = interrupts(worker)
    worker.run()
    assert interrupts(worker) == [breakpoint_]

    worker.resume_values = {breakpoint_["interrupt_id"]: "null"}
    worker.run()

    assert said(worker) == ["draft", "sent"]


def test_a_suspended_tool_unwinds_the_graph_and_runs_once_it_is_approved(
    worker: TinyWorker,
) -> None:
    worker.entrypoint = f"{SHAPES}:risking"
    worker.needs_approval = {"risky"}
    worker.run()
    assert worker.log[-1].kind == "suspended"
    assert not any(f.kind == "step_failed" for f in worker.log)

    worker.approved = {f.text("call_id") for f in worker.log if f.text("tool") == "risky"}
    worker.run()

    assert said(worker) == ["LookupError no x", "did y"]
    assert [f.text("tool") for f in worker.log if f.kind == "tool_failed"] == ["failing"]


def test_an_interrupt_inside_a_tool_waits_and_then_calls_it_anew(worker: TinyWorker) -> None:
    worker.entrypoint = f"{SHAPES}:asking_inside"
    worker.run()
    (asked,) = interrupts(worker)

    worker.resume_values = {asked["interrupt_id"]: '"sure"'}
    worker.run()

    assert said(worker) == ["z: sure"]


def test_a_retry_policy_makes_attempts(worker: TinyWorker) -> None:
    worker.entrypoint = f"{SHAPES}:flaky"

    worker.run()

    assert said(worker) == ["at last"]
    failed = [
        (f.number("attempt"), f.text("error_type")) for f in worker.log if f.kind == "step_failed"
    ]
    assert failed == [(1, "ConnectionError"), (2, "ConnectionError")]
    assert [f.number("attempt") for f in worker.log if f.kind == "step_completed"] == [3]


def test_a_graph_that_raises_fails_with_the_step_and_the_users_line(worker: TinyWorker) -> None:
    worker.entrypoint = f"{SHAPES}:raising"

    worker.run()

    final = worker.log[-1]
    assert (final.kind, final.text("error_class"), final.text("step")) == (
        "failed",
        "exception",
        "bad",
    )
    assert final.text("error_type") == "ValueError"
    assert 'raise ValueError("this graph raises")' in final.text("error_trace")


def test_a_graph_that_exits_leaves_its_status_and_its_output(worker: TinyWorker) -> None:
    worker.entrypoint = f"{SHAPES}:exiting"

    end = worker.run()

    assert (end.final, end.status) == (None, 3)
    assert end.output == "going\n"


@pytest.mark.parametrize(
    ("entrypoint", "inputs", "error_class", "hint"),
    [
        (f"{SHAPES}:nothing", {}, "bad_workflow", "has no 'nothing'"),
        ("/nowhere/x.py:graph", {}, "bad_workflow", "no file"),
        ("no_such_module:graph", {}, "bad_workflow", "no module"),
        ("nonsense", {}, "bad_workflow", "is not"),
        (f"{SHAPES}:SHAPES", {}, "bad_workflow", "has no"),
        (f"{SHAPES}:os.sep", {}, "bad_workflow", "cannot be run"),
        (f"{SHAPES}:nested", None, "bad_input", "needs an input"),
    ],
)
def test_what_cannot_run_says_why(
    worker: TinyWorker, entrypoint: str, inputs: object, error_class: str, hint: str
) -> None:
    worker.entrypoint, worker.input = entrypoint, inputs

    worker.run()

    final = worker.log[-1]
    assert (final.kind, final.text("error_class")) == ("failed", error_class)
    assert hint in final.text("error_message")
