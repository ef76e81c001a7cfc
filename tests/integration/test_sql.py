"""`POST /v1/sql` and its neighbours on a real ClickHouse: a tenant reads its own rows, and nothing
else whatever it asks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from gateway import problems, sql
from gateway.auth import Principal, Scope
from ops.embedded import clickhouse, ports
from projections.clickhouse import ClickHouseStore
from projections.http import ClickHouse, Endpoint
from projections.queries import SQL_ROWS_MAX, Queries
from projections.rows import rows_of
from projections.tables import TABLES, Place, pack
from streams.messages import TenantId
from streams.topics import EXECUTIONS, LLM_RESPONSES
from tests.integration.test_projector_outage import OwnServer
from tests.support.projection import COST, answered, queued, started, tool_completed, tool_intended

FIRST_PORT = 47300
CALLS = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clickhouse.ClickHouse]:
    """A server with the stack's own users and rows of two tenants."""
    root: Path = tmp_path_factory.mktemp("sql")
    chosen, _ = ports.choose(ports.natural(FIRST_PORT + os.getpid() % 1000 * 10), {}, ports.is_free)
    made = clickhouse.ClickHouse(
        home=root / "clickhouse",
        logs_dir=root / "logs",
        http_port=chosen.clickhouse_http,
        native_port=chosen.clickhouse_native,
        admin_password="admin",
        tenant_password="tenant",
    )
    made.prepare()
    running = OwnServer(made)
    running.start()
    client = ClickHouse(Endpoint(made.url, clickhouse.ADMIN, "admin", clickhouse.DATABASE))
    store = ClickHouseStore(client)
    store.migrate()
    for seq, tenant in enumerate(("local", "other")):
        fill(store, seq, tenant)
    client.close()
    yield made
    running.kill()


def fill(store: ClickHouseStore, seq: int, tenant: str) -> None:
    """One execution of the tenant with its calls."""
    events = [
        (EXECUTIONS, event("x", 0, tenant))
        for event in (queued, started, tool_intended, tool_completed)
    ]
    events += [(LLM_RESPONSES, answered("x", n, 0, tenant)) for n in range(CALLS)]  # type: ignore[misc]
    rows: dict[str, list[bytes]] = {}
    for offset, (topic, event) in enumerate(events):
        for table, row in rows_of(event, Place(topic.name, seq, offset)):
            rows.setdefault(table, []).append(pack(row))
    for table, packed in rows.items():
        store.insert(table, seq, packed)


@dataclass(frozen=True, slots=True)
class Deps:
    """The routes' needs without a gateway: everybody is tenant `local`."""

    tables: Queries

    def authenticate(self, connection: HTTPConnection, scope: Scope) -> Principal:
        """Tenant `local` with the asked scope."""
        return Principal(tenant=TenantId("local"), key_id="k", scopes=frozenset({scope}))


@pytest.fixture
async def queries(server: clickhouse.ClickHouse) -> AsyncIterator[Queries]:
    """Questions to the server."""
    made = Queries(
        Endpoint(server.url, clickhouse.ADMIN, "admin", clickhouse.DATABASE),
        lambda tenant: Endpoint(server.url, f"tenant_{tenant}", "tenant", clickhouse.DATABASE),
    )
    yield made
    await made.close()


@pytest.fixture
async def client(queries: Queries) -> AsyncIterator[httpx.AsyncClient]:
    """The routes, behind ASGI."""
    app = FastAPI()
    problems.install(app)
    app.include_router(sql.router(Deps(queries)))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gateway"
    ) as made:
        yield made


async def ask(client: httpx.AsyncClient, query: str) -> httpx.Response:
    """One statement."""
    return await client.post("/v1/sql", json={"query": query})


async def test_a_query_answers_columns_and_rows(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "SELECT count() AS calls, sum(cost_microusd) AS cost FROM usage")
    assert answer.status_code == 200
    assert answer.json() == {"columns": ["calls", "cost"], "rows": [[CALLS, CALLS * COST]]}


