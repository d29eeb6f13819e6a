"""What can go wrong on the bus, grouped by what the caller does next.

BusError
├── FatalError                   stop the process; retrying cannot help
│   ├── ConfigurationError
│   ├── AccessDeniedError
│   ├── UnknownContractError
│   └── FencedError
├── RetriableError               the same again, after a back-off
│   ├── BrokerUnavailableError
│   ├── RegistryUnavailableError
│   ├── SourceUnavailableError
│   ├── SinkUnavailableError
│   └── GuardViolationError
├── RefusedError                 tell the person who asked; nothing has changed
│   ├── NotFoundError
│   ├── NotAllowedError
│   ├── TransitionRefusedError
│   ├── CatalogueError
│   ├── FilterRefusedError
│   ├── TransformRefusedError
│   ├── GrantRefusedError
│   └── PlanMovedError
└── RejectedRecordError          dead-letter this record, go on with the next
    ├── UndecodableRecordError
    ├── UnknownSchemaError
    ├── ContractViolationError
    ├── ViewError
    └── OversizedRecordError

No error carries a field value, a payload or a secret: what an error says ends
up in logs, on screens and in dead letters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from govbus.event import RecordAddress


class BusError(Exception):
    """The root of everything that govbus raises on purpose."""

    code: ClassVar[str] = "error"
    """Stable, lower case with hyphens: what dashboards, dead letters and scripts match on."""

    fix: ClassVar[str] = ""
    """What the person at the terminal can do about it, when that is known in general."""


class FatalError(BusError):
    """The process cannot do its job; a supervisor may start it again after someone has acted."""

    code = "fatal"


class ConfigurationError(FatalError):
    """A setting is missing or makes no sense."""

    code = "configuration"
    fix = "Correct the setting that is named and start again."


class AccessDeniedError(FatalError):
    """The broker or the store does not accept these credentials, or not for this."""

    code = "access-denied"
    fix = "Check the user name and the password file, and that the department has been applied."


class UnknownContractError(FatalError):
    """A resource has no data contract, so nothing about its records is known."""

    code = "unknown-contract"
    fix = "Add avro_schemas/<owner>/<resource>.avsc and apply the catalogue."


class FencedError(FatalError):
    """Another process has taken this one's place; whatever this one had open was aborted."""

    code = "fenced"
    fix = "Give every worker a name of its own, or let the supervisor start this one again."


class RetriableError(BusError):
    """Something outside is away for now."""

    code = "retriable"


class BrokerUnavailableError(RetriableError):
    """No Kafka broker answers."""

    code = "broker-unavailable"
    fix = "Start the broker, or correct GOVBUS_BROKER_BOOTSTRAP."


class RegistryUnavailableError(RetriableError):
    """The schema registry does not answer, or not with what it should."""

    code = "registry-unavailable"
    fix = "Start the registry, or correct GOVBUS_REGISTRY_URL."


class SourceUnavailableError(RetriableError):
    """The department's system cannot be read now."""

    code = "source-unavailable"
    fix = "Check that the source database is up and that its URL is right."


class SinkUnavailableError(RetriableError):
    """The store cannot take writes now: locked, full or down."""

    code = "sink-unavailable"
    fix = "Free the disk or the lock, or start the database; nothing is lost meanwhile."


class GuardViolationError(RetriableError):
    """A batch holds what its grant does not allow. Worked out again it is without that grant."""

    code = "guard-violation"
    fix = "Look at the worker's log for the grant and the rule; publish the grant anew once it is mended."


class RefusedError(BusError):
    """What was asked is not allowed or not possible, and nothing has changed."""

    code = "refused"


class NotFoundError(RefusedError):
    """What was named does not exist, or not for whoever asked."""

    code = "not-found"
    fix = "Check the name; `govbus status` lists what there is."


class NotAllowedError(RefusedError):
    """It exists, and whoever asked may not do this to it."""

    code = "not-allowed"
    fix = "Ask somebody whose role allows it; docs/permissions.md lists who may do what."


class TransitionRefusedError(RefusedError):
    """A request is not in a state for this, or it is not for this party to do."""

    code = "transition-refused"
    fix = "Look at the request's state; docs/permissions.md lists who may do what, and when."


class CatalogueError(RefusedError):
    """A catalogue file says something that cannot be: the message names file, line and field."""

    code = "invalid-catalogue"


class FilterRefusedError(RefusedError):
    """A row filter uses something outside the allow-list, or compares what cannot be compared."""

    code = "filter-refused"


class TransformRefusedError(RefusedError):
    """A transform cannot apply to the field's type, and is not passed over in silence."""

    code = "transform-refused"


class GrantRefusedError(RefusedError):
    """A grant contradicts the catalogue, the contract or the permission model."""

    code = "grant-refused"


class PlanMovedError(RefusedError):
    """What a saved plan rests on is no longer so: the store, the catalogue file or a contract."""

    code = "plan-moved"
    fix = "Make the plan again, look at it, and apply the new one."


class RejectedRecordError(BusError):
    """One record cannot be processed; the ones after it can.

    ``at`` is filled in by whoever knows the record's place; the kernel that
    finds the fault often does not.
    """

    code = "rejected"

    def __init__(self, detail: str, *, at: RecordAddress | None = None) -> None:
        place = f"{at}: " if at is not None else ""
        super().__init__(f"{place}{detail} ({self.code})")
        self.detail = detail
        self.at = at


class UndecodableRecordError(RejectedRecordError):
    """The bytes are not what the schema says: framing, length, union branch, UTF-8."""

    code = "undecodable"


class UnknownSchemaError(RejectedRecordError):
    """The registry does not know the schema id that the record names."""

    code = "unknown-schema"


class ContractViolationError(RejectedRecordError):
    """Well-formed, but not a record of this resource: another schema, or a key that is not its own."""

    code = "contract-violation"


class ViewError(RejectedRecordError):
    """A view could not be worked out for this record, so nothing of it may pass."""

    code = "view-failed"


class OversizedRecordError(RejectedRecordError):
    """Larger than the broker takes."""

    code = "oversized"
