"""What headers state of the body part: codes, descriptions in four languages, and texts that only sound like one."""

from __future__ import annotations

import pytest

from medclip.dicom.header.body_parts import described_parts, region_of_code, stated_part
from medclip.dicom.header.safe_header import PARTS
from medclip.text.vocabulary.load import load_task


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("US thyroid gland", "THYROID"),
        ("Sono Schilddrüse bds.", "THYROID"),
        ("Échographie du pancréas", "PANCREAS"),
        ("Codo derecho", "ELBOW"),
        ("Ellenbogen_li", "ELBOW"),
        ("US UTERUS TRANSVAG", "UTERUS"),
        ("Mamma links", "BREAST"),
        ("Radiographie du thorax", "CHEST"),
    ],
)
def test_a_part_is_read_in_four_languages(text: str, term: str) -> None:
    assert described_parts(text) == (term,)


@pytest.mark.parametrize(
    "text",
    [
        "HEAD FIRST SUPINE",
        "feet-first",
        "hand injection",
        "C-ARM",
        "main",
        "R CC",
        "",
        "T1 ax",
        "kann Infiltrat sein",
        "rein statisch",
    ],
)
def test_how_a_patient_lies_is_no_part(text: str) -> None:
    assert described_parts(text) == ()


def test_every_term_is_one_of_the_standard() -> None:
    texts = "head brain skull orbit eye retina sinus jaw neck thyroid carotid chest lung heart rib breast abdomen liver"
    assert {*described_parts(texts)} <= PARTS
    assert region_of_code("69748006") == region_of_code("T-B6000") == "THYROID"
    assert region_of_code("0") == ""


def test_a_contradiction_fits_no_task_and_silence_fits_all() -> None:
    task = load_task("breast_ultrasound_malignancy")
    for part, descriptions, fits in (
        ("", ["AP", "Study 7"], True),
        ("BREAST", [], True),
        ("BREAST", ["Left breast", "US thyroid and breast"], True),
        ("BREAST", ["Thyroid left"], False),
        ("", ["Elbow"], False),
        ("", ["Mamma re.", "US Bauch"], True),
        ("THYROID", ["US breast"], False),
    ):
        assert task.is_about(stated_part(part, descriptions)) is fits, (part, descriptions)


def test_parts_of_two_regions_contradict_neither() -> None:
    films = load_task("chest_xray_findings")
    for text in ("Aorta", "Oesophagus"):
        assert films.is_about(stated_part("CHEST", [text]))
    assert not films.is_about(stated_part("CHEST", ["Knie links"]))


def test_no_word_of_a_description_but_a_term_is_kept() -> None:
    assert stated_part("", ["Elbow of Marie Curie"]) == "described as ELBOW"
