"""The gateway over a real broker: what it shows is what stands on the log, and nothing else."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import websockets
from confluent_kafka import Consumer, TopicPartition

from streams.execution.commands import StartExecution
from streams.llm.events import LlmCallCompleted
from streams.messages import Message
from streams.topics import COMMANDS, EXECUTIONS, LLM_RESPONSES, partition_of
from tests.support.gateway import LLM_KEY, OTHER_KEY, Stack, broker, gateway, until
from tests.support.story import Story


@pytest.fixture(scope="session")
def kafka() -> str:
    return broker()


FILE = """
def graph(): ...
"""


@pytest.fixture
async def stack(kafka: str, tmp_path: Path) -> AsyncIterator[Stack]:
    async with gateway(kafka, tmp_path) as served:
        yield served


async def tell(stack: Stack, *events: Message) -> None:
    """Append events, each on the topic where it belongs."""
    for event in events:
        topic = LLM_RESPONSES if isinstance(event, LlmCallCompleted) else EXECUTIONS
        await stack.writer.append(event, topic=topic)


async def told(stack: Stack, story: Story, *events: Message) -> None:
    """Append events and wait until the gateway shows the last one."""
    await tell(stack, *events)
    context = stack.service.context

    def is_shown() -> bool:
        entry = context.live.get(story.tenant, story.execution_id)
        return entry is not None and all(event.event_id in entry.event_ids for event in events)

    await until(is_shown)


def story_of(stack: Stack) -> Story:
    return Story(stack.tenant, str(uuid4()), start_ms=time.time_ns() // 1_000_000)


async def sse(
    stack: Stack, path: str, *, last_event_id: str = "", stop_after: int = 10_000, key: str = ""
) -> list[dict[str, str]]:
    """The frames of a stream until it ends or `stop_after` events came."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    frames: list[dict[str, str]] = []
    async with stack.client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        current: dict[str, str] = {}
        async for line in response.aiter_lines():
            if line == "" and "data" in current:
                frames.append(current)
                current = {}
                if len(frames) >= stop_after:
                    break
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                current[name] = value
    return frames


def ids(frames: list[dict[str, str]]) -> list[str]:
    """The event ids that frames carry, the closing one left out."""
    return [json.loads(f["data"])["event_id"] for f in frames if f["event"] != "end"]


async def registered(stack: Stack, tmp_path: Path, **more: object) -> str:
    path = tmp_path / "flow.py"
    path.write_text(FILE)
    name = f"flow-{uuid4()}"
    answer = await stack.client.post(
        "/v1/workflows",
        json={"name": name, "framework": "langgraph", "entrypoint": f"{path}:graph", **more},
    )
    assert answer.status_code == 201, answer.text
    return name


def problem(answer: httpx.Response, status: int, code: str, field: str = "") -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = answer.json()
    assert document["type"] == f"urn:omium:problem:{code}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    if field:
        assert document["field"] == field
    return document


def last_command(kafka: str, execution_id: str, wire: object) -> list[object]:
    """All commands of an execution, as they stand on the log."""
    partition = partition_of(COMMANDS, execution_id)
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "t", "enable.auto.commit": False})
    place = TopicPartition(COMMANDS.name, partition, 0)
    _, high = consumer.get_watermark_offsets(place, timeout=30)
    consumer.assign([place])
    found = []
    while True:
        record = consumer.poll(30)
        assert record is not None
        assert record.error() is None
        if (record.key() or b"").decode() == execution_id:
            found.append(wire.decode(record.value()))  # type: ignore[attr-defined]
        if record.offset() == high - 1:
            break
    consumer.close()
    return found


# -- what is shown


async def test_an_execution_is_shown_with_steps_calls_tokens_and_cost(stack: Stack) -> None:
    # given
    story = story_of(stack)

    # when
    await told(stack, story, *story.whole())

    # then
    shown = (await stack.client.get(f"/v1/executions/{story.execution_id}")).json()
    assert shown["status"] == "completed"
    assert shown["output"] == {"status": "approved", "apr": 6.4}
    assert [step["step"] for step in shown["steps"]] == ["gather", "assess", "decide"]
    assert {step["status"] for step in shown["steps"]} == {"completed"}
    assert [call["kind"] for call in shown["steps"][0]["calls"]] == ["llm", "tool"]
    assert (shown["llm_calls"], shown["tool_calls"]) == (3, 3)
    assert shown["cost_microusd"] == 93
    assert shown["tokens"] == {"input": 630, "cached": 0, "output": 144, "reasoning": 0}
    assert shown["labels"] == {"team": "credit"}
    assert shown["incidents"] == []


