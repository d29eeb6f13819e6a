"""Framing, and what the registry's answers mean."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from govbus.codec import (
    Registry,
    bus_schema,
    decode_body,
    encode,
    frame,
    parse_schema,
    schemas_folder,
    unframe,
)
from govbus.errors import RegistryUnavailableError, UndecodableRecordError, UnknownSchemaError
from govbus.event import RecordAddress

SCHEMA = parse_schema(7, {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]})
AT = RecordAddress(topic="t", partition=1, offset=9)


class OneSchema(BaseHTTPRequestHandler):
    """A registry that knows schema 7, has lost 404 and is broken for 500."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        body, status = b'{"error_code": 40403, "message": "no"}', 404
        if "/schemas/ids/7" in self.path:
            body, status = b'{"schema": "{\\"type\\":\\"record\\",\\"name\\":\\"R\\",\\"fields\\":[]}"}', 200
        elif "/schemas/ids/500" in self.path:
            body, status = b'{"error_code": 50001, "message": "broken"}', 500
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    OneSchema.asked = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), OneSchema)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    registry = Registry(f"http://127.0.0.1:{server.server_address[1]}")
    yield registry
    registry.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_record_comes_back_as_it_was() -> None:
    schema_id, body = unframe(encode(SCHEMA, {"a": "杭州"}))

    assert schema_id == 7
    assert decode_body(SCHEMA, body) == {"a": "杭州"}


@pytest.mark.parametrize("data", [None, b"", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x07\x02a"])
def test_what_has_no_confluent_header_is_undecodable_and_the_error_says_where(data: bytes | None) -> None:
    with pytest.raises(UndecodableRecordError, match=r"t\[1\]@9"):
        unframe(data, at=AT)


@pytest.mark.parametrize("body", [b"", b"\x04a", b"\x02a!", b"\x03"])
def test_bytes_that_are_not_the_record_are_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableRecordError):
        decode_body(SCHEMA, body, at=AT)


def test_an_undecodable_record_is_not_quoted() -> None:
    with pytest.raises(UndecodableRecordError) as raised:
        decode_body(SCHEMA, b"\x10SECRET", at=AT)

    assert "SECRET" not in str(raised.value)


def test_an_id_is_asked_for_once(registry: Registry) -> None:
    first = registry.schema(7)
    second = registry.schema(7)

    assert first is second
    assert OneSchema.asked == 1


def test_an_unknown_id_is_not_an_outage(registry: Registry) -> None:
    with pytest.raises(UnknownSchemaError):
        registry.decode(frame(404, b""))


def test_a_broken_registry_is_an_outage(registry: Registry) -> None:
    with pytest.raises(RegistryUnavailableError):
        registry.schema(500)


def test_a_registry_that_is_not_there_is_an_outage() -> None:
    registry = Registry("http://127.0.0.1:9")

    with pytest.raises(RegistryUnavailableError):
        registry.schema(7)
    registry.close()


def test_every_schema_of_the_bus_is_an_avro_record() -> None:
    names = [path.stem for path in (schemas_folder() / "bus").glob("*.avsc")]
    assert len(names) >= 7

    for name in names:
        assert parse_schema(1, bus_schema(name)).parsed["type"] == "record"
