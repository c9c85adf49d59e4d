"""One study: how its files are named, and in which order its classes stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medclip.models.packs.card import Card
from medclip.reports.model_card import PrintedCard, view_card
from medclip.reports.score.study import collect_study, names_of, ranges
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow, Ranking, ScoreRow
from medclip.text.vocabulary.load import load_task
from tests.kits.ledger import fill_ledger

FIGURE = {"value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5}


def measured(task: dict[str, Any], name: str = "chest_xray_view") -> PrintedCard:
    """Return what a report prints of a card with one task."""
    return view_card(Card.model_validate({"name": "tiny", "tasks": {name: task}}))


def test_row_numbers_are_written_as_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1–3, 7, 9–10"


def test_files_are_named_by_ranges_of_numbers_or_by_paths() -> None:
    assert names_of([1, 2, 3, 7]) == "files 1–3, 7"
    assert names_of([7]) == "file 7"
    assert names_of(["a.png", "b.png"]) == "a.png, b.png"
    assert names_of(list(range(1, 1001, 2))).endswith("599 and more, see files.parquet (500 files)")


def test_the_years_of_a_risk_stand_in_their_order_and_none_is_the_answer(tmp_path: Path) -> None:
    name, card = "breast_cancer_risk", PrintedCard("tiny", "1", "", "", (), "", (), (), ())
    file = FileRow(1, "a.dcm", "0" * 64, 9, "dicom", "scored", None, None, "s", "mammography", "header")
    rows = [
        ScoreRow("s", None, "mammography", name, f"year_{year}", "risk", 0.15 * year, 0.0, 1, "tiny", "1", "p")
        for year in range(1, 6)
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [file], rows)
        (task,) = collect_study(ledger, "s", 1, {name: load_task(name)}, card).tasks
    assert [row.title for row in task.classes] == ["Within 1 year", *(f"Within {n} years" for n in range(2, 6))]
    assert not any(row.top for row in task.classes)


@pytest.mark.parametrize(("probabilities", "bold"), [((0.42, 0.48, 0.1), []), ((0.2, 0.7, 0.1), ["pa"])])
def test_of_a_choice_only_a_class_with_more_than_half_is_the_answer(
    tmp_path: Path, probabilities: tuple[float, ...], bold: list[str]
) -> None:
    name = "chest_xray_view"
    card = measured({"classes": ["ap", "pa", "lateral"], "metrics": {"balanced_accuracy": FIGURE}})
    titles = {c.title: c.name for c in load_task(name).classes}
    file = FileRow(1, "a.dcm", "0" * 64, 9, "dicom", "scored", None, None, "s", "xray", "header")
    rows = [
        ScoreRow("s", None, "xray", name, of, "multiclass", p, 0.0, 1, "tiny", "1", "p")
        for of, p in zip(("ap", "pa", "lateral"), probabilities, strict=True)
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [file], rows)
        (task,) = collect_study(ledger, "s", 1, {name: load_task(name)}, card).tasks
    assert [titles[row.title] for row in task.classes if row.top] == bold


@pytest.mark.parametrize("view", ["AP", None])
def test_the_view_that_a_header_states_stands_below_what_the_model_makes_of_it(
    tmp_path: Path, view: str | None
) -> None:
    card = PrintedCard("tiny", "1", "", "", (), "", (), (), ())
    file = FileRow(1, "a.dcm", "0" * 64, 9, "dicom", "scored", None, None, "s", "xray", "header", view=view)
    rows = [
        ScoreRow("s", None, "xray", task, of, "multiclass", 0.3, 0.0, 1, "tiny", "1", "p")
        for task, of in (("chest_xray_view", "ap"), ("body_region", "thorax"))
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [file], rows)
        tasks = {row.task: load_task(row.task) for row in rows}
        notes = {task.title: task.note for task in collect_study(ledger, "s", 1, tasks, card).tasks}
    assert notes["Chest X-ray view"].startswith("stated is AP · ") is (view is not None)
    assert "stated" not in notes["Body region"]


ONE = {"verdict": "not testable across sources", "sources": ["here"]}
ONLY = {"verdict": "within its source only", "sources": ["here"]}
OVERALL = "balanced accuracy 0.80 (0.70 to 0.90; chance 0.50) on unseen patients"
ONLY_HERE = "within its source only (here)"


@pytest.mark.parametrize(
    ("metrics", "sources", "note", "caution", "below"),
    [
        (FIGURE, {}, "", None, OVERALL),
        (FIGURE, {"all": ONE}, "", None, f"{OVERALL} · measured at one"),
        (FIGURE, {"all": ONLY}, "", ONLY_HERE, f"{ONLY_HERE} · balanced accuracy, over all its sources 0.80"),
        (FIGURE, {"all": ONLY}, "", None, "balanced accuracy, over all its sources 0.80"),
        (None, {}, "", "no figures in the model’s card", "no figures in the model’s card"),
        (None, {}, "Not measured after merging. Others.", "Not measured after merging", "Not measured after merging"),
    ],
)
def test_an_answer_is_quiet_and_never_bold_where_its_row_says_why_and_whatever_the_card_says_nowhere_else(
    tmp_path: Path,
    metrics: dict[str, float] | None,
    sources: dict[str, Any],
    note: str,
    caution: str | None,
    below: str,
) -> None:
    figures = {} if metrics is None else {"balanced_accuracy": metrics}
    card = measured({"classes": ["ap", "pa", "lateral"], "metrics": figures, "sources": sources, "note": note})
    file = FileRow(1, "a.dcm", "0" * 64, 9, "dicom", "scored", None, None, "s", "xray", "header")
    rows = [
        ScoreRow("s", None, "xray", "chest_xray_view", of, "multiclass", p, 0.0, 1, "tiny", "1", "p", caution=caution)
        for of, p in (("ap", 0.9), ("pa", 0.1), ("lateral", 0.0))
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [file], rows)
        tasks = {"chest_xray_view": load_task("chest_xray_view")}
        (task,) = collect_study(ledger, "s", 1, tasks, card).tasks
    assert [row.top for row in task.classes] == [not caution, False, False]
    assert task.quiet is bool(caution)
    assert task.note.startswith(below)
    assert task.note.count(caution or below) == 1, "what all of a choice have in common is said once"
    assert not any(row.note for row in task.classes)


def test_of_several_findings_each_has_its_own_remark_and_only_the_one_of_one_source_is_quiet(tmp_path: Path) -> None:
    names, task = ["pneumonia", "edema", "effusion"], "chest_xray_findings"
    within = {"within here": FIGURE | {"value": 0.86, "num_patients": 118}}
    sources = {"pneumonia": ONLY | {"figures": within}, "edema": ONE}
    figures = {"auroc": {name: {"zero_shot": FIGURE} for name in names}}
    card = measured({"classes": names, "metrics": figures, "sources": sources}, task)
    file = FileRow(1, "a.dcm", "0" * 64, 9, "dicom", "scored", None, None, "s", "xray", "header")
    rows = [
        ScoreRow("s", None, "xray", task, of, "multilabel", 0.9, 0.0, 1, "tiny", "1", "p", caution=caution)
        for of, caution in zip(names, (ONLY_HERE, None, None), strict=True)
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [file], rows)
        (shown,) = collect_study(ledger, "s", 1, {task: load_task(task)}, card).tasks
    assert {(row.title.split()[-1], row.note, row.top, row.quiet) for row in shown.classes} == {
        ("Pneumonia", "within its source only (here)", False, True),
        ("oedema", "measured at one source (here)", True, False),
        ("effusion", "", True, False),
    }
    assert not shown.quiet
    assert "Pneumonia, within here 0.86" in shown.note
    assert "over all its sources" not in shown.note


NEVER = "Not learned: the model was trained on MRI images, not on X-ray"
UNKNOWN = "Not learned: the model does not know “a”"


@pytest.mark.parametrize(
    ("task", "cautions", "whole", "beside"),
    [
        ("chest_xray_view", (NEVER, NEVER), True, ("", "")),
        ("prompt", (NEVER, NEVER), True, ("", "")),
        ("prompt", (NEVER,), False, (NEVER,)),  # of the only prompt it stands beside it
        (
            "prompt",
            (NEVER, "Not learned: the model does not know “a”"),
            False,
            (NEVER, "Not learned: the model does not know “a”"),
        ),
        ("prompt", (NEVER, ONLY_HERE), False, (NEVER, "")),
        ("prompt", (NEVER, None), False, (NEVER, "")),
    ],
)
def test_what_was_not_learned_is_said_once_of_a_task_or_beside_each_answer_as_its_row_has_it(
    tmp_path: Path, task: str, cautions: tuple[str | None, ...], whole: bool, beside: tuple[str, ...]
) -> None:
    card = PrintedCard("tiny", "1", "", "", (), "", (), (), ())
    file = FileRow(1, "a.dcm", "0" * 64, 9, "dicom", "scored", None, None, "s", "xray", "header")
    rows = [
        ScoreRow(
            "s", None, "xray", task, of, "multilabel", 0.9, 0.0, 1, "tiny", "1", "p", against="no", caution=caution
        )
        for of, caution in zip(("ap", "pa"), cautions, strict=False)
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [file], rows)
        study = collect_study(ledger, "s", 1, {}, card, sort_by=Ranking(task, ("ap",)))
        assert ledger.cautions() == {(task, row.class_): (row.caution,) for row in rows if row.caution}
    (shown,) = study.tasks
    reason = NEVER.removeprefix("Not learned: ")
    assert shown.unlearned == (reason if whole else "")
    assert tuple(f"Not learned: {row.unlearned}" if row.unlearned else "" for row in shown.classes) == beside
    assert [row.top for row in shown.classes] == [caution is None for caution in cautions]
    assert [row.quiet for row in shown.classes] == [caution == ONLY_HERE for caution in cautions]
    assert study.sorted_caution == NEVER
