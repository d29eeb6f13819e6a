"""What is answered, as far as a caller may know it.

1. The catalogue is everybody's, but what fields a withheld resource has is not: they are
   neither shown nor found by their words, and asking about one of them is asking about
   something that is not there.
2. Who receives a resource is told as far as the caller may see the grants.
3. Whether a department may receive something is told to those who may see such a grant:
   the department itself, the owner's stewards, operators and auditors.
4. A row is explained to its owner's stewards and to auditors, and to nobody else: the answer
   says that the row exists, which a subscriber must not learn of rows outside its view.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from govbus.catalogue import ShareType
from govbus.errors import NotFoundError
from govbus.recordkey import split_record
from govbus_console.api.access import Right, may
from govbus_console.api.desk import Desk
from govbus_console.control.entries import Question
from govbus_console.control.interface import Answers
from govbus_console.control.roles import Account
from govbus_console.control.shown import Shown
from govbus_console.control.usage import What
from govbus_console.control.words import mentions, words_of


class AnswerDesk:
    """:class:`~govbus_console.control.interface.Answers`, as far as an account may use it."""

    def __init__(self, account: Account, answers: Answers, desk: Desk) -> None:
        self._account = account
        self._answers = answers
        self._desk = desk
        """For what there is of a resource, to this caller."""

    def find(self, question: Question) -> Shown:
        """Catalogue entries. A page may be shorter than it was asked to be, and not be the last."""
        page = self._answers.find(question)
        public = [self._public(entry, question.text) for entry in page["found"]]
        return {"found": [entry for entry in public if entry is not None], "next": page["next"]}

    def who_uses(self, what: str, *, ended: bool = False) -> Sequence[Shown]:
        """Who receives something, as far as the caller may see it."""
        asked = self._there(what)
        return [
            use
            for use in self._answers.who_uses(what, ended=ended)
            if may(self._account, Right.SEE_GRANTS, owner=asked.owner, subscriber=use["department"])
        ]

    def can(self, department: str, what: str) -> Shown:
        """Whether a department may."""
        asked = self._there(what)
        if not may(self._account, Right.SEE_GRANTS, owner=asked.owner, subscriber=department):
            raise NotFoundError("there is nothing to say of this department here")
        return self._answers.can(department, what)

    def explain(self, record: str, to: str, *, at: datetime | None = None) -> Shown:
        """Why a row reached a department or did not."""
        self._must_own_row(record)
        return self._answers.explain(record, to, at=at)

    def who_received(self, record: str) -> Shown:
        """Who received a row."""
        self._must_own_row(record)
        return self._answers.who_received(record)

    def _there(self, what: str) -> What:
        """Refuse a field that the caller is not shown, in the words for one that never was."""
        asked = What.parse(what)
        if asked.field is not None:
            withheld = self._desk.resources(share_type=ShareType.WITHHELD)
            if any(entry["resource"] == asked.ref and not entry["fields"] for entry in withheld):
                raise NotFoundError(f"{asked.ref} has no field of this name")
        return asked

    def _must_own_row(self, record: str) -> None:
        ref, _ = split_record(record)
        if not may(self._account, Right.EXPLAIN, owner=ref.partition(".")[0]):
            raise NotFoundError("there is no such row")

    def _public(self, found: Shown, text: str) -> Shown | None:
        owner, _, name = found["resource"].partition(".")
        if found["share_type"] != ShareType.WITHHELD or may(self._account, Right.SEE_GRANTS, owner=owner):
            return found
        entry = found["entry"]
        texts = [found["title"], owner, name]
        if entry is not None:
            texts += [entry["code"], *entry["category"], entry["provider"], entry["provider_code"]]
            texts += [entry["abstract"], *entry["related_codes"]]
            entry = entry | {"items": []}
        return found | {"entry": entry} if mentions(text, words_of(texts)) else None
