"""Hold what the demo came to against what must be. Does I/O.

Rows are the oracle's business. The rest is asked here: that every record is
accounted for, that nothing was rejected, and that whoever was granted nothing
has nothing and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from govbus import topics
from govbus.errors import RefusedError
from govbus_console.control import apply
from govbus_console.control.bus import PSEUDONYM_SECRET
from govbus_console.control.receipts import Standing
from govbus_console.demo import oracle
from govbus_console.demo.agree import WHO
from govbus_console.demo.departments import QUZHOU
from govbus_console.demo.divisions import EDITIONS, FILES_DOWN_TO, Edition
from govbus_console.demo.measure import added
from govbus_console.demo.oracle import Pseudonyms, Verdict
from govbus_console.demo.report import Check, Line
from govbus_console.demo.scene import SUBSCRIBERS
from govbus_console.demo.settle import Settling
from govbus_console.demo.stage import Share, Stage
from govbus_console.demo.watch import READ, try_to_read

_WITHHELD = "civil.protected-persons"
_WITHHELD_MARK = "PROTECTED-"
"""What each case number of the withheld resource begins with; it stands nowhere else."""

_UNGRANTED = ("civil.residents", "tax")
_REFUSED = "TOPIC_AUTHORIZATION_FAILED"
_FAULTS = ("dead_letters", "landed_dead_letters", "rejected_changes", "guard_violations")


class Judge:
    """Asks the oracle each year, and everything else at the end."""

    def __init__(self, stage: Stage, settling: Settling, archives: Mapping[int, Path]) -> None:
        self._stage = stage
        self._settling = settling
        self._archives = archives
        self._verdicts: dict[tuple[str, str], list[tuple[int, Verdict]]] = {}
        self._revoked: Share | None = None
        self._receipt: Standing | None = None
        dead_letters = [topics.dead_letter(*ref.split(".")) for ref in stage.captured]
        self._dead_letters_before = {topic: stage.exchanged.end(topic) for topic in dead_letters}

    # ---- year by year ----

    def ask_oracle(self, edition: Edition) -> None:
        """Compare every landed table with what it must be now."""
        for share in self._stage.shares:
            verdict = oracle.judge(partial(self._compare, share, edition))
            self._note(share.resource, share.subscriber, edition.year, verdict)
        nothing = oracle.judge(partial(oracle.check_nothing_landed, self._stage.scene.landed("tax")))
        self._note(*_UNGRANTED, edition.year, nothing)

    def note_revoked(self, share: Share) -> None:
        """From now on nothing more may come of this grant."""
        self._revoked = share

    def note_receipt(self, receipt: Standing | None) -> None:
        """What the subscriber of the revoked grant has answered, if it has."""
        self._receipt = receipt

    def _compare(self, share: Share, edition: Edition) -> Verdict:
        landed = self._stage.scene.landed(share.subscriber)
        register = self._stage.scene.system("civil")
        archive, files = self._archives[edition.year], FILES_DOWN_TO[self._stage.options.detail]
        if share is self._revoked:
            return oracle.check_empty(landed, share.table)
        match share.resource, share.subscriber:
            case "stats.divisions", "quzhou":
                return oracle.check_city_divisions(archive, files, landed, share.table, QUZHOU)
            case "stats.divisions", _:
                return oracle.check_divisions(archive, files, landed, share.table)
            case "civil.residents", "health":
                return oracle.check_residents_for_health(
                    register, landed, share.table, self._pseudonyms(share)
                )
            case "civil.marriages", "quzhou":
                return oracle.check_marriages_for_quzhou(
                    register, landed, share.table, self._pseudonyms(share), QUZHOU
                )
            case _:
                raise LookupError(f"the oracle does not know what {share.id} should bring")

    def _pseudonyms(self, share: Share) -> Pseudonyms:
        master = self._stage.home.password_file(PSEUDONYM_SECRET).read_text(encoding="utf-8").strip()
        return Pseudonyms(master.encode(), subscriber=share.subscriber, purpose=share.stored.grant.purpose)

    def _note(self, resource: str, subscriber: str, year: int, verdict: Verdict) -> None:
        self._verdicts.setdefault((resource, subscriber), []).append((year, verdict))

    # ---- in the end ----

    def checks(self) -> list[Check]:
        """Everything that must hold; asks the broker and the stores."""
        return [
            self._tables_are_equal(),
            self._nothing_compared_is_empty(),
            self._records_are_accounted_for(),
            self._rows_left_views(),
            self._nothing_was_rejected(),
            self._divisions_are_shared_once(),
            self._tax_is_refused(),
            self._quzhou_reads_its_own(),
            self._withheld_stays(),
            self._withheld_cannot_be_granted(),
            self._revoked_stays_revoked(),
            self._revoked_is_answered_for(),
        ]

    def lines(self) -> list[Line]:
        """What went from each resource to each department; call :meth:`checks` first."""
        increase = added(self._settling.increase().values())
        captured = increase.by("resource", "govbus_published_records_total")
        landed = increase.by("grant", "govbus_landed_records_total")
        lines = []
        for share in self._stage.shares:
            tally = self._settling.tally(share)
            lines.append(
                Line(
                    resource=share.resource,
                    subscriber=share.subscriber,
                    captured=int(captured.get(share.resource, 0)),
                    delivered=tally.delivered,
                    filtered=tally.filtered,
                    left_view=tally.left_view,
                    landed=int(landed.get(share.id, 0)),
                    oracle_equal=self._equal(share.resource, share.subscriber),
                )
            )
        for resource, subscriber in (_UNGRANTED, (_WITHHELD, "nobody")):
            verdicts = self._verdicts.get((resource, subscriber), [])
            lines.append(
                Line(
                    resource=resource,
                    subscriber=subscriber,
                    captured=int(captured.get(resource, 0)),
                    delivered=0,
                    filtered=0,
                    left_view=0,
                    landed=max((verdict.landed for _year, verdict in verdicts), default=0),
                    oracle_equal=self._equal(resource, subscriber),
                )
            )
        return lines

    def _equal(self, resource: str, subscriber: str) -> bool:
        verdicts = self._verdicts.get((resource, subscriber), [])
        return bool(verdicts) and all(verdict.equal for _year, verdict in verdicts)

    def _tables_are_equal(self) -> Check:
        wrong = [
            f"{resource} at {subscriber} in {year}: {verdict}"
            for (resource, subscriber), verdicts in self._verdicts.items()
            for year, verdict in verdicts
            if not verdict.equal
        ]
        return _check("every landed table equals the oracle's, in each of the five years", wrong)

    def _nothing_compared_is_empty(self) -> Check:
        idle = [
            share.id
            for share in self._stage.shares
            if not any(v.expected for _, v in self._verdicts.get((share.resource, share.subscriber), []))
        ]
        return _check("every grant has something to bring", idle)

    def _records_are_accounted_for(self) -> Check:
        landed = added(self._settling.increase("land-").values()).by("grant", "govbus_landed_records_total")
        wrong = [
            f"{share.id}: {decided} delivered, {landed.get(share.id, 0):.0f} landed"
            for share in self._stage.shares
            if (decided := self._settling.tally(share).records) != landed.get(share.id, 0)
        ]
        return _check("every record that was delivered was landed, and landed once", wrong)

    def _rows_left_views(self) -> Check:
        left = sum(self._settling.tally(share).left_view for share in self._stage.shares)
        return Check(what="rows that left a view were taken back", holds=left > 0, found="none left one")

    def _nothing_was_rejected(self) -> Check:
        increase = added(self._settling.increase().values())
        wrong = [
            f"{count:.0f} {code or name}"
            for name in _FAULTS
            for code, count in increase.by("code", f"govbus_{name}_total").items()
            if count
        ]
        wrong += [
            f"dead letters in {topic}"
            for topic, before in self._dead_letters_before.items()
            if self._stage.exchanged.end(topic) != before
        ]
        return _check("no record was rejected", wrong)

    def _divisions_are_shared_once(self) -> Check:
        topics_used = [
            share.delivery_topic
            for share in self._stage.shares
            if share.resource == "stats.divisions" and share.subscriber in {"civil", "health"}
        ]
        once = len(topics_used) == 2 and len(set(topics_used)) == 1  # noqa: PLR2004 - one grant of each
        return Check(what="civil and health share one delivery of the divisions", holds=once)

    def _tax_is_refused(self) -> Check:
        tax = self._stage.embedded.broker_settings("tax")
        answers = try_to_read(tax, {*self._stage.captured.values(), *self._delivery_topics()})
        let_in = [f"{topic}: {answer}" for topic, answer in answers.items() if answer != _REFUSED]
        return _check(f"the broker refuses tax every topic with data ({_REFUSED})", let_in)

    def _quzhou_reads_its_own(self) -> Check:
        its_own = {share.delivery_topic for share in self._stage.shares if share.subscriber == "quzhou"}
        answers = try_to_read(self._stage.embedded.broker_settings("quzhou"), self._delivery_topics())
        wrong = [
            f"{topic}: {answer}"
            for topic, answer in answers.items()
            if (answer == READ) != (topic in its_own)
        ]
        return _check("quzhou reads its own deliveries and nobody else's", wrong)

    def _withheld_stays(self) -> Check:
        owner, _, name = _WITHHELD.partition(".")
        its_own = {topics.captured(owner, name), topics.dead_letter(owner, name)}
        found = [topic for topic in self._stage.exchanged.topics() if name in topic and topic not in its_own]
        if _WITHHELD in self._stage.decisions.permitted:
            found.append("a decision that permits it")
        for department in SUBSCRIBERS:
            if oracle.mentions(self._stage.scene.landed(department), [_WITHHELD_MARK]):
                found.append(f"case numbers in the store of {department}")
        nowhere = Verdict(landed=len(found), unexpected=len(found))
        self._note(_WITHHELD, "nobody", EDITIONS[-1].year, nowhere)
        return _check("the withheld resource was published and is nowhere else", found)

    def _withheld_cannot_be_granted(self) -> Check:
        what = "a grant of the withheld resource is refused"
        forbidden = self._stage.scene.write_forbidden_grant()
        try:
            apply.apply_file(forbidden, self._stage.store, self._stage.bus, who=WHO, why="must be refused")
        except RefusedError:
            return Check(what=what, holds=True)
        return Check(what=what, holds=False, found="it was applied")

    def _revoked_stays_revoked(self) -> Check:
        what = "the revoked grant's deliveries are gone, and nothing has brought them back"
        if self._revoked is None:
            return Check(what=what, holds=False, found="nothing was revoked")
        gone = self._revoked.delivery_topic not in self._stage.exchanged.topics()
        return Check(what=what, holds=gone, found="the topic is still there")

    def _revoked_is_answered_for(self) -> Check:
        what = "health has answered for the revoked grant with a receipt that it signed"
        receipt = self._receipt
        if receipt is None or receipt.answer is None or not receipt.answered:
            return Check(what=what, holds=False, found="no receipt that counts")
        answer = receipt.answer
        holds = answer.rows_before > 0 and answer.rows_after == 0
        return Check(what=what, holds=holds, found=f"{answer.rows_before} rows, then {answer.rows_after}")

    def _delivery_topics(self) -> set[str]:
        return {share.delivery_topic for share in self._stage.shares}


def _check(what: str, wrong: Sequence[str]) -> Check:
    return Check(what=what, holds=not wrong, found="; ".join(wrong))
