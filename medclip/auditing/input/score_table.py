"""Tables of scores: those of `medclip score`, and anybody's, with one column or one row for each label.

Scores of mammography examinations are read at one level: a row of the audit is an exam, a breast or an image. Label
tables name images, so that rows join through the files of the run: the files of a breast are one row, which is
positive if any of them is. How far the scores of the two breasts lie apart is a column that groups are made of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from medclip.auditing.input.options import ExamLevel, ReadOptions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import Coded, Table, in_order, no_such
from medclip.runs.outputs.results import EXAM_SCORES, FILES, MAP_TABLE, SCORES
from medclip.runs.outputs.score_run import ScoreRun
from medclip.text.vocabulary.task_kinds import independent_kinds, one_answer_kinds
from medclip.wording import count, list_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

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


_OWN = ("study", "task", "class", "kind", "probability")
"""Columns by which a table of `medclip score` is known."""
_OWN_MAPS = ("row", "task", "class", "map", "share")
"""The same of a table of maps."""
_SINGLE = 1e-6
"""How far a probability in single precision may be from the exact one."""
_HEADERS = {
    "manufacturer": "manufacturer",
    "device_model": "device_model",
    "view": "view",
    "sex": "sex",
    "age": "age_years",
}
"""Columns that may be taken from header values, and their names there."""


@dataclass(frozen=True, eq=False)
class ScoreSource:
    """Scores as they were read, before anything is understood."""

    table: Table
    files: Table | None = None
    """The files.parquet of the same run, where `medclip score` wrote the scores and there is one."""


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of U units (images, or studies of `medclip score`), and the R rows by which they are joined."""

    where: str
    rows: Table
    """What has a key: rows of the table, or files of `medclip score`; [R]."""
    unit_R: NDArray[np.intp]
    """Unit of each row; -1 for a file that was not scored."""
    num_units: int
    names: tuple[str, ...]
    """The scores there are: columns, labels of a long table, or `task:class`."""
    score_U: Callable[[str], NDArray[np.float64]]
    """Reads the scores of a name, NaN where there is none."""
    tasks: Mapping[str, tuple[str, ...]]
    """Names of the scores of each task of which one class is true."""
    is_medclip: bool = False
    """Whether `medclip score` wrote it."""
    maps: Mapping[str, Mapping[int, Path]] = field(default_factory=dict)
    """Of each name that is answered with maps the file of each unit's; its score is the share that is marked."""
    notes: tuple[str, ...] = ()

    @cached_property
    def headers(self) -> Table:
        """Header values of the rows that the label table may lack: scanner, view, sex, age; empty where none."""
        import pyarrow as pa

        if not self.is_medclip or "headers" not in self.rows.names:
            return Table(pa.table({}), self.where)
        cells = self.rows.coded("headers")
        read = [json.loads(text) if text else {} for text in cells.values]
        columns = {}
        for name, inside in _HEADERS.items():
            texts = np.asarray([str(h.get(inside, "")) for h in read] or [""], object)
            columns[name] = pa.array(texts[cells.codes_N], pa.string())
        return Table(pa.table(columns), self.where)


def select(table: Table, where: Mapping[str, str | Sequence[str]], what: str) -> Table:
    """Keep the rows whose cells hold one of the values named.

    Raises:
        MedclipError: TABLE_INVALID for a column that is not there; NOTHING_TO_DO where no row is left.
    """
    return table.take(selected(table, where, what)) if where else table


def selected(table: Table, where: Mapping[str, str | Sequence[str]], what: str) -> NDArray[np.bool_]:
    """Return of each row whether it is kept; see `select`."""
    kept_N = np.ones(table.num_rows, bool)
    for column, wanted in where.items():
        cells = table.coded(table.need(column))
        several = isinstance(wanted, Iterable) and not isinstance(wanted, str)
        values = {str(v).strip() for v in (wanted if several else [wanted])}
        kept_N &= np.asarray([v in values for v in cells.values] or [False])[cells.codes_N]
        if not kept_N.any():
            num_values = len([v for v in cells.values if v])
            raise MedclipError(
                Reason.NOTHING_TO_DO,
                f"none of the {table.num_rows:,} {what} is left with {column} = {list_of(sorted(values), 'or')}.",
                where=table.where,
                hint=f"The column holds {count(num_values, 'value')}; case counts.",
            )
    return kept_N


