"""What one capture process has to do, read from its YAML file.

```yaml
department: stats
source: sqlite:////srv/stats/register.db   # a SQLAlchemy URL; GOVBUS_SOURCE_URL replaces it
state: /var/lib/govbus/stats
resources:
  divisions:
    table: divisions            # or schema.table
    mode: hash                  # or column, with: column: updated_at
    changed_at: updated_at      # optional: when the source committed the row
    interval_seconds: 1.0
```

A mistake is answered with file, line, field and what to write instead; the
value that stood there is not repeated, because a URL may hold a password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import yaml
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from govbus.errors import ConfigurationError
from govbus.topics import is_name

SOURCE_VARIABLE = "GOVBUS_SOURCE_URL"
"""Environment variable that stands in for ``source``, so that a password need not be in the file."""


class PollMode(StrEnum):
    """How a poll of a table finds what changed."""

    HASH = "hash"
    """Read the whole table and compare each row's content hash with the snapshot."""

    COLUMN = "column"
    """Read the rows whose version or timestamp column has advanced; sweep the whole table now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableConfig:
    """How one resource is captured from one table."""

    resource: str
    table: str
    schema: str | None = None
    mode: PollMode = PollMode.HASH
    column: str | None = None
    """Monotonic version or timestamp column; in column mode only."""

    changed_at: str | None = None
    """Column with the time of the row's last change; becomes the Kafka timestamp."""

    interval_seconds: float = 1.0
    """From the start of one poll to the start of the next."""

    sweep_every: int = 60
    """In column mode, every so many polls read the whole table: finds deletes and late commits."""

    overlap: float | None = None
    """In column mode, how far a poll reads back before the highest value seen: seconds for a
    timestamp (default 60), steps for a number (default 1,000). A transaction that commits later than
    that after taking its value is found by the next sweep."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Contract field to source column, where the names differ."""

    def __post_init__(self) -> None:
        if (self.column is None) is (self.mode is PollMode.COLUMN):
            raise ValueError("TableConfig.column belongs to column mode, and column mode needs it")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConfig:
    """What one capture process does: one department, one source, one or more tables."""

    department: str
    source: URL
    """Its string form hides the password."""

    state: Path
    """Folder of the snapshots; belongs to one capture process at a time."""

    tables: tuple[TableConfig, ...]


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> CaptureConfig:
    """Read a capture file.

    Raises:
        ConfigurationError: the file cannot be read or says something that cannot be; the message
            names file, line and field and what to write, and repeats no value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8 text") from None
    return parse_config(text, name=str(path), folder=path.parent, environment=environment)


def parse_config(
    text: str, *, name: str, folder: Path = Path(), environment: Mapping[str, str] | None = None
) -> CaptureConfig:
    """Read the text of a capture file; relative paths are relative to ``folder``. Raises as above."""
    try:
        # composed, not loaded: the nodes know their lines
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        # error.problem alone: the full text quotes the line, and with it perhaps a password
        raise ConfigurationError(f"{name}, line {line}: not YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"{name}: not YAML") from None
    if node is None:
        raise ConfigurationError(f"{name}: is empty; write department, source, state and resources")
    top = _Section(name, "", node)
    top.allow("department", "source", "state", "resources")
    department = top.text("department")
    if not is_name(department):
        raise top.error("department", "is not a name: write lower-case words joined by hyphens")
    given = (environment or {}).get(SOURCE_VARIABLE) or top.text_or_none("source")
    if given is None:
        raise top.error("source", f"is missing: write a SQLAlchemy URL here or set {SOURCE_VARIABLE}")
    try:
        source = make_url(given)
    except (ArgumentError, ValueError):
        raise top.error(
            "source", "is not a SQLAlchemy URL: write dialect://user:password@host/database"
        ) from None
    if source.get_backend_name() == "sqlite":
        if not source.database or source.database == ":memory:":
            raise top.error("source", "names no file: write sqlite:///path/to/file.db")
        source = source.set(database=str(folder / source.database))
    tables = tuple(_table(section) for section in top.sections("resources"))
    if not tables:
        raise top.error("resources", "is empty: name at least one resource")
    return CaptureConfig(
        department=department, source=source, state=folder / top.text("state"), tables=tables
    )


def _table(section: _Section) -> TableConfig:
    section.allow(
        "table", "mode", "column", "changed_at", "interval_seconds", "sweep_every", "overlap", "columns"
    )
    if not is_name(section.last):
        raise section.error(None, "is not a resource name: write lower-case words joined by hyphens")
    try:
        mode = PollMode(section.text_or_none("mode") or "hash")
    except ValueError:
        raise section.error("mode", f"must be one of {', '.join(PollMode)}") from None
    if mode is PollMode.COLUMN and not section.has("column"):
        raise section.error("column", "is missing: column mode needs the version or timestamp column")
    if mode is PollMode.HASH:
        for name in ("column", "sweep_every", "overlap"):
            if section.has(name):
                raise section.error(name, "belongs to column mode: write `mode: column` or leave it out")
    schema, _, table = section.text("table").rpartition(".")
    return TableConfig(
        resource=section.last,
        table=table,
        schema=schema or None,
        mode=mode,
        column=section.text_or_none("column"),
        changed_at=section.text_or_none("changed_at"),
        interval_seconds=section.number("interval_seconds", least=0.05, default=1.0),
        sweep_every=section.whole("sweep_every", least=1, default=60),
        overlap=section.number("overlap", least=0.0, default=0.0) if section.has("overlap") else None,
        columns=section.texts("columns"),
    )


class _Section:
    """One mapping of the file, which answers a wrong entry with its place."""

    def __init__(self, file: str, path: str, node: yaml.Node) -> None:
        self._file = file
        self._path = path
        self._node = node
        self._entries: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            raise self.error(None, "must be a mapping of names to values")
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(None, "has a name that is not plain text")
            if key.value in self._entries:
                raise self.error(key.value, "is there twice: keep one")
            self._entries[key.value] = value

    @property
    def last(self) -> str:
        """The last word of this section's path: for a table, the resource's name."""
        return self._path.rpartition(".")[2]

    def error(self, name: str | None, detail: str) -> ConfigurationError:
        """Make the error for one entry, or for the section itself."""
        node = self._entries.get(name, self._node) if name else self._node
        path = ".".join(part for part in (self._path, name) if part) or "the file"
        return ConfigurationError(f"{self._file}, line {node.start_mark.line + 1}: {path} {detail}")

    def has(self, name: str) -> bool:
        """Say whether the entry is there."""
        return name in self._entries

    def allow(self, *names: str) -> None:
        """Refuse an entry of any other name: a misspelt option must not be passed over."""
        for name in self._entries:
            if name not in names:
                raise self.error(name, f"is not known here: write one of {', '.join(names)}")

    def text(self, name: str) -> str:
        """Read an entry of plain text that must be there."""
        text = self.text_or_none(name)
        if text is None:
            raise self.error(name, "is missing")
        return text

    def text_or_none(self, name: str) -> str | None:
        """Read an entry of plain text, or None when there is none."""
        if name not in self._entries:
            return None
        node = self._entries[name]
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise self.error(name, "must be plain text, and not empty")
        return str(node.value)

    def number(self, name: str, *, least: float, default: float) -> float:
        """Read a number of at least ``least``."""
        text = self.text_or_none(name)
        if text is None:
            return default
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number < float("inf"):
            raise self.error(name, f"must be a number of at least {least:g}")
        return number

    def whole(self, name: str, *, least: int, default: int) -> int:
        """Read a whole number of at least ``least``."""
        number = self.number(name, least=least, default=default)
        if number != int(number):
            raise self.error(name, f"must be a whole number of at least {least}")
        return int(number)

    def texts(self, name: str) -> dict[str, str]:
        """Read a mapping of text to text; empty when there is none."""
        if name not in self._entries:
            return {}
        section = self._section(name)
        return {entry: section.text(entry) for entry in section._entries}

    def sections(self, name: str) -> list[_Section]:
        """Read a mapping of names to sections."""
        if name not in self._entries:
            raise self.error(name, "is missing")
        section = self._section(name)
        return [section._section(entry) for entry in section._entries]

    def _section(self, name: str) -> _Section:
        path = f"{self._path}.{name}" if self._path else name
        return _Section(self._file, path, self._entries[name])
