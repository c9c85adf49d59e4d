"""Reports of ECGs: what is learned from, and what is taken out before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.text.ecg_statements import EMPTY, NO_READING, SHORT, clean_report, language_of


def test_statements_of_a_machine_are_joined_as_merl_joins_them():
    statements = ["Atrial fibrillation", "*** Consider ischemia ***", "", "Borderline EKG = abnormal"]
    assert clean_report(statements).text == "atrial fibrillation. consider ischemia. borderline ecg abnormal"


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ("sinusrhythmus linkstyp 4.46                          unbestÄtigter bericht", "sinusrhythmus linkstyp"),
        ("sinusrhythmus linkstyp 4.46                          unbestÄti", "sinusrhythmus linkstyp"),
        ("sinusrhythmus linkstyp 4.46 ", "sinusrhythmus linkstyp"),
        ("sinusrhythmus infarkt    alter unbest.", "sinusrhythmus infarkt alter unbest"),
        ("Sinus rhythm. Normal ECG. Unconfirmed report.", "sinus rhythm. normal ecg"),
        ("sinus rhythm. normal ecg. Edit: NORM 100, (NDT)", "sinus rhythm. normal ecg"),
        ("Sinus rhythm. Confirmed by Dr. A. Planted on 3/4. Left axis deviation", "sinus rhythm. left axis deviation"),
        ("Sinusrhythmus, bestätigt von Dr. med. Planted. Linkstyp", "sinusrhythmus. linkstyp"),
        ("CS-12 sinusrhythmus normales ekg", "sinusrhythmus normales ekg"),
        ("vorhofflimmern unter 3x1 cordichin und novodigal 0,2 mg", "vorhofflimmern und"),
        ("Sinus rhythm with PVCs. Clinical correlation is suggested.", "sinus rhythm with pvcs"),
    ],
)
def test_carts_editors_people_and_doses_are_taken_out(report: str, text: str):
    cleaned = clean_report(report)
    assert cleaned.text == text
    assert cleaned.had_edit == ("Edit" in report)


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("Sinus rhythm.", SHORT),
        ("sinusrhythmus", SHORT),
        ("trace only requested.", NO_READING),
        ("  ", EMPTY),
        ("4.46      unbestätigter bericht", EMPTY),
        ([], EMPTY),
    ],
)
def test_what_says_nothing_of_the_record_is_left_out_with_its_reason(report, reason: str):
    cleaned = clean_report(report)
    assert (cleaned.text, cleaned.left_out) == ("", reason)


def test_two_german_words_are_a_report_and_ekg_is_their_own_word():
    assert clean_report("Sinusrhythmus, normales EKG").text == "sinusrhythmus, normales ekg"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("sinus rhythm. left axis deviation", "en"),
        ("vorhofflimmern/-flattern lagetyp normal", "de"),
        ("sinusrytm vänster el-axel", "sv"),
        ("12 13", ""),
    ],
)
def test_the_language_is_told_by_the_words(text: str, language: str):
    assert language_of(text) == language


@given(
    st.lists(st.sampled_from(["sinus rhythm", "4.46", "unbestÄ", "*", "=", "Edit:", "dr. a", ".", "ekg", "3x1", " "]))
)
def test_any_report_either_stays_in_lower_case_without_marks_or_is_left_out(parts: list[str]):
    cleaned = clean_report(" ".join(parts))
    assert bool(cleaned.text) != bool(cleaned.left_out)
    assert cleaned.text == cleaned.text.lower().strip(" .*=")
    assert "unbest" not in cleaned.text


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ("Sinus rhythm. Normal ECG. Confirmed by Dr. Hans Planted, M.D. on 12/3/2010", "sinus rhythm. normal ecg"),
        ("sinus rhythm. referred by: PLANTED. left axis deviation", "sinus rhythm. left axis deviation"),
        ("vorhofflimmern mit linkstyp unbestätigter befund dr. planted", "vorhofflimmern mit linkstyp"),
        (
            "Sinusrhythmus, Linkstyp. Befund: Prof. Dr. med. H. Planted-Lang. Kein Infarkt.",
            "sinusrhythmus, linkstyp. kein infarkt",
        ),
        ("sinus rhythm, 1st degree av-block. technician: planted", "sinus rhythm, 1st degree av-block"),
    ],
)
def test_names_of_people_who_signed_ordered_or_recorded_are_taken_out(report: str, text: str) -> None:
    assert clean_report(report).text == text
