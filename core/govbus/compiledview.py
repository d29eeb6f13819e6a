# mypy: disable-error-code="untyped-decorator"
# (Cython's decorators have no types; what they decorate has.)
"""Records and keys through a view: asked once for every record and grant, so compiled (hatch_build.py).

:mod:`govbus.view` works a view out and makes these objects. Nothing here decides
what is shown; what is here must only never show more when something goes wrong:
every fault is a :class:`~govbus.errors.ViewError`, without the values that the
fault itself may name, and then nothing of the record may pass.
"""

from __future__ import annotations

from collections.abc import Callable

import cython

from govbus.errors import ViewError
from govbus.splice import MalformedAvroError, Splicer, Walker

_HEADER_BYTES = 5

COMPILED: bool = bool(cython.compiled)


@cython.cclass
class KeyView:
    """How the source's key becomes the delivered one.

    Args:
        source_header: the five bytes that every key of the resource begins with.
        shown_header: those of the delivered key.
        splicer: makes what builds the delivered key, for the key schema that a walker knows; None
            when the source's key is delivered as it is.
    """

    def __init__(
        self, source_header: bytes, shown_header: bytes, splicer: Callable[[Walker], Splicer] | None
    ) -> None:
        self._source_header = source_header
        self._shown_header = shown_header
        self._make_splicer = splicer
        self._splicer: Splicer | None = None
        self._walker: Walker | None = None

    def show(self, source_key: bytes, walker: Walker | None) -> bytes:
        """Return the delivered key; see :meth:`CompiledView.key`."""
        if not source_key.startswith(self._source_header):
            raise ViewError("the key is not under the resource's key schema")
        if self._make_splicer is None:
            return source_key
        if walker is None:
            raise ViewError("a pseudonymised key needs the key schema")
        if walker is not self._walker:
            self._splicer = self._make_splicer(walker)
            self._walker = walker
        try:
            walker.walk(source_key, _HEADER_BYTES)
        except MalformedAvroError as error:
            reason = error.reason
        else:
            return self._pseudonymised(walker)
        raise ViewError(f"the key is not a record of its schema: {reason}")

    def _pseudonymised(self, walker: Walker) -> bytes:
        try:
            assert self._splicer is not None  # noqa: S101 - made by show for this walker
            shown: bytes = self._splicer.assemble(walker, self._shown_header)
            return shown
        except ViewError:
            raise
        except Exception:  # noqa: S110 whatever it was: raised below, without the values it may show
            pass
        raise ViewError("a key field could not be worked out")


@cython.cclass
class CompiledView:
    """One grant version's view of records under one writer schema.

    Made by :func:`govbus.view.compile_view`. Used by one thread at a time.
    """

    def __init__(
        self,
        *,
        splicer: Splicer,
        value_header: bytes,
        matcher: Callable[..., bool | None] | None,
        looked_at: tuple[int, ...],
        key: KeyView,
    ) -> None:
        self._splicer = splicer
        self._value_header = value_header
        self._matcher = matcher
        self._looked_at = looked_at
        self._only = looked_at[0] if len(looked_at) == 1 else -1
        self._key = key

    def matches(self, walker: Walker) -> bool:
        """Whether the row filter is TRUE for the record that ``walker`` walked last.

        Raises:
            ViewError: the filter could not be worked out, so the record must not be delivered.
        """
        if self._matcher is None:
            return True
        try:
            if self._only >= 0:
                return self._matcher(walker.value(self._only)) is True
            return self._matcher(*[walker.value(index) for index in self._looked_at]) is True
        except Exception:  # noqa: S110 whatever it was: raised below, without the values it may show
            pass
        raise ViewError("the row filter could not be worked out")

    def project(self, walker: Walker) -> bytes:
        """Return the delivered value, framed, of the record that ``walker`` walked last.

        Does not ask the row filter.

        Raises:
            ViewError: some field could not be worked out, so nothing of the record may be delivered.
        """
        try:
            shown: bytes = self._splicer.assemble(walker, self._value_header)
            return shown
        except ViewError:
            raise
        except Exception:  # noqa: S110 whatever it was: raised below, without the values it may show
            pass
        raise ViewError("a field could not be worked out")

    def key(self, source_key: bytes, key_walker: Walker | None) -> bytes:
        """Return the delivered key, framed.

        Args:
            source_key: framed, under the resource's key schema.
            key_walker: of that schema; needed, and used to walk the key, when a key field is
                pseudonymised.

        Raises:
            ViewError: the key could not be worked out.
        """
        shown: bytes = self._key.show(source_key, key_walker)
        return shown
