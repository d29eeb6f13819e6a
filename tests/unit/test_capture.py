"""The capture loop: what it counts and says, how it waits, and what a killed process leaves behind."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from govbus.errors import ConfigurationError
from govbus_producers import capture as capturing
from govbus_producers.snapshot import Snapshot, StateFolder
from support.capturing import Capture, RecordingPublisher, Register


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    register = Register(tmp_path / "register.db", [("33", "浙江省"), ("3308", "衢州市")])
    capture = Capture(register, tmp_path)
    yield capture
    capture.close()


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"govbus_{name}_total", {"resource": "stats.divisions", **labels}) or 0.0


def test_what_a_poll_found_and_published_is_counted_by_operation(capture: Capture) -> None:
    bus = RecordingPublisher()
    names = [("captured_records", {"operation": word}) for word in ("create", "update", "delete")]
    names += [("published_records", {})]

    def counts() -> list[float]:
        return [counted(name, **labels) for name, labels in names]

    before = counts()
    capture.poll(bus)
    capture.register.put("33", "浙江")
    capture.register.remove("3308")
    capture.register.put("3309", "舟山市")
    capture.register.put("3310", "台州市")
    capture.poll(bus)

    assert [after - was for after, was in zip(counts(), before, strict=True)] == [4, 1, 1, 6]


def test_a_rejected_row_is_counted_and_logged_by_its_place_and_not_by_what_it_holds(
    capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    capture.register.put("3309", name=None, parent="330102199001011234")
    before = counted("rejected_changes", code="contract-violation")

    with caplog.at_level(logging.WARNING):
        capture.poll(RecordingPublisher())
        capture.poll(RecordingPublisher())

    assert counted("rejected_changes", code="contract-violation") - before == 1
    (record,) = [record for record in caplog.records if record.name == capturing.__name__]
    assert record.address == "row 3 of this reading"
    assert record.code == "contract-violation"
    assert "field 'name'" in record.detail
    assert "330102199001011234" not in str(record.__dict__)


def test_many_rejected_rows_do_not_flood_the_log(capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    for code in range(1000, 1050):
        capture.register.put(str(code), name=None)

    with caplog.at_level(logging.WARNING):
        capture.poll(RecordingPublisher())

    records = [record for record in caplog.records if record.name == capturing.__name__]
    assert len(records) == 21
    assert records[-1].count == 50


def test_pauses_grow_and_stay_bounded() -> None:
    pauses = [max(capturing.pause_after(attempt) for _ in range(50)) for attempt in range(12)]

    assert 0.25 <= pauses[0] <= 0.5
    assert pauses[3] > pauses[0]
    assert max(pauses) <= 15.0


def test_a_second_capture_of_the_same_department_is_refused(tmp_path: Path) -> None:
    first = StateFolder(tmp_path / "state", "stats")

    with pytest.raises(ConfigurationError, match="another capture of stats holds"):
        StateFolder(tmp_path / "state", "stats")
    StateFolder(tmp_path / "state", "civil").close()
    first.close()
    StateFolder(tmp_path / "state", "stats").close()


def test_a_new_contract_or_topic_makes_every_row_pending_but_not_what_has_no_key(capture: Capture) -> None:
    bus = RecordingPublisher()
    capture.register.do("ALTER TABLE divisions RENAME TO old")
    capture.register.do("CREATE TABLE divisions (code, name, level, parent, version)")
    capture.register.put("33")
    capture.register.put(7.5)
    capture.register.put(b"\xff\xff")
    capture.register.put("33", "again")
    capture.poll(bus)
    bus.drain()

    capture.snapshot.start_over("target", "another")
    published = capture.poll(bus)

    assert published == 1
    assert capture.snapshot.about("target", "") == "another"
    bus.drain()
    capture.register.do("DELETE FROM divisions WHERE code <> '33' OR name = 'again'")
    capture.poll(bus)
    assert bus.drain() == []


def test_a_full_disk_under_the_snapshot_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(capturing.RetriableError, match="snapshot"):
        Snapshot(tmp_path / "no-such-folder" / "stats.divisions.sqlite")


_CHILD = """
import os, signal, sys, threading
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.capturing import *

class KilledPublisher(RecordingPublisher):
    '''Writes to a file that outlives it, as a topic does, and is killed before it can answer.'''
    def publish(self, resource, changes):
        with Path({topic!r}).open("a") as topic:
            for change in changes:
                name = None if change.row is None else change.row["name"]
                topic.write(json.dumps([change.key["code"], name]) + "\\n")
        os.kill(os.getpid(), signal.SIGKILL)

register = Register.__new__(Register)
register.path = Path({register!r}); register.url = make_url("sqlite:///" + {register!r})
Capture(register, Path({state!r})).poll(KilledPublisher())
"""


def test_a_process_killed_between_publishing_and_remembering_loses_no_later_change(
    capture: Capture, tmp_path: Path
) -> None:
    """A to B is published, the process dies, B goes back to A: the topic must end with A."""
    bus = RecordingPublisher()
    capture.poll(bus)
    capture.register.put("3308", "B")
    capture.close()
    topic = tmp_path / "topic"
    child = _CHILD.format(
        tests=str(Path(__file__).parents[1]),
        topic=str(topic),
        register=str(capture.register.path),
        state=str(tmp_path),
    )

    died = subprocess.run([sys.executable, "-c", textwrap.dedent(child)], check=False, capture_output=True)
    assert died.returncode == -9, died.stderr.decode()
    assert [json.loads(line) for line in topic.read_text().splitlines()] == [["3308", "B"]]
    capture.register.put("3308", "衢州市")
    capture.start()
    capture.poll(bus)

    assert bus.published[-1].key == {"code": "3308"}
    assert bus.topic["3308"]["name"] == "衢州市"
    assert capture.poll(bus) == 0
