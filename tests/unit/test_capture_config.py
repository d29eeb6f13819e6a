"""A mistake in a capture file is answered with its place and what to write, and no value is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from govbus.errors import ConfigurationError
from govbus_producers.config import CaptureConfig, PollMode, TableConfig, load_config, parse_config

WHOLE = """\
department: stats
source: postgresql+psycopg://stats:geheim@db/register
state: state/stats
resources:
  divisions:
    table: public.divisions
    mode: column
    column: version
    changed_at: updated_at
    interval_seconds: 0.5
    sweep_every: 10
    overlap: 5
    columns: {name: title}
  offices:
    table: offices
"""


def parsed(text: str, **environment: str) -> CaptureConfig:
    return parse_config(text, name="capture.yaml", folder=Path("/etc/govbus"), environment=environment)


def test_a_capture_file_says_what_to_read_from_where() -> None:
    config = parsed(WHOLE)

    assert config.department == "stats"
    assert config.source.password == "geheim"
    assert config.state == Path("/etc/govbus/state/stats")
    assert config.tables == (
        TableConfig(
            resource="divisions",
            table="divisions",
            schema="public",
            mode=PollMode.COLUMN,
            column="version",
            changed_at="updated_at",
            interval_seconds=0.5,
            sweep_every=10,
            overlap=5.0,
            columns={"name": "title"},
        ),
        TableConfig(resource="offices", table="offices"),
    )


def test_the_environment_replaces_the_source() -> None:
    config = parsed(WHOLE, GOVBUS_SOURCE_URL="sqlite:////srv/register.db")

    assert str(config.source) == "sqlite:////srv/register.db"


def test_a_relative_sqlite_file_is_relative_to_the_capture_file() -> None:
    config = parsed(WHOLE, GOVBUS_SOURCE_URL="sqlite:///register.db")

    assert config.source.database == "/etc/govbus/register.db"


def test_the_password_of_a_source_is_not_in_what_the_configuration_says_of_itself() -> None:
    assert "geheim" not in repr(parsed(WHOLE))


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("department: stats", "department: Stats Bureau", "line 1: department is not a name"),
        ("department: stats", "departement: stats", "line 1: departement is not known here: write one of"),
        ("    table: offices", "    tabel: offices", "line 15: resources.offices.tabel is not known here"),
        ("    table: offices", "    mode: hash", "line 15: resources.offices.table is missing"),
        (
            "    mode: column",
            "    mode: guess",
            "line 7: resources.divisions.mode must be one of hash, column",
        ),
        ("    mode: column", "    mode: hash", "resources.divisions.column belongs to column mode"),
        ("    column: version\n", "", "resources.divisions.column is missing"),
        (
            "interval_seconds: 0.5",
            "interval_seconds: soon",
            "line 10: resources.divisions.interval_seconds must",
        ),
        ("interval_seconds: 0.5", "interval_seconds: 0", "must be a number of at least 0.05"),
        ("interval_seconds: 0.5", "interval_seconds: .inf", "must be a number of at least 0.05"),
        ("sweep_every: 10", "sweep_every: 1.5", "must be a whole number of at least 1"),
        ("  offices:", "  Offices:", "resources.Offices is not a resource name"),
        (
            "  offices:\n    table: offices",
            "  offices: offices",
            "line 14: resources.offices must be a mapping",
        ),
        ("  offices:", "  divisions:", "resources.divisions is there twice"),
        ("    table: offices", "    table: [offices]", "resources.offices.table must be plain text"),
        ("state: state/stats\n", "", "state is missing"),
        ("postgresql+psycopg://stats:geheim@db/register", "geheim", "line 2: source is not a SQLAlchemy URL"),
        ("postgresql+psycopg://stats:geheim@db/register", "sqlite://", "source names no file"),
        ("stats:geheim@db/register", "stats:geheim@db/register: x", "line 2: not YAML"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(before: str, after: str, complaint: str) -> None:
    assert before in WHOLE

    with pytest.raises(ConfigurationError) as raised:
        parsed(WHOLE.replace(before, after))

    assert complaint in str(raised.value)
    assert str(raised.value).startswith("capture.yaml")
    assert "geheim" not in str(raised.value)


def test_resources_must_be_there_and_not_be_empty() -> None:
    head = WHOLE[: WHOLE.index("resources:")]

    with pytest.raises(ConfigurationError, match="resources is missing"):
        parsed(head)
    with pytest.raises(ConfigurationError, match="resources is empty"):
        parsed(head + "resources: {}")


@pytest.mark.parametrize("text", ["", "# nothing", "- a list", "\x00"])
def test_what_is_no_capture_file_at_all_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"capture\.yaml"):
        parsed(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"department: \xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml")
