"""The simulated shells of `processors/routing_partition.py` and of the gateway's LLM path.

Whether a call is asked for or answered already is decided by the real `streams.routing.call`.
"""

from __future__ import annotations

from collections.abc import Callable

from streams.llm.events import LlmCallCompleted, LlmCallFailed, LlmCallRequested, LlmCallRouted
from streams.messages import Message, call_id
from streams.ownership import EpochFold
from streams.routing.call import (
    Answered,
    Ask,
    CallState,
    completion_id,
    decide,
    evolve,
    request_id,
    routed_id,
    settlement,
)
from tests.simulation.broker import Broker, Group, Log, Reader
from tests.simulation.kernel import Kernel, Process
from tests.simulation.lane import Lane
from tests.simulation.world import Provider

RECLAIM_MS = 2_000
COMMIT_EVERY_MS = 500
HTTP_TIMEOUT_MS = 60_000
BODY = b"{}"


class Gateway:
    """One life of the gateway: takes calls by key, answers from the log."""

    def __init__(
        self, kernel: Kernel, broker: Broker, requests: Log, responses: Log, life: int
    ) -> None:
        self.process = Process(f"gateway.{life}")
        self._kernel = kernel
        self._broker = broker
        self._requests = requests
        self._reader = Reader(responses, is_trusting=not kernel.rules.gateway_drops_void)
        self._answers: dict[str, str] = {}
        self._waiting: dict[str, list[Callable[[str], None]]] = {}
        self._nonce = 0
        responses.listeners.append(self._appended)
        self._read()

    def ask(self, tenant: str, key: str, answer: Callable[[str], None]) -> None:
        """Answers now if the answer stands, else asks the router and waits."""
        call = call_id(tenant, key)
        if call in self._answers:
            answer(self._answers[call])
            return
        self._waiting.setdefault(call, []).append(answer)
        self._nonce += 1
        request = LlmCallRequested(
            event_id=request_id(tenant, "", "s", call, f"{self.process.name}.{self._nonce}"),
            tenant=tenant,
            execution_id="",
            call_id=call,
            idempotency_key=key,
            step="s",
            agent="s",
            api="chat_completions",
            model="m",
            is_stream=False,
            request=BODY,
        )
        self._broker.send(self.process, self._requests, request, lambda _: None, lambda: None)

    def _appended(self, _: int, __: Message) -> None:
        if self.process.is_alive:
            self._kernel.after(self._kernel.between(1, 4), self._read, self.process)

    def _read(self) -> None:
        for _, event in self._reader.read():
            if isinstance(event, LlmCallCompleted):
                self._answers.setdefault(event.call_id, event.response.decode())
                for answer in self._waiting.pop(event.call_id, ()):
                    answer(self._answers[event.call_id])


class Gateways:
    """The gateway across its lives; a broken connection is tried again with the same key."""

    def __init__(self, kernel: Kernel, broker: Broker, requests: Log, responses: Log) -> None:
        self._kernel = kernel
        self._parts = (kernel, broker, requests, responses)
        self._life = 0
        self.current = Gateway(*self._parts, 0)
        self._watch()

    def chat(self, tenant: str, key: str, process: Process, answer: Callable[[str], None]) -> None:
        """Asks until there is an answer; the runner hears of it once."""
        kernel = self._kernel
        is_answered = False

        def heard(text: str) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                kernel.after(1, lambda: answer(text), process)

        def attempt() -> None:
            if is_answered or not process.is_alive:
                return
            gateway = self.current
            kernel.after(1, lambda: gateway.ask(tenant, key, heard), gateway.process)
            kernel.after(HTTP_TIMEOUT_MS, attempt, process)
            gateway.process.on_death.append(lambda: kernel.after(1_000, attempt, process))

        attempt()

    def _watch(self) -> None:
        self.current.process.on_death.append(self._restart)

    def _restart(self) -> None:
        def begin() -> None:
            self._life += 1
            self.current = Gateway(*self._parts, self._life)
            self._watch()

        self._kernel.after(self._kernel.between(500, 900), begin)


