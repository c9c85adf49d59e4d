"""The two tables joined: which row of labels belongs to which score, and columns read across both.

Several files of one study make one row: of what they agree on, and of all that they say where they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.auditing.input.groups import ALIASES, MAKER, MODEL, kind_of
from medclip.auditing.input.join_keys import Side, join, key_of, num_copies, without_twins
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.score_table import ScoreTable, open_scores, read_scores, select, selected
from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import Coded, Table, in_order, is_blank, listed, merged, no_such, plain_name
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = ("file", "path", "image", "image_id", "image_index", "filename", "dicom_id", "sop_instance_uid", "study")
KEYS += ("study_id", "study_instance_uid", "accession", "id", "key", "row")
"""Columns that are taken for the key where both tables have them and none is named, in this order."""
_OF_IMAGES = KEYS[: KEYS.index("study")]
"""Those of them that name an image, so that no two rows of one table have the same."""
BOTH = " + "
"""Stands between two values of one study, such as the views "LATERAL + PA"."""


NO_ROW = "no row of scores"
"""Why a row of labels has no score where nothing else is known."""


@dataclass(frozen=True, eq=False)
class Source:
    """M joined rows, which make N units: a row of the cohort each."""

    scores: ScoreTable
    labels: Table
    label_row_M: NDArray[np.intp]
    score_row_M: NDArray[np.intp]
    unit_M: NDArray[np.intp]
    """Unit of each joined row; 0, 1, 2, ... where every row is one."""
    score_unit_N: NDArray[np.intp]
    """Row of the scores of each unit."""
    label_keys: tuple[str, ...]
    """Key columns of the label table."""
    notes: tuple[str, ...] = ()
    lost_rows: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    """Rows of the label table that have no score."""
    lost_reasons: tuple[str, ...] = ()
    """Why, of each of them."""
    steps: tuple[tuple[str, int], ...] = ()
    """Rows that are left after each step of joining."""
    unmatched_units: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    """Units of the scores that have no row of labels; none where only some rows of labels were asked for."""

    @property
    def num_units(self) -> int:
        """N."""
        return len(self.score_unit_N)

    @property
    def several(self) -> bool:
        """Whether a unit may have more than one row of labels."""
        return len(self.unit_M) > self.num_units

    def label_cells(self, column: str) -> Coded:
        """Return a column of the label table for the M joined rows."""
        return self.labels.coded(column).take(self.label_row_M)

    def text(self, column: str, part: Callable[[str], str] | None = None) -> tuple[Coded, int]:
        """Return a column of the label table (or a part of each cell) for the N units, and how many rows disagree."""
        cells = self.label_cells(column)
        return self._of_units(cells.mapped(part) if part else cells)

    @cached_property
    def first_row_N(self) -> NDArray[np.intp]:
        """First of the M joined rows of each unit."""
        return np.unique(self.unit_M, return_index=True)[1] if self.several else np.arange(self.num_units)

    def score_cells(self, column: str) -> Coded:
        """Return a column of the table of scores for the N units."""
        return self._of_units(self.scores.rows.coded(column).take(self.score_row_M))[0]

    def first_text(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return columns of the label table as one text for each unit, that of its first row; row numbers for none."""
        rows = self.label_row_M[self.first_row_N]
        if not columns:
            return tuple(str(row + 1) for row in rows.tolist())
        return tuple(key_of(self.labels, columns).take(rows).texts_N().tolist())

    def fallback(self, names: Sequence[str]) -> Coded | None:
        """Return a column that the label table lacks, of the table of scores or of header values; None without one."""
        for table in (self.scores.rows, self.scores.headers):
            column = table.find(names[0], *names[1:])
            if column is not None and table is not self.labels:
                cells = self._of_units(table.coded(column).take(self.score_row_M))[0]
                if not all(is_blank(v) for v in cells.values):
                    return cells
        return None

    def attribute(self, name: str) -> Coded:
        """Return the cells of an attribute for the N units.

        Raises:
            MedclipError: TABLE_INVALID where neither table has it.
        """
        kind = kind_of(name)
        names = (name, kind, *ALIASES.get(kind, ()))
        column = self.labels.find(name) or self.labels.find(kind, *ALIASES.get(kind, ()))
        if column is not None and (kind != "scanner" or plain_name(column) == "scanner"):
            return self.text(column)[0]
        if kind == "scanner":
            coded = self._scanner()
            if coded is not None:
                return coded
        cells = self.fallback(names) if column is None else self.text(column)[0]
        if cells is None:
            raise no_such(name, self.labels.names, self.labels.where, "of groups")
        return cells

    def _scanner(self) -> Coded | None:
        """Return maker and model together."""
        parts = []
        for names in (MAKER, MODEL):
            column = self.labels.find(names[0], *names[1:])
            cells = self.text(column)[0] if column else self.fallback(names)
            parts.append(cells)
        if parts[0] is None or parts[1] is None:
            return parts[0] or parts[1]
        maker, model = parts
        code_N = maker.codes_N.astype(np.int64) * len(model.values) + model.codes_N
        present, inverse_N = np.unique(code_N, return_inverse=True)
        texts = []
        for code in present.tolist():
            words = (maker.values[code // len(model.values)], model.values[code % len(model.values)])
            texts.append(" ".join(w for w in words if not is_blank(w)))
        return merged(inverse_N, texts)

    def _of_units(self, cells_M: Coded) -> tuple[Coded, int]:
        if not self.several:
            return cells_M, 0
        return one_text(cells_M, self.unit_M, self.num_units)


def join_tables(scores: Any, labels: Any, options: ReadOptions) -> Source:
    """Read and join the two tables.

    Args:
        scores: Scores, as `read_cohort` takes them, or what `open_scores` returned.
        labels: Labels, as `read_cohort` takes them; None or the same path: the table of scores is the label table too.
        options: Options of reading.
    """
    same = labels is None or labels is scores
    scores = open_scores(scores, options.files, level=options.level)
    if same or labels is scores.table or _same_file(labels, scores.table.path):
        return _one_table(scores, options)
    every = read_table(labels, "the table of labels", options.text)
    table = select(every, options.where, "rows of labels")
    named = _named_keys(options.key)
    score_table = read_scores(scores, options, lambda rows: _keys(rows, table, named, is_medclip=False)[0])
    ours, theirs = _keys(score_table.rows, table, named, is_medclip=score_table.is_medclip)
    score_keys, label_keys = key_of(score_table.rows, ours), key_of(table, theirs)
    kept_labels, notes = without_twins(table, label_keys, "rows of labels")
    kept_scores = np.arange(len(score_keys))
    if score_table.is_medclip:
        kept_scores = _one_of_each(score_keys, score_table)
    else:
        what = "rows of scores"
        if not options.repeat_labels:
            kept_scores, twin_notes = without_twins(score_table.rows, score_keys, what)
        else:
            kept_scores, twin_notes = _without_repeated(score_table.rows, what)
        notes += twin_notes
    label_side = Side(label_keys.take(kept_labels), "rows of labels", table.where)
    score_side = Side(
        score_keys.take(kept_scores), "files" if score_table.is_medclip else "rows of scores", score_table.where
    )
    if options.repeat_labels and not score_table.is_medclip:
        scored_M, labelled_M, join_notes = join(score_side, label_side, options.match, options.hash_key)
    else:
        labelled_M, scored_M, join_notes = join(
            label_side, score_side, options.match, options.hash_key, by_path=score_table.is_medclip
        )
    label_row_M, score_row_M = kept_labels[labelled_M], kept_scores[scored_M]
    notes = [*score_table.notes, *notes, *join_notes]
    offered = kept_labels, kept_scores
    source = _source(score_table, table, label_row_M, score_row_M, theirs, offered, notes, bool(options.where))
    steps = (("rows of the label table", every.num_rows), *_asked(options, table.num_rows))
    steps += ((_SINGLE, len(kept_labels)),) if len(kept_labels) < table.num_rows else ()
    joined_rows = len(np.unique(label_row_M))
    scored_rows = len(np.unique(source.label_row_M))
    steps += (("joined with scores", joined_rows),)
    steps += (("with a score", scored_rows),) if scored_rows < joined_rows else ()
    return replace(source, steps=steps)


_SINGLE = "that repeat no other"


def _asked(options: ReadOptions, num_rows: int) -> tuple[tuple[str, int], ...]:
    return (("asked for (--where)", num_rows),) if options.where else ()


def _source(
    score_table: ScoreTable,
    table: Table,
    label_row_M: NDArray[np.intp],
    score_row_M: NDArray[np.intp],
    keys: Sequence[str],
    offered: tuple[NDArray[np.intp], NDArray[np.intp]],
    notes: list[str],
    selected: bool,
) -> Source:
    """Number the units in the order of the label table, and count what has no partner.

    `offered` are the rows of labels, and those of scores, that could have joined; `selected`: whether only
    some rows of labels were asked for.
    """
    labelled, scored = offered
    num_labels, num_scores = len(labelled), len(scored)
    unit_M = score_table.unit_R[score_row_M]
    scored_M = unit_M >= 0
    joined = np.zeros(table.num_rows, bool)
    joined[label_row_M[scored_M]] = True
    lost = labelled[~joined[labelled]]
    why = f" ({_why(score_table.rows, score_row_M[~scored_M])})" if not scored_M.all() else ""
    if len(lost):
        notes.append(f"Left out: {count(len(lost), 'row')} of labels without a score, of {num_labels:,}{why}.")
    reasons = dict.fromkeys(lost.tolist(), NO_ROW)
    for row, reason in zip(
        label_row_M[~scored_M].tolist(), _reasons(score_table.rows, score_row_M[~scored_M]), strict=True
    ):
        if row in reasons:
            reasons[row] = reason
    used = np.zeros(score_table.rows.num_rows, bool)
    used[score_row_M] = True
    unused = num_scores - int(used.sum())
    if unused:
        what = "file" if score_table.is_medclip else "row"
        restriction = " among those that were asked for" if selected else ""
        notes.append(
            f"Left out: {count(unused, what)} of scores without a row of labels{restriction}, of {num_scores:,}."
        )
    if not scored_M.any():
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"none of the {num_labels:,} labelled files has a score{why}.",
            where=score_table.where,
        )
    label_row_M, score_row_M, unit_M = label_row_M[scored_M], score_row_M[scored_M], unit_M[scored_M]
    rank_M, score_unit_N = np.arange(len(unit_M)), unit_M
    if score_table.is_medclip:
        rank_M, first = in_order(unit_M)
        score_unit_N = unit_M[first]
        if len(first) < len(unit_M):
            files = count(len(unit_M), "file makes", "files make")
            notes.append(f"{files} {count(len(first), 'study')}, each a row of the audit.")
    unmatched = np.setdiff1d(score_table.unit_R[scored[~used[scored]]], [-1, *score_unit_N])
    return Source(
        score_table,
        table,
        label_row_M,
        score_row_M,
        rank_M,
        score_unit_N,
        tuple(keys),
        tuple(notes),
        lost,
        lost_reasons=tuple(reasons.values()),
        unmatched_units=unmatched[:0] if selected else unmatched,
    )


def _reasons(files: Table, rows: NDArray[np.intp]) -> list[str]:
    """Return of each file that was not scored why: its status and reason."""
    texts = [["not scored"] * len(rows)] * 2
    for n, column in enumerate(("status", "reason")):
        if column in files.names:
            texts[n] = files.coded(column).take(rows).texts_N().tolist()
    pairs = zip(*texts, strict=True)
    return [": ".join(dict.fromkeys(part.replace("_", " ") for part in pair if part)) or "no task" for pair in pairs]


def _why(files: Table, rows: NDArray[np.intp]) -> str:
    """Count why files were not scored."""
    if "reason" not in files.names:
        return count(len(rows), "file") + " not scored"
    reasons = files.coded("reason").take(rows).used()
    parts = [f"{v or 'no task'} {n:,}" for v, n in zip(reasons.values, reasons.counts(), strict=True)]
    return f"{count(len(rows), 'file')} not scored: {', '.join(sorted(parts))}"


def _one_of_each(keys: Coded, score_table: ScoreTable) -> NDArray[np.intp]:
    """Keep one file of each key, where all files of a key are of one study.

    Raises:
        MedclipError: TABLE_INVALID for a key that stands for several studies.
    """
    _, first, inverse_R = np.unique(keys.codes_N, return_index=True, return_inverse=True)
    differ = int((score_table.unit_R != score_table.unit_R[first][inverse_R]).sum())
    if differ:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{count(differ, 'file')} of the scores have a key that another study has too.",
            where=score_table.where,
            hint="Name the column of file paths with --key path=COLUMN.",
        )
    return np.sort(first)


