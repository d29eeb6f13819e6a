"""Settings that only the control side has."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from govbus_console.embedded.home import Home


class RequestSettings(BaseSettings):
    """What the clocks of requests allow, in working days, and what emergencies and counts are bounded by."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_REQUEST_", frozen=True)

    review_days: int = Field(default=10, ge=1, le=250)
    """For the owner to decide."""

    answer_days: int = Field(default=5, ge=1, le=250)
    """For the requester to answer a question."""

    provide_days: int = Field(default=3, ge=1, le=250)
    """From the decision to the first delivery."""

    emergency_review_days: int = Field(default=2, ge=1, le=250)
    """For the owner's steward to review what was granted in an emergency."""

    remind_days: int = Field(default=2, ge=0, le=250)
    """A reminder is written when so many working days are left, or fewer."""

    emergency_hours: int = Field(default=24, ge=1, le=168)
    """The longest that an emergency grant may last."""

    count_step: int = Field(default=10, ge=1)
    """Counts of matching rows are told as multiples of it; 1 tells them exactly."""

    utc_offset_hours: int = Field(default=8, ge=-12, le=14)
    """Of the offices whose days are counted."""


class ControlSettings(BaseSettings):
    """Where the catalogue and the grants of record are kept."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_CONTROL_", frozen=True)

    url: str = ""
    """A SQLAlchemy URL; empty: ``state/control.db`` below GOVBUS_HOME."""

    def url_for(self, home: Home) -> str:
        """The URL, or the file in this home."""
        return self.url or f"sqlite:///{home.state / 'control.db'}"


class ApiSettings(BaseSettings):
    """How ``govbus api`` serves."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_API_", frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    """Address to listen on. One that a network can reach needs a certificate, or a proxy that has one."""

    port: int = Field(default=8088, ge=0, le=65_535)
    """0 takes a free one and says which."""

    certificate_file: Path | None = None
    """Certificate chain (PEM); with ``key_file`` the API speaks TLS."""

    key_file: Path | None = None
    trusted_proxies: str = ""
    """Addresses, joined by commas, whose X-Forwarded-For is believed. Empty: nobody's."""

    body_bytes: int = Field(default=1_048_576, ge=1_024, le=16_777_216)
    """Largest body of a request; a catalogue file comes in one, with its contracts."""

    requests_per_second: float = Field(default=20.0, gt=0.0)
    """Of one token, over time."""

    request_burst: int = Field(default=100, ge=1)
    """Of one token, at once."""

    bad_tokens_per_minute: int = Field(default=10, ge=1)
    """From one address; then it waits."""

    @property
    def url(self) -> str:
        """Where it answers, as its settings say; port 0 is known only when it has started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate_file else 'http'}://{host}:{self.port}"


class ApiClientSettings(BaseSettings):
    """Whether commands go through the API, and how."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_API_", frozen=True, env_ignore_empty=True)

    url: str = ""
    """Where ``govbus api`` answers; empty: commands use the control store and the broker themselves."""

    token_file: Path | None = None
    """File that holds the token."""

    ca_file: Path | None = None
    """CA that signed the API's certificate; otherwise those that this machine trusts."""
