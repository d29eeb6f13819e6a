"""Settings that only the control side has."""

from __future__ import annotations

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
