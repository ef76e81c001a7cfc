"""The whole stack as its users meet it: good workflows, bad workflows, poison, people, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from ops.chaos.matrix import Matrix, cells
from ops.chaos.stand import Stand, stand
from ops.settings import Settings
from producers.kafka import end_offset
from streams.topics import COMMANDS, CONTROL, DLQ, EXECUTIONS, LLM_REQUESTS, LLM_RESPONSES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WORKFLOWS = Path(__file__).parent / "workflows" / "hard.py"
TERMINAL = ("completed", "failed", "cancelled")
SEED = 20261122


@pytest.fixture(scope="module")
def stack() -> Iterator[Stand]:
    with stand(Settings()) as running:
        running.scratch.mkdir(exist_ok=True)
        for name in ("raises", "exits", "hangs", "shouts", "asks", "touches", "slow", "plain"):
            framework = "python" if name == "plain" else "langgraph"
            body = {"name": name, "framework": framework, "entrypoint": f"{WORKFLOWS}:{name}"}
            running.client.post("/v1/workflows", dict(body), is_repeatable=True)
        yield running


def started(stack: Stand, workflow: str, **request: object) -> str:
    body: dict[str, object] = {"workflow": workflow, "input": {}} | request
    return str(stack.client.post("/v1/executions", body)["id"])


def until(
    stack: Stand, execution_id: str, reached: Callable[[dict], bool], timeout_s: float = 60
) -> dict:
    deadline_s = time.monotonic() + timeout_s
    while True:
        execution = stack.client.get(f"/v1/executions/{execution_id}", {"wait_s": "2"})
        if reached(execution):
            return execution
        assert time.monotonic() < deadline_s, execution


def ended(stack: Stand, execution_id: str, timeout_s: float = 60) -> dict:
    return until(stack, execution_id, lambda e: e["status"] in TERMINAL, timeout_s)


def test_a_plain_function_calls_the_model_through_the_log(stack: Stand) -> None:
    execution = ended(stack, started(stack, "plain", input={"name": "Ada", "times": 3}))

    assert execution["status"] == "completed"
    assert execution["output"] == {"answers": [f"hello Ada {n}" for n in range(3)]}
    assert execution["llm_calls"] == 3
    assert execution["cost_microusd"] > 0


def test_a_graph_that_raises_fails_with_its_own_words(stack: Stand) -> None:
    execution = ended(stack, started(stack, "raises"))

    assert execution["status"] == "failed"
    assert execution["error"]["type"] == "ValueError"
    assert "the numbers do not add up" in execution["error"]["message"]


def test_a_graph_that_exits_the_process_ends_after_a_few_tries(stack: Stand) -> None:
    execution = ended(stack, started(stack, "exits"), timeout_s=90)

    assert execution["status"] == "failed"
    assert "died" in execution["error"]["message"]


def test_a_graph_that_never_ends_meets_its_deadline(stack: Stand) -> None:
    execution = ended(stack, started(stack, "hangs", deadline_s=3))

    assert execution["status"] == "failed"
    assert execution["error"]["type"] == "DeadlineExceeded"


def test_a_hundred_megabytes_of_output_hurt_nobody(stack: Stand) -> None:
    execution_id = started(stack, "shouts")
    execution = ended(stack, execution_id, timeout_s=120)

    kept = stack.data_dir / "logs" / "executions" / f"{execution_id}.log"
    assert execution["output"]["text"] == "hoarse"
    assert 0 < kept.stat().st_size < 2 * 1024 * 1024


def test_a_cancelled_execution_stops(stack: Stand) -> None:
    execution_id = started(stack, "hangs")
    until(stack, execution_id, lambda e: e["status"] == "running")

    stack.client.post(f"/v1/executions/{execution_id}/cancel", {})

    assert ended(stack, execution_id)["status"] == "cancelled"


def test_an_interrupt_waits_for_a_person_and_goes_on_with_the_answer(stack: Stand) -> None:
    execution_id = started(stack, "asks")
    waiting = until(stack, execution_id, lambda e: e["status"] == "waiting_approval")
    approval = waiting["approvals"][0]

    stack.client.post(f"/v1/approvals/{approval['id']}/approve", {"value": {"by": "Grace"}})

    execution = ended(stack, execution_id)
    assert execution["status"] == "completed"
    assert execution["output"]["approved"] == {"by": "Grace"}


def test_an_undeclared_tool_in_doubt_asks_a_person(stack: Stand) -> None:
    path = stack.scratch / "undeclared.rows"
    execution_id = started(stack, "touches", input={"path": str(path)})
    waiting = until(stack, execution_id, lambda e: e["status"] == "waiting_approval")
    rows_before = path.read_text().count("row")

    stack.client.post(f"/v1/approvals/{waiting['approvals'][0]['id']}/approve", {})

    assert rows_before == 1
    assert ended(stack, execution_id)["status"] == "completed"


def test_an_idempotent_tool_in_doubt_is_simply_repeated(stack: Stand) -> None:
    path = stack.scratch / "idempotent.rows"
    tools = {"touch": {"policy": "idempotent"}}

    execution = ended(stack, started(stack, "touches", input={"path": str(path)}, tools=tools))

    assert execution["status"] == "completed"
    assert path.read_text().count("row") == 2


def test_poison_on_every_topic_goes_to_the_dead_letters_and_work_goes_on(stack: Stand) -> None:
    bootstrap = str(stack.document()["kafka"])
    producer = Producer({"bootstrap.servers": bootstrap})
    before = end_offset(bootstrap, DLQ.name, 0)
    for topic in (COMMANDS, EXECUTIONS, LLM_REQUESTS, LLM_RESPONSES, CONTROL):
        producer.produce(
            topic.name, value=b"\x00\x00\x00\x00\x63poison", key=b"poison", partition=0
        )
        producer.produce(topic.name, value=b"not avro", key=b"poison", partition=0)
    producer.flush(10)

    execution = ended(stack, started(stack, "plain", input={"name": "Ada", "times": 1}))

    assert execution["status"] == "completed"
    deadline_s = time.monotonic() + 30
    while end_offset(bootstrap, DLQ.name, 0) < before + 8:
        assert time.monotonic() < deadline_s, "the poison did not reach the dead letter topic"


def test_a_deposed_worker_that_wakes_up_changes_nothing(stack: Stand) -> None:
    """The worker is stopped for longer than its session lasts; another takes over; then it wakes
    up.
    """
    pid = stack.document()["pids"]["execution"]
    with another_worker(stack, pid):
        rows = [stack.scratch / f"zombie-{number}.rows" for number in range(4)]
        tools = {"slow_row": {"policy": "reconcile"}}
        ids = [started(stack, "slow", input={"path": str(path)}, tools=tools) for path in rows]
        for execution_id in ids:
            until(stack, execution_id, lambda e: e["tool_calls"] >= 2)
        os.kill(pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        try:
            executions = [ended(stack, execution_id, timeout_s=90) for execution_id in ids]
            took_s = time.monotonic() - stopped_s
            wait_until(lambda: time.monotonic() > stopped_s + 30, 40)
        finally:
            os.kill(pid, signal.SIGCONT)
        after = ended(stack, started(stack, "plain", input={"name": "Zoe", "times": 2}))

    assert {e["status"] for e in executions} == {"completed"}
    assert after["status"] == "completed"
    assert took_s < 30
    assert [path.read_text().splitlines() for path in rows] == [[f"row {n}" for n in range(5)]] * 4
    for execution_id in ids:
        assert kinds_of(stack, execution_id).count("ExecutionCompleted") == 1


@contextmanager
def another_worker(stack: Stand, like_pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A second execution worker, told what the first was told, until the block ends."""
    told = Path(f"/proc/{like_pid}/environ").read_bytes().split(b"\0")
    environment = dict(item.decode().split("=", 1) for item in told if b"=" in item)
    environment["OMIUM_WORKER_ID"] = "1"
    ready = stack.data_dir / "run" / "execution.ready"
    with (stack.scratch / "another.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "ops.main", "worker", "execution"],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            wait_until(lambda: ready.read_text() == str(worker.pid), 60)
            yield worker
        finally:
            worker.terminate()
            worker.wait(20)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        pause.wait(0.05)


def kinds_of(stack: Stand, execution_id: str) -> list[str]:
    page = stack.client.get(f"/v1/executions/{execution_id}/history")
    return [event["type"] for event in page["events"]]


def test_a_seeded_sample_of_the_crash_matrix_holds(stack: Stand) -> None:
    matrix = Matrix(stack.client, stack.data_dir, stack.upstream_log, stack.scratch / "matrix")
    chosen = cells(1, SEED, ("runner", "execution", "routing", "gateway", "projector"), True)
    chosen += cells(2, SEED, ("runner",), False)
    try:
        outcomes = list(matrix.run(chosen, lambda _: None))
    finally:
        matrix.close()

    assert {json.dumps(o.as_json()) for o in outcomes if o.violations} == set()


def test_servers_may_die_as_well(stack: Stand) -> None:
    matrix = Matrix(stack.client, stack.data_dir, stack.upstream_log, stack.scratch / "servers")
    try:
        outcomes = list(matrix.run(cells(1, SEED, ("kafka", "clickhouse"), True), lambda _: None))
    finally:
        matrix.close()

    assert {json.dumps(o.as_json()) for o in outcomes if o.violations} == set()
