"""The embedded ClickHouse: its configuration, its users, and how it is started."""

from __future__ import annotations

import hashlib
import http.client
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from ops.credentials import write_private
from ops.embedded import run_clickhouse
from ops.embedded.ports import LOOPBACK

PROBE_WAIT_S = 2.0
DATABASE = "omium"
ADMIN = "admin"
TENANT = "local"
TENANT_USER = f"tenant_{TENANT}"
DESIGN_TABLES = (
    "events",
    "executions",
    "llm_calls",
    "tool_calls",
    "incidents",
    "fixes",
    "handoffs",
    "votes",
    "usage",
    "costs_daily",
    "invoices",
    "events_void",
)
"""The design's tables with a `tenant` column, while the projections name none themselves."""

CONFIG = """<clickhouse>
 <listen_host>{host}</listen_host><http_port>{http}</http_port><tcp_port>{native}</tcp_port>
 <users_config>{users}</users_config>
 <log-level>warning</log-level><logger><level>warning</level><log>{log}</log><size>8M</size><count>2</count></logger>
 <max_server_memory_usage>1500000000</max_server_memory_usage>
 <max_concurrent_queries>64</max_concurrent_queries><max_connections>256</max_connections>
 <mark_cache_size>33554432</mark_cache_size><index_mark_cache_size>8388608</index_mark_cache_size>
 <uncompressed_cache_size>0</uncompressed_cache_size><mmap_cache_size>100</mmap_cache_size>
 <query_cache><max_size_in_bytes>4194304</max_size_in_bytes></query_cache>
 <compiled_expression_cache_size>8388608</compiled_expression_cache_size>
 <background_pool_size>2</background_pool_size>
 <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
 <background_move_pool_size>1</background_move_pool_size>
 <background_fetches_pool_size>1</background_fetches_pool_size>
 <background_common_pool_size>2</background_common_pool_size>
 <background_schedule_pool_size>8</background_schedule_pool_size>
 <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
 <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
 <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
 <max_thread_pool_size>256</max_thread_pool_size><max_thread_pool_free_size>8</max_thread_pool_free_size>
 <tables_loader_foreground_pool_size>2</tables_loader_foreground_pool_size>
 <tables_loader_background_pool_size>1</tables_loader_background_pool_size>
 <merge_tree>
  <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
  <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
  <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
  <max_bytes_to_merge_at_max_space_in_pool>1073741824</max_bytes_to_merge_at_max_space_in_pool>
 </merge_tree>
 <backups><allowed_path>{backups}</allowed_path></backups>
</clickhouse>
"""

USERS = """<clickhouse>
 <profiles>
  <default><max_memory_usage>1000000000</max_memory_usage></default>
  <reader>
   <readonly>2</readonly><max_execution_time>30</max_execution_time>
   <max_memory_usage>500000000</max_memory_usage><max_result_rows>1000000</max_result_rows>
   <allow_introspection_functions>0</allow_introspection_functions>
   <constraints>
    <readonly><const/></readonly>
    <max_execution_time><max>30</max></max_execution_time>
    <max_memory_usage><max>500000000</max></max_memory_usage>
    <max_result_rows><max>1000000</max></max_result_rows>
   </constraints>
  </reader>
 </profiles>
 <quotas><default><interval><duration>3600</duration></interval></default></quotas>
 <users>
  <default>
   <password></password>{networks}<profile>default</profile><quota>default</quota>
   <grants>
    <query>GRANT SYSTEM LISTEN ON *.*</query><query>GRANT SELECT ON system.numbers</query>
   </grants>
  </default>
  <admin>
   <password_sha256_hex>{admin}</password_sha256_hex>{networks}
   <profile>default</profile><quota>default</quota><access_management>1</access_management>
  </admin>
  <{tenant_user}>
   <password_sha256_hex>{tenant}</password_sha256_hex>{networks}
   <profile>reader</profile><quota>default</quota><default_database>{database}</default_database>
   <databases><{database}>{filters}</{database}></databases>
   <grants>{grants}</grants>
  </{tenant_user}>
 </users>
</clickhouse>
"""
NETWORKS = "<networks><ip>127.0.0.1</ip></networks>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouse:
    """Where one embedded server keeps its files and listens, and whom it lets in."""

    home: Path
    logs_dir: Path
    http_port: int
    native_port: int
    admin_password: str
    tenant_password: str

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def reader_url(self) -> str:
        """The same with name and password of the tenant's read-only user, for people's tools."""
        return f"http://{TENANT_USER}:{self.tenant_password}@{LOOPBACK}:{self.http_port}"

    def prepare(self) -> None:
        """Write configuration and users; both are read once, at start."""
        conf = self.home / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        self.logs_dir.mkdir(parents=True, exist_ok=True)
        users = conf / "users.xml"
        values = {
            "host": LOOPBACK,
            "http": self.http_port,
            "native": self.native_port,
            "users": users,
            "log": self.logs_dir / "clickhouse-server.log",
            "backups": f"{self.home / 'backups'}/",
        }
        escaped = {name: escape(str(value)) for name, value in values.items()}
        (conf / "config.xml").write_text(CONFIG.format(**escaped), "utf-8")
        write_private(users, users_xml(self.admin_password, self.tenant_password, tenant_tables()))

    def command(self) -> list[str]:
        """The command line of the server."""
        program = run_clickhouse.__file__
        return [sys.executable, "-I", program, str(self.home / "conf"), str(self.home / "data")]


def users_xml(admin_password: str, tenant_password: str, tables: tuple[str, ...]) -> str:
    """Three users: `default` may listen, `admin` all, the tenant's see its own rows (law 10)."""
    row_filter = f"<filter>tenant = '{TENANT}'</filter>"
    grants = [f"GRANT SELECT ON {DATABASE}.{table}" for table in tables]
    return USERS.format(
        networks=NETWORKS,
        admin=_sha256(admin_password),
        tenant=_sha256(tenant_password),
        tenant_user=TENANT_USER,
        database=DATABASE,
        filters="".join(f"<{table}>{row_filter}</{table}>" for table in tables),
        grants="".join(f"<query>{query}</query>" for query in grants),
    )


def tenant_tables() -> tuple[str, ...]:
    """The tables that a tenant may read, row by row filtered."""
    try:
        from projections import tables
    except ImportError:
        return DESIGN_TABLES
    return tuple(getattr(tables, "TABLES", DESIGN_TABLES))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def answers(port: int) -> bool:
    """Whether a server on the loopback port answers `/ping`."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_WAIT_S)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
