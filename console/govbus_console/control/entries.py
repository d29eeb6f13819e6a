"""Catalogue entries in the control store, and the search over them. Does I/O.

Every resource in the catalogue has one row, also one of which nobody has said
more than its title. Searching is built for millions of them:

1. Words go through a full-text index that cuts Chinese by itself (:mod:`.words`): FTS5 on SQLite, a GIN
   index over a tsvector on PostgreSQL. Neither needs an extension beyond the database's own.
2. Answers come in the order in which entries were added, a page at a time, each page beginning behind
   the last one's last entry: an index gives that order, so the tenth thousandth page costs what the
   first does. Nothing counts the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Select,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    column,
    event,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, Session, mapped_column

from govbus.catalogue import Classification, DepartmentLevel, Resource, ShareType
from govbus.contract import DataContract
from govbus.entry import Entry, entry_from_facts, entry_to_facts
from govbus_console.control.store import ControlStore, DepartmentRow, ResourceRow, StoredResource, Table
from govbus_console.control.words import fts5_query, tsquery, tsvector, words_of

LARGEST_PAGE = 1_000


class Words(TypeDecorator[list[str]]):
    """What an entry is found by: a text that FTS5 indexes, or a tsvector."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """PostgreSQL indexes a type of its own."""
        return dialect.type_descriptor(TSVECTOR() if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> str | None:
        """Write the words as the index takes them."""
        if value is None:
            return None
        return tsvector(value) if dialect.name == "postgresql" else " ".join(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> list[str] | None:  # noqa: ARG002
        """Nobody reads them back; the index answers."""
        return None if value is None else value.split()


class EntryRow(Table):
    """One catalogue entry; what can be asked for by itself has a column of its own."""

    __tablename__ = "catalogue_entries"
    __table_args__ = (
        ForeignKeyConstraint(["owner", "name"], ["resources.owner", "resources.name"]),
        UniqueConstraint("owner", "name", name="uq_catalogue_entries_resource"),
        Index("ix_catalogue_entries_owner", "owner", "id"),
        Index("ix_catalogue_entries_code", "code"),
        Index("ix_catalogue_entries_category", "category_1", "category_2", "category_3", "category_4"),
        Index("ix_catalogue_entries_share_type", "share_type", "id"),
        Index("ix_catalogue_entries_classification", "classification", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    owner: Mapped[str] = mapped_column(String(80))
    name: Mapped[str] = mapped_column(String(80))
    code: Mapped[str | None] = mapped_column(String(80))
    category_1: Mapped[str | None] = mapped_column(String(200))
    category_2: Mapped[str | None] = mapped_column(String(200))
    category_3: Mapped[str | None] = mapped_column(String(200))
    category_4: Mapped[str | None] = mapped_column(String(200))
    share_type: Mapped[str] = mapped_column(String(20))
    classification: Mapped[str] = mapped_column(String(20))
    """The highest of its fields'."""

    open: Mapped[bool]
    facts: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """:func:`govbus.entry.entry_to_facts`; None where nobody has said more than the title."""

    words: Mapped[list[str]] = mapped_column(Words, deferred=True)


INDEX_SQLITE = (
    # External content: the words are kept once, in the table. The tokenizer splits at spaces alone, as
    # everything beyond ASCII counts as part of a word for it.
    "CREATE VIRTUAL TABLE catalogue_words USING fts5"
    "(words, content='catalogue_entries', content_rowid='id', tokenize='ascii', prefix='1')",
    "CREATE TRIGGER catalogue_words_insert AFTER INSERT ON catalogue_entries BEGIN"
    " INSERT INTO catalogue_words(rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER catalogue_words_delete AFTER DELETE ON catalogue_entries BEGIN"
    " INSERT INTO catalogue_words(catalogue_words, rowid, words) VALUES ('delete', old.id, old.words); END",
    "CREATE TRIGGER catalogue_words_update AFTER UPDATE ON catalogue_entries BEGIN"
    " INSERT INTO catalogue_words(catalogue_words, rowid, words) VALUES ('delete', old.id, old.words);"
    " INSERT INTO catalogue_words(rowid, words) VALUES (new.id, new.words); END",
)
"""The index over ``words`` on SQLite, kept by triggers."""

