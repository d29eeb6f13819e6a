"""Whatever a table goes through, and wherever the process dies, the topic ends as the table is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from govbus_producers import polling
from govbus_producers.config import TableConfig
from support.capturing import Capture, CrashingPublisher, RecordingPublisher, Register, column_mode

CODES = st.sampled_from(["33", "3308", "330802", "甲", "34"])
# Few names, so that a row often goes back to what it was; None breaks the contract.
NAMES = st.sampled_from(["A", "B", None])

STEPS = st.one_of(
    st.tuples(st.just("put"), CODES, NAMES),
    st.tuples(st.just("remove"), CODES),
    st.tuples(st.just("poll")),
    st.tuples(st.just("crash"), st.integers(0, 4)),
    st.tuples(st.just("restart")),
)

TABLES = {"hash": TableConfig(resource="divisions", table="divisions"), "column": column_mode(sweep_every=3)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=14), mode=st.sampled_from(sorted(TABLES)), batch=st.integers(1, 3))
def test_after_any_history_with_any_crashes_the_topic_is_the_table(
    steps: list[tuple[Any, ...]], mode: str, batch: int
) -> None:
    """Rows that break the contract are the exception: of them the topic keeps the last good state."""
    before = polling.READ_ROWS, polling.BATCH_ROWS
    polling.READ_ROWS, polling.BATCH_ROWS = batch + 1, batch
    try:
        with tempfile.TemporaryDirectory() as folder:
            _check(steps, TABLES[mode], Path(folder))
    finally:
        polling.READ_ROWS, polling.BATCH_ROWS = before


def _check(steps: list[tuple[Any, ...]], table: TableConfig, folder: Path) -> None:
    register = Register(folder / "register.db")
    capture = Capture(register, folder, table=table)
    bus = RecordingPublisher()
    version = 0
    for step, *arguments in steps:
        version += 1
        match step:
            case "put":
                code, name = arguments
                register.put(code, name, version=version)
            case "remove":
                register.remove(*arguments)
            case "poll":
                capture.poll(bus)
            case "crash":
                capture.crash(CrashingPublisher(bus, survives=arguments[0]))
            case "restart":
                capture.close()
                capture.start()
    for _ in range(table.sweep_every if table.column else 1):
        capture.poll(bus)
    quiet = capture.poll(bus)
    capture.close()

    at_source = register.rows()
    good = {code: row for code, row in at_source.items() if row["name"] is not None}
    assert {code: row for code, row in bus.topic.items() if code in good} == good
    assert all(code in at_source for code in bus.topic)
    assert quiet == 0
