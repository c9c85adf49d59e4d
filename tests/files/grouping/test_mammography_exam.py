from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from medclip.files.grouping.mammography_exam import (
    Aside,
    ExamView,
    arrange,
    exam_of,
    exam_view,
    exam_view_of_row,
    twins_for_processing,
    why_aside,
)
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.sample import SIDES, FileRef, ViewType
from tests.kits.series import dicom, plain

FOUR = tuple(ViewType(side, position) for position in ("CC", "MLO") for side in SIDES)


def _film(name: str, side: str = "L", view: str = "CC", **values: Any) -> tuple[FileRef, FileFacts]:
    return dicom(name, None, modality="MG", sop_class="", laterality=side, view_position=view, **values)


def test_four_views_are_complete_in_any_order() -> None:
    films = [_film("a", "L", "CC"), _film("b", "L", "MLO"), _film("c", "R", "CC"), _film("d", "R", "MLO")]
    found = {exam_of(order) for order in permutations(films)}
    (exam,) = found
    assert exam is not None
    assert exam.views == (("R-CC", "c"), ("L-CC", "a"), ("R-MLO", "d"), ("L-MLO", "b"))
    assert (exam.missing, exam.set_aside, exam.notes, exam.reasons) == ((), (), (), ())


def test_missing_views_are_named_and_others_are_listed() -> None:
    exam = exam_of([_film("a"), _film("b", "R", "ML"), _film("c", "", "CC"), plain("p.png", Format.PNG)])
    assert exam is not None
    assert exam.missing == ("R-CC", "R-MLO", "L-MLO")
    assert [(view.name, view.view, str(reason)) for view, reason in exam.set_aside] == [
        ("b", ViewType("R", "ML"), "other_view"),
        ("c", ViewType("", "CC"), "no_side"),
    ]
    assert exam.notes == ("1 of a view that is none of the four", "1 without a stated side or view")
    assert exam.reasons == ("no_side", "one_view", "other_view")


def test_presentation_goes_before_processing_and_that_is_said() -> None:
    raw = _film("a", presentation_intent="FOR PROCESSING")
    shown = _film("b", presentation_intent="FOR PRESENTATION")
    exam = exam_of([raw, shown])
    assert exam is not None
    assert exam.views == (("L-CC", "b"),)
    assert [reason for _, reason in exam.set_aside] == [Aside.FOR_PROCESSING]
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
    assert exam.views == (("L-CC", "b"),)
    assert "breast implant present" in exam.notes
    only = exam_of([_film("a", **displaced)])
    assert only is not None
    assert only.notes == ("implant displaced: L-CC",)


def test_a_magnified_part_is_none_of_the_four_views() -> None:
    exam = exam_of([_film("a", view_modifiers=("magnification",))])
    assert exam is not None
    assert (exam.views, len(exam.missing), exam.reasons) == ((), 4, ("missing_views", "partial_view"))


def test_the_view_of_old_films_may_stand_in_the_orientation() -> None:
    exam = exam_of([_film("a", "R", "", patient_orientation=("MLO",))])
    assert exam is not None
    assert [slot for slot, _ in exam.views] == ["R-MLO"]


def test_other_studies_have_no_exam() -> None:
    assert exam_of([dicom("a", 0), plain("p", Format.PNG)]) is None


def test_a_text_that_stands_in_for_a_view_or_an_intent_is_not_shown() -> None:
    exam = exam_of([_film("a", "L", "WUTHERING", presentation_intent="FOR WUTHERING"), _film("b", "L", "DAVID")])
    assert exam is not None
    assert [(view.view, view.intent, view.modifiers) for view, _ in exam.set_aside] == [(ViewType("L"), "", ())] * 2
    assert "WUTHERING" not in repr(exam).upper()
    assert exam.notes == ("2 without a stated side or view",)


def test_two_images_of_one_exposure_are_known_by_whatever_view_they_state() -> None:
    raw = _film("a", "L", "CC TOMO", presentation_intent="FOR PROCESSING")
    shown = _film("b", "L", "CC TOMO", presentation_intent="FOR PRESENTATION")
    other = _film("c", "L", "CC OTHER", presentation_intent="FOR PROCESSING")
    assert twins_for_processing([raw, shown, other]) == {"a"}


def test_two_images_of_one_view_are_the_first_and_a_repeat() -> None:
    exam = exam_of([_film("b", instance_number=1), _film("a", instance_number=2), _film("c", "L", "MLO")])
    assert exam is not None
    assert exam.views == (("L-CC", "b"), ("L-MLO", "c"))
    assert [(view.name, reason) for view, reason in exam.set_aside] == [("a", Aside.REPEAT)]
    assert exam.reasons == ("missing_views", "repeat")
    assert "1 more of a view that is there" in exam.notes


