"""The answers of a few studies in the words of the report: what a terminal and JSON have of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medclip.reports.model_card import view_card
from medclip.reports.score.page import known_tasks
from medclip.reports.score.study import Score, StudyData, TaskData, collect_study
from medclip.runs.ledger.ledger import Ledger
from medclip.wording import percent

MOST_STUDIES = 5
"""Of more, a terminal would be full: the report and the table have them."""


def collect_answers(
    ledger: Ledger, card: Any, *, show_paths: bool = False, sort_by: Score | None = None
) -> tuple[dict[str, Any], ...]:
    """Pick the answers of a run of a few studies, as plain values.

    Of a task whose classes exclude each other that is the likeliest class, of any other each class that the report
    shows.

    Args:
        ledger: A ledger with all chunks committed.
        card: The model's card.
        show_paths: Whether files are named by their relative path; otherwise by their row in files.parquet.
        sort_by: Task and class by whose probability studies are sorted; None: by their files.

    Returns:
        One mapping for each study in the order of the report: `number`, `study` (its keyed hash), `modality`, `files`,
        `note` and `answers`, which have task, class, probability, `grey`, `caution` (as in scores.parquet), `beside`
        (what the report has beside the probability) and `figure` (what it has of the whole task). Empty where there
        are more than five.
    """
    if not 0 < ledger.counts()["studies"] <= MOST_STUDIES:
        return ()
    tasks, view = known_tasks(ledger.get("identity") or {}), view_card(card)
    return tuple(
        _study(collect_study(ledger, key, number, tasks, view, show_paths=show_paths, sort_by=sort_by))
        for number, key in enumerate(ledger.studies(MOST_STUDIES, sort_by), start=1)
    )


def _study(study: StudyData) -> dict[str, Any]:
    numbered = f"{'file' if study.rows.isdigit() else 'files'} {study.rows}"
    return {
        "number": study.number,
        "study": study.key,
        "modality": study.modality,
        "files": study.files or numbered,
        "note": " ".join(filter(None, (study.note, study.failed_note))) or None,
        "answers": [row for task in study.tasks for row in _rows(task)],
    }


def _rows(task: TaskData) -> Iterator[dict[str, Any]]:
    for one in task.classes[:1] if task.is_choice else task.classes:
        reason = one.unlearned or task.unlearned
        beside = (f"Not learned: {reason}" if reason else "", one.note)
        yield {
            "task": task.name,
            "task_title": task.title,
            "class": one.name,
            "class_title": one.title,
            "probability": one.probability,
            "grey": bool(reason) or one.quiet,
            "caution": one.caution or None,
            "beside": " · ".join(filter(None, beside)) or None,
            "figure": task.note or None,
        }


def answer_lines(study: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a study for a terminal, each with whether it is grey.

    Args:
        study: One study, as `collect_answers` returns it.

    Example:
        >>> row = {"task_title": "View", "class_title": "PA", "probability": 0.8, "grey": False}
        >>> one = {"number": 1, "modality": "X-ray", "files": "file 1", "note": None}
        >>> for line, grey in answer_lines({**one, "answers": [{**row, "beside": None, "figure": "AUROC 0.9"}]}):
        ...     print(line, grey)
        Study 1: X-ray, file 1 False
          View: PA 80 % · AUROC 0.9 False
    """
    note = f" · {study['note']}" if study["note"] else ""
    yield f"Study {study['number']}: {study['modality']}, {study['files']}{note}", False
    before = ""
    for row in study["answers"]:
        figure = row["figure"] if row["task_title"] != before else None  # once for all classes of a task
        before = row["task_title"]
        words = f"{before}: {row['class_title']} {percent(row['probability'])}"
        yield f"  {' · '.join(filter(None, (words, row['beside'], figure)))}", row["grey"]
