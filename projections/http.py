"""ClickHouse over its own HTTP interface: one statement a request, answers as rows, errors with
ClickHouse's code.

Rows go in as JSON arrays: `orjson` writes one in 2 us and the server parses it in its own process,
which is cheaper for us than building columns (docs/projections.md), and needs neither
pyarrow nor numpy in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import httpx
import orjson

from projections.tables import PackedRow, Row, pack
from streams.errors import Retryable

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 60.0
"""Above the longest insert seen on a busy machine; after it the batch is sent again under the same
token."""
RETRY_AFTER_MS: Final = 1000
MESSAGE_CHARS_MAX: Final = 2000
ERROR: Final = re.compile(r"Code: (\d+)\. DB::Exception: (.*)", re.DOTALL)
ERROR_TAIL: Final = re.compile(r"\s*\(version [^)]*(\([^)]*\))?\)?\s*$")

FORMAT_CODE: Final = 73
TOO_MANY_ROWS_OR_BYTES: Final = 396
"""ClickHouse's own codes, for refusals of ours that mean the same."""

READ_SETTINGS: Final = {
    "default_format": "JSONCompact",
    # Money and offsets are integers, in JSON as well.
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_quote_denormals": "0",
    "wait_end_of_query": "1",  # An error after the first rows must not look like an answer.
}
INSERT_SETTINGS: Final = {
    "async_insert": "0",  # On by default; acknowledged must mean stored.
    "max_partitions_per_insert_block": "0",  # One odd timestamp must not stop the sink.
    "input_format_parallel_parsing": "0",  # One block an insert: whole or not at all.
    "wait_end_of_query": "1",
}


class Endpoint(NamedTuple):
    """Where ClickHouse answers, as whom, and in which database."""

    url: str
    user: str
    password: str
    database: str


class ClickHouseError(Retryable):
    """ClickHouse refused a statement: its code and its own words, without build and stack."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message, RETRY_AFTER_MS)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The rows of a query. Integers are exact, however large."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[list[object]]

    def records(self) -> list[dict[str, object]]:
        """The rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class ClickHouse:
    """One connection pool to one database. Thread-safe; every call is one statement."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._client = httpx.Client(
            base_url=endpoint.url,
            headers=headers(endpoint),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def execute(self, statement: str) -> None:
        """Run a statement whose answer does not matter."""
        self._post({}, statement.encode())

    def query(self, statement: str, parameters: Mapping[str, object] | None = None) -> Answer:
        """The rows of a query; `{name:Type}` in it is bound on the server, never pasted."""
        return answer_of(self._post(READ_SETTINGS | bound(parameters), statement.encode()))

    def query_with(self, statement: str, name: str, structure: str, rows: Iterable[Row]) -> Answer:
        """The rows of a query that reads `rows` as a table called `name`."""
        settings = READ_SETTINGS | {
            "query": statement,
            f"{name}_structure": structure,
            f"{name}_format": "JSONCompactEachRow",
        }
        file = {name: ("rows", b"\n".join(map(pack, rows)))}
        return answer_of(_checked(lambda: self._client.post("/", params=settings, files=file)))

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[PackedRow], token: str
    ) -> None:
        """Insert rows as one block; a block under the same token that stands already is not
        repeated."""
        statement = f"INSERT INTO {table} ({', '.join(columns)}) FORMAT JSONCompactEachRow"
        settings = INSERT_SETTINGS | {"query": statement, "insert_deduplication_token": token}
        self._post(settings, b"\n".join(rows))

    def _post(self, params: Mapping[str, str], body: bytes) -> bytes:
        return _checked(lambda: self._client.post("/", params=dict(params), content=body))


class AsyncClickHouse:
    """The same over an event loop, for reading only. Answers are bounded in bytes, whatever the
    statement asks."""

    def __init__(self, endpoint: Endpoint, answer_bytes_max: int, read_timeout_s: float) -> None:
        self._answer_bytes_max = answer_bytes_max
        self._client = httpx.AsyncClient(
            base_url=endpoint.url,
            headers=headers(endpoint),
            timeout=httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def query(
        self,
        statement: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Answer:
        """The rows of a query. `ClickHouseError` if it was refused, `Retryable` if nobody
        answers."""
        params = READ_SETTINGS | bound(parameters) | dict(settings or {})
        try:
            async with self._client.stream(
                "POST", "/", params=params, content=statement.encode()
            ) as response:
                body = await self._body(response)
        except httpx.HTTPError as error:
            raise Retryable(f"ClickHouse does not answer: {error!r}", RETRY_AFTER_MS) from error
        if _is_error(response):
            raise error_of(body.decode("utf-8", "replace"))
        if response.headers.get("x-clickhouse-format") != READ_SETTINGS["default_format"]:
            raise ClickHouseError(FORMAT_CODE, "the answer's format is ours: leave FORMAT out")
        return answer_of(body)

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._answer_bytes_max:
                raise ClickHouseError(
                    TOO_MANY_ROWS_OR_BYTES, f"the answer is over {self._answer_bytes_max} bytes"
                )
        return bytes(body)


def headers(endpoint: Endpoint) -> dict[str, str]:
    """Who asks and in which database; never in the URL, where logs would keep it."""
    return {
        "X-ClickHouse-User": endpoint.user,
        "X-ClickHouse-Key": endpoint.password,
        "X-ClickHouse-Database": endpoint.database,
    }


def bound(parameters: Mapping[str, object] | None) -> dict[str, str]:
    """Query parameters as ClickHouse takes them: escaped as in TSV."""
    return {f"param_{name}": _escaped(value) for name, value in (parameters or {}).items()}


def _escaped(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
    return text.replace("\r", "\\r").replace("\0", "\\0").replace("\b", "\\b")


def answer_of(body: bytes) -> Answer:
    """The rows of a JSONCompact answer."""
    document = orjson.loads(body)
    return Answer(
        columns=tuple(column["name"] for column in document["meta"]),
        types=tuple(column["type"] for column in document["meta"]),
        rows=document["data"],
    )


def error_of(body: str) -> ClickHouseError:
    """What ClickHouse said went wrong."""
    found = ERROR.search(body)
    if found is None:
        return ClickHouseError(0, body.strip()[:MESSAGE_CHARS_MAX] or "no message")
    message = ERROR_TAIL.sub("", found[2].split("\nStack trace")[0].split(" Stack trace:")[0])
    return ClickHouseError(int(found[1]), message.strip()[:MESSAGE_CHARS_MAX])


def _checked(send: Callable[[], httpx.Response]) -> bytes:
    try:
        response = send()
    except httpx.HTTPError as error:
        raise Retryable(f"ClickHouse does not answer: {error!r}", RETRY_AFTER_MS) from error
    if _is_error(response):
        raise error_of(response.text)
    return response.content


def _is_error(response: httpx.Response) -> bool:
    return (
        response.status_code != httpx.codes.OK or "x-clickhouse-exception-code" in response.headers
    )
