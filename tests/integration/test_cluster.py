"""The control side's calls, and what the broker then lets each principal do."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from govbus import topics
from govbus.errors import AccessDeniedError, BrokerUnavailableError, RefusedError
from govbus_console.acls import shared_acl
from govbus_console.cluster import COMPACTED, DAY_MS, Cluster, TopicSpec
from support.broker import Department, RunningBus, unique_name

DepartmentFactory = Callable[[str], Department]


def produce(config: dict[str, object], topic: str, value: bytes = b"v", key: bytes = b"k") -> int | None:
    """Write one record; gives the error's code, or None."""
    errors: list[KafkaError | None] = []
    producer = Producer({**config, "message.timeout.ms": 10_000, "log_level": 0})
    try:
        producer.produce(topic, value=value, key=key, on_delivery=lambda error, _: errors.append(error))
    finally:
        producer.flush(15)
    assert len(errors) == 1
    return None if errors[0] is None else errors[0].code()


def read_one(config: dict[str, object], topic: str, group: str) -> bytes | int:
    """Read the first record of a topic; gives its value, or the error's code."""
    consumer = Consumer(
        {
            **config,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(20)
        assert message is not None, "neither a record nor an error"
        error = message.error()
        return error.code() if error is not None else (message.value() or b"")
    finally:
        consumer.close()


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class TestTopics:
    def test_a_topic_is_made_once_and_asking_again_changes_nothing(self, cluster: Cluster) -> None:
        spec = TopicSpec.compacted(topics.captured(unique_name("a"), "r"), partitions=2)

        first = cluster.ensure_topic(spec)
        again = cluster.ensure_topic(spec)

        assert (first.created, first.changed) == (True, {})
        assert (again.created, again.changed) == (False, {})
        assert cluster.topics()[spec.name] == 2
        settings = cluster.topic_config(spec.name)
        assert {name: settings[name] for name in COMPACTED} == COMPACTED

    def test_a_setting_that_differs_is_corrected_and_reported(self, cluster: Cluster) -> None:
        name = unique_name("log")
        cluster.ensure_topic(TopicSpec.retained(name, retention_ms=DAY_MS))

        outcome = cluster.ensure_topic(TopicSpec.retained(name, retention_ms=2 * DAY_MS))

        assert outcome.changed == {"retention.ms": (str(DAY_MS), str(2 * DAY_MS))}
        assert cluster.topic_config(name)["retention.ms"] == str(2 * DAY_MS)

    def test_a_topic_never_shrinks(self, cluster: Cluster) -> None:
        name = unique_name("log")
        cluster.ensure_topic(TopicSpec.retained(name, retention_ms=-1, partitions=2))

        with pytest.raises(RefusedError, match="cannot have fewer"):
            cluster.ensure_topic(TopicSpec.retained(name, retention_ms=-1, partitions=1))

        assert cluster.topics()[name] == 2

    def test_a_table_keeps_its_partitions_because_keys_would_move(self, cluster: Cluster) -> None:
        name = unique_name("table")
        cluster.ensure_topic(TopicSpec.compacted(name))

        with pytest.raises(RefusedError, match="keys would move"):
            cluster.ensure_topic(TopicSpec.compacted(name, partitions=2))

        assert cluster.topics()[name] == 1

    def test_a_log_may_grow(self, cluster: Cluster) -> None:
        name = unique_name("log")
        cluster.ensure_topic(TopicSpec.retained(name, retention_ms=-1))

        outcome = cluster.ensure_topic(TopicSpec.retained(name, retention_ms=-1, partitions=3))

        assert outcome.changed == {"partitions": ("1", "3")}
        assert cluster.topics()[name] == 3

    def test_when_one_topic_is_refused_none_is_made(self, cluster: Cluster) -> None:
        there, new = unique_name("table"), unique_name("new")
        cluster.ensure_topic(TopicSpec.compacted(there))

        with pytest.raises(RefusedError):
            cluster.ensure_topics([TopicSpec.compacted(new), TopicSpec.compacted(there, partitions=2)])

        assert new not in cluster.topics()

    def test_a_deleted_topic_is_gone_and_deleting_it_again_is_no_error(self, cluster: Cluster) -> None:
        name = unique_name("log")
        cluster.ensure_topic(TopicSpec.retained(name, retention_ms=-1))

        assert cluster.delete_topic(name) is True

        assert name not in cluster.topics()
        assert cluster.delete_topic(name) is False

    def test_end_offsets_count_what_was_written(self, cluster: Cluster, bus: RunningBus) -> None:
        name = unique_name("log")
        cluster.ensure_topic(TopicSpec.retained(name, retention_ms=-1, partitions=2))
        assert cluster.end_offsets(name) == {0: 0, 1: 0}

        produce(bus.client(), name)

        assert sum(cluster.end_offsets(name).values()) == 1
        assert cluster.end_offsets(unique_name("absent")) == {}

    def test_committed_end_offsets_stop_before_an_open_transaction(
        self, cluster: Cluster, bus: RunningBus
    ) -> None:
        name = unique_name("log")
        cluster.ensure_topic(TopicSpec.retained(name, retention_ms=-1))
        producer = Producer(bus.client(transactional_id=unique_name("t")))
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(name, b"v")
        producer.flush(20)

        while_open = cluster.end_offsets(name, committed=True), cluster.end_offsets(name)
        producer.commit_transaction(20)

        assert while_open == ({0: 0}, {0: 1})
        # The broker confirms a commit before it has marked every partition.
        eventually(lambda: cluster.end_offsets(name, committed=True) == {0: 2})

    def test_nobody_makes_a_topic_by_writing_to_it(self, bus: RunningBus) -> None:
        name = unique_name("never-made")

        code = produce(bus.client(), name)

        assert code in {
            KafkaError._UNKNOWN_TOPIC,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError._MSG_TIMED_OUT,
        }
        assert name not in bus.cluster.topics()


class TestUsers:
    def test_a_wrong_password_is_access_denied_and_soon(self, bus: RunningBus) -> None:
        stranger = Cluster(bus.client() | {"sasl.password": "not the password"})

        with pytest.raises(AccessDeniedError) as caught:
            stranger.topics()

        assert "not the password" not in str(caught.value)

    def test_a_new_password_replaces_the_old_one(self, bus: RunningBus) -> None:
        name = unique_name("user")
        bus.cluster.ensure_user(name, "the first password")
        bus.cluster.ensure_user(name, "the second password")

        as_user = bus.client() | {"sasl.username": name}
        Cluster(as_user | {"sasl.password": "the second password"}).topics()
        with pytest.raises(AccessDeniedError):
            Cluster(as_user | {"sasl.password": "the first password"}).topics()

    def test_a_deleted_user_has_neither_password_nor_permissions(self, bus: RunningBus) -> None:
        gone = bus.department("gone")

        assert bus.cluster.delete_user(gone.name) is True

        assert bus.cluster.acls(gone.name) == frozenset()
        assert bus.cluster.delete_user(gone.name) is False
        with pytest.raises(AccessDeniedError):
            Cluster(gone.client()).topics()

    def test_a_broker_that_is_away_is_unavailable(self) -> None:
        nobody = Cluster({"bootstrap.servers": "127.0.0.1:1"}, timeout=1.0)

        with pytest.raises(BrokerUnavailableError):
            nobody.topics()


class TestPermissions:
    def test_permissions_are_given_once(self, cluster: Cluster) -> None:
        name = unique_name("dept")
        cluster.allow_owner(name)
        there = cluster.acls(name)

        cluster.allow_owner(name)

        assert cluster.acls(name) == there != frozenset()

    def test_an_owner_writes_and_reads_what_it_captures(
        self, cluster: Cluster, department: DepartmentFactory
    ) -> None:
        stats = department("stats")
        topic = topics.captured(stats.name, "divisions")
        cluster.ensure_topic(TopicSpec.compacted(topic))

        assert produce(stats.client(enable_idempotence=True), topic) is None
        assert read_one(stats.client(), topic, f"{stats.name}.check") == b"v"

    def test_an_owner_cannot_write_for_another(self, cluster: Cluster, department: DepartmentFactory) -> None:
        stats, civil = department("stats"), department("civil")
        topic = topics.captured(civil.name, "residents")
        cluster.ensure_topic(TopicSpec.compacted(topic))

        assert produce(stats.client(), topic) == KafkaError.TOPIC_AUTHORIZATION_FAILED
        assert sum(cluster.end_offsets(topic).values()) == 0

    @pytest.mark.parametrize(
        "pattern",
        [
            "govbus.captured.{other}.r",
            "govbus.delivered.{other}.g",
            "govbus.subscriptions.{other}",
            "govbus.shared.{other}.r.v",
            "govbus.dead-letter.{other}.r",
            topics.GRANTS,
            topics.DECISIONS,
            topics.WORKERS,
            topics.PROGRESS,
        ],
    )
    def test_a_department_can_neither_read_nor_write_what_is_not_its_own(
        self, cluster: Cluster, department: DepartmentFactory, pattern: str
    ) -> None:
        tax, other = department("tax"), department("other")
        name = pattern.format(other=other.name)
        cluster.ensure_topic(TopicSpec.compacted(name))

        reading = read_one(tax.client(), name, f"{tax.name}.land")
        writing = produce(tax.client(), name)

        assert reading == writing == KafkaError.TOPIC_AUTHORIZATION_FAILED

    def test_a_name_that_begins_like_another_opens_nothing(
        self, cluster: Cluster, department: DepartmentFactory
    ) -> None:
        """``tax`` and ``tax-office`` are two departments; the prefix ends in a dot."""
        tax = department("tax")
        longer = f"{tax.name}-office"
        topic = topics.delivered(longer, "g")
        cluster.ensure_topic(TopicSpec.compacted(topic))

        assert read_one(tax.client(), topic, f"{tax.name}.land") == KafkaError.TOPIC_AUTHORIZATION_FAILED

    def test_a_subscriber_reads_what_is_delivered_to_it_and_cannot_write_there(
        self, bus: RunningBus, department: DepartmentFactory
    ) -> None:
        quzhou = department("quzhou")
        topic = topics.delivered(quzhou.name, "g")
        bus.cluster.ensure_topic(TopicSpec.compacted(topic))
        produce(bus.exchange().client(), topic, b"delivery")

        assert read_one(quzhou.client(), topic, f"{quzhou.name}.land") == b"delivery"
        assert produce(quzhou.client(), topic) == KafkaError.TOPIC_AUTHORIZATION_FAILED

    def test_a_department_cannot_use_a_group_of_another(
        self, bus: RunningBus, department: DepartmentFactory
    ) -> None:
        """It could otherwise move another's offsets, and so hide deliveries from it."""
        tax, health = department("tax"), department("health")
        topic = topics.delivered(tax.name, "g")
        bus.cluster.ensure_topic(TopicSpec.compacted(topic))

        code = read_one(tax.client(), topic, f"{health.name}.land")

        assert code == KafkaError.GROUP_AUTHORIZATION_FAILED

    def test_a_shared_topic_is_open_from_the_grant_to_its_revocation(
        self, bus: RunningBus, department: DepartmentFactory
    ) -> None:
        """The permission is looked at on every fetch, so an open connection loses it as well."""
        civil = department("civil")
        topic = topics.shared(unique_name("stats"), "divisions", "all")
        bus.cluster.ensure_topic(TopicSpec.compacted(topic))
        bus.cluster.allow_read_shared(civil.name, topic)
        produce(bus.exchange().client(), topic, b"one", b"1")
        consumer = Consumer(civil.client(group_id=f"{civil.name}.land", auto_offset_reset="earliest"))
        consumer.subscribe([topic])
        first = consumer.poll(20)
        assert first is not None
        assert first.value() == b"one"

        bus.cluster.revoke_read_shared(civil.name, topic)
        # Not before the fetch that was already waiting has come back, and another was refused.
        refusal = consumer.poll(20)
        produce(bus.exchange().client(), topic, b"two", b"2")
        after = consumer.poll(2)
        consumer.close()

        assert refusal is not None
        error = refusal.error()
        assert error is not None
        assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        assert after is None or after.error() is not None
        assert shared_acl(civil.name, topic) not in bus.cluster.acls(civil.name)

    def test_a_fetch_cannot_wait_on_purpose_for_what_comes_after_a_revocation(
        self, admin_client: AdminClient
    ) -> None:
        """A fetch that waits is authorised already; it ends with its connection, after a minute at most."""
        broker = ConfigResource(ConfigResource.Type.BROKER, "1")

        settings = admin_client.describe_configs([broker])[broker].result(20)

        assert int(settings["connections.max.idle.ms"].value) <= 60_000

    def test_only_the_control_side_makes_topics_users_and_permissions(
        self, bus: RunningBus, department: DepartmentFactory
    ) -> None:
        tax = department("tax")
        as_tax = Cluster(tax.client())

        with pytest.raises(AccessDeniedError):
            as_tax.ensure_topic(TopicSpec.compacted(topics.captured(tax.name, "own")))
        with pytest.raises(AccessDeniedError):
            as_tax.ensure_user(unique_name("friend"), "a password of some length")
        with pytest.raises(AccessDeniedError):
            as_tax.allow_read_shared(tax.name, topics.shared("stats", "divisions", "all"))

    def test_the_exchange_cannot_change_the_policy_that_it_enforces(self, bus: RunningBus) -> None:
        bus.cluster.ensure_topic(TopicSpec.compacted(topics.GRANTS))

        code = produce(bus.exchange().client(), topics.GRANTS)

        assert code == KafkaError.TOPIC_AUTHORIZATION_FAILED

    def test_the_exchange_moves_a_batch_in_one_transaction(self, soiled_bus: RunningBus) -> None:
        """Everything that a worker does in a transaction, with the worker's own credentials."""
        stats, quzhou = soiled_bus.department("stats"), soiled_bus.department("quzhou")
        source, target = topics.captured(stats.name, "r"), topics.delivered(quzhou.name, "g")
        rejected = topics.dead_letter(stats.name, "r")
        soiled_bus.cluster.ensure_topics(
            [TopicSpec.compacted(name) for name in (source, target, topics.WORKERS, topics.PROGRESS)]
            + [TopicSpec.retained(name, retention_ms=-1) for name in (rejected, topics.DECISIONS)]
        )
        assert produce(stats.client(), source, b"change") is None
        exchange = soiled_bus.exchange()
        consumer = Consumer(
            exchange.client(
                group_id=topics.EXCHANGE_GROUP, auto_offset_reset="earliest", enable_auto_commit=False
            )
        )
        producer = Producer(exchange.client(transactional_id=f"{topics.EXCHANGE_GROUP}.{unique_name('w')}"))
        producer.init_transactions(20)
        consumer.subscribe([source])
        message = consumer.poll(20)
        assert message is not None
        assert message.value() == b"change"

        producer.begin_transaction()
        for topic in (target, rejected, topics.WORKERS, topics.PROGRESS, topics.DECISIONS):
            producer.produce(topic, b"from the exchange", b"k")
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 20
        )
        producer.commit_transaction(20)
        consumer.close()

        assert read_one(quzhou.client(), target, f"{quzhou.name}.land") == b"from the exchange"
        assert read_one(stats.client(), rejected, f"{stats.name}.check") == b"from the exchange"

    def test_the_exchange_makes_no_topics(self, bus: RunningBus) -> None:
        client = AdminClient(bus.exchange().client())
        names = [f"{topics.EXCHANGE_GROUP}.{unique_name('app')}", topics.captured("stats", unique_name("r"))]

        outcome = client.create_topics([NewTopic(name, 1, 1) for name in names])

        for name in names:
            with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
                outcome[name].result(20)
