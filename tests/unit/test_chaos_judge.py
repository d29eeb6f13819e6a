"""The judge of the chaos runs sees every kind of broken promise, and nothing in a stream that is right."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from chaos.judge import Broken, Findings, Judge, Seen
from chaos.model import Agreement, Barrier, Field, Rows, Source, Version, View, Written, keep, pseudonym
from chaos.views import EVERY_ROW, FILTERS, some_view
from govbus.pseudonym import derive_key
from govbus.rowfilter import parse_filter
from govbus.transform import compile_transform, parse_transform

KEY = keep("code")
HERE = Rows(sql="city = '3308'", true=lambda row: row["city"] == "3308")
FILTERED = View(rows=HERE, fields=(KEY, keep("staff")), key=KEY)
NARROW = View(rows=HERE, fields=(KEY,), key=KEY)
WHOLE = View(rows=EVERY_ROW, fields=(KEY, keep("staff")), key=KEY)


def a_source(*changes: tuple[str, str | None]) -> Source:
    """One partition of firms: code and city, or None where the firm was deleted."""
    source = Source(1)
    for number, (code, city) in enumerate(changes):
        row = None if city is None else {"code": code, "name": "n", "city": city, "staff": number}
        source.add(0, Written(code=code, row=row, at=1_000 + number))
    return source


def an_agreement(source: Source, *views: View) -> Agreement:
    versions = [Version(number=n, view=view, active=True) for n, view in enumerate(views, start=1)]
    return Agreement("delivered", source, versions)


def the_stream(agreement: Agreement, *, runs: list[tuple[int, int]] | None = None) -> list[Seen]:
    """What a faultless bus delivers: for each run, a version and how many source records it gets through."""
    stream: list[Seen] = []
    held: set[str] = set()
    for number, end in runs or [(len(agreement.versions), len(agreement.source))]:
        view = agreement.versions[number - 1].view
        for record in agreement.source.written[0][:end]:
            key = view.key.shown(record.code)
            row = None
            if record.row is not None and view.rows.true(record.row):
                row = view.show(record.row)
                held.add(key)
            elif view.filtered and key not in held:
                continue
            else:
                held.discard(key)
            stream.append(
                Seen(
                    partition=0,
                    offset=len(stream),
                    key=key,
                    row=row,
                    at=record.at,
                    version=None if row is None else number,
                )
            )
    return stream


def judged(agreement: Agreement, stream: list[Seen]) -> dict[Broken, int]:
    findings = Findings()
    judge = Judge(agreement, findings)
    for offset, seen in enumerate(stream):
        judge.take(replace(seen, offset=offset))
    judge.close()
    return dict(findings.counts)


SOURCE = a_source(
    ("a", "3308"), ("b", "1100"), ("a", "3308"), ("c", "3308"), ("a", "1100"), ("c", None), ("b", "3308")
)


@pytest.mark.parametrize("view", [FILTERED, NARROW, WHOLE])
def test_a_stream_that_is_right_is_found_right(view: View) -> None:
    agreement = an_agreement(SOURCE, view)

    assert judged(agreement, the_stream(agreement)) == {}


def test_after_an_amendment_the_subscriber_is_brought_on_from_the_beginning_once() -> None:
    agreement = an_agreement(SOURCE, FILTERED, WHOLE)
    right = the_stream(agreement, runs=[(1, 5), (2, 7)])
    twice = the_stream(agreement, runs=[(1, 5), (2, 7), (2, 7)])

    assert judged(agreement, right) == {}
    assert judged(agreement, twice)[Broken.DUPLICATED] > 0


@pytest.mark.parametrize("at", range(6))
def test_a_record_that_is_left_out_is_lost(at: int) -> None:
    agreement = an_agreement(SOURCE, WHOLE)
    stream = the_stream(agreement)

    assert judged(agreement, stream[:at] + stream[at + 1 :])[Broken.LOST] > 0


def test_a_stream_that_ends_too_early_has_lost_the_rest() -> None:
    agreement = an_agreement(SOURCE, FILTERED)

    assert judged(agreement, the_stream(agreement)[:-1])[Broken.LOST] > 0
    assert judged(agreement, [])[Broken.LOST] > 0


@pytest.mark.parametrize("at", range(6))
def test_a_record_that_comes_twice_is_duplicated(at: int) -> None:
    agreement = an_agreement(SOURCE, WHOLE)
    stream = the_stream(agreement)

    assert judged(agreement, [*stream[: at + 1], stream[at], *stream[at + 1 :]])[Broken.DUPLICATED] == 1


@pytest.mark.parametrize("at", range(6))
def test_records_that_change_places_are_found(at: int) -> None:
    agreement = an_agreement(SOURCE, WHOLE)
    stream = the_stream(agreement)
    stream[at], stream[at + 1] = stream[at + 1], stream[at]

    found = judged(agreement, stream)

    assert found[Broken.OUT_OF_ORDER] + found.get(Broken.DUPLICATED, 0) > 0


def test_an_older_version_after_a_newer_one_is_out_of_order() -> None:
    agreement = an_agreement(SOURCE, FILTERED, WHOLE)
    stream = the_stream(agreement, runs=[(2, 3), (1, 7)])

    assert judged(agreement, stream)[Broken.OUT_OF_ORDER] > 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"row": {"code": "a", "staff": 0, "name": "n"}}, id="a field that is not granted"),
        pytest.param({"row": {"code": "a", "staff": 1}}, id="another value"),
        pytest.param({"row": {"code": "a"}}, id="a field that is missing"),
        pytest.param({"key": "b"}, id="another row's key"),
        pytest.param({"at": 5}, id="from nowhere"),
        pytest.param({"at": 1_001}, id="a row outside the filter"),
        pytest.param({"version": 2}, id="a version that was never made"),
    ],
)
def test_what_is_not_granted_is_a_leak(change: dict[str, object]) -> None:
    agreement = an_agreement(SOURCE, FILTERED)
    stream = the_stream(agreement)

    assert judged(agreement, [replace(stream[0], **change), *stream[1:]])[Broken.LEAKED] > 0  # type: ignore[arg-type]


def test_a_tombstone_for_a_key_that_was_never_in_the_view_is_a_leak() -> None:
    agreement = an_agreement(a_source(("a", "1100"), ("a", None), ("b", "3308")), FILTERED)
    named = Seen(partition=0, offset=0, key="a", row=None, at=1_001, version=None)

    assert judged(agreement, [named, *the_stream(agreement)]) == {Broken.LEAKED: 1}


def test_a_row_that_does_not_leave_the_view_is_found() -> None:
    agreement = an_agreement(SOURCE, FILTERED)
    stream = [seen for seen in the_stream(agreement) if seen.row is not None]

    assert set(judged(agreement, stream)) == {Broken.LOST, Broken.LEAKED}


def test_nothing_may_follow_a_barrier_until_delivery_is_allowed_again() -> None:
    agreement = an_agreement(SOURCE, FILTERED)
    stream = the_stream(agreement)
    revoked = Barrier(offsets=[3], least_version=1, closed=True)
    agreement.barriers.append(revoked)
    agreement.open = False

    assert judged(agreement, stream[:3]) == {}
    assert judged(agreement, stream)[Broken.LEAKED] == len(stream) - 3
    agreement.open = True
    revoked.reopened.append(3)
    assert judged(agreement, stream) == {}


def test_an_older_version_may_not_follow_the_barrier_of_an_amendment() -> None:
    agreement = an_agreement(SOURCE, FILTERED, NARROW)
    stream = the_stream(agreement, runs=[(1, 4), (2, 7)])
    before = sum(1 for seen in stream if seen.version == 1)
    agreement.barriers.append(Barrier(offsets=[before], least_version=2, closed=False))

    assert judged(agreement, stream) == {}
    agreement.barriers[0] = Barrier(offsets=[before - 1], least_version=2, closed=False)
    assert judged(agreement, stream)[Broken.LEAKED] == 1


def test_a_suspended_version_delivers_nothing() -> None:
    agreement = an_agreement(SOURCE, FILTERED)
    stream = the_stream(agreement)
    agreement.versions[0] = replace(agreement.versions[0], active=False)

    assert judged(agreement, stream)[Broken.LEAKED] > 0


def test_an_event_has_one_delivery_and_is_never_taken_back() -> None:
    source = Source(1, event=True)
    for number, city in enumerate(("3308", "1100", "3308")):
        row = {"code": f"e{number}", "name": "", "city": city, "staff": number}
        source.add(0, Written(code=f"e{number}", row=row, at=number))
    agreement = an_agreement(source, FILTERED)
    stream = the_stream(agreement)

    assert judged(agreement, stream) == {}
    assert judged(agreement, [*stream, stream[-1]]) == {Broken.DUPLICATED: 1}


def test_the_model_s_own_transforms_are_those_that_the_grant_names() -> None:
    """Two readings of one specification; where they differ, one of them is wrong."""
    dice = random.Random(1)
    types = {"name": "string", "city": ["null", "string"], "staff": "int", "code": "string"}
    values = {"name": ["", "a", "ab", "abc", "衢州市"], "city": [None, "3308"], "staff": [0, 24, 99]}
    fields: dict[str, Field] = {}
    for _ in range(200):
        for field in some_view(dice, KEY).fields:
            fields[f"{field.name} {field.transform}"] = field
    assert len(fields) > 8

    for field in fields.values():
        change = compile_transform(parse_transform(field.transform), types[field.name])
        for value in values.get(field.name, ["k1"]):
            assert field.shown(value) == change(value)


def test_the_model_s_pseudonyms_are_those_of_the_bus() -> None:
    secret = b"s" * 64
    key = derive_key(secret, subscriber="tax", purpose="assessment", epoch=1)
    change = compile_transform(parse_transform("pseudonym"), "string", pseudonym_key=key)

    assert pseudonym("code", secret, "tax", "assessment").shown("k1") == change("k1")


def test_the_model_s_filters_are_those_that_the_grant_words() -> None:
    types = {"code": "string", "name": "string", "city": ["null", "string"], "staff": "int"}
    rows = [
        {"code": "k", "name": "n", "city": city, "staff": staff}
        for city in ("3308", "3301", "1100", "3100", None)
        for staff in (0, 9, 10, 20, 29, 30, 80, 81)
    ]
    for each in FILTERS:
        if each.sql is None:
            continue
        parsed = parse_filter(each.sql, types)
        matches = parsed.compile()
        for row in rows:
            assert each.true(row) == (matches(*(row[name] for name in parsed.fields)) is True), each.sql
