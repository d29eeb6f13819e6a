"""Quotas: whatever arrives and whichever worker serves it, no day brings more, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from govbus import topics
from govbus.catalogue import ShareType
from govbus.codec import Schema, decode_body, parse_schema, unframe
from govbus.errors import GrantRefusedError
from govbus.grant import GrantState
from govbus.policy import check_grant
from govbus_processors.batch import Place
from govbus_processors.quotas import share
from govbus_processors.reader import Stretch
from govbus_processors.routes import Policy
from support.intake_bench import BUS_SCHEMAS, IntakeBench
from support.policies import (
    CONTRACT,
    KEY,
    SOURCE,
    VALUE,
    a_grant,
    a_policy,
    firm,
    published,
    rules,
)

TAX, HEALTH = "govbus.delivered.tax.tax-firms", "govbus.delivered.health.health-firms"
DAY = timedelta(days=1)
PLACE = (SOURCE, 0)


class Known:
    """A registry that knows the schemas of a policy and the bus's own."""

    def __init__(self, policy: Policy) -> None:
        self.schemas = {VALUE.id: VALUE, KEY.id: KEY} | {s.id: s for s in BUS_SCHEMAS.values()}
        self.learn(policy)

    def learn(self, policy: Policy) -> None:
        for route in policy.routes[SOURCE]:
            first = route.first
            self.schemas[first.value_schema_id] = parse_schema(first.value_schema_id, route.view_raw)

    def schema(self, schema_id: int) -> Schema:
        return self.schemas[schema_id]

    def decode(self, data: bytes) -> dict[str, Any]:
        schema_id, body = unframe(data)
        return decode_body(self.schemas[schema_id], body)


class Log:
    """The broker's logs as a reader sees them: the source, and what was committed on delivery topics."""

    def __init__(self, bench: IntakeBench, source: list[Any]) -> None:
        self._bench, self._source = bench, source

    def end(self, place: Place) -> int:
        return len(self._source if place == PLACE else self._bench.sent(place[0]))

    def topic_id(self, topic: str) -> str:
        return f"{topic} of this test"  # no checkpoint is of it

    def read(self, place: Place, start: int, *, limit: int, seconds: float) -> Stretch:
        if place == PLACE:
            found = self._source[start : start + limit]
        else:
            sent = self._bench.sent(place[0])[start : start + limit]
            found = [
                SimpleNamespace(
                    key=lambda one=one: one.key,
                    value=lambda one=one: one.value,
                    offset=lambda offset=start + n: offset,
                )
                for n, one in enumerate(sent)
            ]
        return Stretch(found, start + len(found), start + len(found) >= self.end(place))


