"""The control store: the catalogue and the grants of record, in a SQL database. Does I/O.

1. A grant version is written once and never changed; the newest version of an
   id is what counts. The ORM refuses an update of one.
2. Whatever the store decides and Kafka must be told goes into the outbox in the
   same transaction. A crash between the two leaves rows that are not marked as
   published, and whoever comes next publishes them (:mod:`.outbox`).
3. Every write leaves an audit row: who, when, what it was before and after, why.
4. One writer at a time: a write transaction takes the database's write lock at
   its beginning, so that what it read is still so when it commits.

SQLite for one machine, any database that SQLAlchemy and Alembic know otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from govbus.catalogue import Department, DepartmentLevel, Resource, ShareType
from govbus.contract import DataContract, parse_contract
from govbus.entry import Entry, with_items
from govbus.errors import ConfigurationError, SinkUnavailableError
from govbus.grant import DataDuty, FieldRule, Grant, GrantState, PublishedGrant
from govbus.transform import parse_transform

_LOCK_SECONDS = 30
"""How long a writer waits for the one before it; applying a large catalogue takes seconds."""

_ADVISORY_LOCK = 0x676F76627573
"""``govbus`` in ASCII: the key of the write lock on databases that lock rows, not files."""


class Moment(TypeDecorator[datetime]):
    """A point in time, stored as UTC without zone because SQLite keeps none, and given back with it."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a moment without zone: which one it means would be a guess."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored moment needs a time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


class Table(DeclarativeBase):
    """What all tables of the control store share."""


class DepartmentRow(Table):
    """A department on the bus."""

    __tablename__ = "departments"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    level: Mapped[str | None] = mapped_column(String(20))
    parent: Mapped[str | None] = mapped_column(String(80))
    """Not a foreign key: SQLite could not take the column away again. The plan checks it."""

    credit_code: Mapped[str | None] = mapped_column(String(18))
    contact: Mapped[str | None] = mapped_column(Text)
    removed_at: Mapped[datetime | None] = mapped_column(Moment)
    """Grants of the past still name it, so its row stays."""