def _one_table(scores: Any, options: ReadOptions) -> Source:
    score_table = read_scores(scores, options, lambda rows: [])
    if score_table.is_medclip or options.long is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            "this table holds scores and no truths.",
            where=score_table.where,
            hint="Name a table of labels beside it.",
        )
    keep = selected(score_table.rows, options.where, "rows")
    rows = np.flatnonzero(keep)
    keys = [score_table.rows.need(name) for _, name in _named_keys(options.key)]
    table = score_table.rows.take(keep)
    if keys:
        kept, notes = without_twins(table, key_of(table, keys), "rows")
    else:
        kept, notes = _without_repeated(table, "rows")
    rows = rows[kept]
    place = score_table.rows.find(KEYS[0], *KEYS[1:])
    return Source(
        score_table,
        score_table.rows,
        rows,
        rows,
        np.arange(len(rows)),
        rows,
        tuple(keys or ([place] if place else [])),
        notes=tuple(notes),
        steps=(
            ("rows of the table", score_table.rows.num_rows),
            *_asked(options, int(keep.sum())),
            *(((_SINGLE, len(rows)),) if len(rows) < keep.sum() else ()),
        ),
    )


def _without_repeated(table: Table, what: str) -> tuple[NDArray[np.intp], list[str]]:
    """Drop or refuse rows that count an image twice, in a table whose key was not named.

    A column that names images tells them. Without one, equal rows may be two images of a patient with one score: they
    stay, and a note counts them.
    """
    column = table.find(_OF_IMAGES[0], *_OF_IMAGES[1:])
    if column is not None:
        return without_twins(table, table.coded(column), what)
    number, notes = num_copies(table), []
    if number:
        notes.append(
            f"CAUTION: {count(number, 'row equals', 'rows equal')} another of the {what} in every column, no column "
            "names the image, and each counts. If they are copies, all intervals are too narrow: drop them, or name "
            "the column that tells images apart (--key)."
        )
    return np.arange(table.num_rows), notes


