"""Where ClickHouse is and as whom: the owner of the tables, and each tenant's own user."""

from __future__ import annotations

from typing import Final

from ops.settings import Settings
from projections.http import Endpoint
from projections.queries import Queries

DATABASE: Final = "omium"
TENANT: Final = "local"
TENANT_USER: Final = f"tenant_{TENANT}"


def owner_endpoint(settings: Settings, database: str = DATABASE) -> Endpoint:
    """Where this stack's tables are, as the user who owns them."""
    return Endpoint(
        url=settings.clickhouse_url,
        user=settings.clickhouse_user,
        password=settings.clickhouse_admin_password,
        database=database,
    )


def tenant_endpoint(settings: Settings, tenant: str) -> Endpoint | None:
    """The tenant's own user, whose rows ClickHouse filters; None where it has none."""
    if tenant != TENANT:
        return None
    return Endpoint(
        url=settings.clickhouse_url,
        user=TENANT_USER,
        password=settings.secrets.clickhouse_tenant_password,
        database=DATABASE,
    )


def queries_of(settings: Settings) -> Queries:
    """The gateway's questions to the tables."""
    return Queries(owner_endpoint(settings), lambda tenant: tenant_endpoint(settings, tenant))
