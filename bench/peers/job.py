"""What a peer is told: a JSON file that only its owner can read, written by ``bench.launch``."""

from __future__ import annotations

import io
import json
import signal
import struct
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import fastavro

_HEADER = struct.Struct(">bI")


class Framed:
    """One registered schema: reads and writes values in the Confluent wire format."""

    def __init__(self, schema_id: int, schema: str) -> None:
        self._header = _HEADER.pack(0, schema_id)
        self._parsed = fastavro.parse_schema(json.loads(schema))
        self.fields: tuple[str, ...] = tuple(field["name"] for field in json.loads(schema)["fields"])

    def decode(self, data: bytes) -> dict[str, Any]:
        """Read a value that was written under this very schema; ValueError for any other."""
        if data[:5] != self._header:
            raise ValueError("another schema than the job's")
        stream = io.BytesIO(data)
        stream.seek(5)
        row: dict[str, Any] = fastavro.schemaless_reader(stream, self._parsed, None)
        return row

    def encode(self, row: dict[str, Any]) -> bytes:
        """Write a value."""
        buffer = io.BytesIO()
        buffer.write(self._header)
        fastavro.schemaless_writer(buffer, self._parsed, row)
        return buffer.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """From where to where, and as whom."""

    bootstrap: str
    user: str
    password: str
    group: str
    input: str
    projected: str
    full: str
    city: str
    masked: str
    state: Path
    input_schema: Framed
    projected_schema: Framed
    full_schema: Framed

    def client(self) -> dict[str, Any]:
        """Give librdkafka's settings for reaching the broker."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": self.user,
            "sasl.password": self.password,
        }

    def project(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep the fields of the first output, the masked one with its first character only."""
        shown = {name: row[name] for name in self.projected_schema.fields}
        name = shown[self.masked]
        shown[self.masked] = name[:1] + "*" * (len(name) - 1)
        return shown


def read_job() -> Job:
    """Read the job whose file the command line names."""
    raw = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    schemas = {
        name: Framed(raw[name]["id"], raw[name]["schema"])
        for name in ("input_schema", "projected_schema", "full_schema")
    }
    return Job(
        bootstrap=raw["bootstrap"],
        user=raw["user"],
        password=Path(raw["password_file"]).read_text(encoding="utf-8").strip(),
        group=raw["group"],
        input=raw["input"],
        projected=raw["projected"],
        full=raw["full"],
        city=raw["city"],
        masked=raw["masked"],
        state=Path(raw["state"]),
        **schemas,
    )


def stop_on_sigterm() -> threading.Event:
    """Give an event that SIGTERM sets."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    return stop


PRODUCER = {
    "enable.idempotence": True,
    "compression.type": "lz4",
    "linger.ms": 20,
    "batch.size": 1_048_576,
    "queue.buffering.max.messages": 2_000_000,
}
"""What every librdkafka producer has in common: acknowledged by all, in order, in large batches."""
