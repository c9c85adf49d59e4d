"""Figures, captions and citing paragraphs of JATS: the golden article, and the traps that real ones hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.pairs.sources.articles.jats import Figure, read_article
from tests.kits.articles import CC_BY_NC, article, cite, figure

BOMB = "<!DOCTYPE article [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]>\n"
OUTSIDE = "<!DOCTYPE article [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>\n"
PUBLISHED = '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS v1.3//EN" "JATS-archivearticle1-3.dtd">\n'


def _figures(body: str) -> list[Figure]:
    return list(read_article(article(body)).figures)


def _repeats(text: str) -> bool:
    return any(text[i : i + 10] == text[i + 10 : i + 20] for i in range(len(text) - 19))


@pytest.mark.golden
def test_the_golden_article_has_the_corrected_captions_and_paragraphs(golden: Path) -> None:
    stored = json.loads((golden / "biomedica_nxml.json").read_text(encoding="utf-8"))
    read = read_article(stored["nxml"].encode())
    first, second, third, equation = read.figures
    ids = dict(stored["upstream"]["rid_map"])
    assert [first.image_id, second.image_id, third.image_id] == [ids["F1"], ids["F2"], ids["F3"]]
    # Upstream has the right words here, but for the blank between title and paragraph.
    assert first.caption.replace(". (A)", ".(A)") == stored["upstream"]["captions"][first.image_id]
    assert second.caption == "Dose curve."
    assert [len(one.context) for one in read.figures] == [2, 1, 0, 0]
    assert first.context[1] == f"Later views agree ([FIG:{first.image_id}|Fig. 1B]) and see 3."
    assert second.context == (f"Dose response: [FIG:{second.image_id}|Figure 2], then Figure 9.",)
    assert first.panels == ("A", "B")
    assert third.problem is not None
    assert third.problem.reason is Reason.EMPTY_CAPTION
    assert equation.problem is not None
    assert equation.problem.reason is Reason.NOT_AN_IMAGE
    assert not any(_repeats(text) for one in read.figures for text in (*one.context, *one.plain_context, one.caption))


def test_a_file_is_found_whatever_prefix_its_reference_has_and_however_deep_it_lies() -> None:
    deep = (
        '<alternatives xmlns:q="http://www.w3.org/1999/xlink"><graphic q:href="x/deep.tif"/><graphic/></alternatives>'
    )
    (one,) = _figures(figure(1, "", "<p>Deep.</p>", graphic=deep))
    assert (one.image_id, one.hrefs, one.caption, one.problem) == ("deep.tif", ("deep.tif", ""), "Deep.", None)


def test_one_reference_to_two_figures_is_context_of_both() -> None:
    both = figure(1, "a", "<p>A.</p>") + figure(2, "b", "<p>B.</p>")
    figures = _figures(f"<p>Both {cite(1, 2, words='Figs. 1 and 2')} agree.</p>{both}")
    assert [one.context for one in figures] == [("Both [FIG:a b|Figs. 1 and 2] agree.",)] * 2


def test_a_paragraph_that_cites_a_figure_twice_is_its_context_once() -> None:
    body = f"<p>{cite(1)} and <italic><bold>{cite(1)}</bold></italic>.</p>{figure(1, 'a', '<p>A.</p>')}"
    (one,) = _figures(body)
    assert one.plain_context == ("Figure 1 and Figure 1.",)


def test_a_figure_within_a_paragraph_is_not_read_into_it_nor_its_caption_taken_for_context() -> None:
    body = f"<p>See {cite(1)}. {figure(1, 'a', f'<p>As in {cite(1)}.</p>')}</p>"
    (one,) = _figures(body)
    assert (one.caption, one.plain_context) == ("As in Figure 1.", ("See Figure 1.",))


def test_words_of_a_formula_are_read_once() -> None:
    forms = "<tex-math>\\alpha</tex-math><math><mi>a</mi></math>"
    formula = f"<inline-formula><alternatives>{forms}</alternatives></inline-formula>"
    (one,) = _figures(figure(1, "a", f"<title>Of</title><p>H<sub>2</sub>O, {formula}.</p>"))
    assert one.caption == "Of H2O, a."


def test_a_caption_is_in_nfc() -> None:
    (one,) = _figures(figure(1, "a", "<p>Ro\u0308ntgen</p>"))
    assert one.caption == "R\u00f6ntgen"


@pytest.mark.parametrize(
    ("words", "behind", "panels"),
    [
        ("Figure 1A", "", "A"),
        ("Fig. 2 (a, c)", "", "AC"),
        ("Fig 3B-D", "", "BCD"),
        ("Figure 4", "E, F)", "EF"),
        ("Figure 5", " A man", ""),
        ("Figures 1 and 2", "", ""),
    ],
)
def test_letters_of_a_reference_are_panels(words: str, behind: str, panels: str) -> None:
    (one,) = _figures(f"<p>({cite(1, words=words)}{behind})</p>{figure(1, 'a', '<p>A.</p>')}")
    assert "".join(one.panels) == panels


def test_an_image_outside_of_figures_and_one_shown_twice_have_their_reason() -> None:
    body = (
        f"<table-wrap><graphic xlink:href='t'/></table-wrap>{figure(1, 'a', '<p>A.</p>')}{figure(2, 'a', '<p>B.</p>')}"
    )
    problems = [one.problem and one.problem.reason for one in _figures(body)]
    assert problems == [Reason.OTHER_INPUT, None, Reason.DUPLICATE]


@pytest.mark.parametrize("head", [BOMB, OUTSIDE])
def test_an_article_that_declares_entities_is_refused(head: str) -> None:
    with pytest.raises(MedclipError) as refused:
        read_article(article("<p>&a;</p>", head=head))
    assert refused.value.reason is Reason.CORRUPT
    assert "entities" in str(refused.value)


def test_the_document_type_that_publishers_write_is_passed_over() -> None:
    assert read_article(article("<p/>", head=PUBLISHED)).facts["accession_id"] == "PMC1"


@pytest.mark.parametrize(
    "data", [b"", b"<article>", b"<html/>", b"\xff\xfe<", b"<article>" + b"<a>" * 5000 + b"</a>" * 5000]
)
def test_what_is_no_article_is_refused(data: bytes) -> None:
    with pytest.raises(MedclipError):
        read_article(data)


def test_fields_of_the_article_are_read() -> None:
    facts = read_article(article("<p/>", license_=CC_BY_NC)).facts
    assert {name: facts[name] for name in ("accession_id", "pmid", "title", "journal", "date")} == {
        "accession_id": "PMC1",
        "pmid": "77",
        "title": "A study",
        "journal": "J Test",
        "date": "2024-06",
    }
    assert (facts["abstract"], facts["keywords"], facts["mesh"]) == ("Aim To see.", ["lung"], ["Humans"])
    assert (facts["reference_ids"], facts["reference_count"]) == (["5"], 1)
    assert "by-nc" in facts["license"]


_WORD = st.text("abc ", min_size=1, max_size=8)


@given(st.lists(st.tuples(_WORD, st.sampled_from(["", "b", "i", "b i"])), min_size=1, max_size=6))
def test_every_word_of_a_paragraph_is_in_its_context_once_whatever_markup_is_around_it(pieces) -> None:
    text = ""
    for words, tags in pieces:
        marks = tags.split()
        text += "".join(f"<{t}>" for t in marks) + words + cite(1, words="F1") + "".join(f"</{t}>" for t in marks[::-1])
    (one,) = _figures(f"<p>{text}</p>{figure(1, 'a', '<p>A.</p>')}")
    assert one.plain_context == (" ".join("".join(f"{words}F1" for words, _ in pieces).split()),)
