"""The home of an embedded bus: its secrets, its lock, its record of what runs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from govbus.errors import ConfigurationError
from govbus_console.embedded.home import Endpoints, Home, Run, ScrapeTarget
from govbus_console.embedded.processes import ProcessRef

ENDPOINTS = Endpoints(bootstrap="127.0.0.1:1", registry_url="http://127.0.0.1:2/apis/ccompat/v7")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_password_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    password = home.password("stats")

    assert len(password) >= 40
    assert Home(tmp_path / "home").password("stats") == password
    assert home.password("civil") != password
    assert mode(home.password_file("stats")) == 0o600
    assert mode(home.secrets) == 0o700
    assert sorted(path.name for path in home.secrets.iterdir()) == ["civil.password", "stats.password"]


def test_a_password_that_is_there_is_kept(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    (home.secrets / "admin.password").write_text("brought-along\n", encoding="utf-8")

    assert home.password("admin") == "brought-along"


def test_processes_that_make_a_password_at_the_same_time_get_the_same_one(tmp_path: Path) -> None:
    homes = [Home(tmp_path) for _ in range(16)]

    with ThreadPoolExecutor(max_workers=16) as pool:
        passwords = set(pool.map(lambda home: home.password("stats"), homes))

    assert len(passwords) == 1


def test_a_secrets_directory_that_others_can_enter_is_closed(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o755)

    home = Home(tmp_path).create()

    assert mode(home.secrets) == 0o700


@pytest.mark.parametrize("name", ["a,b", "a:b", "a;b", 'a"b', "a$b", "a\\b", "a\nb"])
def test_a_path_that_java_configuration_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="GOVBUS_HOME"):
        Home(tmp_path / name)


def test_a_home_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="cannot use"):
        Home(tmp_path / "file" / "home").create()


def test_a_home_is_held_by_one_at_a_time_and_free_afterwards(tmp_path: Path) -> None:
    home = Home(tmp_path)

    with home.locked():
        with pytest.raises(ConfigurationError, match="govbus down"), Home(tmp_path).locked():
            pass

    with Home(tmp_path).locked():
        pass


def test_a_child_that_inherits_the_lock_holds_the_home_until_it_ends(tmp_path: Path) -> None:
    """Its data directory is in use until then, whatever became of its parent."""
    home = Home(tmp_path)
    with home.locked() as lock:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[lock]
        )

    with pytest.raises(ConfigurationError, match="another govbus uses the home"), home.locked():
        pass
    child.communicate()

    with home.locked():
        pass


def test_the_record_of_a_run_reads_back_and_is_gone_after_it(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    run = Run(
        endpoints=ENDPOINTS,
        supervisor=ProcessRef.of("govbus", os.getpid()),
        processes=(ProcessRef(name="kafka", pid=1, started="then"),),
    )

    home.write_run(run)

    assert home.read_run() == run
    home.forget_run()
    assert home.read_run() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"bootstrap": 1}', '{"supervisor": 7}'])
def test_a_record_that_makes_no_sense_is_no_record(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path).create()
    home.run_file.write_text(text, encoding="utf-8")

    assert home.read_run() is None


def test_prometheus_is_told_what_to_scrape_in_its_own_form(tmp_path: Path) -> None:
    home = Home(tmp_path).create()

    home.write_targets([ScrapeTarget(address="127.0.0.1:9100", labels={"process": "exchange"})])

    assert json.loads(home.targets_file.read_text(encoding="utf-8")) == [
        {"targets": ["127.0.0.1:9100"], "labels": {"process": "exchange"}}
    ]
    assert mode(home.targets_file) == 0o644