class World:
    """A worker with a metered grant (tax) and one without (health), and the days on which it delivers."""

    def __init__(self, *, rows: str | None = None, **quota: int | None) -> None:
        self.agreed = a_grant(rows=rows, **quota)
        self.health = published(a_grant(id="health-firms", subscriber="health"), value_schema_id=220)
        self.policy = a_policy(published(self.agreed), self.health)
        # What happens when a quota keeps a grant behind for longer is in tests/unit/test_intake_turns.py.
        self._known = Known(self.policy)
        self.bench = IntakeBench(self.policy, self._known, sweep_after_seconds=1e8)
        self.bench.now = datetime(2026, 3, 1, 1, tzinfo=UTC)
        self.source: list[Any] = []
        self.bench.intake._reader = Log(self.bench, self.source)
        self.by_day: dict[str, list[Any]] = {}

    def arrive(self, *codes: str, city: str = "3308") -> None:
        """Rows change at the owner."""
        start = len(self.source)
        self.source += [firm(start + n, code, city=city) for n, code in enumerate(codes)]
        self._read_on()

    def settle(self) -> None:
        """Let the worker turn until nothing is left that it may do."""
        intake = self.bench.intake
        while True:
            held = intake._holder(self.bench.now)
            policy = self.bench.directory.policy
            behind = intake._cursors.behind(policy, now=self.bench.now, fresh=True, held=held)
            if intake._loader:
                intake._load_some()
            elif behind:
                self._noting(lambda behind=behind: intake._catch_up(*behind[0]))
            elif self._read_to < len(self.source):
                self._read_on()  # a batch that was set back
            else:
                return

    @property
    def _read_to(self) -> int:
        return self.bench.intake._cursors.position(PLACE) or 0

    def _read_on(self) -> None:
        self._noting(lambda: self.bench.live(self.source[self._read_to :]))

    def amend(self, **changes: Any) -> None:
        """Another version of the metered grant."""
        version = self.agreed.version + 1
        self.agreed = replace(self.agreed, version=version, **changes)
        self.policy = a_policy(published(self.agreed, value_schema_id=1_000 + version), self.health)
        self._known.learn(self.policy)
        self.bench.directory.policy = self.policy

    def renew(self) -> None:
        """A later end, and nothing else."""
        self.amend(expires_at=self.agreed.expires_at + 30 * DAY)

    def change_rows(self) -> None:
        """Another view: it is delivered from the start again."""
        self.amend(rows=None if self.agreed.rows else "code <> 'A'")

    def change_fields(self) -> None:
        """Another view again, with a field less or more."""
        fewer = rules("code")
        self.amend(fields=rules("code", "name") if self.agreed.fields == fewer else fewer)

    def suspend_or_resume(self) -> None:
        active = self.agreed.state is GrantState.ACTIVE
        self.amend(state=GrantState.SUSPENDED if active else GrantState.ACTIVE)

    def lose_and_find(self) -> None:
        """A worker that cannot read the grant for a while has no route for it, and then has it again."""
        self.bench.directory.policy = a_policy(self.health)
        self.arrive("Z")
        self.bench.directory.policy = self.policy

    def next_day(self) -> None:
        self.bench.now += DAY

    def replace_worker(self) -> None:
        """Another worker takes the partition over."""
        self.bench.restart([PLACE])

    def _noting(self, step: Any) -> None:
        before = len(self.bench.sent(TAX))
        step()
        self.by_day.setdefault(str(self.bench.now.date()), []).extend(self.bench.sent(TAX)[before:])

    def delivered(self, topic: str = TAX) -> list[str]:
        """Keys on a delivery topic, in order."""
        return [decode_body(KEY, unframe(one.key)[1])["code"] for one in self.bench.sent(topic)]

    def held(self) -> list[dict[str, str]]:
        self.bench.intake._looked_at = float("-inf")
        return self.bench.intake._held_routes()

    def reasons(self) -> Counter[str]:
        """Decisions about tax, by reason."""
        found = [
            decode_body(BUS_SCHEMAS["decision"], unframe(o.value)[1])
            for o in self.bench.sent(topics.DECISIONS)
        ]
        return Counter(d["reason"] for d in found if d["grant"] == "tax-firms")


def test_a_grant_stands_still_at_its_quota_and_the_others_go_on() -> None:
    world = World(quota_records_per_day=3)

    world.arrive("A", "B")
    world.arrive("C", "D", "E")
    world.settle()
    world.arrive("F")
    world.settle()

    assert world.delivered() == ["A", "B", "C"]
    assert world.delivered(HEALTH) == ["A", "B", "C", "D", "E", "F"]
    assert world.held() == [{"grant": "tax-firms", "reason": "quota-used-up"}]
    assert world.reasons()["quota-used-up"] == 1


def test_on_the_next_day_it_goes_on_where_it_stopped() -> None:
    world = World(quota_records_per_day=3)
    world.arrive("A", "B", "C", "D", "E")
    world.settle()

    world.next_day()
    world.settle()

    assert world.delivered() == ["A", "B", "C", "D", "E"]
    assert world.held() == []
    world.arrive("F")
    assert world.delivered()[-1] == "F", "live again"