def _same_file(one: Any, other: Any) -> bool:
    paths = isinstance(one, str | Path) and isinstance(other, str | Path)
    return paths and Path(one).absolute() == Path(other).absolute()


def _named_keys(key: str | Sequence[str] | None) -> list[tuple[str, str]]:
    parts = key.split(",") if isinstance(key, str) else list(key or ())
    named = []
    for part in parts:
        ours, _, theirs = part.partition("=")
        named.append((ours.strip(), theirs.strip() or ours.strip()))
    return named


def _keys(
    rows: Table, labels: Table, named: Sequence[tuple[str, str]], *, is_medclip: bool
) -> tuple[list[str], list[str]]:
    """Choose the key columns of scores and labels."""
    if named:
        theirs = [labels.need(name, "to join by") for _, name in named]
        if is_medclip and len(named) == 1 and rows.find(named[0][0]) is None:
            return ["path"], theirs
        return [rows.need(name, "to join by") for name, _ in named], theirs
    for name in KEYS:
        column = labels.find(name)
        if column is not None and is_medclip:
            return ["path"], [column]
        here = rows.find(name)
        if column is not None and here is not None:
            return [here], [column]
    raise MedclipError(
        Reason.TABLE_INVALID,
        f"nothing says which rows belong together. {listed(rows.names, 'Columns of the scores')} "
        f"{listed(labels.names, 'Of the labels')}",
        where=f"{rows.where} and {labels.where}",
        hint="Name the key columns with --key SCORES=LABELS.",
    )


