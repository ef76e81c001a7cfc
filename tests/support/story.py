"""Recorded-looking lives of executions, event by event, for whatever shows or stores them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from streams.execution import events as e
from streams.llm import events as llm
from streams.messages import Message, call_id, event_id

START_MS = 1_790_000_000_000
STEP_MS = 400


class Story:
    """Makes the events of one execution, a clock tick apart, with the ids that its owner would give
    them.
    """

    def __init__(self, tenant: str, execution_id: str, start_ms: int = START_MS) -> None:
        self.tenant = tenant
        self.execution_id = execution_id
        self.now_ms = start_ms

    def of(
        self, kind: str, *, step: str = "", attempt: int = 1, ordinal: int | str = 0
    ) -> dict[str, object]:
        """The frame of one event."""
        self.now_ms += 10
        identity = event_id(self.tenant, self.execution_id, step, attempt, kind, ordinal)
        return {
            "event_id": identity,
            "tenant": self.tenant,
            "execution_id": self.execution_id,
            "at_ms": self.now_ms,
        }

    def queued(self, workflow: str = "loan_advisor", value: object = None) -> e.ExecutionQueued:
        """The first event."""
        return e.ExecutionQueued(
            **self.of("ExecutionQueued"),  # type: ignore[arg-type]
            workflow=workflow,
            workflow_version="1",
            framework="langgraph",
            entrypoint="loan_advisor.graph:graph",
            input_json=json.dumps(value if value is not None else {"amount": 12000}),
            options_json="{}",
            labels_json='{"team":"credit"}',
            deadline_at_ms=None,
            command_offset=0,
        )

    def started(self) -> e.ExecutionStarted:
        """The first runner runs."""
        return e.ExecutionStarted(**self.of("ExecutionStarted"), worker_id="w", incarnation=0)  # type: ignore[arg-type]

    def resumed(self, incarnation: int, reason: str = "runner_lost") -> e.ExecutionResumed:
        """A later runner runs."""
        return e.ExecutionResumed(
            **self.of("ExecutionResumed", ordinal=incarnation),  # type: ignore[arg-type]
            worker_id="w",
            incarnation=incarnation,
            reason=reason,
        )

    def step_started(
        self, step: str, number: int, *, attempt: int = 1, incarnation: int = 0
    ) -> e.StepStarted:
        """A step begins."""
        return e.StepStarted(
            **self.of("StepStarted", step=f"{step}#{number}", attempt=attempt, ordinal=incarnation),  # type: ignore[arg-type]
            step=step,
            step_key=f"{step}#{number}",
            agent=step,
            attempt=attempt,
            ordinal=number,
            incarnation=incarnation,
        )

    def step_completed(
        self, step: str, number: int, *, attempt: int = 1, output: object = "done"
    ) -> e.StepCompleted:
        """A step ends well."""
        self.now_ms += STEP_MS
        return e.StepCompleted(
            **self.of("StepCompleted", step=f"{step}#{number}", attempt=attempt),  # type: ignore[arg-type]
            step=step,
            step_key=f"{step}#{number}",
            agent=step,
            attempt=attempt,
            ordinal=number,
            incarnation=0,
            output_json=json.dumps(output),
            duration_ms=STEP_MS,
            record=b"\x00state",
            effects=(),
        )

    def step_failed(self, step: str, number: int, *, attempt: int = 1) -> e.StepFailed:
        """A step ends badly."""
        return e.StepFailed(
            **self.of("StepFailed", step=f"{step}#{number}", attempt=attempt),  # type: ignore[arg-type]
            step=step,
            step_key=f"{step}#{number}",
            agent=step,
            attempt=attempt,
            ordinal=number,
            incarnation=0,
            error_type="ValueError",
            error_message="no such rate",
            error_trace="",
            duration_ms=7,
        )

    def llm_intended(self, step: str, number: int, ordinal: int = 0) -> e.LlmCallIntended:
        """A model is about to be asked."""
        return e.LlmCallIntended(
            **self.of("LlmCallIntended", step=f"{step}#{number}", ordinal=ordinal),  # type: ignore[arg-type]
            call_id=f"{self.execution_id}/{step}/{number}/{ordinal}",
            step=step,
            step_key=f"{step}#{number}",
            agent=step,
            model="gpt-4o-mini",
            request_hash="h",
            ordinal=ordinal,
            incarnation=0,
        )

    def llm_completed(
        self, intended: e.LlmCallIntended, *, tokens: tuple[int, int] = (210, 48)
    ) -> llm.LlmCallCompleted:
        """The model answered."""
        identity = call_id(self.tenant, intended.call_id)
        return llm.LlmCallCompleted(
            **self.of("LlmCallCompleted", ordinal=identity),  # type: ignore[arg-type]
            call_id=identity,
            step=intended.step,
            agent=intended.agent,
            route="local",
            provider="triton",
            model="gpt-oss-20b",
            is_stream=False,
            response=b"{}",
            input_tokens=tokens[0],
            cached_tokens=0,
            output_tokens=tokens[1],
            reasoning_tokens=0,
            usage_source="provider",
            cost_microusd=31,
            price_book="1",
            status="settled",
            first_token_ms=30,
            latency_ms=180,
            try_number=1,
        )

    def llm_requested(self) -> llm.LlmCallRequested:
        """The gateway asks; nothing that people follow."""
        return llm.LlmCallRequested(
            **self.of("LlmCallRequested"),  # type: ignore[arg-type]
            call_id="c",
            idempotency_key="k",
            step="gather",
            agent="gather",
            api="chat_completions",
            model="gpt-oss-20b",
            is_stream=False,
            request=b"{}",
        )

    def llm_routed(self) -> llm.LlmCallRouted:
        """The router has chosen; nothing that people follow."""
        return llm.LlmCallRouted(
            **self.of("LlmCallRouted"),  # type: ignore[arg-type]
            call_id="c",
            route="local",
            provider="triton",
            model="gpt-oss-20b",
            reason="",
            try_number=1,
        )

    def tool_intended(
        self, step: str, number: int, tool: str = "lookup_rate"
    ) -> e.ToolCallIntended:
        """A tool is about to be called."""
        return e.ToolCallIntended(
            **self.of("ToolCallIntended", step=f"{step}#{number}", ordinal=tool),  # type: ignore[arg-type]
            call_id=f"{self.execution_id}/{step}/{number}/{tool}",
            step=step,
            step_key=f"{step}#{number}",
            agent=step,
            tool=tool,
            policy="idempotent",
            request_hash="h",
            ordinal=0,
            arguments_json='{"score": 710}',
            incarnation=0,
        )

    def tool_completed(self, intended: e.ToolCallIntended) -> e.ToolCallCompleted:
        """The tool answered."""
        return e.ToolCallCompleted(
            **self.of("ToolCallCompleted", ordinal=intended.call_id),  # type: ignore[arg-type]
            call_id=intended.call_id,
            step=intended.step,
            tool=intended.tool,
            result_type="json",
            result=b"6.4",
            result_json='{"apr": 6.4}',
            resolution="returned",
            duration_ms=12,
        )

    def approval_requested(self, approval_id: str, step: str = "decide") -> e.ApprovalRequested:
        """A person is asked."""
        return e.ApprovalRequested(
            **self.of("ApprovalRequested", ordinal=approval_id),  # type: ignore[arg-type]
            approval_id=approval_id,
            kind="interrupt",
            step=step,
            tool="",
            call_id="",
            payload_json='{"question": "Grant 12,000?"}',
        )

    def completed(self, output: object = None) -> e.ExecutionCompleted:
        """It ends well."""
        return e.ExecutionCompleted(
            **self.of("ExecutionCompleted"),  # type: ignore[arg-type]
            output_json=json.dumps(
                output if output is not None else {"status": "approved", "apr": 6.4}
            ),
        )

    def cancelled(self, reason: str = "") -> e.ExecutionCancelled:
        """It is cancelled."""
        return e.ExecutionCancelled(**self.of("ExecutionCancelled"), reason=reason)  # type: ignore[arg-type]

    def step(self, step: str, number: int) -> Iterator[Message]:
        """A step with one LLM call and one tool call; the LLM answer belongs on the responses
        topic.
        """
        yield self.step_started(step, number)
        asked = self.llm_intended(step, number)
        yield asked
        yield self.llm_completed(asked)
        tool = self.tool_intended(step, number)
        yield tool
        yield self.tool_completed(tool)
        yield self.step_completed(step, number)

    def whole(self, steps: tuple[str, ...] = ("gather", "assess", "decide")) -> list[Message]:
        """A life from queued to completed."""
        events: list[Message] = [self.queued(), self.started()]
        for number, step in enumerate(steps, start=1):
            events += self.step(step, number)
        return [*events, self.completed()]
