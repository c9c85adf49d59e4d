"""Which images of a mammography examination answer, and the words that stand beside the answer."""

from __future__ import annotations

from medclip.files.grouping.mammography_exam import ExamView
from medclip.sample import ViewType
from medclip.scoring.exam_scores import ExamViews


def view(n: int, side: str, position: str, **values: object) -> ExamView:
    return ExamView(f"{n:03}", ViewType(side, position), **values)  # type: ignore[arg-type]


def exam(*views: ExamView) -> ExamViews:
    return ExamViews(views)


def test_views_answer_as_they_hang_and_nothing_is_missing() -> None:
    four_views = exam(view(0, "L", "MLO"), view(1, "L", "CC"), view(2, "R", "MLO"), view(3, "R", "CC"))
    assert four_views.used == (3, 1, 2, 0)
    assert (four_views.missing(), four_views.notes(), four_views.set_aside) == ((), (), ())
    assert [four_views.of_side(side) for side in four_views.sides] == [(3, 2), (1, 0)]


def test_of_two_cc_views_of_one_side_the_first_answers_and_both_levels_say_so() -> None:
    twice = exam(view(0, "L", "CC"), view(1, "L", "CC"), view(2, "L", "MLO"), view(3, "R", "CC"))
    assert twice.used == (3, 0, 2)
    assert twice.notes_of(1) == ("repeat",)
    assert twice.notes("L") == ("repeat",)
    assert twice.notes("R") == ("one_view",)
    assert twice.notes() == ("missing_views", "repeat")
    assert (twice.missing(), twice.missing("L"), twice.missing("R")) == (("R-MLO",), (), ("R-MLO",))


def test_a_breast_without_a_view_in_its_place_is_answered_by_what_else_there_is_of_it() -> None:
    spot = view(2, "R", "CC", modifiers=("spot compression",))
    lateral = exam(view(0, "L", "CC"), view(1, "R", "ML"), spot)
    assert lateral.used == (0, 1)
    assert lateral.notes_of(1) == ("other_view",)
    assert lateral.notes_of(2) == ("partial_view",)
    assert exam(view(0, "L", "CC"), spot).used == (1, 0)


def test_an_examination_whose_sides_nobody_states_is_answered_by_all_its_images() -> None:
    unknown = exam(view(0, "", ""), view(1, "", "CC"), view(2, "", "MLO", sides_contradict=True))
    assert unknown.used == (1, 2, 0)
    assert unknown.sides == ()
    assert unknown.notes() == ("missing_views", "no_position", "no_side", "sides_contradict")


def test_an_image_without_a_side_does_not_answer_beside_those_that_have_one() -> None:
    beside = exam(view(0, "L", "CC"), view(1, "", "CC"))
    assert beside.used == (0,)
    assert beside.notes() == ("no_side", "one_view")


def test_raw_detector_values_answer_only_where_nothing_else_does_and_are_named() -> None:
    both = exam(view(0, "L", "CC", intent="processing"), view(1, "L", "CC", intent="presentation"))
    assert both.used == (1,)
    assert both.notes_of(0) == ("for_processing",)
    raw = exam(view(0, "L", "CC", intent="processing"))
    assert raw.notes() == ("one_view", "only_for_processing")


def test_pairs_of_contrast_enhanced_images_are_views_of_their_own() -> None:
    pair = ExamViews(tuple(ExamView(kind, ViewType("R", "CC", kind)) for kind in ("subtracted", "low_energy")))
    assert pair.used == (1, 0)
    assert "R-MLO subtracted" in pair.missing("R")
    assert "repeat" not in pair.notes()
