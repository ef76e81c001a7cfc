"""What user code may read while Omium runs it; everything has a harmless value elsewhere."""

from __future__ import annotations

from contextvars import ContextVar

idempotency_key: ContextVar[str] = ContextVar("omium_idempotency_key", default="")
"""The key of the tool call in progress: the same after a crash, so a tool can recognise a repeated
call.
"""
