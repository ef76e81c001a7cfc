"""Who is asking: API keys (`omk_…`), known by their hash only, each of one tenant with scopes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gateway.problems import Problem
from streams.control.events import ApiKeyIssued
from streams.messages import TenantId

Scope = Literal["admin", "executions", "llm", "sql"]
ALL_SCOPES: Final[frozenset[str]] = frozenset({"admin", "executions", "llm", "sql"})
LOCAL_TENANT: Final = TenantId("local")
KEY_PREFIX: Final = "omk_"
KEY_CHARS_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The tenant that a key speaks for, and what it may do."""

    tenant: TenantId
    key_id: str
    scopes: frozenset[str]

    def require(self, scope: Scope) -> None:
        """Raises the 403 problem unless the key has the scope."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Problem(
                403, "missing-scope", f"This key lacks the scope {scope!r}.", field="Authorization"
            )


@dataclass(frozen=True, slots=True)
class _Key:
    sha256: str
    principal: Principal


class KeyRing:
    """Every key that counts now: bootstrap keys from the start, issued and revoked ones as the log
    says.
    """

    def __init__(self) -> None:
        self._by_sha256: dict[str, _Key] = {}
        self._sha256_by_id: dict[tuple[str, str], str] = {}
        self._bootstrap: set[str] = set()

    def add(self, key: str, principal: Principal) -> None:
        """Accept a key that is on no log (the embedded profile's own)."""
        if key:
            self._bootstrap.add(hash_of(key))
            self._put(hash_of(key), principal)

    def fold(self, event: ApiKeyIssued) -> None:
        """Follow the control topic: issued, changed, revoked."""
        old = self._sha256_by_id.pop((event.tenant, event.key_id), None)
        if old is not None:
            self._by_sha256.pop(old, None)
        if not event.is_revoked:
            principal = Principal(
                tenant=TenantId(event.tenant), key_id=event.key_id, scopes=frozenset(event.scopes)
            )
            self._put(event.key_sha256, principal)

    def principal_of(self, key: str) -> Principal | None:
        """Whose key it is, if anybody's. The dictionary sees only hashes, so its timing tells
        nothing of keys.
        """
        sha256 = hash_of(key)
        found = self._by_sha256.get(sha256)
        if found is None or not hmac.compare_digest(found.sha256, sha256):
            return None
        return found.principal

    def issued(self, tenant: str, key_id: str) -> str | None:
        """The hash of a key that the log issued; bootstrap keys are not the log's to revoke."""
        sha256 = self._sha256_by_id.get((tenant, key_id))
        return None if sha256 in self._bootstrap else sha256

    def principals(self) -> list[Principal]:
        """All that keys stand for, without the keys."""
        return [key.principal for key in self._by_sha256.values()]

    def _put(self, sha256: str, principal: Principal) -> None:
        self._by_sha256[sha256] = _Key(sha256, principal)
        self._sha256_by_id[principal.tenant, principal.key_id] = sha256


def authenticate(headers: Mapping[str, str], keys: KeyRing, scope: Scope) -> Principal:
    """The principal of a request that may use `scope`; raises the 401 or 403 problem otherwise."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = headers.get("x-api-key", "")  # How Anthropic's clients send theirs.
    token = token.strip()
    if not token:
        raise Problem(
            401, "missing-key", "Send `Authorization: Bearer omk_…`.", field="Authorization"
        )
    principal = keys.principal_of(token) if len(token) <= KEY_CHARS_MAX else None
    if principal is None:
        raise Problem(
            401, "unknown-key", "This API key is not known or was revoked.", field="Authorization"
        )
    principal.require(scope)
    return principal


def hash_of(key: str) -> str:
    """What is stored of a key. Keys are long and random, so one fast hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()