def open_scores(
    source: Any,
    files: Any = None,
    read: Callable[[Any, str], Table] = read_table,
    *,
    level: ExamLevel | None = None,
) -> ScoreSource:
    """Read the tables of scores.

    Args:
        source: A run of `medclip score`, its folder, its scores.parquet or its maps.parquet; a CSV, TSV or Parquet
            file, whatever its suffix; a data frame; or what this function returned. Of a folder with maps alone the
            maps are read.
        files: The files.parquet of scores of `medclip score`; None: the one beside them.
        read: Function that reads a table, as `read_table` does.
        level: Level of mammography examinations; their scores are read in the place of those of studies.

    Raises:
        MedclipError: MISSING_FILE, what `at_level` raises, and whatever else reading tables raises.
    """
    if isinstance(source, ScoreSource):
        return source
    if isinstance(source, ScoreRun):
        source = source.folder
    if isinstance(source, str | Path) and os.path.isdir(Path(source)):
        name = SCORES if level is None else EXAM_SCORES
        if level is None and _has_maps_alone(Path(source)):
            name = MAP_TABLE
        source = Path(source) / name
        if not os.path.isfile(source):
            raise MedclipError(
                Reason.MISSING_FILE,
                f"this folder has no {name}.",
                where=source.parent,
                hint="Name the output folder of `medclip score`, or a table."
                if level is None
                else "It is written by `medclip score --exam`.",
            )
    table = read(source, "the table of scores")
    are_maps = set(_OWN_MAPS) <= set(table.names)
    if not (are_maps or set(_OWN) <= set(table.names)):
        return ScoreSource(*at_level(table, None, level)) if level else ScoreSource(table)
    if files is None and table.path is not None and os.path.isfile(table.path.parent / FILES):
        files = table.path.parent / FILES
    opened = None if files is None else read(files, f"the table of files ({FILES})")
    if are_maps:
        return ScoreSource(*_by_file(table, opened))
    if level is None and "level" in table.names:
        level = "exam"
    return ScoreSource(table, opened) if level is None else ScoreSource(*at_level(table, opened, level))


def _has_maps_alone(folder: Path) -> bool:
    import pyarrow.parquet as pq

    if not (folder / MAP_TABLE).is_file():
        return False
    return not (folder / SCORES).is_file() or not pq.read_metadata(folder / SCORES).num_rows


def _by_file(maps: Table, files: Table | None) -> tuple[Table, Table | None]:
    """Return a table of maps as one of scores, whose units are files and whose scores are shares of pixels."""
    import pyarrow as pa

    rows = maps.arrow.append_column(UNIT, _joined(maps.arrow, ("row",)))
    rows = rows.append_column("kind", pa.array(["map"] * rows.num_rows, pa.string()))
    rows = rows.append_column("probability", rows.column("share"))
    if files is not None:
        files = Table(files.arrow.append_column(UNIT, _joined(files.arrow, ("row",))), files.where, files.path)
    return Table(rows, maps.where, maps.path, maps.form), files


def read_scores(source: Any, options: ReadOptions, keys: Callable[[Table], Sequence[str]]) -> ScoreTable:
    """Read a table of scores."""
    opened = open_scores(source, options.files, level=options.level)
    table = select(opened.table, options.score_where, "rows of scores")
    if set(_OWN) <= set(table.names):
        if options.scores == "logits":
            raise MedclipError(
                Reason.WRONG_USE,
                "scores of `medclip score` are probabilities.",
                where=table.where,
                hint="Leave --scores-are out.",
            )
        return _own(table, opened.files)
    if options.long is not None:
        return _long(table, options.long, keys(table))
    return _wide(table)


def _wide(table: Table) -> ScoreTable:
    rows = np.arange(table.num_rows)
    return ScoreTable(
        table.where, table, rows, len(rows), tuple(table.names), lambda name: table.numbers(name, "a score"), {}
    )


def _long(table: Table, columns: tuple[str, str], keys: Sequence[str]) -> ScoreTable:
    label, score = table.need(columns[0], "of labels"), table.need(columns[1], "of scores")
    if not keys:
        raise MedclipError(
            Reason.WRONG_USE, "nothing says which rows are about the same image.", where=table.where, hint="Name a key."
        )
    unit_N, first_U = _units(table, keys)
    labels = table.coded(label)
    scores_UL, notes = _spread(unit_N, len(first_U), labels, table.numbers(score, "a score"), table.where)
    place = {name: i for i, name in enumerate(labels.values)}
    import pyarrow as pa

    rows = Table(table.arrow.take(pa.array(first_U)), table.where)
    names = tuple(v for v in labels.values if v)
    return ScoreTable(
        table.where,
        rows,
        np.arange(len(first_U)),
        len(first_U),
        names,
        lambda name: scores_UL[:, place[name]],
        {},
        notes=notes,
    )


def _units(table: Table, keys: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number the different keys in the order of their first rows: number of each row, and first row of each number."""
    code_N = np.zeros(table.num_rows, np.int64)
    for key in keys:
        cells = table.coded(key)
        code_N = np.unique(code_N * len(cells.values) + cells.codes_N, return_inverse=True)[1]
    return in_order(code_N)


def _spread(
    unit_N: NDArray[np.intp], num_units: int, labels: Coded, score_N: NDArray[np.float64], where: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Turn one row for each unit and label into one column for each label, [U, L]."""
    num_labels = len(labels.values)
    cell_N = unit_N * num_labels + labels.codes_N
    cells, first, inverse_N = np.unique(cell_N, return_index=True, return_inverse=True)
    twice = len(cell_N) - len(cells)
    notes: tuple[str, ...] = ()
    if twice:
        same_N = (score_N == score_N[first][inverse_N]) | (np.isnan(score_N) & np.isnan(score_N[first][inverse_N]))
        if not same_N.all():
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"{int((~same_N).sum()):,} rows score an image and label a second time, with another score.",
                where=where,
                hint="Keep one; if several models are in the table, select one with --score-where COLUMN=VALUE.",
            )
        notes = (f"Scores: {count(twice, 'row')} that repeat another are dropped.",)
    flat = np.full(num_units * num_labels, np.nan)
    flat[cells] = score_N[first]
    return flat.reshape(num_units, num_labels), notes


