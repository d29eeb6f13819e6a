"""The words by which a catalogue entry is found. Pure.

Chinese has no spaces, so its texts are cut into overlapping pairs of characters:
常住人口 becomes 常住 住人 人口 and, alone, the last character 口. A text in
question is cut the same way and its pairs must stand side by side; a single
character finds every pair that begins with it. So no dictionary decides what a
word is, and words of two characters, which most are, are found. Latin words and
numbers are kept whole and found by their beginning.

Both indexes, SQLite's FTS5 and PostgreSQL's tsvector, are given these words and
nothing else: neither one's own idea of a word has a say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

_LONGEST = 64
"""Of a word; what is longer is found by its first characters."""

_LAST_POSITION = 16_383
"""The highest position that a tsvector can tell apart."""

_FIRST_IDEOGRAPH = "\u2e80"
"""CJK radicals begin here; below are the scripts that put spaces between words."""

_SPACES = re.compile(r"\s+")


def words_of(texts: Iterable[str]) -> list[str]:
    """Cut texts into the words that an index holds, in order."""
    return [word for text in texts for run in _runs(text) for word in _cut(run)]


def _runs(text: str) -> list[str]:
    """Unbroken runs of one script, normalised: full-width letters and capitals are as the others."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return ["".join(run) for kind, run in groupby(plain, key=_kind) if kind]


def _kind(character: str) -> int:
    if not character.isalnum():
        return 0
    return 2 if character >= _FIRST_IDEOGRAPH else 1


def _cut(run: str) -> list[str]:
    if _kind(run[0]) == 1:
        return [run[:_LONGEST]]
    return [one + other for one, other in pairwise(run)] + [run[-1]]


def fts5_query(question: str) -> str:
    """Write a question for FTS5: every run must be there. Empty when nothing can be asked."""
    return " AND ".join(
        '"' + " ".join(words) + '"' + (" *" if prefix else "") for words, prefix in _asked(question)
    )


def tsquery(question: str) -> str:
    """Write a question as a PostgreSQL tsquery; what it asks is what :func:`fts5_query` asks."""
    return " & ".join(
        "(" + " <-> ".join(f"'{word}'" for word in words) + ")" + (":*" if prefix else "")
        if len(words) > 1
        else f"'{words[0]}'" + (":*" if prefix else "")
        for words, prefix in _asked(question)
    )


def tsvector(words: Iterable[str]) -> str:
    """Write words as a PostgreSQL tsvector, with their positions."""
    return " ".join(f"'{word}':{min(place, _LAST_POSITION)}" for place, word in enumerate(words, 1))


def mentions(question: str, words: Sequence[str]) -> bool:
    """Whether a list of words answers a question: what both indexes find, for words that are at hand."""
    return all(_stands_in(asked, words, prefix=prefix) for asked, prefix in _asked(question))


def _stands_in(asked: Sequence[str], words: Sequence[str], *, prefix: bool) -> bool:
    if prefix:
        return any(word.startswith(asked[0]) for word in words)
    return any(list(words[at : at + len(asked)]) == list(asked) for at in range(len(words)))


def _asked(question: str) -> list[tuple[list[str], bool]]:
    """Each run of a question: the words that must stand side by side, and whether it is a beginning."""
    asked = []
    for part in _SPACES.split(question):
        for run in _runs(part):
            if _kind(run[0]) == 1 or len(run) == 1:
                asked.append(([run[:_LONGEST]], True))
            else:
                asked.append(([one + other for one, other in pairwise(run)], False))
    return asked
