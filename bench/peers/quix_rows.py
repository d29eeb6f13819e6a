"""Quix Streams: one dataframe, a branch for each output, Avro by fastavro. At least once, its default.

Runs in a virtual environment of its own, because Quix Streams pins an older
confluent-kafka than govbus does.
"""

from __future__ import annotations

from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.kafka import ConnectionConfig  # type: ignore[import-not-found]

from bench.peers.job import PRODUCER, read_job


def main() -> None:
    """Run the application until SIGTERM."""
    job = read_job()
    app = Application(
        broker_address=ConnectionConfig(
            bootstrap_servers=job.bootstrap,
            security_protocol="sasl_plaintext",
            sasl_mechanism="SCRAM-SHA-256",
            sasl_username=job.user,
            sasl_password=job.password,
        ),
        consumer_group=job.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        producer_extra_config=dict(PRODUCER),
        state_dir=job.state,
        loglevel="WARNING",
    )
    raw: dict[str, Any] = {"key_serializer": "bytes", "value_serializer": "bytes"}
    source = app.topic(job.input, key_deserializer="bytes", value_deserializer="bytes")
    rows = app.dataframe(source).apply(job.input_schema.decode)
    rows.apply(lambda row: job.projected_schema.encode(job.project(row))).to_topic(
        app.topic(job.projected, **raw)
    )
    rows.filter(lambda row: row["city"] == job.city).apply(job.full_schema.encode).to_topic(
        app.topic(job.full, **raw)
    )
    app.run()


if __name__ == "__main__":
    main()