@pytest.mark.parametrize("table", TABLES)
async def test_a_tenant_sees_only_its_own_rows(client: httpx.AsyncClient, table: str) -> None:
    answer = await ask(client, f"SELECT DISTINCT tenant FROM {table}")
    assert answer.status_code == 200
    assert answer.json()["rows"] in ([["local"]], [])
    assert table == "events_void" or answer.json()["rows"] == [["local"]]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count() FROM usage WHERE tenant = 'other'",
        "SELECT count() FROM executions WHERE tenant = 'other'",
        "SELECT count() FROM (SELECT tenant FROM usage UNION ALL SELECT tenant FROM events)"
        " WHERE tenant != 'local'",
        "WITH t AS (SELECT tenant FROM events) SELECT countIf(tenant != 'local') FROM t",
        "SELECT countIf(tenant != 'local') FROM merge('omium', '^usage$')",
    ],
)
async def test_no_way_of_asking_shows_anothers_rows(client: httpx.AsyncClient, query: str) -> None:
    answer = await ask(client, query)
    if answer.status_code == 200:
        assert answer.json()["rows"] == [[0]]
    else:
        assert answer.json()["status"] == 403


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT * FROM file('/etc/passwd', 'LineAsString', 'a String')",
        "SELECT * FROM remote('127.0.0.1', 'omium', 'usage')",
        "SELECT * FROM s3('http://127.0.0.1:1/a/b', 'CSV', 'a String')",
        "SELECT * FROM executable('cat', 'CSV', 'a String')",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT * FROM system.processes",
        "SELECT * FROM system.users",
        "SELECT * FROM omium.batches",
        "SELECT * FROM omium.migrations",
        "INSERT INTO usage (tenant) VALUES ('local')",
        "INSERT INTO FUNCTION file('a.csv') SELECT 1",
        "CREATE TABLE mine (a UInt8) ENGINE = Memory",
        "ALTER TABLE usage DELETE WHERE 1",
        "DROP TABLE usage",
        "TRUNCATE TABLE events",
        "CREATE USER eve",
        "GRANT ALL ON *.* TO tenant_local",
        "SYSTEM SHUTDOWN",
        "BACKUP TABLE usage TO File('x')",
        "SELECT 1 SETTINGS readonly = 0",
    ],
)
async def test_nothing_but_reading_ones_own_is_allowed(
    client: httpx.AsyncClient, query: str
) -> None:
    answer = await ask(client, query)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code in (400, 403)
    assert "version 26" not in answer.text
    assert "Stack trace" not in answer.text


async def test_two_statements_at_once_are_refused(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "SELECT 1; SELECT 2")
    assert answer.status_code == 400
    assert "Multi-statements are not allowed" in answer.json()["detail"]


async def test_wrong_sql_is_answered_in_clickhouses_words(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "SELEC 1")
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:omium:problem:query-refused"
    assert "Syntax error" in answer.json()["detail"]
    assert answer.json()["field"] == "query"


async def test_too_many_rows_are_a_limit_not_a_cut(client: httpx.AsyncClient) -> None:
    for query in (
        f"SELECT number FROM numbers({SQL_ROWS_MAX + 1})",
        f"SELECT number FROM numbers({SQL_ROWS_MAX + 1}) SETTINGS max_result_rows = 100000",
    ):
        answer = await ask(client, query)
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:omium:problem:query-limit"


async def test_a_huge_answer_is_a_limit(client: httpx.AsyncClient) -> None:
    answer = await ask(
        client, "SELECT repeat('x', 900000) FROM numbers(40) SETTINGS max_result_bytes = 100000000"
    )
    assert answer.status_code == 422


async def test_a_slow_query_is_ended(client: httpx.AsyncClient) -> None:
    answer = await ask(
        client,
        "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"
        " SETTINGS max_execution_time = 1",
    )
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:omium:problem:query-limit"


async def test_another_format_is_refused(client: httpx.AsyncClient) -> None:
    assert (await ask(client, "SELECT 1 FORMAT CSV")).status_code == 400


async def test_large_integers_are_exact(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "SELECT toUInt64(18446744073709551615)")
    assert answer.json()["rows"] == [[18446744073709551615]]


async def test_a_body_without_query_names_the_field(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/sql", json={})
    assert (answer.status_code, answer.json()["field"]) == (422, "query")


@pytest.mark.parametrize("group", ["tenant", "workflow", "agent", "step", "model", "day"])
async def test_costs_add_up_whatever_they_are_told_by(
    client: httpx.AsyncClient, group: str
) -> None:
    answer = (await client.get("/v1/costs", params={"group_by": group})).json()
    assert answer["total"]["cost_microusd"] == CALLS * COST
    keys = {
        "tenant": "local",
        "workflow": "loan",
        "agent": "clerk",
        "step": "s0",
        "model": "SmolLM2",
    }
    assert [cost["key"] for cost in answer["costs"]] == [keys.get(group, "2026-09-21")]


async def test_costs_by_something_else_name_the_field(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/costs", params={"group_by": "call_id"})
    assert (answer.status_code, answer.json()["field"]) == (422, "group_by")


async def test_usage_comes_in_pages_without_loss_or_repeat(client: httpx.AsyncClient) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        params = {"limit": "2", "cursor": cursor}
        answer = (await client.get("/v1/usage", params=params)).json()
        seen += [row["call_id"] for row in answer["usage"]]
        if answer["next_cursor"] is None:
            break
        cursor = answer["next_cursor"]
    assert len(seen) == len(set(seen)) == CALLS


async def test_an_execution_comes_back_as_its_events(queries: Queries) -> None:
    found = await queries.execution_events("local", "x")
    assert [event.message for event in found[:2]] == [
        queued("x", 0, "local"),
        started("x", 0, "local"),
    ]
    assert await queries.execution_events("local", "y") == []


async def test_the_page_of_executions_is_the_tenants(queries: Queries) -> None:
    (row,) = await queries.executions_page("local", None, 10, workflow="loan", status="running")
    assert (row["execution"], row["llm_calls"], row["cost_microusd"]) == ("x", CALLS, CALLS * COST)
    assert await queries.executions_page("local", None, 10, status="failed") == []
    assert await queries.executions_page("local", None, 10, label=("team", "a")) == []