def test_a_day_ends_at_midnight_in_the_zone_that_is_set() -> None:
    """16:00 UTC is midnight in Shanghai, the default."""
    world = World(quota_records_per_day=1)
    world.bench.now = datetime(2026, 3, 1, 15, 59, 59, tzinfo=UTC)
    world.arrive("A", "B")
    world.settle()
    assert world.delivered() == ["A"]

    world.bench.now = datetime(2026, 3, 1, 16, 0, tzinfo=UTC)
    world.settle()

    assert world.delivered() == ["A", "B"]
    assert world.bench.now.astimezone(ZoneInfo("Asia/Shanghai")).hour == 0


def test_a_quota_that_is_raised_lets_more_through_on_the_same_day() -> None:
    world = World(quota_keys_per_day=2)
    world.arrive("A", "B", "C", "D", "E")
    world.settle()
    assert world.delivered() == ["A", "B"]

    world.amend(quota_keys_per_day=4)
    world.settle()

    assert world.delivered() == ["A", "B", "C", "D"]


def test_a_deletion_is_a_record_too() -> None:
    from support.policies import gone

    world = World(quota_records_per_day=2)
    world.arrive("A")
    world.source.append(gone(1, "A"))
    world.bench.live(world.source[1:])
    world.arrive("B")
    world.settle()

    assert world.delivered() == ["A", "A"]


def test_a_key_that_was_delivered_today_costs_nothing_more() -> None:
    world = World(quota_keys_per_day=2)

    world.arrive("A", "B", "A", "B", "A")
    world.settle()
    world.arrive("B", "C", "A")
    world.settle()

    assert world.delivered() == ["A", "B", "A", "B", "A", "B"]
    assert world.held() == [{"grant": "tax-firms", "reason": "quota-used-up"}]
    world.next_day()
    world.settle()
    assert world.delivered()[-2:] == ["C", "A"]


def test_rows_that_the_filter_keeps_back_do_not_count() -> None:
    world = World(rows="city = '3308'", quota_records_per_day=2)

    world.arrive("A", "B", "C", city="1100")
    world.arrive("D", "E")
    world.settle()

    assert world.delivered() == ["D", "E"]


def test_a_worker_that_takes_over_counts_on() -> None:
    world = World(quota_records_per_day=3)
    world.arrive("A", "B")

    world.replace_worker()
    world.arrive("C", "D")
    world.settle()

    assert world.delivered() == ["A", "B", "C"]


def test_a_worker_that_takes_over_delivers_nothing_before_it_knows_the_keys_of_the_day() -> None:
    world = World(quota_keys_per_day=2)
    world.arrive("A", "B")
    world.replace_worker()

    world.arrive("A", "C")

    assert world.delivered() == ["A", "B"]
    assert world.reasons()["quota-unknown"] == 1
    world.settle()
    assert world.delivered() == ["A", "B", "A"]


def test_a_batch_that_is_set_back_is_not_counted() -> None:
    world = World(quota_records_per_day=2, quota_keys_per_day=2)
    intake = world.bench.intake
    honest, intake._put_report = intake._put_report, broker_away

    world.arrive("A", "B")
    intake._put_report = honest
    world.bench.live(world.source)
    world.settle()

    assert world.delivered() == ["A", "B"]


def broker_away(*_: object, **__: object) -> None:
    from govbus.errors import BrokerUnavailableError

    raise BrokerUnavailableError("away")


