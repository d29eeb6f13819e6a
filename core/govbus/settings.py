"""Settings that a process reads from its environment, in small groups.

A secret is never a setting: settings name the *file* that holds it. Every
setting has an environment variable, listed in docs/settings.md, which a test
compares with this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from govbus.errors import ConfigurationError


def read_secret(path: Path) -> str:
    """Read a one-line secret; ConfigurationError names the file, never what is in it."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"cannot read the secret file {path}: {error.strerror}") from None
    if not secret:
        raise ConfigurationError(f"the secret file {path} is empty")
    return secret


class BrokerSettings(BaseSettings):
    """How to reach Kafka, and as whom."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_BROKER_", frozen=True, env_ignore_empty=True)

    bootstrap: str = "127.0.0.1:9092"
    """host:port, several joined by commas."""

    user: str = ""
    """SASL user: the department's name, ``exchange`` or ``admin``. Empty: no SASL."""

    password_file: Path | None = None
    security_protocol: str = "SASL_PLAINTEXT"
    """SASL_SSL or SSL wherever a network is crossed; SASL_PLAINTEXT is for loopback."""

    mechanism: str = "SCRAM-SHA-256"
    ca_file: Path | None = None
    certificate_file: Path | None = None
    """Client certificate for mTLS."""

    key_file: Path | None = None

    @field_validator("security_protocol")
    @classmethod
    def _known_protocol(cls, value: str) -> str:
        if value not in {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}:
            raise ValueError("one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL")
        return value

    def client(self, **extra: Any) -> dict[str, Any]:
        """Build a librdkafka configuration; ``extra`` uses underscores for dots."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            # A broker that restarts should cost a moment, not librdkafka's ten seconds.
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 4,
        }
        if self.security_protocol.startswith("SASL"):
            if self.password_file is None or not self.user:
                raise ConfigurationError("GOVBUS_BROKER_USER and GOVBUS_BROKER_PASSWORD_FILE must be set")
            config |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.user,
                "sasl.password": read_secret(self.password_file),
            }
        for option, path in (
            ("ssl.ca.location", self.ca_file),
            ("ssl.certificate.location", self.certificate_file),
            ("ssl.key.location", self.key_file),
        ):
            if path is not None:
                config[option] = str(path)
        return config | {name.replace("_", "."): value for name, value in extra.items()}


class RegistrySettings(BaseSettings):
    """How to reach the Confluent-compatible schema registry."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_REGISTRY_", frozen=True, env_ignore_empty=True)

    url: str = "http://127.0.0.1:8081/apis/ccompat/v7"


class ProcessSettings(BaseSettings):
    """What every process needs, whatever it does."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_", frozen=True, env_ignore_empty=True)

    home: Path = Path(".govbus")
    """Where the embedded bus and each process keep their state."""

    metrics_port: int = Field(default=0, ge=0, le=65_535)
    """Port of /metrics and /health on ``metrics_host``; 0 takes a free one and logs it."""

    metrics_host: str = "127.0.0.1"
    log_level: str = "INFO"


LONGEST_LEASE_SECONDS = 60.0
"""What a revocation may have to wait for at worst, however an exchange worker was configured."""


class ExchangeSettings(BaseSettings):
    """How an exchange worker works."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_EXCHANGE_", frozen=True, env_ignore_empty=True)

    guarantee: str = "exactly-once"
    """``exactly-once``: one transaction per batch. ``at-least-once``: a crash may deliver a batch twice."""

    lease_seconds: float = Field(default=5.0, ge=1.0, le=LONGEST_LEASE_SECONDS)
    """Without confirming the policy for so long, a worker delivers nothing."""

    batch_records: int = Field(default=30_000, ge=1, le=100_000)
    """At most so many records in one transaction; fewer where they take longer than a quarter of a second."""

    batch_wait_seconds: float = Field(default=0.05, ge=0.0, le=1.0)
    """What comes within so long of a batch is one batch at the end of it: under steady traffic there are at
    most twenty a second, and a record that comes after a pause waits for nothing."""

    schema_wait_seconds: float = Field(default=5.0, ge=0.0)
    """How long a record under a schema id that the registry does not know is waited for."""

    sweep_after_seconds: float = Field(default=6 * 86_400.0, ge=1.0)
    """A grant that was behind for longer begins from the start, and loses what is gone at the source.

    Shorter than the captured topics' ``delete.retention.ms`` by the time that catching up may take.
    """

    pseudonym_secret_file: Path | None = None
    """Master secret of the pseudonym keys; without it grants with pseudonyms deliver nothing."""

    quota_zone: str = "Asia/Shanghai"
    """Time zone (IANA name) whose calendar day a quota is counted by."""

    @field_validator("quota_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("a time zone by its IANA name, such as Asia/Shanghai") from None
        return value

    @field_validator("guarantee")
    @classmethod
    def _known_guarantee(cls, value: str) -> str:
        if value not in {"exactly-once", "at-least-once"}:
            raise ValueError("exactly-once or at-least-once")
        return value
