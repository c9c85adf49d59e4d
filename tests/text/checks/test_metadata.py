"""Which wordings become entries of metadata, and what becomes of the others."""

from __future__ import annotations

import pytest

from medclip.errors import MedclipError, Reason
from medclip.text.checks.metadata import built_in_metadata, medical_metadata, normalised, plain_metadata


def test_entries_are_words_of_three_letters_up_to_six_words_and_no_stop_words() -> None:
    wordings = ["lung", "rib", "x", "of", "", "12", "left", "left lung", "a b c d e f g", "Normal", "CT", "Pe"]
    metadata = medical_metadata([("All", wordings)], "mine")
    assert metadata.entries == ("lung", "rib", "left lung", "CT")
    assert metadata.keeps_case_E.tolist() == [False, False, False, True]
    assert metadata.left_out == {
        "shorter than 3 letters": 3,
        "without letters": 2,
        "stop words": 2,
        "longer than 6 words": 1,
    }


def test_synonyms_are_one_concept_and_a_wording_belongs_to_the_first_that_has_it() -> None:
    metadata = medical_metadata([("Oedema", ["oedema", "edema"]), ("Swelling", ["swelling", "Edema"])], "mine")
    assert metadata.concepts == ("Oedema", "Swelling")
    assert metadata.concept_E.tolist() == [0, 0, 1]
    assert metadata.left_out == {"wordings of an earlier concept": 1}


def test_a_concept_without_a_fit_wording_is_none() -> None:
    assert medical_metadata([("L", ["l"]), ("Lung", ["lung"])], "mine").concepts == ("Lung",)


def test_metadata_of_one_letter_entries_alone_are_refused() -> None:
    with pytest.raises(MedclipError) as caught:
        medical_metadata([("A", ["a"]), ("B", ["b"])], "letters.txt")
    assert caught.value.reason is Reason.NOTHING_TO_DO


def test_the_reference_takes_entries_as_they_stand() -> None:
    metadata = plain_metadata(["a", "", "Lung ", ".", "a", "0"], "mine")
    assert metadata.entries == ("a", "Lung ", "0")
    with pytest.raises(MedclipError):
        plain_metadata(["", " ", "!"], "empty.txt")


def test_the_built_in_list_has_findings_and_neither_views_nor_their_absence() -> None:
    metadata = built_in_metadata()
    concept = dict(zip(metadata.entries, (metadata.concepts[c] for c in metadata.concept_E), strict=True))
    assert concept["pleural effusion"] == concept["effusion"]
    assert not {"mri", "brain mri", "no effusion", "normal"} & concept.keys()
    assert len(metadata.concepts) > 100


def test_texts_of_several_lines_stay_lines() -> None:
    assert normalised("a-b\r\n[c]\t d.").split("\n") == [" a b ", " c d . "]
