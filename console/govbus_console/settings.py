"""Settings that only the control side has."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict

from govbus_console.embedded.home import Home


class ControlSettings(BaseSettings):
    """Where the catalogue and the grants of record are kept."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_CONTROL_", frozen=True)

    url: str = ""
    """A SQLAlchemy URL; empty: ``state/control.db`` below GOVBUS_HOME."""

    def url_for(self, home: Home) -> str:
        """The URL, or the file in this home."""
        return self.url or f"sqlite:///{home.state / 'control.db'}"
