"""A department's table, and publishers named by what they do: what the capture's tests are made of."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from govbus.codec import parse_schema
from govbus.contract import DataContract, parse_contract
from govbus.errors import BrokerUnavailableError, ContractViolationError, RejectedRecordError
from govbus.event import Change
from govbus_producers.capture import publish_changes
from govbus_producers.config import PollMode, TableConfig
from govbus_producers.polling import TablePolling, open_source
from govbus_producers.publish import ChangeEncoder, Published, PublishedContract
from govbus_producers.snapshot import Snapshot

Row = tuple[Any, ...]

DIVISIONS: dict[str, Any] = {
    "type": "record",
    "name": "Division",
    "namespace": "govbus.stats",
    "govbus": {"version": 1, "kind": "state", "key": ["code"]},
    "fields": [
        {"name": "code", "type": "string", "classification": "public"},
        {"name": "name", "type": "string", "classification": "public"},
        {"name": "level", "type": "int", "classification": "public"},
        {"name": "parent", "type": ["null", "string"], "classification": "public"},
    ],
}


def a_contract(schema: Mapping[str, Any] = DIVISIONS) -> DataContract:
    return parse_contract(json.dumps(schema), owner="stats", resource="divisions")


def published_contract(schema: Mapping[str, Any] = DIVISIONS) -> PublishedContract:
    contract = a_contract(schema)
    return PublishedContract(contract, parse_schema(1, contract.key_schema), parse_schema(2, contract.schema))


class Register:
    """A department's own database, as its existing system keeps it."""

    def __init__(self, path: Path, rows: Iterable[Row] = ()) -> None:
        self.path = path
        self.url = make_url(f"sqlite:///{path}")
        self.do(
            "CREATE TABLE divisions"
            " (code TEXT PRIMARY KEY, name TEXT, level INTEGER, parent TEXT, version INTEGER)"
        )
        for row in rows:
            self.put(*row)

    def do(self, statement: str, values: Sequence[object] = ()) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)

    def put(
        self, code: Any, name: Any = "浙江省", level: Any = 1, parent: Any = None, version: Any = 1
    ) -> None:
        self.do(
            "INSERT OR REPLACE INTO divisions VALUES (?, ?, ?, ?, ?)", (code, name, level, parent, version)
        )

    def remove(self, code: Any) -> None:
        self.do("DELETE FROM divisions WHERE code = ?", (code,))

    def rows(self) -> dict[str, dict[str, Any]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return {
                row[0]: dict(zip(("code", "name", "level", "parent"), row, strict=True))
                for row in connection.execute("SELECT code, name, level, parent FROM divisions")
            }


class RecordingPublisher:
    """Checks and encodes as the real one does, and keeps what the topic would hold."""

    def __init__(self, known: PublishedContract | None = None) -> None:
        self.encoder = ChangeEncoder(known or published_contract())
        self.topic: dict[str, Mapping[str, Any]] = {}
        self.published: list[Change] = []

    def publish(self, resource: str, changes: Sequence[Change]) -> Published:
        rejected: dict[int, RejectedRecordError] = {}
        for position, change in enumerate(changes):
            try:
                self.encoder.encode(change)
            except ContractViolationError as error:
                rejected[position] = error
                continue
            self.take(change)
        return Published(acknowledged=len(changes) - len(rejected), rejected=rejected)

    def take(self, change: Change) -> None:
        self.published.append(change)
        key = str(change.key["code"])
        if change.row is None:
            self.topic.pop(key, None)
        else:
            self.topic[key] = change.row

    def drain(self) -> list[tuple[str, str | None]]:
        """Key and name (None for a delete) of everything published since the last call, sorted."""
        found = [
            (str(change.key["code"]), None if change.row is None else str(change.row["name"]))
            for change in self.published
        ]
        self.published.clear()
        return sorted(found, key=str)


class CrashingPublisher(RecordingPublisher):
    """Puts ``survives`` changes on the topic and then dies before it can say so."""

    def __init__(self, topic: RecordingPublisher, survives: int) -> None:
        super().__init__()
        self.topic = topic.topic
        self.left = survives

    def take(self, change: Change) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1
        super().take(change)

    def publish(self, resource: str, changes: Sequence[Change]) -> Published:
        super().publish(resource, changes)
        raise Crash


class AbsentPublisher(RecordingPublisher):
    """Finds no broker."""

    def publish(self, resource: str, changes: Sequence[Change]) -> Published:
        raise BrokerUnavailableError("no broker")


class Crash(BaseException):
    """Stands for the end of the process: nothing handles it."""


class Capture:
    """One capture of one table, which can crash and be started again on the same state."""

    def __init__(
        self,
        register: Register,
        state: Path,
        *,
        contract: DataContract | None = None,
        table: TableConfig | None = None,
    ) -> None:
        self.register = register
        self.state = state
        self.contract = contract or a_contract()
        self.table = table or TableConfig(resource="divisions", table="divisions")
        self.start()

    def start(self) -> None:
        self.snapshot = Snapshot(self.state / "stats.divisions.sqlite")
        self.engine = open_source(self.register.url)
        self.source = TablePolling(
            engine=self.engine,
            contract=self.contract,
            table=self.table,
            snapshot=self.snapshot,
            spool=self.state,
        )

    def poll(self, publisher: RecordingPublisher) -> int:
        return publish_changes(
            self.source, publisher, owner="stats", resource="divisions", stop=threading.Event()
        )

    def crash(self, publisher: CrashingPublisher) -> None:
        """Poll until the process is gone, and start another on what is left."""
        try:
            self.poll(publisher)
        except Crash:
            pass
        self.close()
        self.start()

    def close(self) -> None:
        self.source.close()
        self.engine.dispose()


def column_mode(**options: Any) -> TableConfig:
    return TableConfig(
        resource="divisions", table="divisions", mode=PollMode.COLUMN, column="version", **options
    )


Started = Callable[..., Capture]