class ResourceRow(Table):
    """A catalogue entry; which contract counts is said by ``contract_version``."""

    __tablename__ = "resources"

    owner: Mapped[str] = mapped_column(ForeignKey("departments.name"), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    share_type: Mapped[str] = mapped_column(String(20))
    synthetic: Mapped[bool]
    owner_allows: Mapped[list[str]] = mapped_column(JSON)
    contract_version: Mapped[int]
    removed_at: Mapped[datetime | None] = mapped_column(Moment)
    """Grants of the past still name it, so its row stays."""


class ContractRow(Table):
    """One version of an owner's promise, and the registry's ids for it."""

    __tablename__ = "contracts"
    __table_args__ = (ForeignKeyConstraint(["owner", "resource"], ["resources.owner", "resources.name"]),)

    owner: Mapped[str] = mapped_column(String(80), primary_key=True)
    resource: Mapped[str] = mapped_column(String(80), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    schema: Mapped[str] = mapped_column("avro_schema", Text)
    value_schema_id: Mapped[int]
    key_schema_id: Mapped[int]
    added_at: Mapped[datetime] = mapped_column(Moment)


class GrantRow(Table):
    """One version of a grant, as it was published. Never changed."""

    __tablename__ = "grants"
    __table_args__ = (
        ForeignKeyConstraint(["owner", "resource"], ["resources.owner", "resources.name"]),
        Index("ix_grants_resource", "owner", "resource"),
        Index("ix_grants_subscriber", "subscriber"),
    )

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    subscriber: Mapped[str] = mapped_column(ForeignKey("departments.name"))
    owner: Mapped[str] = mapped_column(String(80))
    resource: Mapped[str] = mapped_column(String(80))
    fields: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """``[{"name", "transform"}]`` in contract order."""

    rows: Mapped[str | None] = mapped_column("row_filter", Text)
    purpose: Mapped[str] = mapped_column(Text)
    starts_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    data_on_end: Mapped[str] = mapped_column(String(10))
    contract_version: Mapped[int]
    view: Mapped[str] = mapped_column(String(80))
    delivery_topic: Mapped[str] = mapped_column(String(249))
    value_schema_id: Mapped[int]
    key_schema_id: Mapped[int]
    made_at: Mapped[datetime] = mapped_column(Moment)
    quota_records_per_day: Mapped[int | None]
    quota_keys_per_day: Mapped[int | None]


class OutboxRow(Table):
    """One record that Kafka must be told of, in the order in which it was decided."""

    __tablename__ = "outbox"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    topic: Mapped[str] = mapped_column(String(249))
    record_key: Mapped[bytes] = mapped_column(LargeBinary)
    schema: Mapped[str] = mapped_column("bus_schema", String(20))
    """Name of the schema under avro_schemas/bus/."""

    record: Mapped[dict[str, Any]] = mapped_column(JSON)
    held_for: Mapped[int | None] = mapped_column(ForeignKey("outbox.seq"))
    """Published only after the revocation barrier of that row has been passed."""

    made_at: Mapped[datetime] = mapped_column(Moment)
    published_at: Mapped[datetime | None] = mapped_column(Moment)
    kafka_offset: Mapped[int | None] = mapped_column(BigInteger)


class AuditRow(Table):
    """One write: who, when, what it was and became, and why."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(Moment)
    who: Mapped[str] = mapped_column(Text)
    what: Mapped[str] = mapped_column(Text)
    """``department stats``, ``resource stats.divisions``, ``grant quzhou-divisions`` …"""

    before: Mapped[dict[str, Any] | None] = mapped_column("value_before", JSON(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column("value_after", JSON(none_as_null=True))
    why: Mapped[str] = mapped_column(Text)


@event.listens_for(GrantRow, "before_update")
@event.listens_for(AuditRow, "before_update")
def _never_changed(_mapper: object, _connection: Connection, row: object) -> None:
    raise TypeError(f"{type(row).__name__} rows are written once and never changed")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResource:
    """A resource with the contract that counts and what the owner says about it."""

    resource: Resource
    contract: DataContract
    contract_text: str
    synthetic: bool
    owner_allows: tuple[str, ...]
    entry: Entry | None = None
    """What the catalogue says of it beside this; the contract's fields have their items' share types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGrant:
    """The newest version of a grant."""

    published: PublishedGrant
    contract_version: int
    """Of the contract that the view was made for."""

    made_at: datetime

    @property
    def grant(self) -> Grant:
        """The agreement itself."""
        return self.published.grant


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A request that was handed in and is not decided, or decided and not provided."""

    id: str
    state: str
    subscriber: str
    resource_ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that counts at one moment, by name."""

    departments: Mapping[str, Department]
    resources: Mapping[str, StoredResource]
    """By ``owner.resource``."""

    grants: Mapping[str, StoredGrant]
    removed_departments: Mapping[str, Department] = field(default_factory=dict)
    """Taken out of the catalogue: they receive nothing and own nothing; their names are not free."""

    removed_resources: Mapping[str, StoredResource] = field(default_factory=dict)
    """Taken out of the catalogue: nothing of them is granted; their topics and contracts are still there."""

    open_requests: tuple[OpenRequest, ...] = field(default=(), compare=False)
    """By age. They and the accounts only stand in the way of what is removed, so a snapshot without them is
    the same: neither a saved plan nor a grant under way is refused because somebody asks for something."""

    accounts: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Departments, by the names of their accounts that may act."""


class Writing:
    """One write transaction: what it adds is committed together, with its audit rows."""

    def __init__(self, session: Session, *, who: str, why: str, now: datetime) -> None:
        self._session = session
        self._who = who
        self._why = why
        self._now = now

    @property
    def session(self) -> Session:
        """For tables of other subjects, in the same transaction."""
        return self._session

    @property
    def now(self) -> datetime:
        """The moment of the transaction."""
        return self._now

    def snapshot(self) -> Snapshot:
        """What counts, read under the write lock."""
        return _snapshot(self._session)

    def department(self, department: Department) -> None:
        """Add a department, change what is said of it, or bring one back that was removed."""
        row = self._session.get(DepartmentRow, department.name)
        before = None if row is None else _department_facts(row)
        after = DepartmentRow(
            name=department.name,
            title=department.title,
            level=None if department.level is None else department.level.value,
            parent=department.parent,
            credit_code=department.credit_code,
            contact=department.contact or None,
            removed_at=None,
        )
        facts = _department_facts(after)
        self._session.merge(after)
        self._audit(f"department {department.name}", before, facts)

    def remove_department(self, name: str) -> None:
        """Take a department out of the catalogue; what it did stays on record."""
        row = self._session.get_one(DepartmentRow, name)
        before = _department_facts(row)
        row.removed_at = self._now
        self._audit(f"department {name}", before, None)

    def resource(self, stored: StoredResource) -> int:
        """Add or change a catalogue entry, keep a contract version that is new, and queue the record."""
        from govbus.grant import resource_key, resource_to_record
        from govbus.topics import GRANTS
        from govbus_console.control.entries import entry_facts, write_entry

        resource = stored.resource
        row = self._session.get(ResourceRow, (resource.owner, resource.name))
        before = None if row is None else _resource_facts(row) | entry_facts(self._session, resource)
        after = ResourceRow(
            owner=resource.owner,
            name=resource.name,
            title=resource.title,
            share_type=resource.share_type.value,
            synthetic=stored.synthetic,
            owner_allows=list(stored.owner_allows),
            contract_version=resource.contract_version,
            removed_at=None,
        )
        facts = _resource_facts(after)
        self._session.merge(after)
        self._session.flush()
        write_entry(self._session, stored)
        facts |= entry_facts(self._session, resource)
        self._session.merge(
            ContractRow(
                owner=resource.owner,
                resource=resource.name,
                version=resource.contract_version,
                schema=stored.contract_text,
                value_schema_id=resource.value_schema_id,
                key_schema_id=resource.key_schema_id,
                added_at=self._now,
            )
        )
        self._audit(f"resource {resource.ref}", before, facts)
        return self.queue(GRANTS, resource_key(resource.ref), "resource", resource_to_record(resource))

    def remove_resource(self, stored: StoredResource) -> int:
        """Take a resource out of the catalogue; what was agreed on it stays on record.

        The exchange is told that it is withheld: whatever else should go wrong, nothing of it moves.
        """
        from govbus.grant import resource_key, resource_to_record
        from govbus.topics import GRANTS
        from govbus_console.control.entries import entry_facts, remove_entry

        resource = stored.resource
        row = self._session.get_one(ResourceRow, (resource.owner, resource.name))
        before = _resource_facts(row) | entry_facts(self._session, resource)
        row.removed_at = self._now
        remove_entry(self._session, resource)
        self._audit(f"resource {resource.ref}", before, None)
        withheld = replace(resource, share_type=ShareType.WITHHELD)
        return self.queue(GRANTS, resource_key(resource.ref), "resource", resource_to_record(withheld))

    def grant(self, stored: StoredGrant) -> int:
        """Add a grant version and queue its record; return its place in the outbox.

        The requests that led to the grant follow it into its state.
        """
        from govbus.grant import grant_key, grant_to_record
        from govbus.topics import GRANTS
        from govbus_console.control.request_steps import follow_grant

        published, grant = stored.published, stored.grant
        newest = self._session.scalar(select(func.max(GrantRow.version)).where(GrantRow.id == grant.id))
        if grant.version != (newest or 0) + 1:
            raise ValueError(f"grant {grant.id}: version {grant.version} does not follow {newest}")
        before = None if newest is None else _grant_facts(self._session.get_one(GrantRow, (grant.id, newest)))
        row = GrantRow(
            id=grant.id,
            version=grant.version,
            state=grant.state.value,
            subscriber=grant.subscriber,
            owner=grant.owner,
            resource=grant.resource,
            fields=[{"name": rule.name, "transform": rule.transform.spec()} for rule in grant.fields],
            rows=grant.rows,
            purpose=grant.purpose,
            starts_at=grant.starts_at,
            expires_at=grant.expires_at,
            data_on_end=grant.data_on_end.value,
            quota_records_per_day=grant.quota_records_per_day,
            quota_keys_per_day=grant.quota_keys_per_day,
            contract_version=stored.contract_version,
            view=published.view,
            delivery_topic=published.delivery_topic,
            value_schema_id=published.value_schema_id,
            key_schema_id=published.key_schema_id,
            made_at=self._now,
        )
        self._session.add(row)
        self._audit(f"grant {grant.id}", before, _grant_facts(row))
        follow_grant(self._session, grant, who=self._who, why=self._why, now=self._now)
        return self.queue(GRANTS, grant_key(grant.id), "grant", grant_to_record(published))

    def queue(
        self,
        topic: str,
        key: bytes,
        schema: str,
        record: Mapping[str, Any],
        *,
        held_for: int | None = None,
    ) -> int:
        """Queue one record for Kafka; return its place in the outbox."""
        row = OutboxRow(
            topic=topic,
            record_key=key,
            schema=schema,
            record={name: _as_json(value) for name, value in record.items()},
            held_for=held_for,
            made_at=self._now,
        )
        self._session.add(row)
        self._session.flush()
        return row.seq

    def _audit(self, what: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        self._session.add(
            AuditRow(at=self._now, who=self._who, what=what, before=before, after=after, why=self._why)
        )


class ControlStore:
    """The store behind every control command. Safe for several processes at once."""

    def __init__(self, url: str) -> None:
        """Prepare the connection; nothing is opened yet.

        Raises:
            ConfigurationError: ``url`` is not a database URL.
        """
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
                Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
                self.engine: Engine = create_engine(parsed, connect_args={"timeout": _LOCK_SECONDS})
            else:
                self.engine = create_engine(parsed)
        except (ArgumentError, ImportError):
            raise ConfigurationError("GOVBUS_CONTROL_URL is not a SQLAlchemy URL that can be used") from None
        if parsed.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _sqlite_leaves_transactions_to_us)
            event.listen(self.engine, "begin", _sqlite_begins)

    @classmethod
    def open(cls, url: str) -> ControlStore:
        """Open the store and bring its tables up to the present.

        Raises:
            SinkUnavailableError: the database does not answer or is locked for too long.
        """
        from govbus_console.control.migrate import is_current, upgrade

        store = cls(url)
        with _named_errors():
            if not is_current(store.engine):
                upgrade(store.engine)
        return store

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def snapshot(self) -> Snapshot:
        """What counts now."""
        with _named_errors(), Session(self.engine) as session:
            return _snapshot(session)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for queries of one's own."""
        with _named_errors(), Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self, *, who: str, why: str, now: datetime) -> Iterator[Writing]:
        """One write transaction, committed at the end of the block, rolled back when it raises."""
        with self.locked() as session:
            yield Writing(session, who=who, why=why, now=now)

    @contextmanager
    def locked(self) -> Iterator[Session]:
        """A session under the store's write lock, from its beginning to its commit.

        The lock goes with the connection: a process that dies lets go of it.
        """
        with _named_errors(), self.engine.connect() as plain:
            connection = plain.execution_options(govbus_writes=True)
            with connection.begin(), Session(connection) as session:
                if connection.dialect.name == "postgresql":
                    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                yield session
                session.flush()


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turn a database's refusal into the bus's error; its text may quote a row, so it is left out."""
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated or type(error.orig).__name__ in {"OperationalError", "TimeoutError"}:
            raise SinkUnavailableError(
                "the control store cannot be used now: locked, full or down"
            ) from error
        raise


def _sqlite_leaves_transactions_to_us(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, at the first write: too late to
    # protect what was read before it.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA journal_mode=WAL")
    # WAL with NORMAL may lose the last commits when the machine dies; a grant must not be lost.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _sqlite_begins(connection: Connection) -> None:
    writes = connection.get_execution_options().get("govbus_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _as_json(value: Any) -> Any:
    """Moments as milliseconds since 1970, which is also what Avro's timestamp-millis holds."""
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    return value


def _department_facts(row: DepartmentRow) -> dict[str, Any]:
    said = {
        "level": row.level,
        "parent": row.parent,
        "credit_code": row.credit_code,
        "contact": row.contact,
    }
    return {"title": row.title} | {word: value for word, value in said.items() if value is not None}


def _resource_facts(row: ResourceRow) -> dict[str, Any]:
    return {
        "title": row.title,
        "share_type": row.share_type,
        "synthetic": row.synthetic,
        "owner_allows": row.owner_allows,
        "contract_version": row.contract_version,
    }


def _grant_facts(row: GrantRow) -> dict[str, Any]:
    return {
        "version": row.version,
        "state": row.state,
        "subscriber": row.subscriber,
        "resource": f"{row.owner}.{row.resource}",
        "fields": row.fields,
        "rows": row.rows,
        "purpose": row.purpose,
        "starts_at": row.starts_at.astimezone(UTC).isoformat(),
        "expires_at": row.expires_at.astimezone(UTC).isoformat(),
        "data_on_end": row.data_on_end,
        "quota_records_per_day": row.quota_records_per_day,
        "quota_keys_per_day": row.quota_keys_per_day,
        "contract_version": row.contract_version,
        "delivery_topic": row.delivery_topic,
    }


def _snapshot(session: Session) -> Snapshot:
    from govbus_console.control.entries import read_entries
    from govbus_console.control.request_access import active_accounts, open_requests

    departments: dict[str, Department] = {}
    removed_departments: dict[str, Department] = {}
    for found in session.scalars(select(DepartmentRow)):
        kept = departments if found.removed_at is None else removed_departments
        kept[found.name] = stored_department(found)
    contracts = {(row.owner, row.resource, row.version): row for row in session.scalars(select(ContractRow))}
    entries = read_entries(session)
    resources: dict[str, StoredResource] = {}
    removed_resources: dict[str, StoredResource] = {}
    for row in session.scalars(select(ResourceRow)):
        contract = contracts[row.owner, row.name, row.contract_version]
        stored = _stored_resource(row, contract, entries.get((row.owner, row.name)))
        (resources if row.removed_at is None else removed_resources)[stored.resource.ref] = stored
    newest = select(GrantRow.id, func.max(GrantRow.version).label("version")).group_by(GrantRow.id).subquery()
    rows = session.scalars(
        select(GrantRow).join(newest, (GrantRow.id == newest.c.id) & (GrantRow.version == newest.c.version))
    )
    return Snapshot(
        departments=departments,
        resources=resources,
        grants={granted.id: stored_grant(granted) for granted in rows},
        removed_departments=removed_departments,
        removed_resources=removed_resources,
        open_requests=open_requests(session),
        accounts=active_accounts(session),
    )


def stored_department(row: DepartmentRow) -> Department:
    """Read one department back."""
    return Department(
        name=row.name,
        title=row.title,
        level=None if row.level is None else DepartmentLevel(row.level),
        parent=row.parent,
        credit_code=row.credit_code,
        contact=row.contact or "",
    )


def _stored_resource(row: ResourceRow, contract_row: ContractRow, entry: Entry | None) -> StoredResource:
    contract = parse_contract(contract_row.schema, owner=row.owner, resource=row.name)
    contract = with_items(contract, entry)
    return StoredResource(
        resource=Resource(
            owner=row.owner,
            name=row.name,
            title=row.title,
            share_type=ShareType(row.share_type),
            kind=contract.kind,
            contract_version=contract.version,
            key=contract.key,
            partitions=contract.partitions,
            value_schema_id=contract_row.value_schema_id,
            key_schema_id=contract_row.key_schema_id,
        ),
        contract=contract,
        contract_text=contract_row.schema,
        synthetic=row.synthetic,
        owner_allows=tuple(row.owner_allows),
        entry=entry,
    )


def stored_grant(row: GrantRow) -> StoredGrant:
    """Read one grant version back."""
    return StoredGrant(
        published=PublishedGrant(
            grant=Grant(
                id=row.id,
                version=row.version,
                state=GrantState(row.state),
                subscriber=row.subscriber,
                owner=row.owner,
                resource=row.resource,
                fields=tuple(
                    FieldRule(name=rule["name"], transform=parse_transform(rule["transform"]))
                    for rule in row.fields
                ),
                rows=row.rows,
                purpose=row.purpose,
                starts_at=row.starts_at,
                expires_at=row.expires_at,
                data_on_end=DataDuty(row.data_on_end),
                quota_records_per_day=row.quota_records_per_day,
                quota_keys_per_day=row.quota_keys_per_day,
            ),
            view=row.view,
            delivery_topic=row.delivery_topic,
            value_schema_id=row.value_schema_id,
            key_schema_id=row.key_schema_id,
        ),
        contract_version=row.contract_version,
        made_at=row.made_at,
    )


def contract_text(contract: DataContract) -> str:
    """A contract in the one form in which the store keeps and compares it."""
    return json.dumps(contract.schema, ensure_ascii=False, sort_keys=False)
