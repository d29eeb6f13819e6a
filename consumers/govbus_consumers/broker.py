"""What librdkafka says about the broker, turned into what landing does about it.

librdkafka connects again by itself, for ever; so an outage is only said, once when it begins and
once when it is over. A refusal is different: no waiting changes a password or an ACL.
"""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError

from govbus.errors import AccessDeniedError

log = logging.getLogger(__name__)

_DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)


def denied(error: KafkaError) -> bool:
    """Whether the broker refuses these credentials for this."""
    return error.code() in _DENIED


class BrokerWatch:
    """Takes the errors of one client (as its ``error_cb``) and keeps what matters of them."""

    def __init__(self) -> None:
        self._refused: str | None = None
        self._away = False

    def on_error(self, error: KafkaError) -> None:
        """Be told of an error that belongs to the client as a whole."""
        if denied(error):
            self._refused = error.name()
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and not self._away:
            self._away = True
            log.warning(
                "no broker answers; waiting",
                extra={"stage": "land", "code": "broker-unavailable"},
            )

    def answered(self) -> None:
        """Note that the broker gave something, so it is there."""
        if self._away:
            self._away = False
            log.info("the broker answers again", extra={"stage": "land"})

    def check(self) -> None:
        """Raise AccessDeniedError when the broker has refused the credentials."""
        if self._refused is not None:
            raise AccessDeniedError(f"the broker refuses: {self._refused}")