def _own(table: Table, files_table: Table | None) -> ScoreTable:
    if files_table is None:
        raise MedclipError(
            Reason.MISSING_FILE,
            f"scores of `medclip score` need the {FILES} of the same run, which says what file is in which study.",
            where=table.where,
            hint="Keep both in one folder, or name it with --files.",
        )
    models = table.coded("model").used().values if "model" in table.names else ()
    if len(models) > 1:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the scores are of {len(models)} models: {', '.join(models)}.",
            where=table.where,
            hint="Select one with --score-where model=NAME.",
        )
    for column in ("path", "study"):
        if column not in files_table.names:
            raise no_such(column, files_table.names, files_table.where, f"of a {FILES}")
    unit_column = UNIT if UNIT in table.names else "study"
    study = table.coded(unit_column)
    task, name = table.coded("task"), table.coded("class")
    pairs = Coded(*_pairs(task, name))
    scores_UL, notes = _spread(
        study.codes_N.astype(np.intp), len(study.values), pairs, _exact_probabilities(table), table.where
    )
    place = {v: i for i, v in enumerate(pairs.values)}
    unit = {v: i for i, v in enumerate(study.values) if v}
    of_file = files_table.coded(unit_column)
    unit_V = np.asarray([unit.get(v, -1) for v in of_file.values] or [-1], np.intp)
    return ScoreTable(
        table.where,
        _with_patients(files_table, table, study, unit_V[of_file.codes_N]),
        unit_V[of_file.codes_N],
        len(study.values),
        pairs.values,
        lambda wanted: scores_UL[:, place[wanted]],
        _tasks(table.coded("kind"), task, pairs),
        is_medclip=True,
        maps=_map_files(table, study, pairs),
        notes=notes,
    )


def _map_files(table: Table, study: Coded, pairs: Coded) -> dict[str, dict[int, Path]]:
    """Return the file of each map by its name and unit; nothing where the scores are no maps.

    Raises:
        MedclipError: WRONG_USE for a data frame, which lies in no folder of maps.
    """
    if "map" not in table.names:
        return {}
    if table.path is None:
        raise MedclipError(
            Reason.WRONG_USE,
            "a data frame of maps does not say in which folder they lie.",
            hint="Name the output folder of `medclip score`.",
        )
    files: dict[str, dict[int, Path]] = {name: {} for name in pairs.values}
    for pair, unit, path in zip(pairs.codes_N, study.codes_N, table.texts("map"), strict=True):
        files[pairs.values[pair]][int(unit)] = table.path.parent / path
    return files


def _exact_probabilities(table: Table) -> NDArray[np.float64]:
    """Read probabilities of `medclip score`, those of findings from their logits: single precision rounds 17 to 1."""
    stored_N = table.numbers("probability", "a score")
    if "logit" not in table.names:
        return stored_N
    exact_N = expit(table.numbers("logit", "a logit"))
    alone_N = np.asarray([v in independent_kinds() for v in table.coded("kind").values] or [False])[
        table.coded("kind").codes_N
    ]
    return np.where(alone_N & (np.abs(exact_N - stored_N) < _SINGLE), exact_N, stored_N)


def _pairs(task: Coded, name: Coded) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    code_N = task.codes_N.astype(np.int64) * len(name.values) + name.codes_N
    present, codes_N = np.unique(code_N, return_inverse=True)
    texts = [f"{task.values[c // len(name.values)]}:{name.values[c % len(name.values)]}" for c in present.tolist()]
    return codes_N.astype(np.int32), tuple(texts)


def _tasks(kind: Coded, task: Coded, pairs: Coded) -> dict[str, tuple[str, ...]]:
    classes: dict[str, tuple[str, ...]] = {}
    single = [code for code, name in enumerate(kind.values) if name in one_answer_kinds()]
    if single:
        single_N = np.isin(kind.codes_N, single)
        for i, name in enumerate(task.values):
            inside = np.unique(pairs.codes_N[single_N & (task.codes_N == i)])
            if len(inside):
                classes[name] = tuple(pairs.values[c] for c in inside)
    return classes


def _with_patients(files: Table, scores: Table, study: Coded, unit_R: NDArray[np.intp]) -> Table:
    """Add the patient hash of a study to its files, where the scores have one."""
    import pyarrow as pa

    if "patient" not in scores.names or "patient" in files.names:
        return files
    patient = scores.coded("patient")
    of_unit = np.full(len(study.values) + 1, "", object)  # the last is for files without a study
    of_unit[study.codes_N] = patient.texts_N()
    if not any(of_unit):
        return files
    return Table(files.arrow.append_column("patient", pa.array(of_unit[unit_R], pa.string())), files.where)
