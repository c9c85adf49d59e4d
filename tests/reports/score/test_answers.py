"""What a terminal and JSON have of the answers of a few studies: the words of the report, and no name of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medclip.models.packs.card import Card
from medclip.reports.score.study import MOST_STUDIES, answer_lines, collect_answers
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow, ScoreRow
from tests.kits.ledger import fill_ledger

FIGURE = {"value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5, "num_patients": 90}
CARD = Card.model_validate(
    {
        "name": "tiny",
        "tasks": {
            "chest_xray_view": {"classes": ["ap", "pa"], "metrics": {"balanced_accuracy": FIGURE}},
            "chest_xray_findings": {
                "classes": ["edema", "pneumonia"],
                "metrics": {"auroc": {"edema": {"zero_shot": FIGURE}, "pneumonia": {"zero_shot": FIGURE}}},
                "sources": {"pneumonia": {"verdict": "within its source only", "sources": ["nih_cxr"]}},
            },
        },
    }
)
ROWS = (
    ("chest_xray_view", "ap", "multiclass", 0.2, None),
    ("chest_xray_view", "pa", "multiclass", 0.8, None),
    ("chest_xray_findings", "edema", "multilabel", 0.3, None),
    ("chest_xray_findings", "pneumonia", "multilabel", 0.6, "within its source only (nih_cxr)"),
)


def answers(folder: Path, num_studies: int = 1, **options: Any) -> tuple[dict[str, Any], ...]:
    studies = range(1, num_studies + 1)
    files = [
        FileRow(n, f"SMITH/{n}.dcm", "0" * 64, 9, "dicom", "scored", None, None, f"s{n}", "xray", "header")
        for n in studies
    ]
    rows = [
        ScoreRow(f"s{n}", None, "xray", task, of, kind, p, 0.0, 1, "tiny", "1", "p", caution=caution)
        for n in studies
        for task, of, kind, p, caution in ROWS
    ]
    folder.mkdir(exist_ok=True)
    with Ledger(folder) as ledger:
        fill_ledger(ledger, files, rows)
        return collect_answers(ledger, CARD, **options)


def test_a_choice_has_one_answer_and_each_finding_its_own_with_the_caution_beside_it(tmp_path: Path) -> None:
    (study,) = answers(tmp_path)
    assert [(row["class"], row["probability"], row["grey"]) for row in study["answers"]] == [
        ("pa", 0.8, False),
        ("pneumonia", 0.6, True),
        ("edema", 0.3, False),
    ]
    assert [row["caution"] for row in study["answers"]] == [None, "within its source only (nih_cxr)", None]
    lines = list(answer_lines(study))
    assert [grey for _, grey in lines] == [False, False, True, False]
    assert lines[0][0] == "Study 1: X-ray, file 1"
    assert "Posteroanterior (PA) 80 % · balanced accuracy 0.80 (0.70 to 0.90" in lines[1][0]
    assert "Pneumonia 60 % · within its source only (nih_cxr) · " in lines[2][0]


def test_what_was_never_learned_says_why(tmp_path: Path) -> None:
    file = FileRow(1, "a.png", "0" * 64, 9, "png", "scored", None, None, "s", "ct", "option")
    caution = "Not learned: this is no task of the model’s card"
    row = ScoreRow("s", None, "ct", "skin_lesion", "nevus", "multiclass", 0.7, 0.0, 1, "t", "1", "p", caution=caution)
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [file], [row])
        (study,) = collect_answers(ledger, CARD)
    (_, (line, grey)) = answer_lines(study)
    assert grey
    assert "70 % · Not learned: this is no task of the model’s card · " in line


def test_files_are_named_only_where_that_is_asked_for(tmp_path: Path) -> None:
    assert "SMITH" not in json.dumps(answers(tmp_path / "a"))
    (study,) = answers(tmp_path / "b", show_paths=True)
    assert study["files"] == "SMITH/1.dcm"


@pytest.mark.parametrize(("num_studies", "shown"), [(MOST_STUDIES, MOST_STUDIES), (MOST_STUDIES + 1, 0)])
def test_of_more_than_a_few_studies_there_are_no_answers(tmp_path: Path, num_studies: int, shown: int) -> None:
    assert [study["number"] for study in answers(tmp_path, num_studies)] == list(range(1, shown + 1))