@pytest.mark.parametrize(
    ("header", "table", "file_name", "side"),
    [
        ("L", "", "1.dcm", "L"),
        ("", "R", "1.dcm", "R"),
        ("L", "R", "1.dcm", ""),
        ("L", "", "P_00173_RIGHT_CC.dcm", ""),
        ("L", "L", "0_R_CC.png", ""),
        ("L", "", "LCC and RCC.dcm", ""),
        ("L", "", "R.dcm", "L"),
        ("L", "", "vitamin_R_12.dcm", "L"),
        ("", "", "0_R_CC.png", ""),
    ],
)
def test_a_side_is_known_where_header_table_and_file_name_do_not_contradict(
    header: str, table: str, file_name: str, side: str
) -> None:
    film = _film(file_name, header)[1].header
    view = exam_view("x", film, table=ViewType(table), file_name=file_name)
    assert view.view.side == side
    assert view.sides_contradict == (not side and bool(header))
    if view.sides_contradict:
        assert arrange([view]).set_aside == ((view, Aside.SIDES_CONTRADICT),)


@pytest.mark.parametrize(
    ("cell", "view", "modifiers"),
    [
        ("MLO", "MLO", ()),
        ("cc mag", "CC", ("magnification",)),
        ("SPOT_MLO", "MLO", ("spot compression",)),
        ("MLOID", "MLO", ("implant displaced",)),
        ("RCC", "CC", ()),
        ("ML", "ML", ()),
        ("something", "", ()),
    ],
)
def test_the_cell_of_a_table_names_the_view_and_what_was_done_differently(
    cell: str, view: str, modifiers: tuple[str, ...]
) -> None:
    known = exam_view("x", table=ViewType("R", cell))
    assert (known.view.position, known.modifiers) == (view, modifiers)


def test_an_ml_view_is_no_mlo_and_a_missing_position_is_said() -> None:
    exam = arrange([exam_view("a", table=ViewType("R", "ML")), exam_view("b", table=ViewType("R"))])
    assert [reason for _, reason in exam.set_aside] == [Aside.OTHER_VIEW, Aside.NO_POSITION]
    assert all(why_aside(reason) for reason in Aside)


def test_kinds_of_a_contrast_enhanced_pair_are_views_of_their_own() -> None:
    low = [
        _film(f"low-{v.side}{v.position}", v.side, v.position, image_type=("O", "P", "", "LOW_ENERGY")) for v in FOUR
    ]
    sub = _film("sub", "R", "CC", image_type=("DERIVED", "PRIMARY", "", "RECOMBINED"))
    exam = exam_of([sub, *low])
    assert exam is not None
    assert [slot for slot, _ in exam.views] == [
        *(f"{v.side}-{v.position} low_energy" for v in FOUR),
        "R-CC subtracted",
    ]
    assert exam.missing == ("L-CC subtracted", "R-MLO subtracted", "L-MLO subtracted")
    assert exam.set_aside == ()
    table = arrange(exam_view(str(i), table=ViewType(v.side, v.position, "subtracted")) for i, v in enumerate(FOUR))
    assert table.missing == ()


def test_views_hang_right_before_left_and_cc_before_mlo_whatever_their_order() -> None:
    mixed = [ViewType("L", "MLO", "subtracted"), *reversed(FOUR), ViewType("R", "CC", "subtracted")]
    exam = arrange(ExamView(str(number), view) for number, view in enumerate(mixed))
    assert [view.view for view in exam.chosen] == [*FOUR, mixed[-1], mixed[0]]


def test_an_implant_is_a_reason_of_the_examination() -> None:
    assert arrange([ExamView("a", FOUR[0], implant=True)]).reasons == ("implant", "one_view")
    assert arrange([ExamView("a", FOUR[0], implant=False)]).reasons == ("one_view",)


def test_a_row_of_a_result_knows_what_the_file_knew() -> None:
    headers = '{"view_modifiers": ["magnification"], "intent": "FOR PROCESSING", "exam_kind": "subtracted", '
    headers += '"instance_number": 3, "sides_contradict": true}'
    view = exam_view_of_row("7", "R", "CC", headers)
    assert (view.view, view.intent) == (ViewType("R", "CC", "subtracted"), "processing")
    assert (view.modifiers, view.number, view.sides_contradict) == (("magnification",), 3, True)
    plain_row = exam_view_of_row("8", None, None, None)
    assert plain_row == ExamView("8", ViewType())


def test_a_rolled_view_is_none_of_the_four() -> None:
    exam = exam_of([_film("a", view_modifiers=("rolled",))])
    assert exam is not None
    assert [reason for _, reason in exam.set_aside] == [Aside.PARTIAL]
