"""`omiumctl run` and its neighbours against a real gateway; the execution's owner is played by the
test.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from ops.main import main
from streams.execution import events as e
from streams.llm.events import LlmCallCompleted
from streams.messages import Message
from streams.topics import EXECUTIONS, LLM_RESPONSES
from tests.support.gateway import KEY, Stack, broker, gateway, until
from tests.support.story import Story


@pytest.fixture(scope="session")
def kafka() -> str:
    return broker()


Play = Callable[[Story], list[Message]]


@pytest.fixture
async def stack(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stack]:
    async with gateway(kafka, tmp_path) as served:
        monkeypatch.setenv("OMIUM_URL", served.url)
        monkeypatch.setenv("OMIUM_API_KEY", KEY)
        yield served


def flow(tmp_path: Path) -> str:
    path = tmp_path / "flow.py"
    path.write_text("import langgraph\ngraph = 1\n")
    return f"{path}:graph"


async def ctl(*arguments: str) -> int:
    return await asyncio.to_thread(main, arguments)


async def tell(stack: Stack, events: list[Message]) -> None:
    for event in events:
        topic = LLM_RESPONSES if isinstance(event, LlmCallCompleted) else EXECUTIONS
        await stack.writer.append(event, topic=topic)


async def played(stack: Stack, play: Play, *arguments: str) -> int:
    """Run the command line while the test plays the owner of the execution that it starts."""
    running = asyncio.create_task(ctl(*arguments))
    story = await started(stack)
    await tell(stack, play(story))
    return await running


async def started(stack: Stack) -> Story:
    """The story of the first execution that the gateway accepts."""
    live = stack.service.context.live
    await until(lambda: len(list(live.of_tenant(stack.tenant))) == 1)
    (entry,) = live.of_tenant(stack.tenant)
    return Story(stack.tenant, entry.view.execution_id)


async def test_run_prints_one_json_document_and_succeeds(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # when
    code = await played(
        stack, Story.whole, "run", flow(tmp_path), "--input", '{"a": 1}', "--json", "--follow"
    )

    # then
    told = capsys.readouterr()
    assert code == 0
    document = json.loads(told.out)
    assert list(document) == [
        "id",
        "status",
        "output",
        "steps",
        "llm_calls",
        "tool_calls",
        "cost_microusd",
        "incidents",
    ]
    assert document["output"] == {"status": "approved", "apr": 6.4}
    assert (document["steps"], document["llm_calls"], document["tool_calls"]) == (3, 3, 3)
    assert (document["cost_microusd"], document["incidents"]) == (93, [])
    assert "✓ gather" in told.err
    assert "210+48 tokens" in told.err


async def test_run_registers_the_file_with_its_framework_and_options(
    stack: Stack, tmp_path: Path
) -> None:
    # given
    (tmp_path / "omium.toml").write_text('[tools.mail]\npolicy = "at_most_once"\n')

    # when
    await ctl("run", flow(tmp_path), "--detach", "--input", "{}")

    # then
    (entry,) = stack.service.context.live.of_tenant(stack.tenant)
    assert entry.view.framework == "langgraph"
    assert entry.view.entrypoint == f"{tmp_path}/flow.py:graph"
    assert json.loads(entry.view.options_json) == {"tools": {"mail": {"policy": "at_most_once"}}}


async def test_a_failed_execution_is_exit_1_with_its_error(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(story: Story) -> list[Message]:
        failed = e.ExecutionFailed(
            **story.of("ExecutionFailed"),  # type: ignore[arg-type]
            error_class="exception",
            error_type="ValueError",
            error_message="no such rate",
            error_trace="",
            step="gather",
        )
        return [story.queued(), story.started(), failed]

    code = await played(stack, fails, "run", flow(tmp_path), "--json")
    told = capsys.readouterr()
    assert code == 1
    assert json.loads(told.out)["status"] == "failed"
    assert "ValueError: no such rate" in told.err


async def test_an_execution_that_waits_for_a_person_is_exit_4(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def asks(story: Story) -> list[Message]:
        return [story.queued(), story.started(), story.approval_requested("ask-1")]

    code = await played(stack, asks, "run", flow(tmp_path), "--json")
    told = capsys.readouterr()
    assert code == 4
    assert json.loads(told.out)["status"] == "waiting_approval"
    assert "omiumctl approve ask-1" in told.err
    assert await ctl("approve", "ask-1", "--value", '{"ok": true}', "--json") == 0


async def test_run_rides_out_a_restart_of_the_gateway(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a gateway that goes away in the middle of an execution
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("OMIUM_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OMIUM_API_KEY", KEY)
    async with AsyncExitStack() as first:
        before = await first.enter_async_context(gateway(kafka, tmp_path, port=port))
        running = asyncio.create_task(ctl("run", flow(tmp_path), "--json", "--follow"))
        story = await started(before)
        events = story.whole()
        await tell(before, events[:8])
        await until(lambda: before.service.context.streams.taken == 1)
        epochs = before.writer.epochs

    # when another takes its place and the execution goes on
    async with gateway(kafka, tmp_path, port=port, tenant=before.tenant) as after:
        after.writer.epochs.update(epochs)
        await tell(after, events[8:])
        code = await running

    # then every step was told once
    told = capsys.readouterr()
    assert code == 0
    assert json.loads(told.out)["status"] == "completed"
    for step in ("gather", "assess", "decide"):
        assert told.err.count(f"✓ {step}") == 1


async def test_mistakes_are_exit_2_and_a_missing_stack_is_exit_3(
    stack: Stack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = flow(tmp_path)
    assert await ctl("run", target, "--input", "[1]") == 2
    assert await ctl("run", target, "--input", "{") == 2
    assert await ctl("run", target, "--input", "@/nowhere.json") == 2
    assert await ctl("run", "nobody") == 2
    assert "nobody" in capsys.readouterr().err
    assert await ctl("show", "../keys") == 2
    monkeypatch.setenv("OMIUM_API_KEY", "omk_wrong")
    assert await ctl("ps") == 2
    monkeypatch.setenv("OMIUM_URL", "")
    assert await ctl("ps", "--data-dir", str(tmp_path)) == 3
    assert "omiumctl up" in capsys.readouterr().err


async def test_ps_show_and_logs_tell_the_same_execution(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    execution_id = str(uuid4())
    story = Story(stack.tenant, execution_id)
    events = story.whole(("gather",))
    await tell(stack, events)
    live = stack.service.context.live

    def is_told() -> bool:
        entry = live.get(stack.tenant, execution_id)
        return entry is not None and entry.view.is_settled

    await until(is_told)

    # then
    assert await ctl("ps", "--json") == 0
    assert json.loads(capsys.readouterr().out)["executions"][0]["id"] == execution_id
    assert await ctl("show", execution_id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["cost_microusd"] == 31
    assert await ctl("logs", execution_id, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(line["event_id"] for line in lines) == sorted(x.event_id for x in events)
    assert await ctl("show", execution_id) == 0
    assert "1 LLM call, 1 tool call" in capsys.readouterr().out


async def test_keys_are_issued_used_and_revoked(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await ctl("keys", "--issue", "--scope", "executions", "--json") == 0
    issued = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("OMIUM_API_KEY", issued["key"])
    assert await ctl("ps") == 0
    assert await ctl("keys") == 2
    monkeypatch.setenv("OMIUM_API_KEY", KEY)
    assert await ctl("keys", "--revoke", issued["id"]) == 0
    monkeypatch.setenv("OMIUM_API_KEY", issued["key"])
    assert await ctl("ps") == 2
