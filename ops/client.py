"""A small HTTP client for `omiumctl`: finds the stack, asks the gateway, and rides out restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import httpx

from ops.exits import FAILED, UNAVAILABLE, USAGE, CommandError
from ops.supervisor_state import read

if TYPE_CHECKING:
    from ops.settings import Settings

RIDE_OUT_S: Final = 120.0
"""How long any part of the stack may be away before a command gives up."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 60.0
SILENCE_TIMEOUT_S: Final = 40.0
"""A stream sends a heartbeat every 15 s; one that is silent for so long is dead."""
RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})

Json = dict[str, object]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event."""

    event: str
    position: str
    data: Json


class Client:
    """One gateway and one key. Every method raises `CommandError` with a sentence for people."""

    def __init__(
        self, url: str, api_key: str, *, ride_out_s: float = RIDE_OUT_S, say: Say = print
    ) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key
        self._ride_out_s = ride_out_s
        self._say = say
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout, trust_env=False
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def close(self) -> None:
        """Gives its connections back."""
        self._http.close()

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Json:
        """The JSON answer of a GET."""
        return self._asked("GET", path, params=params, is_repeatable=True)

    def post(
        self,
        path: str,
        body: object = None,
        *,
        idempotency_key: str = "",
        is_repeatable: bool = False,
    ) -> Json:
        """The JSON answer of a POST; repeated after a lost connection only if that is harmless."""
        return self._asked(
            "POST",
            path,
            body=body,
            idempotency_key=idempotency_key,
            is_repeatable=is_repeatable or bool(idempotency_key),
        )

    def delete(self, path: str) -> Json:
        """The JSON answer of a DELETE."""
        return self._asked("DELETE", path, is_repeatable=True)

    def follow(self, path: str, position: str = "") -> Iterator[Frame]:
        """The frames of a stream to its `end`, over any number of connections, each event once."""
        outage = Outage(self._ride_out_s, self._say)
        while True:
            try:
                for frame in self._frames(path, position):
                    outage.over()
                    position = frame.position or position
                    yield frame
                    if frame.event == "end":
                        return
                # The gateway closed the stream: it stops, or we were too slow. Come back where we
                # were.
                outage.wait("the gateway closed the stream")
            except httpx.HTTPError as error:
                outage.wait(_reason(error))

    def _frames(self, path: str, position: str) -> Iterator[Frame]:
        headers = {"Last-Event-ID": position} if position else {}
        timeout = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.status_code in RETRIED_STATUSES:
                raise httpx.RemoteProtocolError(f"HTTP {response.status_code}")
            if response.status_code != httpx.codes.OK:
                response.read()
                raise _problem(response)
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                if "data" in fields:
                    yield Frame(
                        fields.get("event", ""), fields.get("id", ""), _object(fields["data"])
                    )
                fields = {}

    def _asked(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        idempotency_key: str = "",
        is_repeatable: bool,
    ) -> Json:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        outage = Outage(self._ride_out_s, self._say)
        while True:
            try:
                response = self._http.request(
                    method, path, params=params, json=body, headers=headers
                )
            except httpx.ConnectError as error:
                outage.wait(_reason(error))
                continue
            except httpx.HTTPError as error:
                if not is_repeatable:
                    raise CommandError(
                        f"the gateway did not answer ({_reason(error)}); "
                        "whether it took the command is not known."
                    ) from error
                outage.wait(_reason(error))
                continue
            if response.status_code in RETRIED_STATUSES and not _is_final(response):
                outage.wait(str(_problem(response)), _retry_after_s(response))
                continue
            if response.is_success:
                return _object(response.text)
            raise _problem(response)


class Outage:
    """Waits between tries, longer each time, and gives up after a while without success."""

    def __init__(self, ride_out_s: float, say: Say) -> None:
        self._ride_out_s = ride_out_s
        self._say = say
        self._began: float | None = None
        self._pause_s = BACKOFF_FIRST_S
        self._is_told = False

    def over(self) -> None:
        """Something answered."""
        self._began, self._pause_s, self._is_told = None, BACKOFF_FIRST_S, False

    def wait(self, reason: str, at_least_s: float = 0.0) -> None:
        """Pause before the next try; raises `CommandError` (exit 3) when it has been too long."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        if now - self._began + max(self._pause_s, at_least_s) > self._ride_out_s:
            raise CommandError(f"the gateway is not available: {reason}.", UNAVAILABLE)
        if not self._is_told and now - self._began > 1.0:
            self._say(f"  … waiting for the gateway ({reason})")
            self._is_told = True
        time.sleep(max(self._pause_s, at_least_s))
        self._pause_s = min(self._pause_s * 2, BACKOFF_MAX_S)


def segment(text: str) -> str:
    """A text as one segment of a path: an id with a slash must not become another route."""
    return quote(text, safe="")


def client_of(settings: Settings, *, ride_out_s: float = RIDE_OUT_S, say: Say = print) -> Client:
    """The client of `OMIUM_URL` with `OMIUM_API_KEY`, else of the stack in the data directory."""
    if settings.url:
        return Client(settings.url, settings.client_api_key, ride_out_s=ride_out_s, say=say)
    state = read(settings.run_dir)
    gateway = None if state is None else state.endpoints.get("gateway")
    if not gateway:
        raise CommandError(
            f"no stack has been started in {settings.data_dir}; `omiumctl up --detach` starts one, "
            "or OMIUM_URL and OMIUM_API_KEY name one."
        )
    return Client(gateway, settings.client_api_key, ride_out_s=ride_out_s, say=say)


def _problem(response: httpx.Response) -> CommandError:
    try:
        document = response.json()
    except ValueError:
        document = {}
    detail = document.get("detail") if isinstance(document, dict) else None
    text = str(detail or f"the gateway answered HTTP {response.status_code}")
    match response.status_code:
        case 400 | 404 | 405 | 409 | 413 | 422:
            code = USAGE
        case 401 | 403:
            code = USAGE
            text = f"{text} (OMIUM_API_KEY, or the key of the data directory)"
        case status if status in RETRIED_STATUSES:
            code = UNAVAILABLE
        case _:
            code = FAILED
    return CommandError(text, code)


def _is_final(response: httpx.Response) -> bool:
    """A refusal that waiting will not change soon: a full disk, too much queued."""
    try:
        kind = str(response.json().get("type", ""))
    except ValueError:
        return False
    return kind.endswith((":disk-full", ":too-many-queued"))


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), BACKOFF_MAX_S) if text.isdigit() else 0.0


def _object(text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandError("the gateway's answer is not JSON; is OMIUM_URL right?") from error
    if not isinstance(value, dict):
        raise CommandError("the gateway's answer is not a JSON object; is OMIUM_URL right?")
    return value


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
