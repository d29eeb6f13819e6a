"""land.yaml: every mistake is named with file, line, field and fix, and a password never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from govbus.errors import ConfigurationError
from govbus_consumers.config import LandConfig, load_config, parse_config

GOOD = """\
department: quzhou
sink: sqlite:///landed.db
tables:
  quzhou-divisions: 区划 2026
"""


def read(text: str, **environment: str) -> LandConfig:
    return parse_config(text, name="land.yaml", environment=environment)


def mistakes(text: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, **environment)
    return str(caught.value).splitlines()


def test_a_good_file_is_read() -> None:
    config = read(GOOD)

    assert config.department == "quzhou"
    assert config.sink.render_as_string() == "sqlite:///landed.db"
    assert config.tables == {"quzhou-divisions": "区划 2026"}


def test_the_environment_wins_over_the_file_and_may_replace_it() -> None:
    url = "postgresql://land:secret@db/quzhou"

    for text in (GOOD, "department: quzhou\n"):
        sink = read(text, GOVBUS_SINK_URL=url).sink
        assert sink.drivername == "postgresql+psycopg"
        assert sink.password == "secret"


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        ("sink: sqlite:///a.db\n", None, "department"),
        ("department: [a]\nsink: sqlite:///a.db\n", 1, "department"),
        ("department: Quzhou\nsink: sqlite:///a.db\n", 1, "department"),
        ("department: quzhou\n", None, "sink"),
        ("department: quzhou\nsink: not a url\n", 2, "sink"),
        ("department: quzhou\nsink: mysql://a/b\n", 2, "sink"),
        ("department: quzhou\nsink: sqlite://\n", 2, "sink"),
        ("department: quzhou\nsink: 'sqlite:///:memory:'\n", 2, "sink"),
        (GOOD + "tabels: {}\n", 5, "tabels"),
        (GOOD + "sink: sqlite:///b.db\n", 5, "sink"),
        (GOOD + "  Not-A-Grant: x\n", 5, "tables.Not-A-Grant"),
        (GOOD + "  other: 区划 2026\n", 5, "tables.other"),
        (GOOD + "  other: _govbus_offsets\n", 5, "tables.other"),
        (GOOD + "  other: sqlite_master\n", 5, "tables.other"),
        (GOOD + "  other: [x]\n", 5, "tables.other"),
        (GOOD + f"  other: {'x' * 64}\n", 5, "tables.other"),
        ("department: quzhou\nsink: sqlite:///a.db\ntables: x\n", 3, "tables"),
        ("- a\n", 1, "the file"),
        ("", None, "the file"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_field(text: str, line: int | None, field: str) -> None:
    found = mistakes(text)

    place = "land.yaml: " if line is None else f"land.yaml, line {line}: "
    assert any(mistake.startswith(f"{place}{field}: ") for mistake in found)


def test_all_mistakes_are_named_at_once() -> None:
    assert len(mistakes("department: X\nsink: nonsense\ntables: {A: b, c: _govbus_x}\n")) == 4


def test_what_is_not_yaml_is_named_with_its_line() -> None:
    assert mistakes("department: quzhou\nsink: [\n")[0].startswith("land.yaml, line 3: not YAML")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_config(tmp_path / "land.yaml")


def test_a_password_is_shown_neither_in_a_mistake_nor_in_the_configuration() -> None:
    secret = "p4ssw0rd"

    shown = repr(read(GOOD, GOVBUS_SINK_URL=f"postgresql://land:{secret}@db/x"))
    for url in (f"oracle://land:{secret}@db/x", f"//land:{secret}@", f"postgresql://land:{secret}@db:port/x"):
        shown += "".join(mistakes(GOOD, GOVBUS_SINK_URL=url))
        shown += "".join(mistakes(f"department: quzhou\nsink: {url}\n"))

    assert secret not in shown
