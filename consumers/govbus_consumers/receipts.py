"""A department's receipts on their way to the bus: the key that signs them, and who sends them. Does I/O.

The facts of a receipt stand in the department's own store since the transaction
that dealt with the rows (:mod:`.endings`). From there they are signed, sent to
``govbus.receipts.<department>``, and sent again until the broker has acknowledged
them. The same facts give the same record, so a receipt that is sent twice, by a
process that was killed in between or by a second one, is one receipt.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, Producer

from govbus.codec import bus_schema, encode, parse_schema
from govbus.errors import ConfigurationError
from govbus.receipt import SEED_BYTES, Receipt, ReceiptKey, receipt_key, receipt_to_record
from govbus.settings import read_secret
from govbus.topics import receipts

if TYPE_CHECKING:
    from govbus.codec import Registry
    from govbus.settings import BrokerSettings

_SEND_MS = 10_000
_CLOSE_SECONDS = 2.0


def load_key(path: Path) -> ReceiptKey:
    """Read a department's private key, making it on first use.

    All landing processes of a department must have the same key: receipts under another one are refused.

    Raises:
        ConfigurationError: the file cannot be read or written, or holds something else.
    """
    if not path.exists():
        _make(path)
    try:
        return ReceiptKey(bytes.fromhex(read_secret(path)))
    except ValueError:
        raise ConfigurationError(
            f"{path} is not a receipt key: {2 * SEED_BYTES} hexadecimal digits"
        ) from None


def _make(path: Path) -> None:
    # Written aside and linked into place: of two processes that make one at the same time the first
    # wins, and both use its key.
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(SEED_BYTES) + "\n")
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            pass  # the other process was first
        finally:
            aside.unlink()
    except OSError as error:
        raise ConfigurationError(f"cannot make the receipt key {path}: {error.strerror}") from None


class ReceiptSender:
    """Signs receipts and sends them. Used by one thread; waits for nothing."""

    def __init__(self, department: str, key: ReceiptKey, broker: BrokerSettings, registry: Registry) -> None:
        self.key = key
        self._topic = receipts(department)
        self._broker = broker
        self._registry = registry
        self._producer: Any = None
        self._acknowledged: list[tuple[str, int]] = []
        self.fault: str | None = None
        """Why the last one that failed could not be sent; what Kafka calls it."""

    def send(self, facts: Sequence[Receipt]) -> None:
        """Sign receipts and hand them to the Kafka client.

        Raises:
            RegistryUnavailableError, UnknownSchemaError: the schema of receipts cannot be had now.
        """
        schema = parse_schema(self._registry.latest(f"{self._topic}-value").id, bus_schema("receipt"))
        if self._producer is None:
            config = self._broker.client(enable_idempotence=True, message_timeout_ms=_SEND_MS, linger_ms=0)
            self._producer = Producer(config | {"log_level": 0})
        for receipt in facts:
            self._producer.produce(
                self._topic,
                key=receipt_key(receipt.grant, receipt.version),
                value=encode(schema, receipt_to_record(self.key.sign(receipt))),
                on_delivery=self._note(receipt),
            )

    def acknowledged(self) -> list[tuple[str, int]]:
        """Say which grants' versions have been answered since the last call."""
        if self._producer is not None:
            self._producer.poll(0)
        found, self._acknowledged = self._acknowledged, []
        return found

    def close(self) -> None:
        """Give what is under way a moment; what the store does not know to be sent is sent again."""
        if self._producer is not None:
            self._producer.flush(_CLOSE_SECONDS)

    def _note(self, receipt: Receipt) -> Any:
        def delivered(error: KafkaError | None, _message: object) -> None:
            if error is None:
                self._acknowledged.append((receipt.grant, receipt.version))
            else:
                self.fault = error.name()

        return delivered