async def test_void_events_are_shown_nowhere(stack: Stack) -> None:
    # given
    story = story_of(stack)
    await told(stack, story, story.queued(), story.started())

    # when a deposed owner's end of the execution arrives, then the real owner's step
    await stack.writer.append_void(story.completed())
    step = story.step_started("gather", 1)
    await told(stack, story, step)

    # then
    shown = (await stack.client.get(f"/v1/executions/{story.execution_id}")).json()
    assert shown["status"] == "running"
    frames = await sse(stack, f"/v1/executions/{story.execution_id}/events", stop_after=3)
    assert [frame["event"] for frame in frames] == [
        "ExecutionQueued",
        "ExecutionStarted",
        "StepStarted",
    ]


async def test_an_event_told_twice_is_shown_once(stack: Stack) -> None:
    # given
    story = story_of(stack)
    events = story.whole(("gather",))

    # when
    await tell(stack, events[0], events[0], events[1], events[1])
    await told(stack, story, *events[2:])

    # then
    frames = await sse(stack, f"/v1/executions/{story.execution_id}/events")
    assert len(ids(frames)) == len(set(ids(frames))) == len(events)


async def test_history_pages_hold_every_event_once_in_order(stack: Stack) -> None:
    # given
    story = story_of(stack)
    events = story.whole()
    await told(stack, story, *events)
    own = [e.event_id for e in events if not isinstance(e, LlmCallCompleted)]

    # when
    found, after = [], ""
    while True:
        query = f"limit=4&after={after}" if after != "" else "limit=4"
        page = (
            await stack.client.get(f"/v1/executions/{story.execution_id}/history?{query}")
        ).json()
        found += page["events"]
        if page["next_after"] is None:
            break
        after = page["next_after"]

    # then
    assert [event["event_id"] for event in found] == own
    assert [event["sequence"] for event in found] == list(range(len(own)))


