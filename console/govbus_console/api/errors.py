"""What can go wrong between a caller and the API, beside what can go wrong on the bus."""

from __future__ import annotations

from govbus.errors import AccessDeniedError, RefusedError, RetriableError


class UnknownTokenError(AccessDeniedError):
    """No token, or one that is unknown, expired or revoked: which of these is not said."""

    code = "unknown-token"
    fix = "Send `Authorization: Bearer TOKEN` with a valid token; `govbus token new` makes one."


class InvalidRequestError(RefusedError):
    """The request is not of the form that the API describes."""

    code = "invalid-request"
    fix = "Compare it with /v1/openapi.json."


class TooLargeError(RefusedError):
    """The request's body is larger than GOVBUS_API_BODY_BYTES."""

    code = "too-large"
    fix = "Send less."


class TooManyRequestsError(RetriableError):
    """This token, or this address, asks too often."""

    code = "too-many-requests"
    fix = "Wait as long as Retry-After says."

    def __init__(self, detail: str, *, seconds: float) -> None:
        super().__init__(detail)
        self.seconds = seconds


class ApiUnavailableError(RetriableError):
    """The control API does not answer, or not as it should."""

    code = "api-unavailable"
    fix = "Check GOVBUS_API_URL, and that `govbus api` runs there."
