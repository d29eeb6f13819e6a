"""Landing as ``govbus land`` does it, with a note of the moment at which each batch was committed.

``python -m bench.peers.landing <land.yaml> <notes>`` lands until SIGTERM. Each
line of the notes is a grant, the offset that its partition stood at before the
batch, the one after it, and when the store had committed it, in milliseconds.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers.job import stop_on_sigterm
from govbus.codec import Registry
from govbus_console import connect
from govbus_consumers.broker import BrokerWatch
from govbus_consumers.config import load_config
from govbus_consumers.land import Landing, delivery_consumer
from govbus_consumers.receipts import ReceiptSender, load_key
from govbus_consumers.sink import PartitionChanges, Sink, open_sink
from govbus_consumers.subscriptions import SubscriptionReader

if TYPE_CHECKING:
    from typing import TextIO


class NotingSink:
    """A sink that passes everything on and notes when a batch had been written."""

    def __init__(self, sink: Sink, notes: TextIO) -> None:
        self._sink = sink
        self._notes = notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def apply(self, batches: Sequence[PartitionChanges]) -> Counter[tuple[str, str]]:
        """Write a batch, then note it."""
        refused = self._sink.apply(batches)
        committed_ms = time.time() * 1_000
        for batch in batches:
            self._notes.write(
                f"{batch.table.grant} {batch.position.next_offset} {batch.next_offset} {committed_ms:.1f}\n"
            )
        return refused


def main() -> None:
    """Land until SIGTERM."""
    config = load_config(Path(sys.argv[1]))
    stop = stop_on_sigterm()
    broker, registry_settings = connect.endpoints(config.department)
    registry, watch = Registry(registry_settings.url), BrokerWatch()
    consumer = delivery_consumer(config.department, broker, watch)
    subscriptions = SubscriptionReader(config.department, broker, registry)
    with Path(sys.argv[2]).open("w", encoding="utf-8", buffering=1) as notes:
        sink: Any = NotingSink(open_sink(config.sink, clock=lambda: datetime.now(UTC)), notes)
        try:
            Landing(
                config,
                consumer=consumer,
                subscriptions=subscriptions,
                registry=registry,
                sink=sink,
                receipts=ReceiptSender(config.department, load_key(config.receipt_key), broker, registry),
                stop=stop,
                watch=watch,
            ).run()
        finally:
            consumer.close()
            subscriptions.close()
            sink.close()


if __name__ == "__main__":
    main()
