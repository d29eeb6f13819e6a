"""What operators see: metrics, health, logs. Does I/O.

All metric names are here, in seconds and bytes, and every label has a closed
set of values: names of departments, resources, grants and workers (which the
catalogue bounds), and codes from :mod:`govbus.errors` and
:mod:`govbus.policy`. Nothing that a record says ever becomes a label.

A log line is a fact plus keys from :data:`LOG_KEYS`.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from bisect import bisect_left
from collections.abc import Callable, Mapping, MutableMapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from govbus.errors import BusError

LOG_KEYS = frozenset(
    {
        "stage", "department", "resource", "grant", "version", "topic", "partition", "offset",
        "address", "code", "count", "seconds", "worker", "port", "state", "schema_id", "reason", "attempt",
        "table", "detail", "path", "pid", "child", "request",
    }
)  # fmt: skip
"""The only keys that a log line may carry beside its text."""

_BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LATENCY_SECONDS = (
    0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75,
    1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 300,
)  # fmt: skip


class RecordHistogram(Histogram):
    """A histogram of something that every record has, observed for a whole batch at once.

    ``observe`` takes a microsecond or two; for ten thousand records that is as long as writing them.
    """

    def observe_many(self, amounts: Mapping[float, int]) -> None:
        """Do the same as ``observe`` for each amount as often as it is said there."""
        total = 0.0
        counts: dict[int, int] = {}
        for amount, times in amounts.items():
            bucket = bisect_left(self._upper_bounds, amount)
            counts[bucket] = counts.get(bucket, 0) + times
            total += amount * times
        for bucket, count in counts.items():
            self._buckets[bucket].inc(count)
        self._sum.inc(total)


captured_records = Counter(
    "govbus_captured_records", "Changes found at the source.", ["resource", "operation"]
)
published_records = Counter("govbus_published_records", "Changes acknowledged by the broker.", ["resource"])
rejected_changes = Counter(
    "govbus_rejected_changes", "Changes that break the contract and were not published.", ["resource", "code"]
)
capture_seconds = Histogram(
    "govbus_capture_poll_seconds", "Time to find and publish the changes of one poll.",
    ["resource"], buckets=_BATCH_SECONDS,
)  # fmt: skip
exchanged_records = Counter(
    "govbus_exchanged_records", "Captured records that the exchange has dealt with.", ["resource"]
)
decisions = Counter("govbus_decisions", "Decisions per record and grant.", ["grant", "result", "reason"])
delivered_records = Counter(
    "govbus_delivered_records", "Records written to a delivery topic, tombstones included.", ["grant"]
)
dead_letters = Counter("govbus_dead_letters", "Records that could not be processed.", ["resource", "code"])
batch_seconds = Histogram(
    "govbus_batch_seconds", "Time of one batch from read to committed.", ["stage"], buckets=_BATCH_SECONDS
)
batch_records = Histogram(
    "govbus_batch_records", "Records in one batch.", ["stage"],
    buckets=(1, 10, 100, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000),
)  # fmt: skip
transactions = Counter("govbus_transactions", "Exchange transactions by how they ended.", ["result"])
landed_records = Counter("govbus_landed_records", "Deliveries committed to the local store.", ["grant"])
landed_dead_letters = Counter(
    "govbus_landed_dead_letters", "Deliveries set aside in the local store.", ["grant", "code"]
)
purged_rows = Counter("govbus_purged_rows", "Landed rows removed or blanked when a grant ended.", ["grant"])
sink_retries = Counter("govbus_sink_retries", "Batches kept back because the store could not take them.")
guard_violations = Counter(
    "govbus_guard_violations",
    "Batches with a delivery that its grant does not allow, caught before they were committed. Must stay 0.",
    ["grant"],
)
held_grants = Gauge(
    "govbus_held_grants",
    "Grants that the policy permits and that stand still at this worker, by what holds them back.",
    ["reason"],
)
latency_seconds = RecordHistogram(
    "govbus_latency_seconds", "From commit at the source to commit in the subscriber's store.",
    ["grant"], buckets=_LATENCY_SECONDS,
)  # fmt: skip
lag_records = Gauge("govbus_lag_records", "Deliveries not landed yet; 0 when caught up.", ["grant"])
lag_seconds = Gauge(
    "govbus_lag_seconds", "Age of the oldest delivery that is not landed; 0 when caught up.", ["grant"]
)
exchange_lag_records = Gauge(
    "govbus_exchange_lag_records",
    "Captured records not exchanged yet, of this worker's partitions.",
    ["resource"],
)
backfill_remaining = Gauge(
    "govbus_backfill_remaining_records",
    "Source records that a grant has still to be brought past.",
    ["grant"],
)
policy_offset = Gauge("govbus_policy_offset_applied", "Last offset of govbus.grants that is enforced.")
policy_age_seconds = Gauge(
    "govbus_policy_age_seconds", "Time since the policy was last confirmed to be current."
)
policy_fresh = Gauge("govbus_policy_fresh", "1 while the lease holds; at 0 nothing is delivered.")
revocations_pending = Gauge(
    "govbus_revocations_pending", "Ended grants whose landed rows are not dealt with yet."
)
unanswered_grants = Gauge(
    "govbus_unanswered_grants", "Ended grants whose subscriber has returned no receipt that counts."
)
exchange_workers = Gauge("govbus_exchange_workers", "Exchange workers that report, as this one sees them.")
api_requests = Counter(
    "govbus_api_requests", "Requests to the control API, by the route's pattern and the HTTP status.",
    ["route", "status"],
)  # fmt: skip
api_seconds = Histogram(
    "govbus_api_request_seconds", "Time of one request to the control API.", ["route"], buckets=_BATCH_SECONDS
)
last_progress = Gauge(
    "govbus_last_progress_timestamp_seconds",
    "When a stage last went round its loop, records or not; a dead loop in a live process stands still.",
    ["stage"],
)
build_info = Gauge(
    "govbus_build_info", "Always 1; the labels say what runs.", ["version", "process", "kernel"]
)

_stale_after_seconds = 30.0
_stages: dict[str, float] = {}
_checks: dict[str, Callable[[], bool]] = {}


def heartbeat(stage: str) -> None:
    """Say that a loop has gone round. Call it inside the loop, never from a timer beside it."""
    _stages[stage] = time.monotonic()
    last_progress.labels(stage).set_to_current_time()


def add_health_check(name: str, check: Callable[[], bool]) -> None:
    """Let /health also depend on ``check``, which must answer at once."""
    _checks[name] = check


def health() -> tuple[bool, dict[str, str]]:
    """Answer whether every loop moves and every check holds, and which do not."""
    now = time.monotonic()
    answer = {
        stage: "ok" if now - seen < _stale_after_seconds else "stalled" for stage, seen in _stages.items()
    }
    answer |= {name: "ok" if check() else "failing" for name, check in _checks.items()}
    return all(word == "ok" for word in answer.values()), answer


class _Handler(BaseHTTPRequestHandler):
    """Answers GET /metrics and GET /health, and nothing else."""

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
        elif self.path == "/health":
            well, parts = health()
            self._answer(200 if well else 503, "application/json", json.dumps(parts).encode())
        else:
            self._answer(404, "text/plain", b"GET /metrics or /health\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002 - the base class's name
        """Keep scrapes out of the log."""


def serve_metrics(port: int, *, process: str, host: str = "127.0.0.1") -> int:
    """Serve /metrics and /health from a thread of its own and return the port.

    Raises:
        OSError: the port is taken.
    """
    from govbus import __version__
    from govbus.splice import COMPILED

    build_info.labels(__version__, process, "compiled" if COMPILED else "interpreted").set(1)
    server = ThreadingHTTPServer((host, port), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    taken = int(server.server_address[1])
    logging.getLogger(__name__).info("metrics served", extra={"port": taken})
    return taken


def _fixed_keys_only(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.get("_record")
    if record is not None:
        for key, value in record.__dict__.items():
            if key in LOG_KEYS:
                event[key] = value
    return event


def _traceback_without_values(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Say where it went wrong, not with what: the text of a foreign exception may quote a row."""
    raised = event.pop("exc_info", None)
    if raised:
        kind, error, trace = raised if isinstance(raised, tuple) else sys.exc_info()
        event["exception"] = str(error) if isinstance(error, BusError) else getattr(kind, "__name__", "")
        event["trace"] = [
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(trace)
        ]
    return event


def setup_logging(process: str, level: str = "INFO") -> None:
    """Write every log line of this process as one JSON object on stderr."""

    def with_process(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    before: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        with_process,
        _fixed_keys_only,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _traceback_without_values,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Third parties log at INFO what only their developers need.
    for name in (
        "faust",
        "mode",
        "aiokafka",
        "kafka",
        "httpx",
        "httpx2",
        "httpcore2",
        "alembic",
        "sqlalchemy",
        "uvicorn",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
