"""What unit tests of the control store share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.requesting import a_filled_store


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with everything in it but requests, to be copied: to migrate one for each test takes long."""
    return a_filled_store(tmp_path_factory.mktemp("store"))
