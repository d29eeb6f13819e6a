"""The table of API tokens: who may call the control API, as which account, until when."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from govbus_console.control.store import Moment, Table


class TokenRow(Table):
    """One token, without the token itself: only its digest is kept."""

    __tablename__ = "api_tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """Names the token in lists and in the audit; it opens nothing."""

    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the token, as hexadecimal digits."""

    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"))
    """Whom it stands for: what it may be used for is what the account may do when it is used."""

    made_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    """Exclusive. There is no token without an end."""

    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