async def test_lists_are_paged_and_filtered(stack: Stack) -> None:
    # given
    stories = [story_of(stack) for _ in range(5)]
    for number, story in enumerate(stories):
        story.now_ms += number * 1000
        await told(stack, story, story.queued(workflow="even" if number % 2 == 0 else "odd"))
    await told(stack, stories[4], stories[4].started())

    # when
    async def listed(query: str) -> list[str]:
        found, cursor = [], ""
        while True:
            page = (
                await stack.client.get(f"/v1/executions?limit=2&{query}&cursor={cursor}")
            ).json()
            found += [e["id"] for e in page["executions"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    # then
    newest_first = [story.execution_id for story in reversed(stories)]
    assert await listed("") == newest_first
    assert await listed("workflow=even") == newest_first[::2]
    assert await listed("status=running") == newest_first[:1]
    assert await listed("label=team:credit") == newest_first
    assert await listed("label=team:other") == []


async def test_checkpoints_are_the_points_that_hold_state(stack: Stack) -> None:
    story = story_of(stack)
    await told(stack, story, *story.whole())
    shown = (await stack.client.get(f"/v1/executions/{story.execution_id}/checkpoints")).json()
    assert [c["step_key"] for c in shown["checkpoints"]] == ["gather#1", "assess#2", "decide#3"]
    assert all(c["record_bytes"] == 6 for c in shown["checkpoints"])


# -- following


async def test_a_stream_resumes_at_every_position_without_loss_or_repeat(stack: Stack) -> None:
    # given
    story = story_of(stack)
    await told(stack, story, *story.whole())
    path = f"/v1/executions/{story.execution_id}/events"
    whole = await sse(stack, path)
    assert whole[-1]["event"] == "end"
    events = whole[:-1]
    assert len(events) == len(story.whole())

    # when, then: cut after every event, by header
    for cut in range(1, len(events) + 1):
        rest = await sse(stack, path, last_event_id=events[cut - 1]["id"])
        assert ids(events[:cut]) + ids(rest) == ids(events), f"cut after {cut}"


async def test_a_live_stream_cut_anywhere_misses_nothing(stack: Stack) -> None:
    # given
    story = story_of(stack)
    events = story.whole()
    await told(stack, story, events[0])
    path = f"/v1/executions/{story.execution_id}/events"

    # when the events come while a client takes two at a time and comes back
    async def write() -> None:
        for event in events[1:]:
            await tell(stack, event)

    writing = asyncio.create_task(write())
    got: list[dict[str, str]] = []
    while not got or got[-1]["event"] != "end":
        got += await sse(stack, path, last_event_id=got[-1]["id"] if got else "", stop_after=2)
    await writing

    # then
    assert sorted(ids(got)) == sorted(event.event_id for event in events)


async def test_a_stream_of_several_executions_resumes_at_every_position(stack: Stack) -> None:
    # given two executions whose events lie between one another
    first, second = story_of(stack), story_of(stack)
    mixed = [event for pair in zip(first.whole(), second.whole(), strict=True) for event in pair]
    for event in mixed:
        await tell(stack, event)
    live = stack.service.context.live
    for story in (first, second):
        await until(
            lambda s=story: len(live.get(s.tenant, s.execution_id).events) == len(mixed) // 2
        )  # type: ignore[misc]
    path = f"/v1/events?executions={first.execution_id},{second.execution_id}"

    # when
    whole = await sse(stack, path)
    events = [frame for frame in whole if frame["event"] != "end"]

    # then
    assert sorted(ids(events)) == sorted(event.event_id for event in mixed)
    for cut in range(1, len(events), 3):
        rest = await sse(stack, path, last_event_id=events[cut - 1]["id"])
        assert ids(events[:cut]) + ids(rest) == ids(events), f"cut after {cut}"


async def test_the_end_event_holds_the_final_cost_even_if_the_answer_is_late(stack: Stack) -> None:
    # given an execution whose LLM answer reaches the gateway after its end
    story = story_of(stack)
    events = story.whole(("gather",))
    late = [event for event in events if isinstance(event, LlmCallCompleted)]
    await told(stack, story, *(event for event in events if event not in late))
    stream = asyncio.create_task(sse(stack, f"/v1/executions/{story.execution_id}/events"))
    await until(lambda: stack.service.context.streams.taken == 1)

    # when
    await tell(stack, *late)

    # then
    end = json.loads((await stream)[-1]["data"])
    assert end["cost_microusd"] == 31
    assert end["is_settled"] is True


async def test_an_event_reaches_a_client_within_100_ms(stack: Stack) -> None:
    # given
    story = story_of(stack)
    await told(stack, story, story.queued(), story.started())
    arrived: dict[str, float] = {}
    path = f"/v1/executions/{story.execution_id}/events"

    async def watch() -> None:
        async with stack.client.stream("GET", path) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and "event_id" in line:
                    arrived.setdefault(json.loads(line[6:])["event_id"], time.perf_counter())

    watching = asyncio.create_task(watch())
    await until(lambda: len(arrived) == 2)

    # when
    sent: dict[str, float] = {}
    for number in range(100):
        event = story.step_started("gather", number)
        await tell(stack, event)
        sent[event.event_id] = time.perf_counter()
    await until(lambda: sent.keys() <= arrived.keys())
    watching.cancel()

    # then: from the acknowledgement of the append to the client
    delays_ms = sorted(1000 * (arrived[i] - at) for i, at in sent.items())
    p95_ms = statistics.quantiles(delays_ms, n=20)[-1]
    print(f"log to client: p50 {statistics.median(delays_ms):.1f} ms, p95 {p95_ms:.1f} ms")
    assert p95_ms <= 100


async def test_a_bad_position_is_told(stack: Stack) -> None:
    story = story_of(stack)
    await told(stack, story, story.queued())
    path = f"/v1/executions/{story.execution_id}/events"
    answer = await stack.client.get(path, headers={"Last-Event-ID": "seven"})
    problem(answer, 422, "invalid-last-event-id", "Last-Event-ID")


async def test_a_websocket_sends_the_same_envelopes_and_takes_signals(
    stack: Stack, kafka: str
) -> None:
    # given
    story = story_of(stack)
    events = story.whole(("gather",))
    await told(stack, story, *events[:2])
    url = stack.url.replace("http", "ws") + f"/v1/executions/{story.execution_id}/stream"
    headers = {"Authorization": stack.client.headers["Authorization"]}

    # when
    async with websockets.connect(url, additional_headers=headers) as socket:
        await socket.send(json.dumps({"signal": {"name": "go", "payload": {"x": 1}}}))
        await socket.send("nonsense")
        got = [json.loads(await socket.recv()) for _ in range(3)]
        await tell(stack, *events[2:])
        got += [json.loads(message) async for message in socket]

    # then
    assert [m["problem"]["status"] for m in got if m["type"] == "problem"] == [422]
    envelopes = [m for m in got if "event_id" in m]
    assert sorted(m["event_id"] for m in envelopes) == sorted(e.event_id for e in events)
    assert got[-1]["type"] == "end"
    commands = last_command(kafka, story.execution_id, stack.writer.wire)
    assert [(c.name, c.payload_json) for c in commands] == [("go", '{"x":1}')]  # type: ignore[attr-defined]

    # and it resumes
    async with websockets.connect(
        f"{url}?last_event_id={envelopes[3]['id']}", additional_headers=headers
    ) as socket:
        rest = [json.loads(message) async for message in socket]
    assert [m["event_id"] for m in rest if "event_id" in m] == [
        m["event_id"] for m in envelopes[4:]
    ]


async def test_a_websocket_without_a_key_is_refused_with_the_reason(stack: Stack) -> None:
    url = stack.url.replace("http", "ws") + f"/v1/executions/{uuid4()}/stream"
    async with websockets.connect(url) as socket:
        refused = json.loads(await socket.recv())
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert refused["problem"]["status"] == 401
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


# -- commands


async def test_a_start_stands_on_the_log_before_it_is_answered(
    stack: Stack, kafka: str, tmp_path: Path
) -> None:
    # given
    name = await registered(stack, tmp_path, options={"tools": {"*": {"policy": "idempotent"}}})

    # when
    answer = await stack.client.post(
        "/v1/executions",
        json={"workflow": name, "input": {"b": 1, "a": 2}, "labels": {"k": "v"}, "budget_usd": 1},
    )

    # then
    assert answer.status_code == 202
    accepted = answer.json()
    (command,) = last_command(kafka, accepted["id"], stack.writer.wire)
    assert isinstance(command, StartExecution)
    assert json.loads(command.input_json) == {"a": 2, "b": 1}
    assert json.loads(command.options_json) == {
        "budget_usd": 1,
        "tools": {"*": {"policy": "idempotent"}},
    }
    shown = (await stack.client.get(accepted["links"]["self"])).json()
    assert (shown["status"], shown["workflow"]) == ("queued", name)


async def test_a_repeated_key_gets_the_same_answer_and_one_execution(
    stack: Stack, kafka: str, tmp_path: Path
) -> None:
    # given
    name = await registered(stack, tmp_path)
    body = {"workflow": name, "input": {"n": 1}}
    headers = {"Idempotency-Key": "order-7"}

    # when
    first = await stack.client.post("/v1/executions", json=body, headers=headers)
    again = await stack.client.post("/v1/executions", json=body, headers=headers)
    other = await stack.client.post(
        "/v1/executions", json={**body, "input": {"n": 2}}, headers=headers
    )

    # then
    assert first.status_code == again.status_code == 202
    assert first.content == again.content
    problem(other, 422, "idempotency-key-reused", "Idempotency-Key")
    assert len(last_command(kafka, first.json()["id"], stack.writer.wire)) == 1


async def test_a_key_means_one_execution_per_tenant(stack: Stack, tmp_path: Path) -> None:
    name = await registered(stack, tmp_path)
    headers = {"Idempotency-Key": "order-7", "Authorization": f"Bearer {OTHER_KEY}"}
    answer = await stack.client.post("/v1/executions", json={"workflow": name}, headers=headers)
    problem(answer, 404, "unknown-workflow", "workflow")


async def test_bad_starts_are_told_what_is_wrong(stack: Stack, tmp_path: Path) -> None:
    name = await registered(
        stack,
        tmp_path,
        input_schema={
            "type": "object",
            "properties": {"customer": {"properties": {"age": {"type": "integer"}}}},
        },
    )

    async def post(body: object) -> httpx.Response:
        return await stack.client.post("/v1/executions", json=body)

    unknown = problem(await post({"workflow": "nobody"}), 404, "unknown-workflow", "workflow")
    assert "nobody" in str(unknown["detail"])
    problem(await post({"workflow": name, "input": [1]}), 422, "invalid-request", "input")
    problem(await post({"workflow": name, "inptu": {}}), 422, "invalid-request", "inptu")
    problem(await post({}), 422, "invalid-request", "workflow")
    bad = {"workflow": name, "input": {"customer": {"age": "old"}}}
    problem(await post(bad), 422, "invalid-input", "input.customer.age")
    bad = {"workflow": name, "tools": {"mail": {"policy": "twice"}}}
    problem(await post(bad), 422, "invalid", "tools.mail.policy")


async def test_invalid_json_and_large_bodies_are_refused(stack: Stack) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await stack.client.post("/v1/executions", content=b'{"workflow": ', headers=headers)
    problem(answer, 400, "invalid-json", "body")

    large = b'{"workflow": "x", "input": {"t": "' + b"a" * 5_000_000 + b'"}}'
    answer = await stack.client.post("/v1/executions", content=large, headers=headers)
    refused = problem(answer, 413, "body-too-large", "body")
    assert refused["limit"] == 4 * 1024 * 1024

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 100_000):
            yield large[start : start + 100_000]

    answer = await stack.client.post("/v1/executions", content=chunks(), headers=headers)
    problem(answer, 413, "body-too-large", "body")


async def test_keys_decide_what_is_seen(stack: Stack) -> None:
    story = story_of(stack)
    await told(stack, story, story.queued())
    path = f"/v1/executions/{story.execution_id}"

    async def get(path: str, key: str) -> httpx.Response:
        return await stack.client.get(path, headers={"Authorization": f"Bearer {key}"})

    problem(await get(path, "omk_wrong"), 401, "unknown-key", "Authorization")
    async with httpx.AsyncClient(base_url=stack.url) as anonymous:
        problem(await anonymous.get(path), 401, "missing-key")
    problem(await get(path, LLM_KEY), 403, "missing-scope")
    for suffix in ("", "/history", "/events", "/checkpoints"):
        problem(await get(path + suffix, OTHER_KEY), 404, "unknown-execution")
    assert (await get("/v1/executions", OTHER_KEY)).json()["executions"] == []
    problem(await get(f"/v1/executions/{uuid4()}", OTHER_KEY), 404, "unknown-execution")


async def test_commands_stand_on_the_log(stack: Stack, kafka: str) -> None:
    # given
    story = story_of(stack)
    await told(stack, story, story.queued(), story.started())
    path = f"/v1/executions/{story.execution_id}"

    # when
    for name, body in (
        ("pause", {"reason": "lunch"}),
        ("resume", None),
        ("signal", {"name": "go", "payload": 1}),
        ("cancel", None),
    ):
        answer = await stack.client.post(f"{path}/{name}", json=body)
        assert answer.status_code == 202, answer.text

    # then
    commands = last_command(kafka, story.execution_id, stack.writer.wire)
    assert [type(command).__name__ for command in commands] == [
        "PauseExecution",
        "ResumeExecution",
        "SignalExecution",
        "CancelExecution",
    ]
    await told(stack, story, story.cancelled())
    problem(await stack.client.post(f"{path}/pause"), 409, "execution-ended")
    assert (await stack.client.post(f"{path}/cancel")).status_code == 202


async def test_approvals_are_listed_and_resolved(stack: Stack, kafka: str) -> None:
    # given
    story, approval_id = story_of(stack), str(uuid4())
    await told(stack, story, story.queued(), story.started(), story.approval_requested(approval_id))

    # then
    shown = (await stack.client.get("/v1/approvals")).json()["approvals"]
    assert [(a["id"], a["execution_id"]) for a in shown] == [(approval_id, story.execution_id)]
    assert shown[0]["payload"] == {"question": "Grant 12,000?"}
    execution = (await stack.client.get(f"/v1/executions/{story.execution_id}")).json()
    assert execution["status"] == "waiting_approval"

    # when
    path = f"/v1/approvals/{approval_id}/approve"
    answer = await stack.client.post(path, json={"value": {"grant": True}, "reason": "fine"})

    # then
    assert answer.status_code == 202
    (command,) = last_command(kafka, story.execution_id, stack.writer.wire)
    assert command.is_granted  # type: ignore[attr-defined]
    assert json.loads(command.value_json) == {"grant": True}  # type: ignore[attr-defined]
    missing = await stack.client.post(f"/v1/approvals/{uuid4()}/reject")
    problem(missing, 404, "unknown-approval", "id")
    other = {"Authorization": f"Bearer {OTHER_KEY}"}
    problem(await stack.client.post(path, headers=other), 404, "unknown-approval")
    await told(stack, story, story.cancelled())
    problem(await stack.client.post(path), 409, "approval-resolved")


async def test_workflows_are_registered_within_what_is_allowed(kafka: str, tmp_path: Path) -> None:
    async with gateway(kafka, tmp_path, worker_allow=("flows",)) as stack:
        name = await registered(stack, tmp_path)

        async def post(entrypoint: str) -> httpx.Response:
            body = {"name": name, "framework": "python", "entrypoint": entrypoint}
            return await stack.client.post("/v1/workflows", json=body)

        first = (await stack.client.get(f"/v1/workflows/{name}")).json()
        assert (await post("flows.sub:run")).status_code == 201
        second = (await stack.client.get(f"/v1/workflows/{name}")).json()
        assert first["version"] != second["version"]
        problem(await post("os:system"), 403, "module-not-allowed", "entrypoint")
        problem(await post("flowsome:run"), 403, "module-not-allowed", "entrypoint")
        problem(await post("/nowhere/x.py:run"), 422, "invalid-entrypoint", "entrypoint")
        problem(await post("flows"), 422, "invalid-entrypoint", "entrypoint")
        problem(await stack.client.get("/v1/workflows/none"), 404, "unknown-workflow")


async def test_a_new_gateway_knows_what_the_log_knows(kafka: str, tmp_path: Path) -> None:
    # given a gateway that took a workflow, an execution and a command nobody handled yet
    async with gateway(kafka, tmp_path) as before:
        name = await registered(before, tmp_path)
        story = story_of(before)
        await told(before, story, *story.whole())
        queued = (await before.client.post("/v1/executions", json={"workflow": name})).json()["id"]

    # when
    async with gateway(kafka, tmp_path, tenant=before.tenant) as after:
        # then
        assert (await after.client.get(f"/v1/workflows/{name}")).status_code == 200
        shown = (await after.client.get(f"/v1/executions/{story.execution_id}")).json()
        assert (shown["status"], shown["cost_microusd"]) == ("completed", 93)
        assert (await after.client.get(f"/v1/executions/{queued}")).json()["status"] == "queued"
        listed = (await after.client.get("/v1/executions")).json()["executions"]
        assert {e["id"] for e in listed} == {queued, story.execution_id}


# -- limits


async def test_a_nearly_full_disk_refuses_new_work_only(kafka: str, tmp_path: Path) -> None:
    async with gateway(kafka, tmp_path, min_free_mb=10**9) as stack:
        story = story_of(stack)
        await told(stack, story, *story.whole(("gather",)))
        answer = await stack.client.post("/v1/executions", json={"workflow": "any"})
        problem(answer, 503, "disk-full")
        assert int(answer.headers["retry-after"]) > 0
        shown = await stack.client.get(f"/v1/executions/{story.execution_id}")
        assert shown.json()["status"] == "completed"


async def test_a_tenant_may_queue_only_so_much(kafka: str, tmp_path: Path) -> None:
    async with gateway(kafka, tmp_path, queued_max=2) as stack:
        name = await registered(stack, tmp_path)
        answers = [
            await stack.client.post("/v1/executions", json={"workflow": name}) for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert "retry-after" in answers[2].headers


async def test_probes_metrics_and_documents_answer(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.url) as anonymous:
        assert (await anonymous.get("/livez")).status_code == 200
        assert (await anonymous.get("/readyz")).status_code == 200
        metrics = (await anonymous.get("/metrics")).text
        document = (await anonymous.get("/openapi.json")).json()
        page = await anonymous.get("/")
        missing = await anonymous.get("/nowhere")
        wrong = await anonymous.delete("/v1/executions")
    assert 'omium_http_requests_total{route="/livez",status="200"} 1' in metrics
    assert document["openapi"].startswith("3.1")
    assert "/v1/executions" in document["paths"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    problem(missing, 404, "not-found")
    problem(wrong, 405, "method-not-allowed")
