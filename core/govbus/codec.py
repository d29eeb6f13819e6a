"""Bytes on the wire: Confluent framing, and the schema registry. Does I/O.

Every key and value on the bus is ``0x00``, a four-byte big-endian schema id,
and an Avro body (Confluent wire format). The registry maps ids to schemas for
good: an id never changes its meaning, so what was read once is kept.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro

from govbus.errors import RegistryUnavailableError, UndecodableRecordError, UnknownSchemaError

if TYPE_CHECKING:
    from govbus.event import RecordAddress

MAGIC = 0
HEADER_BYTES = 5
_HEADER = struct.Struct(">bI")
_NOT_FOUND = 404
_REQUEST_SECONDS = 5


def header(schema_id: int) -> bytes:
    """The five bytes that stand before every body under ``schema_id``."""
    return _HEADER.pack(MAGIC, schema_id)


def frame(schema_id: int, body: bytes) -> bytes:
    """Put the header before an Avro body."""
    return _HEADER.pack(MAGIC, schema_id) + body


def unframe(data: bytes | None, *, at: RecordAddress | None = None) -> tuple[int, bytes]:
    """Split framed bytes into schema id and Avro body.

    Raises:
        UndecodableRecordError: nothing there, too short, or the magic byte is not 0.
    """
    if data is None or len(data) < HEADER_BYTES:
        raise UndecodableRecordError("no Confluent header: too short", at=at)
    magic, schema_id = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise UndecodableRecordError("no Confluent header: the magic byte is not 0", at=at)
    return schema_id, data[HEADER_BYTES:]


@dataclass(frozen=True, slots=True)
class Schema:
    """One schema as the registry has it."""

    id: int
    raw: Mapping[str, Any]
    """As JSON, custom attributes included."""

    parsed: Any
    """What fastavro takes."""


def parse_schema(schema_id: int, raw: Mapping[str, Any]) -> Schema:
    """Prepare a schema for use; a schema of its own named types, whatever was parsed before."""
    return Schema(schema_id, raw, fastavro.parse_schema(dict(raw), named_schemas={}))


def encode(schema: Schema, record: Mapping[str, Any]) -> bytes:
    """Encode one record, framed. ValueError or TypeError when it does not fit the schema."""
    buffer = io.BytesIO()
    buffer.write(header(schema.id))
    fastavro.schemaless_writer(buffer, schema.parsed, record, strict=True)
    return buffer.getvalue()


def decode_body(schema: Schema, body: bytes, *, at: RecordAddress | None = None) -> dict[str, Any]:
    """Decode one Avro body to the last byte; UndecodableRecordError when it is not what the schema says."""
    stream = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(stream, schema.parsed, None)
    except Exception as error:  # fastavro lets whatever the bytes provoke escape
        detail = f"not a record of schema {schema.id}: {type(error).__name__}"
        raise UndecodableRecordError(detail, at=at) from None
    if stream.tell() != len(body):
        raise UndecodableRecordError(f"bytes after the end of a record of schema {schema.id}", at=at)
    return record  # type: ignore[no-any-return]


class Registry:
    """The schema registry, through Confluent's client, with everything kept that was read.

    Safe to use from several threads.
    """

    def __init__(self, url: str) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        self._client = SchemaRegistryClient(
            {"url": url, "timeout": _REQUEST_SECONDS, "max.retries": 1, "retries.wait.ms": 100}
        )
        self._schemas: dict[int, Schema] = {}

    def register(self, subject: str, raw: Mapping[str, Any]) -> int:
        """Register a schema under a subject and return its id; the same schema keeps its id."""
        from confluent_kafka.schema_registry import Schema as Registered

        text = json.dumps(raw, ensure_ascii=False)
        return int(self._ask(lambda: self._client.register_schema(subject, Registered(text, "AVRO"))))

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set what is checked when a subject gets another schema (``NONE``, ``FULL_TRANSITIVE`` …)."""
        self._ask(lambda: self._client.set_compatibility(subject, level))

    def schema(self, schema_id: int) -> Schema:
        """Return the schema of an id.

        Raises:
            UnknownSchemaError: the registry answers, and has none of that id.
            RegistryUnavailableError: the registry does not answer.
        """
        known = self._schemas.get(schema_id)
        if known is None:
            text = self._ask(lambda: self._client.get_schema(schema_id)).schema_str
            known = self._schemas[schema_id] = parse_schema(schema_id, json.loads(text))
        return known

    def latest(self, subject: str) -> Schema:
        """Return the newest schema of a subject; raises as :meth:`schema` does."""
        # Not get_latest_version: the client may answer that from its own cache.
        versions = self._ask(lambda: self._client.get_versions(subject))
        found = self._ask(lambda: self._client.get_version(subject, max(versions)))
        known = self._schemas.get(found.schema_id)
        if known is None:
            known = parse_schema(found.schema_id, json.loads(found.schema.schema_str))
            self._schemas[found.schema_id] = known
        return known

    def decode(self, data: bytes | None, *, at: RecordAddress | None = None) -> dict[str, Any]:
        """Decode a framed record under whatever schema it names."""
        schema_id, body = unframe(data, at=at)
        return decode_body(self.schema(schema_id), body, at=at)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.__exit__(None, None, None)

    def _ask(self, request: Any) -> Any:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return request()
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                raise UnknownSchemaError("the registry knows no such schema or subject") from None
            if 400 <= error.http_status_code < 500:  # noqa: PLR2004 - the client's mistake, not an outage
                raise ValueError(f"the registry refuses: {error.error_message}") from None
            raise RegistryUnavailableError(f"registry: HTTP {error.http_status_code}") from None
        except (OSError, RuntimeError) as error:
            raise RegistryUnavailableError(f"registry: {type(error).__name__}") from None
        except Exception as error:
            # The HTTP library behind the client has changed between releases, and with it the base of
            # its transport errors; only those are an outage.
            if type(error).__module__.split(".")[0] in {
                "httpx",
                "httpx2",
                "httpcore",
                "httpcore2",
                "requests",
            }:
                raise RegistryUnavailableError(f"registry: {type(error).__name__}") from None
            raise


def schemas_folder() -> Path:
    """Where avro_schemas/ is: beside the package in a wheel, at the top of a checkout otherwise."""
    packaged = Path(__file__).parent / "avro_schemas"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "avro_schemas"


@cache
def bus_schema(name: str) -> dict[str, Any]:
    """Read one of the schemas that the bus itself owns, e.g. ``bus_schema("decision")``."""
    text = (schemas_folder() / "bus" / f"{name}.avsc").read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]