_STEPS = st.lists(
    st.one_of(
        st.lists(st.sampled_from("ABCDEFGH"), min_size=1, max_size=12).map(lambda codes: ("arrive", codes)),
        st.sampled_from([("settle", []), ("next_day", []), ("replace_worker", [])]),
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=150)
@given(
    steps=_STEPS,
    records=st.one_of(st.none(), st.integers(1, 9)),
    keys=st.one_of(st.none(), st.integers(1, 5)),
    rows=st.sampled_from([None, "code <> 'A'"]),
)
@example(
    steps=[("arrive", list("ABCAB")), ("settle", []), ("arrive", list("A"))], records=None, keys=2, rows=None
)
def test_a_day_never_brings_more_and_nothing_is_lost_or_reordered(
    steps: list[tuple[str, list[str]]], records: int | None, keys: int | None, rows: str | None
) -> None:
    world = World(rows=rows, quota_records_per_day=records, quota_keys_per_day=keys)
    for name, codes in steps:
        getattr(world, name)(*codes)
    for _ in range(len(world.source) + 1):
        world.settle()
        world.next_day()

    for day, outputs in world.by_day.items():
        assert records is None or len(outputs) <= records, day
        assert keys is None or len({one.key for one in outputs}) <= keys, day
    arrived = [decode_body(KEY, unframe(one.key())[1])["code"] for one in world.source]
    assert world.delivered() == [code for code in arrived if rows is None or code != "A"]
    assert world.delivered(HEALTH) == arrived


_VERSIONS = ("renew", "change_rows", "change_fields", "suspend_or_resume", "lose_and_find")


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.sampled_from("AABC"), min_size=1, max_size=4).map(lambda codes: ("arrive", codes)),
            st.sampled_from([("next_day", []), ("replace_worker", [])]),
            st.sampled_from([(name, []) for name in _VERSIONS]),
        ),
        max_size=14,
    ),
    records=st.one_of(st.none(), st.integers(1, 4)),
    keys=st.one_of(st.none(), st.integers(1, 2)),
)
@example(steps=[("arrive", list("ABC")), ("renew", []), ("arrive", list("DEF"))], records=3, keys=None)
@example(steps=[("change_rows", []), ("arrive", list("ABB")), ("change_fields", [])], records=3, keys=None)
@example(
    steps=[
        ("arrive", list("AB")),
        ("suspend_or_resume", []),
        ("arrive", list("C")),
        ("suspend_or_resume", []),
    ],
    records=None,
    keys=2,
)
def test_no_version_of_a_grant_brings_more_than_the_quota_of_the_day(
    steps: list[tuple[str, list[str]]], records: int | None, keys: int | None
) -> None:
    """Renewed, amended, suspended, resumed: it is one grant with one delivery topic; its day goes on."""
    world = World(quota_records_per_day=records, quota_keys_per_day=keys)
    for name, codes in steps:
        getattr(world, name)(*codes)
        world.settle()

    for day, outputs in world.by_day.items():
        assert records is None or len(outputs) <= records, day
        assert keys is None or len({one.key for one in outputs}) <= keys, day


def test_what_is_brought_again_under_a_new_view_counts_against_the_same_day() -> None:
    world = World(quota_records_per_day=3)
    world.arrive("A", "B")

    world.change_fields()
    world.settle()

    assert world.delivered() == ["A", "B", "A"]
    assert world.held() == [{"grant": "tax-firms", "reason": "quota-used-up"}]


@given(quota=st.integers(1, 10_000), partitions=st.integers(1, 64))
def test_the_shares_of_all_partitions_make_up_the_quota(quota: int, partitions: int) -> None:
    shares = [share(quota, partition, partitions) for partition in range(partitions)]

    assert sum(shares) == quota
    assert max(shares) - min(shares) <= 1
    assert share(quota, partitions, partitions) == 0, "a partition that the catalogue does not know"


def test_a_quota_that_leaves_a_partition_with_nothing_is_refused() -> None:
    wide = replace(CONTRACT, partitions=4)
    check_grant(a_grant(quota_records_per_day=4), wide, ShareType.CONDITIONAL)

    with pytest.raises(GrantRefusedError, match="4 partitions"):
        check_grant(a_grant(quota_records_per_day=3), wide, ShareType.CONDITIONAL)
    with pytest.raises(GrantRefusedError, match="4 partitions"):
        check_grant(a_grant(quota_keys_per_day=3), wide, ShareType.CONDITIONAL)
