"""A department's key: made once, closed to others, and never shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from govbus.errors import ConfigurationError
from govbus_consumers.receipts import load_key


def test_a_key_is_made_on_first_use_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "tax.receipt-key"

    first = load_key(path)
    again = load_key(path)

    assert first.public == again.public
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    path = tmp_path / "tax.receipt-key"

    with ThreadPoolExecutor(8) as pool:
        keys = {key.public for key in pool.map(load_key, [path] * 8)}

    assert len(keys) == 1


def test_a_file_that_holds_no_key_is_named_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "tax.receipt-key"
    path.write_text("s3cret nonsense\n")

    with pytest.raises(ConfigurationError) as refused:
        load_key(path)

    assert str(path) in str(refused.value)
    assert "nonsense" not in str(refused.value)


def test_a_key_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot make the receipt key"):
        load_key(tmp_path / "file" / "tax.receipt-key")