def one_text(cells: Coded, unit_M: NDArray[np.intp], num_units: int) -> tuple[Coded, int]:
    """Return each unit the text that its rows agree on, blanks left out; different ones are joined by `BOTH`.

    Returns:
        The column of U units, and how many of them had more than one text.
    """
    stated_M = ~np.asarray([is_blank(v) for v in cells.values] or [True])[cells.codes_N]
    num = len(cells.values)
    low_U = np.full(num_units, num, np.intp)
    high_U = np.full(num_units, -1, np.intp)
    np.minimum.at(low_U, unit_M[stated_M], cells.codes_N[stated_M])
    np.maximum.at(high_U, unit_M[stated_M], cells.codes_N[stated_M])
    codes_U = np.where(high_U < 0, num, low_U)
    differing_U = (high_U >= 0) & (low_U < high_U)
    texts = [*cells.values, ""]
    if differing_U.any():
        several: dict[int, set[str]] = {}
        for row in np.flatnonzero(stated_M & differing_U[unit_M]).tolist():
            several.setdefault(int(unit_M[row]), set()).add(cells.values[cells.codes_N[row]])
        for unit, different in several.items():
            codes_U[unit] = len(texts)
            texts.append(BOTH.join(sorted(different)))
    return merged(codes_U, texts), int(differing_U.sum())
