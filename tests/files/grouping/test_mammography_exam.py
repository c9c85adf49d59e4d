from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from medclip.files.grouping.mammography_exam import exam_of, twins_for_processing
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.sample import FileRef
from tests.kits.series import dicom, plain


def _film(name: str, side: str = "L", view: str = "CC", **values: Any) -> tuple[FileRef, FileFacts]:
    return dicom(name, None, modality="MG", sop_class="", laterality=side, view_position=view, **values)


def test_four_views_are_complete_in_any_order() -> None:
    films = [_film("a", "L", "CC"), _film("b", "L", "MLO"), _film("c", "R", "CC"), _film("d", "R", "MLO")]
    found = {exam_of(order) for order in permutations(films)}
    (exam,) = found
    assert exam is not None
    assert [(slot, ref.name) for slot, ref in exam.views] == [
        ("L-CC", "a"),
        ("L-MLO", "b"),
        ("R-CC", "c"),
        ("R-MLO", "d"),
    ]
    assert (exam.missing, exam.extra, exam.notes) == ((), (), ())


def test_missing_views_are_named_and_others_are_listed() -> None:
    exam = exam_of([_film("a"), _film("b", "R", "ML"), _film("c", "", "CC"), plain("p.png", Format.PNG)])
    assert exam is not None
    assert exam.missing == ("L-MLO", "R-CC", "R-MLO")
    assert [(item.file.name, item.side, item.view) for item in exam.extra] == [("b", "R", "ML"), ("c", "", "CC")]
    assert exam.notes == ("1 without a stated side or view",)


def test_presentation_goes_before_processing_and_that_is_said() -> None:
    raw = _film("a", presentation_intent="FOR PROCESSING")
    shown = _film("b", presentation_intent="FOR PRESENTATION")
    exam = exam_of([raw, shown])
    assert exam is not None
    assert exam.views[0][1].name == "b"
    assert [item.intent for item in exam.extra] == ["processing"]
    assert "1 for processing left out" in exam.notes[0]
    alone = exam_of([raw])
    assert alone is not None
    assert alone.notes == ("for processing only (raw detector values): L-CC",)


@pytest.mark.parametrize(
    "displaced", [{"view": "CCID"}, {"view_code": "CC", "view_modifiers": ("implant displaced",), "view": ""}]
)
def test_the_standard_view_goes_before_one_with_the_implant_displaced(displaced: dict[str, Any]) -> None:
    exam = exam_of([_film("a", **displaced), _film("b", breast_implant=True)])
    assert exam is not None
    assert exam.views == (("L-CC", exam.views[0][1]),)
    assert exam.views[0][1].name == "b"
    assert "breast implant present" in exam.notes
    only = exam_of([_film("a", **displaced)])
    assert only is not None
    assert only.notes == ("implant displaced: L-CC",)


def test_a_magnified_part_is_none_of_the_four_views() -> None:
    exam = exam_of([_film("a", view_modifiers=("magnification",))])
    assert exam is not None
    assert exam.views == ()
    assert len(exam.missing) == 4


def test_the_view_of_old_films_may_stand_in_the_orientation() -> None:
    exam = exam_of([_film("a", "R", "", patient_orientation=("MLO",))])
    assert exam is not None
    assert [slot for slot, _ in exam.views] == ["R-MLO"]


def test_other_studies_have_no_exam() -> None:
    assert exam_of([dicom("a", 0), plain("p", Format.PNG)]) is None


def test_a_text_that_stands_in_for_a_view_or_an_intent_is_not_shown() -> None:
    exam = exam_of([_film("a", "L", "WUTHERING", presentation_intent="FOR WUTHERING"), _film("b", "L", "DAVID")])
    assert exam is not None
    assert [(item.side, item.view, item.intent, item.modifiers) for item in exam.extra] == [("L", "", "", ())] * 2
    assert "WUTHERING" not in repr(exam).upper()
    assert exam.notes == ("2 without a stated side or view",)


def test_two_images_of_one_exposure_are_known_by_whatever_view_they_state() -> None:
    raw = _film("a", "L", "CC TOMO", presentation_intent="FOR PROCESSING")
    shown = _film("b", "L", "CC TOMO", presentation_intent="FOR PRESENTATION")
    other = _film("c", "L", "CC OTHER", presentation_intent="FOR PROCESSING")
    assert twins_for_processing([raw, shown, other]) == {"a"}
