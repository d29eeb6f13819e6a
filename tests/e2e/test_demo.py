"""The demo at area level, as a user runs it: real broker, real registry, every process of its own.

This is the one test in which everything works together; what each part promises
is tested beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]

_SECONDS = 420
_ALL = ("-o", "beginning", "-e", "-K", "|")

# Debian 12 has kcat with librdkafka 2.0.2, and none before 2.6.1 can log in by SCRAM to Kafka 4. Programs
# that use librdkafka work with any later one, so kcat gets the one that the Python client brings along.
_LIBRDKAFKA = next(
    (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*.so*"), None
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own; whatever a failed demo has left running there is stopped."""
    folder = tmp_path_factory.mktemp("demo") / "home"
    yield folder
    _govbus(folder, "down")


@pytest.fixture(scope="module")
def first(home: Path) -> subprocess.CompletedProcess[str]:
    return _demo(home)


@pytest.fixture(scope="module")
def second(home: Path, first: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The same home again, as it was left; and this time what runs is left running."""
    assert first.returncode == 0, first.stderr
    return _demo(home, "--keep")


def test_every_row_is_equal_to_the_oracle(first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0, first.stderr

    told = json.loads(first.stdout)
    assert told["ok"] is True
    assert all(table["oracle_equal"] for table in told["tables"])


def test_it_prints_exactly_what_scripts_expect(first: subprocess.CompletedProcess[str]) -> None:
    told = json.loads(first.stdout)

    assert told.keys() == {"ok", "tables", "throughput", "latency_ms", "revoke_ms", "receipt"}
    assert told["throughput"].keys() == {"capture", "exchange", "landing"}
    assert told["latency_ms"].keys() == {"p50", "p99"}
    for table in told["tables"]:
        assert table.keys() == {
            "resource", "subscriber", "captured", "delivered", "filtered", "left_view", "landed",
            "oracle_equal",
        }  # fmt: skip
    assert min(told["throughput"].values()) > 0
    assert 0 < told["latency_ms"]["p50"] <= told["latency_ms"]["p99"]
    assert told["revoke_ms"] > 0
    receipt = told["receipt"]
    assert (receipt["department"], receipt["duty"], receipt["status"]) == ("health", "delete", "answered")
    assert receipt["rows_before"] > 0
    assert receipt["rows_after"] == 0


def test_each_department_got_its_share_and_no_other(first: subprocess.CompletedProcess[str]) -> None:
    tables = _tables(first)

    divisions = tables["stats.divisions", "civil"]
    # Every division of 2019, and every one that a later edition changed.
    assert divisions["delivered"] == divisions["landed"] == divisions["captured"] > 3_368
    assert tables["stats.divisions", "health"]["landed"] == divisions["landed"]
    # The city and its six areas, which no edition changed.
    assert tables["stats.divisions", "quzhou"]["landed"] == 7
    assert tables["stats.divisions", "quzhou"]["filtered"] == divisions["captured"] - 7
    residents = tables["civil.residents", "health"]
    assert residents["left_view"] > 0
    assert residents["landed"] == residents["delivered"] + residents["left_view"] > 1_000
    marriages = tables["civil.marriages", "quzhou"]
    assert 0 < marriages["landed"] == marriages["delivered"] + marriages["left_view"]
    assert marriages["filtered"] > marriages["delivered"]


def test_whoever_was_granted_nothing_got_nothing(first: subprocess.CompletedProcess[str]) -> None:
    tables = _tables(first)

    for place in (("civil.residents", "tax"), ("civil.protected-persons", "nobody")):
        # It was published, so there was something to get.
        assert tables[place]["captured"] > 0
        assert tables[place]["delivered"] == tables[place]["landed"] == 0


def test_what_is_granted_was_asked_for_and_approved_by_two(
    first: subprocess.CompletedProcess[str], second: subprocess.CompletedProcess[str]
) -> None:
    """The unconditional takes no approval, tax is rejected, and what was revoked is asked for once more."""
    typed = [
        [
            line.partition(" s govbus ")[2].split()[:2]
            for line in done.stderr.splitlines()
            if " s govbus " in line
        ]
        for done in (first, second)
    ]

    asked, approved, rejected = (
        [words.count(["review" if what != "new" else "request", what]) for words in typed]
        for what in ("new", "approve", "reject")
    )
    assert (asked, approved, rejected) == ([6, 2], [4, 2], [1, 1])


def test_a_second_demo_goes_on_in_the_same_home(second: subprocess.CompletedProcess[str]) -> None:
    """Nothing is lost and nothing is landed twice; the revoked grant stays revoked and gets a successor."""
    assert second.returncode == 0, second.stderr

    tables = _tables(second)
    # The bureau goes back to its first edition, which is one more change of some rows, not of all.
    assert 0 < tables["stats.divisions", "civil"]["captured"] < 1_000


def test_no_log_names_a_person_or_a_secret(home: Path, second: subprocess.CompletedProcess[str]) -> None:
    assert second.returncode == 0, second.stderr
    logs = "\n".join(path.read_text(errors="replace") for path in sorted((home / "log").glob("*.log")))
    secrets = [path.read_text().strip() for path in (home / "secrets").glob("*.password")]

    assert "govbus" in logs
    assert secrets
    assert not [secret for secret in secrets if secret in logs]
    # Numbers, telephones and case numbers of the demo's people are easy to tell from anything else.
    assert not re.search(r"\d{6}(19|20)\d{6}99[6-9][\dX]", logs)
    assert not re.search(r"\b100\d{8}\b", logs)
    assert "PROTECTED-" not in logs


def test_what_is_kept_runs_on_and_says_where_its_metrics_are(
    second: subprocess.CompletedProcess[str],
) -> None:
    addresses = re.findall(r"(\S+): (http://127\.0\.0\.1:\d+/metrics)", second.stderr)

    assert {name for name, _ in addresses} >= {"exchange-1", "exchange-2", "capture-stats", "land-quzhou"}
    for _, address in addresses:
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert "govbus_build_info" in answer.read().decode()


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is missing (Debian: apt-get install kcat)")
@pytest.mark.skipif(_LIBRDKAFKA is None, reason="the confluent-kafka wheel has no librdkafka to lend to kcat")
def test_kcat_reads_quzhous_deliveries_with_quzhous_password_and_nothing_else(
    home: Path, second: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    """Any Kafka client can read a delivery, and what one may read is the broker's business."""
    assert second.returncode == 0, second.stderr
    config = tmp_path / "kcat.conf"
    run = json.loads((home / "run.json").read_text())
    config.write_text(
        f"bootstrap.servers={run['bootstrap']}\n"
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanisms=SCRAM-SHA-256\nsasl.username=quzhou\n"
        f"sasl.password={(home / 'secrets' / 'quzhou.password').read_text().strip()}\n"
    )

    its_own = _kcat(config, "-C", "-t", "govbus.delivered.quzhou.marriages-for-quzhou", *_ALL)
    seen = _kcat(config, "-L", "-J")
    others = [
        _kcat(config, "-C", "-t", topic, *_ALL)
        for topic in (
            "govbus.delivered.health.residents-for-health-2",
            "govbus.captured.civil.marriages",
            "govbus.grants",
            "govbus.subscriptions.health",
        )
    ]

    assert its_own.returncode == 0, its_own.stderr
    # Certificates of marriages registered in Quzhou stand readable in the Avro of key and value.
    assert b"J3308-" in its_own.stdout
    names = sorted(topic["topic"] for topic in json.loads(seen.stdout)["topics"])
    shared = names.pop(2)
    assert shared.startswith("govbus.shared.stats.divisions.")
    assert names == [
        "govbus.delivered.quzhou.marriages-for-quzhou",
        "govbus.receipts.quzhou",
        "govbus.subscriptions.quzhou",
    ]
    for other in others:
        assert other.returncode != 0
        assert b"authorization failed" in other.stderr
        assert other.stdout == b""


def test_down_stops_all_of_it(home: Path, second: subprocess.CompletedProcess[str]) -> None:
    """Last in this file: what was kept is needed until here."""
    assert second.returncode == 0, second.stderr

    stopped, again = (json.loads(_govbus(home, "down", "--json").stdout)["stopped"] for _ in range(2))

    assert (stopped, again) == (True, False)
    assert not (home / "run.json").exists()


def _tables(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(table["resource"], table["subscriber"]): table for table in json.loads(done.stdout)["tables"]}


def _demo(home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return _govbus(home, "demo", "--level", "areas", "--people", "2000", "--json", *more)


def _kcat(config: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["kcat", "-F", str(config), "-m", "60", *arguments],
        env={**os.environ, "LD_PRELOAD": str(_LIBRDKAFKA)},
        capture_output=True,
        timeout=120,
        check=False,
    )


def _govbus(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GOVBUS_")}
    return subprocess.run(
        [sys.executable, "-m", "govbus_console", *arguments],
        env={**environment, "GOVBUS_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
