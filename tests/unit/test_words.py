"""Chinese is found by any two characters that stand together, Latin words by their beginning."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from govbus_console.control.words import fts5_query, tsquery, tsvector, words_of


def test_chinese_is_cut_into_pairs_and_latin_words_stay_whole() -> None:
    assert words_of(["常住人口 Register", "id_number"]) == [
        *("常住", "住人", "人口", "口"),
        *("register", "id", "number"),
    ]


@pytest.mark.parametrize(("one", "other"), [("ＡＢＣ１２", "abc12"), ("Öl", "ÖL"), ("人口", "⼈⼝")])
def test_spellings_that_look_alike_are_one_word(one: str, other: str) -> None:
    assert words_of([one]) == words_of([other])


@pytest.mark.parametrize(
    ("question", "fts5", "postgresql"),
    [
        ("人口", '"人口"', "'人口'"),
        ("常住人口", '"常住 住人 人口"', "('常住' <-> '住人' <-> '人口')"),
        ("人", '"人" *', "'人':*"),
        ("regis 人口", '"regis" * AND "人口"', "'regis':* & '人口'"),
        ("330000A01/12", '"330000a01" * AND "12" *', "'330000a01':* & '12':*"),
        ("' OR \" ) *", '"or" *', "'or':*"),
        ("--", "", ""),
    ],
)
def test_a_question_is_written_in_each_databases_own_words(question: str, fts5: str, postgresql: str) -> None:
    assert (fts5_query(question), tsquery(question)) == (fts5, postgresql)


@given(st.text())
def test_no_text_gets_out_of_its_quotes(question: str) -> None:
    """Whatever is typed, the query holds letters and digits between quotes that we have set."""
    assert re.fullmatch(r'(?:"[^\W_ ]+(?: [^\W_ ]+)*"(?: \*)?(?: AND )?)*', fts5_query(question))
    assert "'" not in re.sub(r"'[^\W_']+'", "", tsquery(question))


def _holds(words: list[str], question: str) -> bool:
    """What both indexes do with a question, said in Python."""
    text = " " + " ".join(words) + " "
    return all(
        f" {quoted}" in text if prefix else f" {quoted} " in text
        for quoted, prefix in re.findall(r'"([^"]+)"( \*)?', fts5_query(question))
    )


@given(st.text(st.sampled_from("常住人口婚姻民政ab1 /"), min_size=1, max_size=12), st.data())
def test_every_part_of_a_chinese_text_finds_it(text: str, data: st.DataObject) -> None:
    runs = re.findall(r"[常住人口婚姻民政]+", text)
    assume(runs)
    run = data.draw(st.sampled_from(runs))
    start = data.draw(st.integers(0, len(run) - 1))
    part = run[start : data.draw(st.integers(start + 1, len(run)))]

    assert _holds(words_of([text]), part)


@given(st.text(st.sampled_from("常住人口"), min_size=2, max_size=4), st.text(st.sampled_from("常住人口")))
def test_a_chinese_question_finds_only_texts_that_hold_it(question: str, text: str) -> None:
    assert _holds(words_of([text]), question) == (question in text)


def test_positions_stay_within_what_a_tsvector_can_hold() -> None:
    assert tsvector(["a"] * 16_384).endswith("'a':16383 'a':16383")
