"""Scores of mammography examinations at one level: what is a row of the audit is an exam, a breast or an image.

Label tables name images, so that rows join through the files of the run: the files of a breast are one row, which is
positive if any of them is. How far the scores of the two breasts lie apart is a column that groups are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medclip.auditing.input.options import ExamLevel
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Table, no_such

if TYPE_CHECKING:
    import pyarrow as pa

UNIT = "exam_unit"
"""Column of what is a row of the audit, in both tables."""
DIFFERENCE = "left_right_difference"
"""Column of how far the scores of the breasts lie apart: the largest over all classes, and of each with its name."""
DIFFERENCE_EDGES = (0.1, 0.3)
"""Where the groups of it begin, unless bins are named."""
_PARTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "exam": (("study",), ("study",)),
    "breast": (("study", "side"), ("study", "laterality")),
    "view": (("study", "row"), ("study", "row")),
}
"""Columns that name a unit of a level: of the scores, and of the files."""


def at_level(scores: Table, files: Table | None, level: ExamLevel) -> tuple[Table, Table | None]:
    """Return the rows of one level, and the files with the unit that each of them belongs to.

    Args:
        scores: An exam_scores.parquet.
        files: The files.parquet of the same run.
        level: Level of an examination that becomes a row of the audit.

    Raises:
        MedclipError: TABLE_INVALID for scores that have no levels; NOTHING_TO_DO where no row is of this one.
    """
    import pyarrow.compute as pc

    if "level" not in scores.names:
        raise no_such("level", scores.names, scores.where, "of levels, as medclip score --exam writes it")
    of_scores, of_files = _PARTS[level]
    rows = scores.arrow.filter(pc.equal(scores.arrow.column("level"), level))  # pyright: ignore
    if not rows.num_rows:
        raise MedclipError(Reason.NOTHING_TO_DO, f"no row is of the level {level}.", where=scores.where)
    rows = rows.append_column(UNIT, _joined(rows, of_scores))
    if files is not None:
        lacking = next((name for name in of_files if name not in files.names), None)
        if lacking is not None:
            raise no_such(lacking, files.names, files.where, "of a files.parquet")
        named = files.arrow.append_column(UNIT, _joined(files.arrow, of_files))
        for name, of_study in _differences(scores.arrow).items():
            study = named.column("study").to_pylist()
            named = named.append_column(name, _texts([of_study.get(one) for one in study]))
        files = Table(named, files.where, files.path, files.form)
    return Table(rows, scores.where, scores.path, scores.form), files


def _joined(table: pa.Table, columns: tuple[str, ...]) -> Any:
    """Return the texts of some columns as one; none where one of them has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = (pc.cast(table.column(name), pa.string()) for name in columns)
    return pc.binary_join_element_wise(*texts, " ")  # pyright: ignore


def _differences(table: pa.Table) -> dict[str, dict[str, float]]:
    """Return of each column of differences those of the examinations with an answer of both breasts."""
    import pyarrow.compute as pc

    breasts = table.filter(pc.equal(table.column("level"), "breast"))  # pyright: ignore
    names = ("study", "side", "task", "class", "probability")
    sides: dict[tuple[str, str, str], dict[str, float]] = {}
    for study, side, task, name, probability in zip(*(breasts.column(n).to_pylist() for n in names), strict=True):
        sides.setdefault((task, name, study), {})[side] = probability
    tasks_of: dict[str, set[str]] = {}
    for task, name, _ in sides:
        tasks_of.setdefault(name, set()).add(task)
    columns: dict[str, dict[str, float]] = {DIFFERENCE: {}}
    for (task, name, study), of_side in sides.items():
        if len(of_side) < 2:
            continue
        difference = abs(of_side["L"] - of_side["R"])
        column = f"{DIFFERENCE}:{name if len(tasks_of[name]) == 1 else f'{task}:{name}'}"
        columns.setdefault(column, {})[study] = difference
        columns[DIFFERENCE][study] = max(difference, columns[DIFFERENCE].get(study, 0.0))
    return columns


def _texts(values: list[float | None]) -> Any:
    import pyarrow as pa

    return pa.array([None if value is None else f"{value:.4f}" for value in values], pa.string())
