"""The edges of the gateway that need no broker: keys, problems, limits, metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.auth import KeyRing, Principal, authenticate, hash_of
from gateway.limits import DiskGuard, Slots, page_size
from gateway.metrics import Metrics
from gateway.problems import Problem, problem_of
from streams.control.events import ApiKeyIssued
from streams.errors import Rejected, Retryable
from streams.messages import TenantId

KEY = "omk_abc"


def issued(
    key: str, *, scopes: tuple[str, ...] = ("executions",), is_revoked: bool = False
) -> ApiKeyIssued:
    return ApiKeyIssued(
        event_id="e",
        tenant="acme",
        execution_id="",
        key_id="k-1",
        key_sha256=hash_of(key),
        scopes=scopes,
        is_revoked=is_revoked,
    )


def test_a_key_counts_from_its_issue_to_its_revocation() -> None:
    keys = KeyRing()
    headers = {"authorization": f"Bearer {KEY}"}
    with pytest.raises(Problem) as unknown:
        authenticate(headers, keys, "executions")
    assert unknown.value.status_code == 401
    keys.fold(issued(KEY))
    assert authenticate(headers, keys, "executions").tenant == "acme"
    keys.fold(issued(KEY, is_revoked=True))
    with pytest.raises(Problem):
        authenticate(headers, keys, "executions")


def test_a_key_issued_anew_replaces_the_old_one() -> None:
    keys = KeyRing()
    keys.fold(issued(KEY))
    keys.fold(issued("omk_new"))
    assert keys.principal_of(KEY) is None
    assert keys.principal_of("omk_new") is not None


def test_a_scope_is_needed_unless_the_key_is_an_admins() -> None:
    keys = KeyRing()
    keys.fold(issued(KEY, scopes=("llm",)))
    with pytest.raises(Problem) as refused:
        authenticate({"authorization": f"Bearer {KEY}"}, keys, "executions")
    assert refused.value.status_code == 403
    keys.fold(issued(KEY, scopes=("admin",)))
    assert authenticate({"x-api-key": KEY}, keys, "executions").key_id == "k-1"


def test_an_empty_bootstrap_key_opens_nothing() -> None:
    keys = KeyRing()
    keys.add("", Principal(tenant=TenantId("acme"), key_id="k", scopes=frozenset({"admin"})))
    assert keys.principal_of("") is None


def test_an_unexpected_error_tells_nothing_of_the_inside() -> None:
    document = problem_of(ZeroDivisionError("secret")).document()
    assert document["status"] == 500
    assert "secret" not in str(document)


def test_errors_of_the_core_become_problems() -> None:
    rejected = problem_of(Rejected("too_large", "too much", "input"))
    assert (rejected.status_code, rejected.field) == (422, "input")
    retryable = problem_of(Retryable("away", 1500))
    assert retryable.status_code == 503
    assert retryable.headers == {"Retry-After": "1"}


def test_the_disk_is_looked_at_once_a_second_at_most() -> None:
    now, looks = [0], [0]

    def free(path: Path) -> int:
        looks[0] += 1
        return 10 * 1024 * 1024 if now[0] < 5000 else 10**12

    guard = DiskGuard(Path("/"), 512, lambda: now[0], free)
    for now[0] in (0, 400, 999):
        with pytest.raises(Problem) as full:
            guard.require_space()
        assert full.value.status_code == 503
    assert looks[0] == 1
    now[0] = 5000
    guard.require_space()


def test_a_place_is_given_back_however_its_holder_leaves() -> None:
    # given
    slots = Slots(1, "streams")

    def leave_badly() -> None:
        with slots.one():
            with pytest.raises(Problem) as refused:
                slots.require()
            assert refused.value.status_code == 429
            raise ValueError("x")

    # when
    with pytest.raises(ValueError, match="x"):
        leave_badly()

    # then
    with slots.one():
        assert slots.taken == 1


@pytest.mark.parametrize("text", ["0", "-1", "501", "1e3", "abc", "9" * 40, "٣"])
def test_a_page_has_a_limit(text: str) -> None:
    with pytest.raises(Problem):
        page_size(text, default=50, page_max=500)


def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.count("omium_http_requests_total", route='/a"\n', status="200")
    metrics.observe_ms("omium_http_request_duration_ms", 3, route="/a")
    metrics.gauge("omium_gateway_ready", lambda: 1)
    lines = metrics.text().splitlines()
    assert 'omium_http_requests_total{route="/a\\"\\n",status="200"} 1' in lines
    assert 'omium_http_request_duration_ms_bucket{route="/a",le="2"} 0' in lines
    assert 'omium_http_request_duration_ms_bucket{route="/a",le="5"} 1' in lines
    assert 'omium_http_request_duration_ms_bucket{route="/a",le="+Inf"} 1' in lines
    assert "omium_gateway_ready 1" in lines
