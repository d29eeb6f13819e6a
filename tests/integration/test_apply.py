"""Applying brings topics, users, permissions, schemas and policy in line, and may be cut short."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from govbus import topics
from govbus.errors import BrokerUnavailableError, CatalogueError, FencedError, GrantRefusedError
from govbus_console.acls import shared_acl
from govbus_console.control import outbox
from govbus_console.control.apply import StalePlanError, apply_catalogue, settle
from govbus_console.control.catalogue_file import read_catalogue
from govbus_console.control.store import ControlStore
from support.control import CONTRACT, ControlSide, read_all


def test_a_catalogue_becomes_topics_users_and_policy(control: ControlSide) -> None:
    control.apply()

    there = control.bus.cluster.topics()
    captured = topics.captured(control.owner, "residents")
    delivered = topics.delivered(control.health, control.health_grant)
    assert there[captured] == there[delivered] == 2
    assert there[topics.dead_letter(control.owner, "residents")] == 1
    assert control.bus.cluster.topic_config(delivered)["cleanup.policy"] == "compact"
    (resource,) = control.policy(f"{control.owner}.residents")
    (grant,) = control.policy(control.health_grant)
    assert control.bus.registry.latest(f"{captured}-value").id == resource["value_schema_id"]
    assert (grant["delivery_topic"], grant["state"], grant["version"]) == (delivered, "active", 1)
    assert [field["name"] for field in grant["fields"]] == ["id_number", "street"]
    assert grant["key_schema_id"] == resource["key_schema_id"]
    (told,) = control.told(control.health)
    assert (told["grant"], told["topic"], told["partitions"]) == (control.health_grant, delivered, 2)
    assert told["value_schema_id"] == grant["value_schema_id"]


def test_the_view_schema_carries_the_agreement(control: ControlSide) -> None:
    control.apply()
    control.write(purpose="Screening")
    control.apply()

    versions = control.policy(control.health_grant)
    schemas = [control.bus.registry.schema(version["value_schema_id"]).raw for version in versions]

    assert [schema["govbus"] for schema in schemas] == [
        {"grant": control.health_grant, "version": 1, "purpose": "Vaccination"},
        {"grant": control.health_grant, "version": 2, "purpose": "Screening"},
    ]
    assert [field["name"] for field in schemas[1]["fields"]] == ["id_number", "street"]


def test_a_grant_may_be_narrowed(control: ControlSide) -> None:
    """No registry rule stands in the way of taking a field without default away."""
    control.apply()
    control.write(
        change=(
            "fields: [id_number, street]\n    rows: all\n    purpose: Vaccination",
            "fields: [id_number]\n    rows: all\n    purpose: Vaccination",
        )
    )

    control.apply()

    assert [len(version["fields"]) for version in control.policy(control.health_grant)] == [2, 1]


def test_applying_again_changes_nothing(control: ControlSide) -> None:
    first = control.apply()

    again = control.apply(after=timedelta(hours=1))

    assert first.plan.pending
    assert first.published == 5
    assert (again.plan.pending, again.published) == (False, 0)
    assert len(control.policy(control.health_grant)) == 1


def test_each_department_reads_its_own_and_nothing_else(control: ControlSide) -> None:
    control.apply()
    own, other = (topics.subscriptions(name) for name in (control.health, control.tax))

    records = read_all(control.running.client(control.health), own)

    assert len(records) == 1
    with pytest.raises((AssertionError, KafkaException), match="TOPIC_AUTHORIZATION_FAILED"):
        read_all(control.running.client(control.health), other)


def test_passwords_are_made_once_and_for_their_owner_only(control: ControlSide) -> None:
    control.apply()
    file = control.running.home.password_file(control.health)
    before = file.read_text(encoding="utf-8")

    control.write(purpose="Screening")
    control.apply()

    assert file.read_text(encoding="utf-8") == before
    assert file.stat().st_mode & 0o077 == 0


def test_grants_with_one_view_share_one_topic(control: ControlSide) -> None:
    control.write(share_type="unconditional")
    control.apply()

    (health,), (tax,) = (control.policy(name) for name in (control.health_grant, control.tax_grant))

    topic = health["delivery_topic"]
    assert topic == tax["delivery_topic"]
    assert topic.startswith(f"govbus.shared.{control.owner}.residents.")
    assert health["value_schema_id"] == tax["value_schema_id"]
    assert control.bus.registry.schema(health["value_schema_id"]).raw["govbus"] == {
        "view": health["view"],
        "contract": 1,
    }
    for department in (control.health, control.tax):
        assert shared_acl(department, topic) in control.bus.cluster.acls(department)
    assert shared_acl(control.owner, topic) not in control.bus.cluster.acls(control.owner)


def test_a_shared_topic_is_open_only_during_the_term(control: ControlSide) -> None:
    control.write(share_type="unconditional")
    control.apply()
    topic = control.policy(control.tax_grant)[0]["delivery_topic"]

    settle(control.store, control.bus, now=datetime.now(UTC) + timedelta(days=31))

    assert shared_acl(control.tax, topic) not in control.bus.cluster.acls(control.tax)


def test_withholding_a_resource_is_published_and_closes_its_shared_topic(control: ControlSide) -> None:
    control.write(share_type="unconditional")
    control.apply()
    topic = control.policy(control.tax_grant)[0]["delivery_topic"]

    control.write(share_type="withheld")
    control.apply()

    assert [r["share_type"] for r in control.policy(f"{control.owner}.residents")][-1] == "withheld"
    assert shared_acl(control.tax, topic) not in control.bus.cluster.acls(control.tax)


def test_a_refused_catalogue_leaves_no_trace(control: ControlSide) -> None:
    control.write(change=("[id_number, street]", "[id_number, strett]"))
    before = control.bus.cluster.topics().keys()

    with pytest.raises(GrantRefusedError, match="strett"):
        control.apply()

    assert control.store.snapshot().departments == {}
    assert not any(control.owner in name for name in control.bus.cluster.topics().keys() - before)
    assert not control.bus.cluster.has_user(control.owner)


def test_a_contract_that_breaks_its_readers_is_refused(control: ControlSide) -> None:
    control.apply()
    broken = CONTRACT | {
        "govbus": CONTRACT["govbus"] | {"version": 2},
        "fields": [*CONTRACT["fields"], {"name": "floor", "type": "int", "classification": "internal"}],
    }
    control.write(contract=broken)

    with pytest.raises(CatalogueError, match="give a new field a default"):
        control.apply()

    assert control.store.snapshot().resources[f"{control.owner}.residents"].contract.version == 1
    broken["fields"][-1]["default"] = 0
    control.write(contract=broken)
    control.apply()
    assert [r["contract_version"] for r in control.policy(f"{control.owner}.residents")] == [1, 2]


def _fail(*_args: object, **_more: object) -> list[int]:
    raise BrokerUnavailableError("pulled the plug")


def test_a_crash_between_store_and_broker_is_made_good(
    control: ControlSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "publish", _fail)
    with pytest.raises(BrokerUnavailableError, match="plug"):
        control.apply()
    decided = control.store.snapshot().grants.keys()
    unsaid = control.policy(control.health_grant)
    monkeypatch.undo()

    again = control.apply()

    assert decided == {control.health_grant, control.tax_grant}
    assert unsaid == []
    assert (again.plan.pending, again.published) == (False, 5)
    assert len(control.policy(control.health_grant)) == 1
    assert outbox.pending(control.store) == 0


def test_a_crash_after_publishing_repeats_and_does_no_harm(
    control: ControlSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_mark", _fail)
    with pytest.raises(BrokerUnavailableError, match="plug"):
        control.apply()
    monkeypatch.undo()

    control.apply()

    first, second = control.policy(control.health_grant)
    assert first == second
    assert outbox.pending(control.store) == 0


def test_what_is_published_becomes_visible_together(
    control: ControlSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.apply()
    control.write(purpose="Screening")

    class DiesBeforeCommit(Producer):  # type: ignore[misc]
        def commit_transaction(self, *_args: object) -> None:
            self.flush(10)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr(outbox, "Producer", DiesBeforeCommit)
    with pytest.raises(BrokerUnavailableError, match="publish"):
        control.apply()
    monkeypatch.undo()

    # The next publisher aborts what the first had left open; nobody saw any of it.
    settle(control.store, control.bus, now=datetime.now(UTC))

    assert [v["purpose"] for v in control.policy(control.health_grant)] == ["Vaccination", "Screening"]


def test_a_publisher_that_was_overtaken_cannot_publish(
    control: ControlSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen with an older state in its hands, it must not put that after the newer one."""
    control.apply()
    topic = topics.subscriptions(control.health)
    broker = control.bus.broker
    before = len(read_all(control.running.client(), topic))

    class Overtaken(Producer):  # type: ignore[misc]
        def commit_transaction(self, *seconds: float) -> None:
            monkeypatch.undo()
            outbox.publish(broker, [{"topic": topic, "key": b"k", "value": b"newer"}])
            super().commit_transaction(*seconds)

    monkeypatch.setattr(outbox, "Producer", Overtaken)
    with pytest.raises(FencedError):
        outbox.publish(broker, [{"topic": topic, "key": b"k", "value": b"older"}])

    records = read_all(control.running.client(), topic)
    assert [record.value() for record in records[before:]] == [b"newer"]


def test_a_plan_made_before_somebody_elses_write_is_not_carried_out(control: ControlSide) -> None:
    control.apply()
    control.write(purpose="Screening")
    catalogue = read_catalogue(control.file)
    real = control.store.snapshot()

    class Earlier(ControlStore):
        """Answers with what was so before the other's write."""

        def snapshot(self) -> object:  # type: ignore[override]
            return real

    control.apply()
    stale = Earlier(f"sqlite:///{control.folder / 'control.db'}")

    with pytest.raises(StalePlanError):
        apply_catalogue(catalogue, stale, control.bus, who="tester", why="late", now=datetime.now(UTC))

    stale.close()
    assert control.store.snapshot().grants[control.health_grant].grant.version == 2
