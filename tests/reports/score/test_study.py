"""One study: how its files are named, and in which order its classes stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.reports.model_card import CardView
from medclip.reports.score.study import collect_study, names_of, ranges
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow, ScoreRow
from medclip.text.vocabulary.load import load_task
from tests.kits.ledger import fill_ledger


def test_row_numbers_are_written_as_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1–3, 7, 9–10"


def test_files_are_named_by_ranges_of_numbers_or_by_paths() -> None:
    assert names_of([1, 2, 3, 7]) == "files 1–3, 7"
    assert names_of([7]) == "file 7"
    assert names_of(["a.png", "b.png"]) == "a.png, b.png"
    assert names_of(list(range(1, 1001, 2))).endswith("599 and more, see files.parquet (500 files)")


def test_the_years_of_a_risk_stand_in_their_order_and_none_is_the_answer(tmp_path: Path) -> None:
    name, card = "breast_cancer_risk", CardView("tiny", "1", "", "", (), "", (), (), ())
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
    name, card = "chest_xray_view", CardView("tiny", "1", "", "", (), "", (), (), ())
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
    card = CardView("tiny", "1", "", "", (), "", (), (), ())
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