class Router:
    """One life of one routing worker, for one partition."""

    def __init__(
        self,
        kernel: Kernel,
        broker: Broker,
        group: Group,
        logs: tuple[Log, Log],
        provider: Provider,
        name: str,
    ) -> None:
        self.process = Process(name)
        self.name = name
        self._kernel = kernel
        self._broker = broker
        self._group = group
        self._requests, self._responses = logs
        self._provider = provider
        self._is_ours = False
        self._is_held = False
        self._generation = 0
        self._read_to = 0
        self._committed = 0
        self._done: set[int] = set()
        self._lane: Lane | None = None
        self._calls: dict[str, CallState] = {}
        self._open: dict[int, LlmCallRequested] = {}
        self._flights: dict[str, list[int]] = {}
        self._requests.listeners.append(lambda _, __: self._fetch_soon())

    # The group ----------------------------------------------------------------------------------

    def assigned(self, partition: int, generation: int, position: int) -> None:
        """Claims the partition, or reads it again from the committed position."""
        self._is_ours = True
        self._generation = generation
        self._read_to = self._committed = position
        self._done = set()
        if not self._is_held:
            self._is_held = True
            self._claim()
        self._fetch_soon()

    def revoked(self, partition: int) -> None:
        """Stops: the partition is somebody else's."""
        self._commit()
        self._is_ours = self._is_held = False
        self._drop()
        self._open.clear()

    def _fetch_soon(self) -> None:
        if self.process.is_alive and self._is_ours:
            self._kernel.after(self._kernel.between(1, 5), self._fetch, self.process)

    def _fetch(self) -> None:
        while self._is_ours and self._read_to < len(self._requests.records):
            offset, request = self._read_to, self._requests.records[self._read_to]
            self._read_to += 1
            assert isinstance(request, LlmCallRequested)
            is_known = offset in self._open
            self._open[offset] = request
            if self._lane is not None and not is_known:
                self._consider(offset)

    def _commit(self) -> None:
        while self._committed in self._done:
            self._committed += 1
        self._done = {offset for offset in self._done if offset > self._committed}
        self._group.commit(0, self.name, self._generation, self._committed)

    # The tenure ---------------------------------------------------------------------------------

    def _claim(self) -> None:
        if not self._is_held:
            return
        self._kernel.hazard(self.process, "claim")
        calls: dict[str, CallState] = {}

        def fold(_: int, event: Message) -> None:
            if isinstance(event, LlmCallRouted | LlmCallCompleted | LlmCallFailed):
                calls[event.call_id] = evolve(calls.get(event.call_id, CallState()), event)

        def claimed() -> None:
            if not self._is_held or lane.is_deposed:
                return
            self._lane, self._calls = lane, calls
            for offset in sorted(self._open):
                self._consider(offset)

        lane = Lane(self._kernel, self._broker, self.process, self._responses, self._deposed)
        lane.claim(fold, 0, EpochFold(), claimed, rebuilds=self._kernel.rules.rebuilds_router)

    def _deposed(self) -> None:
        self._drop()
        self._kernel.after(RECLAIM_MS, self._claim_again, self.process)

    def _claim_again(self) -> None:
        if self._is_held and self._lane is None:
            self._claim()

    def _drop(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.end()
        self._flights = {}

    # Calls --------------------------------------------------------------------------------------

    def _consider(self, offset: int) -> None:
        request = self._open[offset]
        flight = self._flights.get(request.call_id)
        if flight is not None:
            flight.append(offset)
            return
        verdict = decide(self._calls.get(request.call_id, CallState()), request)
        if isinstance(verdict, Answered):
            self._finish([offset])
            return
        assert isinstance(verdict, Ask) and self._lane is not None
        self._flights[request.call_id] = [offset]
        self._serve(self._lane, request, verdict)

    def _serve(self, lane: Lane, request: LlmCallRequested, ask: Ask) -> None:
        routed = LlmCallRouted(
            event_id=routed_id(request, ask.try_number),
            tenant=request.tenant,
            execution_id="",
            call_id=request.call_id,
            route="upstream",
            provider="p",
            model="m",
            reason="next",
            try_number=ask.try_number,
        )

        def pay() -> None:
            if not lane.is_deposed:
                self._provider.ask(request.call_id, self.process, answered)

        def answered(text: str) -> None:
            self._settle(lane, request, ask, text)

        def stood(_: int) -> None:
            self._fold(routed)
            if self._kernel.rules.routes_after_standing:
                self._kernel.hazard(self.process, "pay")
                self._kernel.after(0, pay, self.process)

        lane.post(routed, stood)
        if not self._kernel.rules.routes_after_standing:
            pay()

    def _settle(self, lane: Lane, request: LlmCallRequested, ask: Ask, text: str) -> None:
        completed = LlmCallCompleted(
            event_id=completion_id(request.tenant, "", "s", request.call_id, BODY),
            tenant=request.tenant,
            execution_id="",
            call_id=request.call_id,
            step="s",
            agent="s",
            route="upstream",
            provider="p",
            model="m",
            is_stream=False,
            response=text.encode(),
            input_tokens=1,
            cached_tokens=0,
            output_tokens=1,
            reasoning_tokens=0,
            usage_source="provider",
            cost_microusd=10,
            price_book="b",
            status=settlement(ask.in_doubt),
            first_token_ms=1,
            latency_ms=1,
            try_number=ask.try_number,
        )

        def stood(_: int) -> None:
            self._fold(completed)
            self._finish(self._flights.pop(request.call_id, []))

        lane.post(completed, stood)

    def _fold(self, event: LlmCallRouted | LlmCallCompleted) -> None:
        self._calls[event.call_id] = evolve(self._calls.get(event.call_id, CallState()), event)

    def _finish(self, offsets: list[int]) -> None:
        for offset in offsets:
            self._open.pop(offset, None)
            if not self._done:
                self._kernel.after(COMMIT_EVERY_MS, self._commit, self.process)
            self._done.add(offset)
