"""`python -m ops.compose.prepare DATA_DIR USERS_DIR`: what a cluster needs before it starts.

The stack's secrets are drawn once, and ClickHouse's users are written from the same function as in
the embedded stack: same grants, same row filters. Only the networks differ: there loopback, here
whoever is on the compose network, since names and passwords decide.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ops import credentials
from ops.embedded.clickhouse import NETWORKS, tenant_tables, users_xml

ANYWHERE = '<networks replace="replace"><ip>::/0</ip></networks>'
LOOPBACK_ONLY = '<networks replace="replace"><ip>127.0.0.1</ip><ip>::1</ip></networks>'
FILE_NAME = "omium.xml"


def main(data_dir: Path, users_dir: Path) -> None:
    """Draw what is missing and write the users."""
    drawn = credentials.ensure(data_dir)
    text = users_xml(
        drawn.clickhouse_admin_password, drawn.clickhouse_tenant_password, tenant_tables()
    )
    users_dir.mkdir(parents=True, exist_ok=True)
    # Readable by the server's own user; it holds hashes of long random passwords only.
    (users_dir / FILE_NAME).write_text(for_cluster(text), "utf-8")


def for_cluster(text: str) -> str:
    """The users with their networks: `default`, who has no password, stays on loopback."""
    default, rest = text.split("</default>\n  <admin>", 1)
    return (
        default.replace(NETWORKS, LOOPBACK_ONLY)
        + "</default>\n  <admin>"
        + rest.replace(NETWORKS, ANYWHERE)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
