"""The control side's hands on the broker: topics, users, permissions.

Every change is a statement of how things should be. Said again it changes
nothing, so applying a catalogue twice, or once more after a crash half way, is
safe. Each call returns when the broker that was asked shows the new state; on a
cluster of several brokers the others follow within moments.

Errors are the bus's own: :class:`BrokerUnavailableError` when nobody answers in
time, :class:`AccessDeniedError` when these credentials are not accepted or not
enough, :class:`RefusedError` when what is asked would break data that is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from govbus.errors import AccessDeniedError, BrokerUnavailableError, BusError, FatalError, RefusedError
from govbus_console.acls import (
    ADMIN,
    EXCHANGE,
    Acl,
    Kind,
    Operation,
    check_department,
    exchange_acls,
    owner_acls,
    shared_acl,
    subscriber_acls,
)

DAY_MS = 86_400_000

COMPACTED: Mapping[str, str] = {
    "cleanup.policy": "compact",
    # A deletion is delivered to whoever reads within this time; who was away for longer may have
    # missed one and has to read the topic from its beginning into an empty table.
    "delete.retention.ms": str(7 * DAY_MS),
    # What was overwritten or deleted is gone from the files within about a day, however little is
    # written: a deleted person must not stay readable for as long as a dirty ratio takes.
    "max.compaction.lag.ms": str(DAY_MS),
    "segment.ms": str(DAY_MS),
    # A fifth of stale records at most, on top of the current table: reading it from the start stays
    # close to the size of the table. Kafka's default is a half.
    "min.cleanable.dirty.ratio": "0.2",
}
"""How a topic is kept that is a table: one record for each key, and the last days' deletions."""

_SCRAM_ITERATIONS = 4_096
_PAUSE = 0.02
_TOPICS_AT_ONCE = 100
_REFUSED_SECONDS = 2.0
_UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
    }
)
_MOVING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        # The broker that was asked has not yet heard of the leader that the metadata names.
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
"""A partition that is there, or will be in a moment, and is not served by the broker that was asked."""

