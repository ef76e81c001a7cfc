"""API keys: issued, listed and revoked on the control topic. A key is shown once, and stored as its
hash only.
"""

from __future__ import annotations

import secrets
from typing import Final

from fastapi import APIRouter, Request, Response

from gateway.auth import KEY_PREFIX, Principal, hash_of
from gateway.context import Context, context_of
from gateway.models import IssueKeyRequest, Json, json_answer
from gateway.problems import Problem
from streams.control.events import ApiKeyIssued
from streams.messages import event_id
from streams.topics import CONTROL

router = APIRouter(tags=["keys"])

KEY_BYTES: Final = 24
KEYS_MAX: Final = 1000
"""Keys of one tenant."""


@router.post("/v1/keys", status_code=201)
async def issue(request: Request, body: IssueKeyRequest) -> Response:
    """Issue a key with the scopes. The answer is the only place where it ever stands."""
    context = context_of(request)
    who = context.principal(request, "admin")
    if len(_of_tenant(context, who)) >= KEYS_MAX:
        raise Problem(
            429, "too-many-keys", f"A tenant has at most {KEYS_MAX} keys.", limit=KEYS_MAX
        )
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    key_id = context.new_id()
    await _append(context, who, key_id, hash_of(key), tuple(body.scopes), is_revoked=False)
    return json_answer({"id": key_id, "key": key, "scopes": body.scopes}, 201)


@router.get("/v1/keys")
async def list_keys(request: Request) -> Response:
    """The tenant's keys, without the keys."""
    context = context_of(request)
    who = context.principal(request, "admin")
    return json_answer({"keys": [_document(principal) for principal in _of_tenant(context, who)]})


@router.delete("/v1/keys/{key_id}")
async def revoke(request: Request, key_id: str) -> Response:
    """Revoke a key: it is refused from now on."""
    context = context_of(request)
    who = context.principal(request, "admin")
    issued = context.keys.issued(who.tenant, key_id)
    if issued is None:
        raise Problem(404, "unknown-key-id", f"No key {key_id[:100]!r} was issued.", field="key_id")
    await _append(context, who, key_id, issued, (), is_revoked=True)
    return json_answer({"id": key_id, "is_revoked": True})


async def _append(
    context: Context,
    who: Principal,
    key_id: str,
    sha256: str,
    scopes: tuple[str, ...],
    *,
    is_revoked: bool,
) -> None:
    kind = "revoked" if is_revoked else "issued"
    event = ApiKeyIssued(
        event_id=event_id(who.tenant, "", key_id, 0, "ApiKeyIssued", kind),
        tenant=who.tenant,
        execution_id="",
        at_ms=context.now_ms(),
        key_id=key_id,
        key_sha256=sha256,
        scopes=scopes,
        is_revoked=is_revoked,
    )
    await context.producer.send(context.wire.encode(event, CONTROL))
    context.keys.fold(event)


def _of_tenant(context: Context, who: Principal) -> list[Principal]:
    return [p for p in context.keys.principals() if p.tenant == who.tenant]


def _document(principal: Principal) -> Json:
    return {"id": principal.key_id, "scopes": sorted(principal.scopes)}