_INDEX = table("catalogue_words", column("rowid"))

INDEX_POSTGRESQL = (
    # Without the list of pending rows: every search would have to go through it, and entries are
    # looked for far more often than written.
    "CREATE INDEX ix_catalogue_entries_words ON catalogue_entries USING gin (words) WITH (fastupdate = off)",
)

for _dialect, _statements in (("sqlite", INDEX_SQLITE), ("postgresql", INDEX_POSTGRESQL)):
    for _statement in _statements:
        event.listen(
            EntryRow.__table__,
            "after_create",
            DDL(_statement).execute_if(dialect=_dialect),  # type: ignore[no-untyped-call]
        )


def row_of(resource: Mapping[str, str], contract: DataContract, entry: Entry | None) -> dict[str, Any]:
    """The columns of one entry, its id left out.

    Args:
        resource: ``owner``, ``name``, ``title`` and ``share_type``.
        contract: the one that counts.
        entry: None where nobody has said more.
    """
    grades = list(Classification)
    highest = max((field.classification for field in contract.fields), key=grades.index)
    category = () if entry is None else entry.category
    return {
        "owner": resource["owner"],
        "name": resource["name"],
        "code": None if entry is None else entry.code or None,
        **{f"category_{n + 1}": category[n] if n < len(category) else None for n in range(4)},
        "share_type": resource["share_type"],
        "classification": highest.value,
        "open": entry is not None and entry.open,
        "facts": None if entry is None else entry_to_facts(entry),
        "words": words_of(_texts(resource, contract, entry)),
    }


def _texts(resource: Mapping[str, str], contract: DataContract, entry: Entry | None) -> list[str]:
    texts = [resource["title"], resource["owner"], resource["name"]]
    if entry is not None:
        texts += [entry.code, *entry.category, entry.provider, entry.provider_code, entry.abstract]
        texts += [*entry.related_codes, *(item.title for item in entry.items)]
    return [*texts, *contract.names]


def write_entry(session: Session, stored: StoredResource) -> None:
    """Write the entry of a resource, in place of the one before."""
    resource = stored.resource
    facts = {
        "owner": resource.owner,
        "name": resource.name,
        "title": resource.title,
        "share_type": resource.share_type.value,
    }
    columns = row_of(facts, stored.contract, stored.entry)
    row = _find_row(session, resource)
    if row is None:
        session.add(EntryRow(**columns))
    else:
        for word, value in columns.items():
            setattr(row, word, value)
    session.flush()


def remove_entry(session: Session, resource: Resource) -> None:
    """Take the entry of a resource out: it is not found any more."""
    row = _find_row(session, resource)
    if row is not None:
        session.delete(row)


def entry_facts(session: Session, resource: Resource) -> dict[str, Any]:
    """What the audit keeps of an entry."""
    row = _find_row(session, resource)
    return {} if row is None or row.facts is None else {"entry": row.facts}


def _find_row(session: Session, resource: Resource) -> EntryRow | None:
    found = select(EntryRow).where(EntryRow.owner == resource.owner, EntryRow.name == resource.name)
    return session.scalars(found).one_or_none()