_DENIED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_KINDS = {
    Kind.TOPIC: ResourceType.TOPIC,
    Kind.GROUP: ResourceType.GROUP,
    Kind.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    Operation.READ: AclOperation.READ,
    Operation.WRITE: AclOperation.WRITE,
    Operation.DESCRIBE: AclOperation.DESCRIBE,
}
_KIND_OF = {theirs: ours for ours, theirs in _KINDS.items()}
_OPERATION_OF = {theirs: ours for ours, theirs in _OPERATIONS.items()}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """How a topic should be."""

    name: str
    partitions: int = 1
    config: Mapping[str, str] = field(default_factory=dict)
    """Topic settings that matter; the broker's defaults hold for the others."""

    @classmethod
    def compacted(cls, name: str, *, partitions: int = 1, **config: str) -> TopicSpec:
        """Describe a table; ``config`` is added, with underscores for dots."""
        return cls(name=name, partitions=partitions, config={**COMPACTED, **_dotted(config)})

    @classmethod
    def retained(cls, name: str, *, retention_ms: int, partitions: int = 1, **config: str) -> TopicSpec:
        """Describe a log that forgets what is older than ``retention_ms``; -1 forgets nothing."""
        policy = {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
        return cls(name=name, partitions=partitions, config={**policy, **_dotted(config)})


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicOutcome:
    """What it took to make a topic as it should be."""

    name: str
    created: bool = False
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Settings (and ``partitions``) that differed: what was there, what is there now."""


class Cluster:
    """Administers a broker, or a cluster of them, with the credentials that it is given.

    Safe to use from several threads. ``timeout`` bounds each call, in seconds.
    """

    def __init__(
        self, config: Mapping[str, Any], *, timeout: float = 15.0, replication_factor: int = -1
    ) -> None:
        self._timeout = timeout
        self._replication_factor = replication_factor
        """-1 leaves it to the broker's ``default.replication.factor``."""

        self._refused: KafkaError | None = None
        self._admin = AdminClient(
            {
                **config,
                "error_cb": self._on_error,
                # What librdkafka would print on the terminal, this class raises.
                "log_level": 0,
                "reconnect.backoff.ms": 250,
            }
        )

    # Topics

    def ensure_topic(self, spec: TopicSpec) -> TopicOutcome:
        """Make one topic as it should be; see :meth:`ensure_topics`."""
        return self.ensure_topics([spec])[0]

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> list[TopicOutcome]:
        """Make topics that are missing and correct settings that differ; idempotent.

        Raises:
            RefusedError: a topic has another number of partitions than it should, and changing that
                would break it: fewer would lose records; more would move keys of a compacted topic.
        """
        there = self.topics()
        for spec in specs:
            _check_partitions(spec, there.get(spec.name))
        missing = [spec for spec in specs if spec.name not in there]
        self._create(missing)
        grown = [spec for spec in specs if spec.partitions > there.get(spec.name, spec.partitions)]
        self._grow(grown)
        changed = self._correct([spec for spec in specs if spec.name in there and spec.config])
        self._await_topics([*missing, *grown])
        for spec in grown:
            changed[spec.name] = {
                "partitions": (str(there[spec.name]), str(spec.partitions)),
                **changed.get(spec.name, {}),
            }
        return [
            TopicOutcome(name=spec.name, created=spec.name not in there, changed=changed.get(spec.name, {}))
            for spec in specs
        ]

    def delete_topic(self, name: str) -> bool:
        """Remove a topic with everything in it; False when there was none."""
        with _naming(f"delete the topic {name}"):
            try:
                self._result(self._admin.delete_topics([name], request_timeout=self._timeout)[name])
            except KafkaException as error:
                if _code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return False
                raise
        self._until(lambda: name not in self.topics(), f"the topic {name} to be gone")
        return True

    def topics(self) -> dict[str, int]:
        """Number of partitions of each topic that these credentials may see."""
        return {name: len(topic.partitions) for name, topic in self._metadata().topics.items()}

    def topic_config(self, name: str) -> dict[str, str]:
        """Every setting of a topic that exists, defaults included."""
        return self._configs([name])[name]

    def end_offsets(self, topic: str, *, committed: bool = False) -> dict[int, int]:
        """Give the offset after the last record of each partition; empty when there is no topic.

        With ``committed``, after the last record that a ``read_committed`` reader can see now.
        """
        partitions = self.topics().get(topic, 0)
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        return {at.partition: end for at, end in self._ends({topic: partitions}, level).items()}

    # Users

    def ensure_user(self, name: str, password: str) -> None:
        """Let a user log in with this password (SCRAM-SHA-256), and with no earlier one.

        Connections that are open stay open.
        """
        change = UserScramCredentialUpsertion(
            name,
            ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, _SCRAM_ITERATIONS),
            password.encode("utf-8"),
        )
        with _naming(f"set the password of the user {name}"):
            self._result(self._admin.alter_user_scram_credentials([change])[name])
        self._until(lambda: self.has_user(name), f"the user {name} to be known")

    def delete_user(self, name: str) -> bool:
        """Take away a user's permissions and then its password; False when there was no such user.

        In this order, because a connection that is open stays open: without
        permissions it is good for nothing.
        """
        self.remove_acls(self.acls(name))
        deletion = UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_256)
        with _naming(f"delete the user {name}"):
            try:
                self._result(self._admin.alter_user_scram_credentials([deletion])[name])
            except KafkaException as error:
                if _code(error) == KafkaError.RESOURCE_NOT_FOUND:
                    return False
                raise
        self._until(lambda: not self.has_user(name), f"the user {name} to be gone")
        return True

    def has_user(self, name: str) -> bool:
        """Say whether a user can log in."""
        with _naming(f"look up the user {name}"):
            try:
                self._result(self._admin.describe_user_scram_credentials([name])[name])
            except KafkaException as error:
                if _code(error) == KafkaError.RESOURCE_NOT_FOUND:
                    return False
                raise
        return True

    # Permissions

    def allow_owner(self, department: str) -> None:
        """Let a department publish under its own name."""
        self.ensure_acls(owner_acls(department))

    def allow_subscriber(self, department: str) -> None:
        """Let a department receive what is delivered to it."""
        self.ensure_acls(subscriber_acls(department))

    def allow_exchange(self) -> None:
        """Let the exchange workers do their work."""
        self.ensure_acls(exchange_acls())

    def allow_read_shared(self, department: str, topic: str) -> None:
        """Let a department read one shared topic."""
        self.ensure_acls([shared_acl(department, topic)])

    def revoke_read_shared(self, department: str, topic: str) -> None:
        """End that: the broker refuses the next fetch, also on a connection that is open.

        A fetch that is already waiting at the broker is still answered. How long
        it waits is its client's choice (half a second unless told otherwise), up
        to the broker's ``connections.max.idle.ms``.
        """
        self.remove_acls([shared_acl(department, topic)])

    def ensure_acls(self, acls: Iterable[Acl]) -> frozenset[Acl]:
        """Add the permissions that are missing, and give those."""
        wanted = frozenset(acls)
        missing = wanted - self._acls_of_all({acl.principal for acl in wanted})
        if missing:
            with _naming("add permissions"):
                for answer in self._admin.create_acls(
                    [AclBinding(*_pattern(acl)) for acl in sorted(missing)], request_timeout=self._timeout
                ).values():
                    self._result(answer)
            principals = {acl.principal for acl in missing}
            self._until(lambda: missing <= self._acls_of_all(principals), "permissions to be in force")
        return missing

    def remove_acls(self, acls: Iterable[Acl]) -> frozenset[Acl]:
        """Take away the permissions that are there, and give those."""
        unwanted = frozenset(acls)
        principals = {acl.principal for acl in unwanted}
        found = unwanted & self._acls_of_all(principals)
        if found:
            with _naming("take away permissions"):
                for answer in self._admin.delete_acls(
                    [AclBindingFilter(*_pattern(acl)) for acl in sorted(found)], request_timeout=self._timeout
                ).values():
                    self._result(answer)
            self._until(lambda: not found & self._acls_of_all(principals), "permissions to be gone")
        return found

    def acls(self, principal: str) -> frozenset[Acl]:
        """What a user may do, as far as govbus gives such permissions."""
        everything = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{principal}",
            None,
            AclOperation.ANY,
            AclPermissionType.ALLOW,
        )
        with _naming(f"look up the permissions of {principal}"):
            found = self._result(self._admin.describe_acls(everything, request_timeout=self._timeout))
        return frozenset(
            Acl(
                principal=principal,
                kind=_KIND_OF[binding.restype],
                name=binding.name,
                prefixed=binding.resource_pattern_type == ResourcePatternType.PREFIXED,
                operation=_OPERATION_OF[binding.operation],
            )
            for binding in found
            if binding.restype in _KIND_OF and binding.operation in _OPERATION_OF
        )

    # How the calls above are made

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTHENTICATION:
            self._refused = error

    def _result(self, answer: Future[_T]) -> _T:
        began = time.monotonic()
        while True:
            try:
                result = answer.result(timeout=0.1)
            except NotYetError:
                self._raise_if_late(began)
            else:
                self._refused = None
                return result

    def _raise_if_late(self, began: float) -> None:
        """End a wait that is in vain; a refused password is, where librdkafka would try on."""
        self._admin.poll(0)
        waited = time.monotonic() - began
        # A user who has only just been made may be refused once.
        if self._refused is not None and waited > _REFUSED_SECONDS:
            raise KafkaException(self._refused)
        if waited > self._timeout:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def _metadata(self) -> Any:
        began = time.monotonic()
        with _naming("list the topics"):
            while True:
                try:
                    metadata = self._admin.list_topics(timeout=1.0)
                except KafkaException as error:
                    if _code(error) not in _UNREACHABLE:
                        raise
                    self._raise_if_late(began)
                else:
                    self._refused = None
                    return metadata

    def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._timeout
        while not true():
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(f"waited {self._timeout:.0f} s in vain for {what}")
            time.sleep(_PAUSE)

    def _create(self, specs: Sequence[TopicSpec]) -> None:
        # In portions, so that the time allowed for a call does not depend on the size of a catalogue.
        for first in range(0, len(specs), _TOPICS_AT_ONCE):
            new = [
                NewTopic(
                    spec.name,
                    num_partitions=spec.partitions,
                    replication_factor=self._replication_factor,
                    config=dict(spec.config),
                )
                for spec in specs[first : first + _TOPICS_AT_ONCE]
            ]
            for name, answer in self._admin.create_topics(new, request_timeout=self._timeout).items():
                with _naming(f"create the topic {name}"):
                    try:
                        self._result(answer)
                    except KafkaException as error:
                        # Someone made it since it was looked for: it is there, which is what counts.
                        if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                            raise

    def _grow(self, specs: Sequence[TopicSpec]) -> None:
        if not specs:
            return
        wanted = [NewPartitions(spec.name, spec.partitions) for spec in specs]
        for name, answer in self._admin.create_partitions(wanted, request_timeout=self._timeout).items():
            with _naming(f"add partitions to the topic {name}"):
                self._result(answer)

    def _correct(self, specs: Sequence[TopicSpec]) -> dict[str, dict[str, tuple[str, str]]]:
        configs = self._configs([spec.name for spec in specs])
        changed = {
            spec.name: {
                setting: (configs[spec.name].get(setting, ""), value)
                for setting, value in spec.config.items()
                if configs[spec.name].get(setting) != value
            }
            for spec in specs
        }
        changed = {name: settings for name, settings in changed.items() if settings}
        if changed:
            alterations = [
                ConfigResource(
                    ConfigResource.Type.TOPIC,
                    name,
                    incremental_configs=[
                        ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
                        for setting, (_, value) in settings.items()
                    ],
                )
                for name, settings in changed.items()
            ]
            answers = self._admin.incremental_alter_configs(alterations, request_timeout=self._timeout)
            for resource, answer in answers.items():
                with _naming(f"change settings of the topic {resource.name}"):
                    self._result(answer)
        return changed

    def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        configs: dict[str, dict[str, str]] = {}
        for resource, answer in self._admin.describe_configs(asked, request_timeout=self._timeout).items():
            with _naming(f"look up the settings of the topic {resource.name}"):
                entries = self._result(answer)
            configs[resource.name] = {name: entry.value or "" for name, entry in entries.items()}
        return configs

    def _await_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Wait until every partition is served: before that, a producer's first record may fail.

        That a broker knows of a topic does not mean that it leads it yet, so each
        partition is asked for its end.
        """
        wanted = {spec.name: spec.partitions for spec in specs}
        if wanted:
            self._until(
                lambda: all(partitions <= self.topics().get(name, 0) for name, partitions in wanted.items()),
                "new topics to be known",
            )
            self._ends(wanted, IsolationLevel.READ_UNCOMMITTED)

    def _ends(self, partitions: Mapping[str, int], level: IsolationLevel) -> dict[TopicPartition, int]:
        waiting = {
            TopicPartition(topic, number): OffsetSpec.latest()
            for topic, count in partitions.items()
            for number in range(count)
        }
        ends: dict[TopicPartition, int] = {}
        began = time.monotonic()
        while waiting:
            answers = self._admin.list_offsets(waiting, isolation_level=level, request_timeout=self._timeout)
            for at, answer in answers.items():
                with _naming(f"look up the end of partition {at.partition} of {at.topic}"):
                    try:
                        ends[at] = self._result(answer).offset
                    except KafkaException as error:
                        if _code(error) not in _MOVING:
                            raise
                        self._raise_if_late(began)
            waiting = {at: spec for at, spec in waiting.items() if at not in ends}
            if waiting:
                time.sleep(_PAUSE)
        return ends

    def _acls_of_all(self, principals: Iterable[str]) -> frozenset[Acl]:
        return frozenset().union(*(self.acls(principal) for principal in principals))


def _check_partitions(spec: TopicSpec, there: int | None) -> None:
    if there is None or there == spec.partitions:
        return
    if spec.partitions < there:
        raise RefusedError(
            f"the topic {spec.name} has {there} partitions and cannot have fewer ({spec.partitions}): "
            "their records would be lost; keep the number, or publish the resource under a new name"
        )
    if "compact" in spec.config.get("cleanup.policy", ""):
        raise RefusedError(
            f"the topic {spec.name} is a table in {there} partitions and cannot have {spec.partitions}: "
            "keys would move and leave old rows behind; keep the number, or publish under a new name"
        )


def _dotted(config: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "."): value for name, value in config.items()}


def _pattern(acl: Acl) -> tuple[Any, ...]:
    return (
        _KINDS[acl.kind],
        acl.name,
        ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL,
        f"User:{acl.principal}",
        "*",
        _OPERATIONS[acl.operation],
        AclPermissionType.ALLOW,
    )


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


@contextmanager
def _naming(action: str) -> Iterator[None]:
    """Turn Kafka's errors into the bus's, saying what was being done."""
    try:
        yield
    except KafkaException as error:
        raise _translated(error.args[0], action) from None


def _translated(error: KafkaError, action: str) -> BusError:
    reason = f"cannot {action}: {error.str()}"
    if error.code() in _DENIED:
        return AccessDeniedError(reason)
    if error.code() in _UNREACHABLE or error.retriable():
        return BrokerUnavailableError(reason)
    return FatalError(reason)


__all__ = [
    "ADMIN",
    "COMPACTED",
    "DAY_MS",
    "EXCHANGE",
    "Acl",
    "Cluster",
    "TopicOutcome",
    "TopicSpec",
    "check_department",
]
