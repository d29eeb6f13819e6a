"""What a Kafka error means to the exchange: stop, or try again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError

from govbus.errors import AccessDeniedError, BrokerUnavailableError, BusError, FencedError

if TYPE_CHECKING:
    from confluent_kafka import KafkaException

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
_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


def broker_error(error: KafkaError) -> BusError:
    """Turn librdkafka's error into the bus's, by what the caller does next."""
    if error.code() in _DENIED:
        return AccessDeniedError(f"the broker refuses: {error.name()}")
    if error.code() in _FENCED:
        return FencedError("another producer has taken over this worker's transactional id")
    return BrokerUnavailableError(f"the broker does not answer as it should: {error.name()}")


def of_exception(raised: KafkaException) -> KafkaError:
    """The error inside an exception."""
    error: KafkaError = raised.args[0]
    return error
