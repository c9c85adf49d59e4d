"""Whose captions a sample of several views gets, and which examinations are alike."""

from __future__ import annotations

from dataclasses import replace

from medclip.models.towers.view_fusion import ViewFusion
from medclip.sample import Modality, ViewType
from medclip.shards.sample_json import SampleView
from medclip.text.captions.record import CaptionRecord
from medclip.training.batches.sample_texts import ALL_SIDES, kin_of, label_key, subjects_of, types_of, view_of

RECORD = CaptionRecord(Modality.MAMMOGRAPHY)
PLACES = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))
TASK = "mammography_malignancy"


def view(
    side: str, position: str, *texts: str, kind: str = "standard", report: str | None = None, **labels: str
) -> SampleView:
    return SampleView("0.png", ViewType(side, position, kind), "00", texts, labels, report)


def exam(*places: tuple[str, str]) -> list[SampleView]:
    return [view(*place, "-".join(place)) for place in places]


def said(views: list[SampleView], num_texts: int, record: CaptionRecord = RECORD) -> list[tuple[object, int]]:
    return [(s.record.texts or s.record.labels, s.side) for s in subjects_of(record, views, num_texts)]


def test_captions_are_drawn_of_one_view_after_the_other_each_side_in_turn() -> None:
    assert said(exam(*PLACES), 4) == [(("R-CC",), 0), (("L-CC",), 1), (("R-MLO",), 0), (("L-MLO",), 1)]
    assert said(exam(("L", "CC"), ("L", "MLO")), 2) == [(("L-CC",), 1), (("L-MLO",), 1)]
    assert said(exam(("R", "CC"), ("R", "MLO"), ("L", "MLO")), 2) == [(("R-CC",), 0), (("L-MLO",), 1)]
    assert said(exam(("R", "CC")), 2) == [(("R-CC",), 0)] * 2
    assert said(exam(("", "CC")), 1) == [(("-CC",), ALL_SIDES)]


def test_a_view_that_nothing_is_said_of_is_passed_over() -> None:
    views = [view("R", "CC"), view("R", "MLO", "seen here"), view("L", "CC", report="a report")]
    subjects = subjects_of(RECORD, views, 4)
    assert [(s.record.texts, s.record.report, s.side, s.quoted) for s in subjects] == [
        (("seen here",), None, 0, True),
        ((), "a report", 1, True),
        (("seen here",), None, 0, True),
        ((), "a report", 1, True),
    ]
    assert (subjects[0].record.view, subjects[0].record.laterality) == ("MLO", "R")


def test_without_words_of_their_own_views_are_spoken_of_by_their_labels_or_by_the_record() -> None:
    labelled = [view("R", "CC", **{TASK: "benign"}), view("L", "CC", **{TASK: "normal"})]
    assert said(labelled, 2) == [({TASK: "benign"}, 0), ({TASK: "normal"}, 1)]
    whole = replace(RECORD, texts=("of the whole exam",))
    assert said(labelled, 2, whole) == [(("of the whole exam",), ALL_SIDES)] * 2
    assert said([view("L", "CC"), view("L", "MLO")], 2, whole) == [(("of the whole exam",), 1)] * 2
    assert said([], 1, replace(whole, laterality="R")) == [(("of the whole exam",), 0)]
    outcomes = [SampleView("0.png", ViewType("R", "CC"), "00", labels={"breast_cancer_risk": {"followup_months": 9}})]
    assert said(outcomes, 1) == [({}, 0)]


def test_types_are_numbered_as_the_fusion_numbers_them_and_back() -> None:
    views = [*exam(*PLACES), view("L", "CC", kind="subtracted"), view("", "ML")]
    numbers = types_of(RECORD, views)
    assert ViewFusion(4).types([v.view for v in views]).tolist() == [list(row) for row in numbers]
    assert [view_of(row) for row in numbers[:5]] == [v.view for v in views[:5]]
    assert view_of(numbers[5]) == ViewType("", "", "standard")
    assert types_of(replace(RECORD, laterality="L", view="CC"), []) == ((1, 0, 0),)


def test_examinations_are_alike_where_all_their_views_are_and_never_by_what_happened_later() -> None:
    labels = {TASK: "benign", "breast_cancer_risk": {"event_months": 9, "followup_months": 60}}
    one, later = replace(RECORD, labels=labels), replace(RECORD, labels={TASK: "benign"})
    assert kin_of(one, exam(*PLACES)) == ""  # the malignant breast may be the other one
    breast = exam(("R", "CC"), ("R", "MLO"))
    assert kin_of(one, breast) == kin_of(later, breast) != ""
    assert label_key(one) != label_key(later)
    right, left = (
        [view(a, "CC", **{TASK: "malignant"}), view(b, "CC", **{TASK: "normal"})] for a, b in (("R", "L"), ("L", "R"))
    )
    assert kin_of(one, right) != kin_of(one, left)
    assert kin_of(one, right) == kin_of(later, right)
