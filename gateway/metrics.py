"""Counters and histograms in Prometheus' text format: small, since the gateway needs a dozen
series.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_MS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
SERIES_MAX: Final = 2000
"""Distinct label sets; labels come from fixed lists (routes, codes, topics), so this is a net."""

Labels = tuple[tuple[str, str], ...]

HELP: Final = {
    "omium_http_requests_total": "Answered HTTP requests.",
    "omium_http_request_duration_ms": "Time from request to the start of its answer.",
    "omium_gateway_unreadable_records_total": "Records that the gateway passed over.",
    "omium_gateway_streams": "Open SSE and WebSocket clients.",
    "omium_gateway_streams_dropped_total": "Clients let go because they were too slow.",
    "omium_gateway_live_executions": "Executions in memory.",
    "omium_gateway_live_bytes": "What they hold.",
    "omium_gateway_evicted_total": "Executions left to ClickHouse.",
    "omium_gateway_free_disk_mb": "Free disk of the data directory.",
    "omium_gateway_ready": "1 once the log was read to where it stood at the start.",
}


class Metrics:
    """All series of one process. Not thread-safe: the event loop is their only user."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, int]] = {}
        self._histograms: dict[str, dict[Labels, list[int]]] = {}
        self._sums: dict[tuple[str, Labels], float] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter."""
        series = self._counters.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        if key in series or len(series) < SERIES_MAX:
            series[key] = series.get(key, 0) + by

    def observe_ms(self, name: str, value_ms: float, **labels: str) -> None:
        """Put a duration into its bucket."""
        series = self._histograms.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        if key not in series and len(series) >= SERIES_MAX:
            return
        buckets = series.setdefault(key, [0] * (len(BUCKETS_MS) + 1))
        index = next(
            (i for i, bound in enumerate(BUCKETS_MS) if value_ms <= bound), len(BUCKETS_MS)
        )
        buckets[index] += 1
        self._sums[name, key] = self._sums.get((name, key), 0.0) + value_ms

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Show a value that is read when asked for."""
        self._gauges[name] = read

    def text(self) -> str:
        """Everything, in the text exposition format."""
        lines: list[str] = []
        for name, read in sorted(self._gauges.items()):
            lines += [*_head(name, "gauge"), f"{name} {read():g}"]
        for name, series in sorted(self._counters.items()):
            lines += _head(name, "counter")
            lines += [f"{name}{_shown(key)} {value}" for key, value in sorted(series.items())]
        for name, histogram in sorted(self._histograms.items()):
            lines += _head(name, "histogram")
            for key, buckets in sorted(histogram.items()):
                lines += self._histogram(name, key, buckets)
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str, key: Labels, buckets: list[int]) -> list[str]:
        lines, running = [], 0
        for bound, amount in zip([*map(str, BUCKETS_MS), "+Inf"], buckets, strict=True):
            running += amount
            lines.append(f"{name}_bucket{_shown((*key, ('le', bound)))} {running}")
        lines.append(f"{name}_sum{_shown(key)} {self._sums[name, key]:g}")
        lines.append(f"{name}_count{_shown(key)} {running}")
        return lines


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {HELP.get(name, name)}", f"# TYPE {name} {kind}"]


def _shown(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
