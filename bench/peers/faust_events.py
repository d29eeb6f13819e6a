"""Plain Faust: one agent, one event at a time, two topics out, Avro by fastavro.

Faust as its documentation shows it, with what its own settings offer for speed:
compressed batches, no web server, raw serializers.
"""

from __future__ import annotations

import sys
from typing import Any

import faust

from bench.peers.job import read_job


def main() -> None:
    """Run the worker until SIGTERM."""
    job = read_job()
    app = faust.App(
        job.group,
        broker=f"kafka://{job.bootstrap}",
        broker_credentials=faust.SASLCredentials(
            username=job.user, password=job.password, mechanism="SCRAM-SHA-256"
        ),
        datadir=str(job.state),
        autodiscover=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        producer_compression_type="lz4",
        producer_linger_ms=5,
        producer_max_batch_size=1_048_576,
        web_enabled=False,
    )
    raw: dict[str, Any] = {
        "key_type": bytes,
        "value_type": bytes,
        "key_serializer": "raw",
        "value_serializer": "raw",
    }
    source = app.topic(job.input, **raw)
    projected = app.topic(job.projected, **raw)
    full = app.topic(job.full, **raw)

    @app.agent(source)  # type: ignore[untyped-decorator]
    async def exchange(events: Any) -> None:
        async for key, value in events.items():
            row = job.input_schema.decode(value)
            await projected.send(key=key, value=job.projected_schema.encode(job.project(row)))
            if row["city"] == job.city:
                await full.send(key=key, value=job.full_schema.encode(row))

    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel=warn"]
    app.main()


if __name__ == "__main__":
    main()
