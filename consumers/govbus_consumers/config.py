"""What a department says in ``land.yaml``: who it is, where to land, under which names.

    department: quzhou
    sink: sqlite:////var/lib/quzhou/bus.db
    tables:
      quzhou-divisions: divisions

``sink`` is a SQLAlchemy URL (``sqlite:///file`` or ``postgresql+psycopg://…``). The environment
variable ``GOVBUS_SINK_URL`` wins over it, so that a password need not stand in the file.
``tables`` gives the table of a grant another name than the one that the subscription suggests.
``receipt_key`` is the file of the private key that signs receipts, made on first use; without it,
``secrets/<department>.receipt-key`` below GOVBUS_HOME. All landing processes of a department need the
same one.

Every mistake is reported at once, with file, line, field and what to write instead. A URL is
never repeated in a message: it may hold a password.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from govbus.errors import ConfigurationError
from govbus.topics import is_name
from govbus_consumers.tables import LONGEST_NAME, RESERVED

SINK_VARIABLE = "GOVBUS_SINK_URL"
_KNOWN = ("department", "sink", "tables", "receipt_key")
_HOME_VARIABLE = "GOVBUS_HOME"
_HOME = ".govbus"
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LandConfig:
    """One department's landing, as its engineers want it."""

    department: str
    sink: URL = field(repr=False)
    tables: Mapping[str, str] = field(default_factory=dict)
    """Table name by grant, where the suggested name will not do."""

    receipt_key: Path
    """The private key that signs what is answered when a grant has ended."""


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> LandConfig:
    """Read ``land.yaml``.

    Args:
        path: of the file.
        environment: instead of the process's own, for tests.

    Raises:
        ConfigurationError: the file cannot be read or says something that cannot be; the message
            has one line for each mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8 text") from None
    return parse_config(text, name=str(path), environment=os.environ if environment is None else environment)


def parse_config(text: str, *, name: str, environment: Mapping[str, str]) -> LandConfig:
    """Read the text of a ``land.yaml``; see :func:`load_config`. ``name`` is what messages call it."""
    reader = _Reader(name)
    values = reader.mapping(reader.document(text), "the file", _KNOWN)
    department = reader.word(values, "department", "department: quzhou")
    if department is not None and not is_name(department):
        reader.fault(values["department"], "department", "lower-case words joined by hyphens")
    sink = reader.sink(values, environment)
    tables = reader.tables(values.get("tables"))
    key = reader.word(values, "receipt_key", "a file's name") if "receipt_key" in values else None
    if reader.faults or department is None or sink is None:
        raise ConfigurationError("\n".join(reader.faults))
    home = Path(environment.get(_HOME_VARIABLE) or _HOME)
    return LandConfig(
        department=department,
        sink=sink,
        tables=tables,
        receipt_key=Path(key) if key else home / "secrets" / f"{department}.receipt-key",
    )


class _Reader:
    """Goes through the YAML nodes, which know their lines, and collects what is wrong with them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.faults: list[str] = []

    def fault(self, node: yaml.Node | None, place: str, fix: str) -> None:
        line = f", line {node.start_mark.line + 1}" if node is not None else ""
        self.faults.append(f"{self._name}{line}: {place}: {fix}")

    def document(self, text: str) -> yaml.Node | None:
        try:
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark is not None else ""
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise ConfigurationError(f"{self._name}{line}: not YAML: {problem}") from None

    def mapping(
        self, node: yaml.Node | None, place: str, known: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, place, "must be a mapping, name: value on each line")
            return {}
        values: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node):
            if key in values:
                self.fault(value, key, "is there twice; keep one")
            elif known and key not in known:
                self.fault(value, key, f"is not known here; there are {', '.join(known)}")
            else:
                values[key] = value
        return values

    def word(self, values: Mapping[str, yaml.Node], key: str, example: str) -> str | None:
        node = values.get(key)
        if node is None:
            self.fault(None, key, f"is missing; write e.g. {example}")
            return None
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self.fault(node, key, f"must be one word, e.g. {example}")
            return None
        return str(node.value).strip()

    def sink(self, values: Mapping[str, yaml.Node], environment: Mapping[str, str]) -> URL | None:
        node = values.get("sink")
        text: str | None = environment.get(SINK_VARIABLE)
        place = SINK_VARIABLE
        if text:
            node = None
        elif node is None:
            self.fault(
                None, "sink", f"is missing; write e.g. sink: sqlite:///land.db, or set {SINK_VARIABLE}"
            )
            return None
        else:
            place = "sink"
            text = self.word(values, "sink", "sink: sqlite:///land.db")
            if text is None:
                return None
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            self.fault(node, place, "is not a database URL; write e.g. sqlite:///land.db")
            return None
        driver = _DRIVERS.get(url.drivername)
        if driver is None:
            known = "sqlite or postgresql"
            self.fault(node, place, f"names a store that landing does not know; use {known}")
            return None
        if driver == "sqlite" and url.database in (None, "", ":memory:"):
            self.fault(node, place, "needs a file: what is landed in memory is lost with the process")
            return None
        return url.set(drivername=driver)

    def tables(self, node: yaml.Node | None) -> dict[str, str]:
        if node is None:
            return {}
        names: dict[str, str] = {}
        for grant, value in self.mapping(node, "tables").items():
            place = f"tables.{grant}"
            if not is_name(grant):
                self.fault(value, place, "the name of a grant is lower-case words joined by hyphens")
            elif not isinstance(value, yaml.ScalarNode) or not value.value.strip():
                self.fault(value, place, "must be the name of a table")
            elif len(value.value.encode()) > LONGEST_NAME or "\x00" in value.value:
                self.fault(value, place, f"a table's name has at most {LONGEST_NAME} bytes")
            elif value.value.casefold().startswith((RESERVED, "sqlite_", "pg_")):
                self.fault(value, place, f"a table's name must not begin with {RESERVED}, sqlite_ or pg_")
            elif value.value.casefold() in {name.casefold() for name in names.values()}:
                self.fault(value, place, "another grant has this table already; give each its own")
            else:
                names[grant] = value.value
        return names

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield str(key.value), value
            else:
                self.fault(key, "a name", "must be a plain word")
