"""The works on a card: plain text that becomes BibTeX, and nothing that could do harm in somebody's bibliography."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import Card, read_card
from medclip.models.packs.card_citations import Citation, harmless, key_of, united
from tests.kits.bibtex import read_entries

WORK = {"key": "lee2017", "type": "article", "of": ["cbis"], "fields": {"title": "A set", "year": "2017"}}


def test_a_card_with_works_survives_writing_and_reading_and_one_without_has_none(tmp_path: Path) -> None:
    card = Card.model_validate({"name": "m", "citations": [WORK]})
    (tmp_path / "card.json").write_text(card.to_json(), encoding="utf-8")
    assert read_card(tmp_path) == card
    assert read_card(tmp_path).citations[0].fields == {"title": "A set", "year": "2017"}
    (tmp_path / "card.json").write_text('{"name": "of before"}')
    assert read_card(tmp_path).citations == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "a b"}, "citations.0.key"),
        ({"key": "x,\n}@preamble{"}, "citations.0.key"),
        ({"type": "comment"}, "citations.0.type"),
        ({"fields": {"author": "Lee"}}, "needs a title"),
        ({"fields": {"title": "  "}}, "needs a title"),
        ({"fields": {"title": "a", "Author": "Lee"}}, "small letters"),
        ({"fields": {"title": "a", "note": "x},\n@misc{evil"}}, "note must be one line"),
        ({"fields": {"title": "a", "note": "x}, doi = {y"}}, "its braces in pairs"),
        ({"fields": {"title": "a", "note": "{open"}}, "its braces in pairs"),
        ({"fields": {"title": "a", "note": "\\input{/etc/passwd}"}}, "without a backslash"),
        ({"fields": {"title": "a", "note": "red \x1b[31m"}}, "one line of text"),
        ({"fields": {"title": "a", "year": 2017}}, "citations.0.fields.year"),
        ({"field": {}}, "citations.0.field"),
    ],
)
def test_an_entry_that_is_no_plain_text_is_refused_by_name(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"name": "m", "citations": [WORK | change]}))
    with pytest.raises(MedclipError) as caught:
        read_card(tmp_path)
    assert caught.value.reason is Reason.PACK_INVALID
    assert words in str(caught.value)


def test_two_entries_of_a_card_with_one_key_are_refused() -> None:
    with pytest.raises(ValidationError, match="two entries have the key 'lee2017'"):
        Card.model_validate({"name": "m", "citations": [WORK, WORK | {"key": "LEE2017"}]})


def test_what_latex_takes_for_its_own_is_escaped_in_texts_and_left_in_addresses() -> None:
    fields = {"title": "50 % of {A_B} & C #1 ^ $2 ~", "doi": "10.1/a_b", "url": "https://x.org/~a?b=1&c=%20"}
    text = Citation(key="a", fields=fields).bibtex()
    assert r"50 \% of {A\_B} \& C \#1 \textasciicircum{} \$2 \textasciitilde{}" in text
    assert "doi = {10.1/a_b}" in text
    assert "url = {https://x.org/~a?b=1&c=%20}" in text
    (entry,) = read_entries(text)
    assert (entry.type, entry.key, set(entry.fields)) == ("misc", "a", {"title", "doi", "url"})


def test_authors_and_title_come_first_whatever_the_card_s_order() -> None:
    fields = {"year": "2020", "title": "T", "volume": "1", "author": "A, B"}
    lines = Citation(key="a", fields=fields).bibtex().splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["author", "title", "year", "volume"]


def test_any_text_is_made_harmless() -> None:
    for text in ("a}{b", "\\write18{rm}", "x\n@misc{y", "\x1b[2J\u202e", "  ", "{}" * 3):
        value = harmless(text)
        assert not {"{", "}", "\\", "\n"} & set(value)
        assert value.isprintable()
        if value:
            assert Citation(key=key_of(text), fields={"title": value}).fields["title"] == value


def test_a_work_of_an_older_pack_is_no_longer_the_new_pack_s_own() -> None:
    own = Citation(key="m", type="software", fields={"title": "m", "year": "2026"})
    assert own.of_ancestor("m 1", version="1", digest="ab12").of == ("m 1",)
    assert own.of_ancestor("m 1", version="1", digest="ab12").fields == {
        "title": "m",
        "year": "2026",
        "version": "1",
        "note": "Model pack; SHA-256 of its manifest.json: ab12",
    }
    data = Citation.model_validate(WORK)
    assert data.of_ancestor("m 1", version="1", digest="ab12") == data


def test_the_union_keeps_every_work_once_and_no_key_twice() -> None:
    other = Citation.model_validate(WORK | {"fields": {"title": "Another set"}, "of": ["vindr"]})
    again = Citation.model_validate(WORK | {"of": ["cbis_2"], "key": "other_key"})
    works = united([Citation.model_validate(WORK), other, again, other])
    assert [(work.key, work.of) for work in works] == [("lee2017", ("cbis", "cbis_2")), ("lee2017-2", ("vindr",))]
    assert Card.model_validate({"name": "m", "citations": [work.model_dump() for work in works]}).citations == works
