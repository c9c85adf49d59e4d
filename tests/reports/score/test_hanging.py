"""How the views of an examination hang in the report: R beside L, CC above MLO, chest walls in the middle."""

from __future__ import annotations

from pathlib import Path

from medclip.reports.model_card import PrintedCard
from medclip.reports.score.hanging import most_telling, place_of
from medclip.reports.score.study import StudyData, collect_study
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import ExamRow, FileRow, ScoreRow, Thumbnail
from tests.kits.ledger import fill_ledger

CARD = PrintedCard("tiny", "1", "", "", (), "", (), (), ())
PLACES = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]


def exam_row(level: str, probability: float, **values: object) -> ExamRow:
    none = dict.fromkeys(("side", "position", "view_kind", "row", "file", "attention_breast", "attention_exam", "note"))
    own = {**none, "num_views": 1, "missing": "[]", "fusion": "attention", **values}
    return ExamRow(
        "s",
        None,
        level,
        task="breast_density",
        class_="fatty",
        kind="multiclass",
        probability=probability,
        logit=0.0,
        model="tiny",
        model_version="1",
        **own,
    )  # type: ignore[arg-type]


def examined(folder: Path, views: list[ExamRow], **exam: object) -> StudyData:
    """Return the report's data of an examination with these views."""
    files = [
        FileRow(n, f"{n}.dcm", "0" * 64, 9, "dicom", "scored", None, None, "s", "mammography", "header", adapter="m")
        for n in range(1, len(views) + 1)
    ]
    score = ScoreRow("s", None, "mammography", "breast_density", "fatty", "multiclass", 0.4, 0.0, 4, "tiny", "1", "p")
    images = tuple(Thumbnail(n, b"image %d" % n, burned_in=False) for n in range(1, len(views) + 1))
    with Ledger(folder) as ledger:
        fill_ledger(ledger, files, (score,), images, (exam_row("exam", 0.4, **exam), *views))
        return collect_study(ledger, "s", 1, {}, CARD)


def view(row: int, side: str, position: str, **values: object) -> ExamRow:
    known = {"view_kind": "standard", "attention_exam": 0.25, "attention_breast": 0.5, **values}
    return exam_row("view", row / 10, side=side, position=position, row=row, **known)


def test_the_right_breast_hangs_on_the_left_and_cc_above_mlo(tmp_path: Path) -> None:
    study = examined(tmp_path, [view(n, *place) for n, place in enumerate(PLACES, 1)])
    assert study.hanging is not None
    ((kind, places),) = study.hanging.kinds
    assert kind == ""
    assert [(place.place, place.file, place.is_right) for place in places] == [
        ("R-CC", "file 3 (DICOM)", True),
        ("L-CC", "file 1 (DICOM)", False),
        ("R-MLO", "file 4 (DICOM)", True),
        ("L-MLO", "file 2 (DICOM)", False),
    ]
    assert {place.shares for place in places} == {("25 % of the exam", "50 % of the breast")}
    assert study.thumbnails == ()
    assert "attention" in study.hanging.fused


def test_a_missing_view_keeps_its_place_and_what_is_set_aside_says_why(tmp_path: Path) -> None:
    aside = {"attention_exam": None, "attention_breast": None, "note": "repeat"}
    views = [view(1, "L", "CC"), view(2, "L", "CC", **aside), view(3, "R", "MLO")]
    hanging = examined(tmp_path, views, note="implant missing_views repeat").hanging
    assert hanging is not None
    ((_, places),) = hanging.kinds
    assert [place.is_missing for place in places] == [True, False, False, True]
    assert [(other.file, other.note) for other in hanging.others] == [
        ("file 2 (DICOM)", "its place is taken by another image of the same view")
    ]
    assert hanging.note == "breast implant"


def test_kinds_of_mammograms_hang_each_for_itself(tmp_path: Path) -> None:
    kinds = ["subtracted", "low_energy"]
    hanging = examined(tmp_path, [view(n, "R", "CC", view_kind=kind) for n, kind in enumerate(kinds, 1)]).hanging
    assert hanging is not None
    assert [(kind, places[0].file) for kind, places in hanging.kinds] == [
        ("Low energy", "file 2 (DICOM)"),
        ("Subtracted", "file 1 (DICOM)"),
    ]


def test_images_of_no_known_view_are_shown_without_a_place(tmp_path: Path) -> None:
    hanging = examined(tmp_path, [view(1, "", "", note="no_position"), view(2, "", "CC")]).hanging
    assert hanging is not None
    assert hanging.kinds == ()
    assert [view.place for view in hanging.placeless] == ["view not known", "CC"]
    assert hanging.others == ()


def test_an_image_that_answers_for_want_of_others_is_not_shown_as_set_aside(tmp_path: Path) -> None:
    aside = {"attention_exam": None, "attention_breast": None, "note": "other_view"}
    spot = view(2, "R", "", note="partial_view")
    hanging = examined(tmp_path, [view(1, "L", "CC"), spot, view(3, "L", "ML", **aside)]).hanging
    assert hanging is not None
    assert [(view.place, view.shares) for view in hanging.placeless] == [
        ("R", ("25 % of the exam", "50 % of the breast"))
    ]
    assert [view.place for view in hanging.others] == ["L-ML"]


def test_breasts_and_views_have_their_probabilities_beside_the_examination(tmp_path: Path) -> None:
    breasts = [exam_row("breast", 0.6, side="R"), exam_row("breast", 0.2, side="L")]
    study = examined(tmp_path, [*breasts, view(1, "R", "CC"), view(2, "L", "CC")])
    assert study.hanging is not None
    assert study.hanging.columns == ("Exam", "R", "L", "R-CC", "L-CC")
    ((level,),) = (task.levels for task in study.tasks)
    assert level.probabilities == (0.4, 0.6, 0.2, 0.1, 0.2)


def test_a_heat_map_is_of_the_image_that_counts_most() -> None:
    rows = [view(1, "R", "CC"), view(2, "L", "CC", attention_exam=0.4), view(3, "L", "MLO", attention_exam=None)]
    most = most_telling(rows, "breast_density", "fatty")
    assert most is not None
    assert (most.row, place_of(most)) == (2, "L-CC")
    equal = most_telling([view(1, "R", "CC"), view(2, "L", "CC")], "breast_density", "fatty")
    assert equal is not None
    assert equal.row == 2
    assert most_telling([], "breast_density", "fatty") is None


def test_of_one_view_nothing_is_said_of_shares(tmp_path: Path) -> None:
    hanging = examined(tmp_path, [view(1, "R", "CC", attention_exam=1.0, attention_breast=1.0)]).hanging
    assert hanging is not None
    assert hanging.fused == ""
    assert hanging.kinds[0][1][0].shares == ()


def test_what_weighs_no_view_claims_no_attention(tmp_path: Path) -> None:
    views = [view(n, "R", position, fusion="mean_of_logits") for n, position in enumerate(("CC", "MLO"), 1)]
    hanging = examined(tmp_path, views, fusion="mean_of_logits").hanging
    assert hanging is not None
    assert "as much as the others" in hanging.fused
    assert hanging.kinds[0][1][0].shares == ()
    assert "attention" not in hanging.fused