def read_entries(session: Session) -> Mapping[tuple[str, str], Entry]:
    """All entries of which more than the title has been said, by owner and name."""
    found = select(EntryRow.owner, EntryRow.name, EntryRow.facts)
    return {
        (owner, name): entry_from_facts(facts)
        for owner, name, facts in session.execute(found)
        if facts is not None
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is looked for; every word that is given must hold."""

    text: str = ""
    """Words of title, names, code, category, abstract and items, all of them."""

    owner: str = ""
    share_type: ShareType | None = None
    classification: Classification | None = None
    """The highest of the fields'."""

    category: tuple[str, ...] = ()
    """From the top: two names find everything below both."""

    level: DepartmentLevel | None = None
    """The owner's."""

    open: bool | None = None
    code: str = ""
    """The whole code; a part of one is looked for as text."""

    after: int = 0
    """Place of the last answer of the page before."""

    limit: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= LARGEST_PAGE:
            raise ValueError(f"a page has 1 to {LARGEST_PAGE} entries")
        if self.text and not fts5_query(self.text):
            raise ValueError("the text to look for has no letter, digit or character")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One answer."""

    place: int
    ref: str
    title: str
    share_type: ShareType
    classification: Classification
    open: bool
    owner_title: str
    level: DepartmentLevel | None
    entry: Entry | None

    def as_json(self) -> dict[str, Any]:
        """In the shape that ``--json`` prints and the API answers with."""
        return {
            "place": self.place,
            "resource": self.ref,
            "title": self.title,
            "owner": self.owner_title,
            "level": None if self.level is None else self.level.value,
            "share_type": self.share_type.value,
            "classification": self.classification.value,
            "entry": None if self.entry is None else entry_to_facts(self.entry),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the answers, in the order in which they were added to the catalogue."""

    found: tuple[Found, ...]
    next: int | None
    """What to ask for next (``after``); None when these were the last."""


def find(store: ControlStore, question: Question) -> Page:
    """Look through the catalogue. Who receives a resource is not part of the answer."""
    with store.reading() as session:
        dialect = session.get_bind().dialect.name
        rows = list(session.execute(statement(question, dialect)))
    page = tuple(
        Found(
            place=row.id,
            ref=f"{row.owner}.{row.name}",
            title=row.title,
            share_type=ShareType(row.share_type),
            classification=Classification(row.classification),
            open=row.open,
            owner_title=row.owner_title,
            level=None if row.level is None else DepartmentLevel(row.level),
            entry=None if row.facts is None else entry_from_facts(row.facts),
        )
        for row in rows[: question.limit]
    )
    return Page(found=page, next=page[-1].place if len(rows) > question.limit else None)


def statement(question: Question, dialect: str) -> Select[Any]:
    """The query that answers a question, one row longer than the page."""
    entry = EntryRow
    query = (
        select(
            entry.id,
            entry.owner,
            entry.name,
            entry.share_type,
            entry.classification,
            entry.open,
            entry.facts,
            ResourceRow.title,
            DepartmentRow.title.label("owner_title"),
            DepartmentRow.level,
        )
        .join(ResourceRow, (ResourceRow.owner == entry.owner) & (ResourceRow.name == entry.name))
        .join(DepartmentRow, DepartmentRow.name == entry.owner)
        .where(entry.id > question.after)
        .limit(question.limit + 1)
    )
    order: Any = entry.id
    if question.text and dialect == "postgresql":
        query = query.where(
            text("catalogue_entries.words @@ CAST(:asked AS tsquery)").bindparams(
                asked=tsquery(question.text)
            )
        )
    elif question.text:
        query = query.join(_INDEX, _INDEX.c.rowid == entry.id).where(
            _INDEX.c.rowid > question.after,
            text("catalogue_words MATCH :asked").bindparams(asked=fts5_query(question.text)),
        )
        # The index gives this order by itself, so that a page ends when it is full.
        order = _INDEX.c.rowid
    for asked, wanted in (
        (entry.owner, question.owner),
        (entry.share_type, question.share_type and question.share_type.value),
        (entry.classification, question.classification and question.classification.value),
        (DepartmentRow.level, question.level and question.level.value),
        (entry.code, question.code),
        *zip(
            (entry.category_1, entry.category_2, entry.category_3, entry.category_4),
            question.category,
            strict=False,
        ),
    ):
        if wanted:
            query = query.where(asked == wanted)
    if question.open is not None:
        query = query.where(entry.open.is_(question.open))
    return query.order_by(order)
