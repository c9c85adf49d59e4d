"""From two tables to a cohort: scores and truths joined, patients known, groups made, everything left out counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.input.ages import are_bands, read_ages
from medclip.auditing.input.grades_and_risks import read_ordinals, read_risks
from medclip.auditing.input.groups import kind_of, make_groups, parse_by
from medclip.auditing.input.joined_tables import Source, join_tables
from medclip.auditing.input.labels import make_labels, unmatched_scores
from medclip.auditing.input.masks import read_masks
from medclip.auditing.input.match_columns import pair_up
from medclip.auditing.input.missing import missing_notes, unlabelled_groups, unscored_groups
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import PATIENTS, Coded, Table, in_order, is_blank, is_marked, plain_name
from medclip.statistics.cohort import Cohort, Label
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

SYNTHETIC = "synthetic"
"""Column that says which images are of no patient, as `medclip pairs synthesize` marks them."""
_PART = "~"
_MOST_DIGITS = 15
"""Longer numbers name something, and would not fit into a float."""
OF_FILES = ("sha256", "headers")
"""Columns of files.parquet that are kept where `medclip score` wrote the scores and every row is one file."""
FILES = ("file", "path", "filename", "image")
"""Columns that are taken for the file of a row."""


def read_cohort(
    scores: Any,
    labels: Any = None,
    *,
    by: Sequence[str] = (),
    label: Sequence[str] | None = None,
    options: ReadOptions | None = None,
) -> Cohort:
    """Read what is to be audited.

    Args:
        scores: Folder of `medclip score`; CSV, TSV or Parquet file; or any data frame that narwhals knows.
        labels: Table of truths and groups; None where it is the table of scores itself.
        by: Names of what divides patients into groups: `sex`, `age`, `race`, `site`, `scanner`, `view`, any column,
            "sex*age".
        label: Labels; "SCORE=COLUMN" where names differ; None for all that have score and truth.
        options: Options of reading the tables.

    Returns:
        The cohort, in the order of the label table. Its notes say what was left out, mended or assumed.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID, WRONG_USE, NOTHING_TO_DO; never with an identifier.

    Example:
        >>> import pyarrow
        >>> table = {"file": ["a", "b"], "flu": [1, 0], "flu_score": [0.9, 0.2], "sex": ["F", "M"]}
        >>> cohort = read_cohort(pyarrow.table(table), by=["sex"], options=ReadOptions(patient="file"))
        >>> cohort.attributes[0].groups
        ('F', 'M')
    """
    options = options or ReadOptions()
    by = [by] if isinstance(by, str) else by
    label = [label] if isinstance(label, str) else label
    source = join_tables(scores, labels, options)
    names = list(dict.fromkeys(p for parts in parse_by(by, False) for p in parts))
    patients_N, identities, patient_named, notes_of_patients = _patients(source, options, names)
    taken = [
        *source.label_keys,
        *names,
        *options.where,
        patient_named,
        options.time or "",
        options.label_list or "",
    ]
    columns = [t for t in taken if t]
    ordinals, graded = read_ordinals(source, options, columns)
    risks, risky = read_risks(source, options)
    masks = read_masks(label, source)
    labels_made, unmatched, passed, notes = (), {}, [], []
    if not masks:
        labels_made, unmatched, passed, notes = _labels(label, source, options, columns, bool(ordinals or risks))
    grouping = make_groups(by, source.attribute, patients_N, options, source.labels.where)
    column = source.labels.find(*FILES)
    # a grade beside it does not stand for a score that is missing, nor a score for a grade
    blanks = (
        [np.isnan(x.score_N) for x in labels_made],
        [o.predicted_N < 0 for o in ordinals],
        [np.isnan(r.risk_NK).any(axis=1) for r in risks],
        [m.predicted_N == "" for m in masks],
    )
    blank_N = np.any([np.all(of_one_kind, axis=0) for of_one_kind in blanks if of_one_kind], axis=0)
    patient = (None, None) if options.patients == "rows" else patient_column(source.labels, options)
    partly_N = np.any([np.isnan(x.score_N) & ~np.isnan(x.truth_N) for x in labels_made] or [blank_N], axis=0)
    unscored = unscored_groups(source, names, options, blank_N, partly_N, patient)
    unlabelled = unlabelled_groups(labels_made, ordinals, risks, masks, grouping.attributes, patients_N, unmatched)
    return Cohort(
        patients_N=patients_N,
        labels=labels_made,
        attributes=grouping.attributes,
        ordinals=ordinals,
        risks=risks,
        masks=masks,
        columns=_columns(source, names, options),
        keys=source.first_text(source.label_keys) if source.label_keys else (),
        files=source.first_text([column]) if column else (),
        identities=identities,
        notes=(
            *_synthetic_notes(source),
            *source.notes,
            *passed,
            *missing_notes(unscored, unlabelled),
            *notes_of_patients,
            *notes,
            *graded,
            *risky,
            *grouping.notes,
        ),
        steps=(*source.steps, ("rows of the audit", source.num_units)),
        unscored=unscored,
        unlabelled=unlabelled,
    )


def _labels(
    label: Sequence[str] | None,
    source: Source,
    options: ReadOptions,
    taken: Sequence[str],
    others: bool,
) -> tuple[tuple[Label, ...], Mapping[str, NDArray[np.float64]], list[str], list[str]]:
    """Read the labels with positives and negatives; beside gradings and risks there need not be any.

    Returns:
        The labels; for each of them the scores of units without a row of labels; and notes.
    """
    try:
        pairs, passed = pair_up(label, source.scores, source.labels, options, taken)
        labels_made, notes = make_labels(pairs, source, options)
        unmatched = unmatched_scores(pairs, source, options)
    except MedclipError as e:
        if not others or label or e.reason is not Reason.TABLE_INVALID:
            raise
        return (), {}, [], []
    return labels_made, unmatched, passed, notes


def paired(one: Cohort, other: Cohort) -> tuple[Cohort, Cohort]:
    """Return the rows that two cohorts of one label table share, in the order of the first, and the labels both have.

    Raises:
        MedclipError: NOTHING_TO_DO where they share no row or no label.
    """
    if any(len(set(c.keys)) < len(c.keys) for c in (one, other)):
        raise MedclipError(
            Reason.WRONG_USE,
            "several rows of scores share one row of labels, so that the rows of two models cannot be told apart.",
            hint="Give a table of labels with one row for each row of scores, or audit each model by itself.",
        )
    place = {key: i for i, key in enumerate(other.keys)}
    here = [i for i, key in enumerate(one.keys) if key in place]
    rows_of_other = [place[one.keys[i]] for i in here]
    names = [a.name for a in one.labels if any(a.name == b.name for b in other.labels)]
    if not here or not names:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "the two models share no row that has a label." if not here else "the two models share no label.",
            hint="Compare scores of the same images, read with the same table of labels.",
        )
    left_out = len(one.keys) + len(other.keys) - 2 * len(here)
    rest = f"{count(left_out, 'is', 'are')} not"
    notes = (f"Compared on the {len(here):,} rows that both models scored; {rest}.",) if left_out else ()
    return rows_of(one, np.asarray(here), names, notes), rows_of(other, np.asarray(rows_of_other), names, notes)


def rows_of(
    cohort: Cohort, rows: NDArray[np.intp], labels: Sequence[str] | None = None, notes: Sequence[str] = ()
) -> Cohort:
    """Return a cohort of some rows: patients are numbered anew, groups without a row stay."""

    def part(label: Label) -> Label:
        more = {
            name: None if value is None else value[rows]
            for name, value in (("weight_N", label.weight_N), ("time_N", label.time_N))
        }
        return replace(label, score_N=label.score_N[rows], truth_N=label.truth_N[rows], **more)

    picked = [part(a) for a in cohort.labels if labels is None or a.name in labels]
    if labels is not None:
        picked.sort(key=lambda a: list(labels).index(a.name))
    return Cohort(
        patients_N=in_order(cohort.patients_N[rows])[0].astype(np.int32),
        labels=tuple(picked),
        attributes=tuple(replace(a, codes_N=a.codes_N[rows]) for a in cohort.attributes),
        ordinals=tuple(replace(o, truth_N=o.truth_N[rows], predicted_N=o.predicted_N[rows]) for o in cohort.ordinals),
        risks=tuple(
            replace(
                r,
                risk_NK=r.risk_NK[rows],
                event_months_N=r.event_months_N[rows],
                followup_months_N=r.followup_months_N[rows],
            )
            for r in cohort.risks
        ),
        columns={name: values[rows] for name, values in cohort.columns.items()},
        keys=tuple(cohort.keys[i] for i in rows.tolist()) if cohort.keys else (),
        files=tuple(cohort.files[i] for i in rows.tolist()) if cohort.files else (),
        identities=tuple(cohort.identities[i] for i in rows.tolist()) if cohort.identities else (),
        notes=(*cohort.notes, *notes),
    )


def _patients(
    source: Source, options: ReadOptions, by: Sequence[str]
) -> tuple[NDArray[np.int32], tuple[str, ...], str, list[str]]:
    """Return the patient of each unit as a number and as the table writes it, the column that says so, and notes."""
    rows_N = np.arange(source.num_units, dtype=np.int32)
    if options.patients == "rows":
        caution = (
            "CAUTION: no patients are known, and every row counts as a patient of its own. Where patients have several "
            "images, all intervals are too narrow and p-values too small."
        )
        return rows_N, (), "", [caution]
    column, part = patient_column(source.labels, options)
    differing = 0
    if column is not None:
        cells, differing = source.text(column, part)
    else:
        cells = source.fallback(PATIENTS)
    if cells is None:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"no column names the patient ({', '.join(PATIENTS)}), and intervals need to know which images are of one.",
            where=source.labels.where,
            hint="Name it with --patient COLUMN. If no patient has two images, say --rows-are-patients.",
        )
    if differing:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{count(differing, 'study', 'studies')} of the scores hold files of more than one patient.",
            where=source.labels.where,
            hint="Score again with --group-by file, or mend the column of patients.",
        )
    named = {plain_name(c) for c in (column, *source.label_keys) if c}
    if any(plain_name(b) in named for b in by):
        raise MedclipError(
            Reason.WRONG_USE, "patients and files cannot be the groups.", hint="Leave that column out of `by`."
        )
    blank_N = np.asarray([is_blank(v) for v in cells.values] or [True])[cells.codes_N]
    notes = []
    code_N = cells.codes_N.astype(np.int64)
    if blank_N.any():
        code_N[blank_N] = len(cells.values) + np.arange(int(blank_N.sum()))
        notes.append(
            f"CAUTION: {count(int(blank_N.sum()), 'row')} name no patient; each counts as a patient of its own."
        )
    return in_order(code_N)[0].astype(np.int32), tuple(cells.texts_N().tolist()), column or "", notes


def patient_column(table: Table, options: ReadOptions) -> tuple[str | None, Callable[[str], str] | None]:
    """Find the column that names the patient, and what takes the patient out of its cells.

    Returns:
        The column, None where there is none; and a function of a cell ("" where it finds no patient), None where the
        cell itself is the patient.

    Raises:
        MedclipError: TABLE_INVALID for a column that is named and not there, WRONG_USE for a pattern that is no regular
            expression.
    """
    name, _, pattern = (options.patient or "").partition(_PART)
    column = table.need(name, "of patients") if name else table.find(*PATIENTS)
    if not pattern:
        return column, None
    try:
        find = re.compile(pattern)
    except re.error as e:
        raise MedclipError(
            Reason.WRONG_USE, f"{pattern!r} is no regular expression ({e}).", hint="Say --patient COLUMN~PATTERN."
        ) from None
    return column, lambda text: match.group() if (match := find.search(text)) else ""


def _columns(source: Source, by: Sequence[str], options: ReadOptions) -> Mapping[str, NDArray[Any]]:
    """Keep what was asked for: numbers as numbers, else texts; and the age in years where there are bands of it."""
    kept: dict[str, NDArray[Any]] = {}
    for name in options.columns:
        cells = source.attribute(name)
        kept[name] = _numbers_or_texts(cells)
    for name in by:
        cells = source.attribute(name)
        if kind_of(name) == "age" and name not in options.bins and not are_bands(cells):
            kept["age"], _ = read_ages(cells, name, options.age_unit, source.labels.where)
    for name in OF_FILES if source.scores.is_medclip and not source.several else ():
        fallback = source.fallback((name,))
        if fallback is not None:
            kept.setdefault(name, fallback.texts_N())
    return kept


def _numbers_or_texts(cells: Coded) -> NDArray[Any]:
    numbers = []
    for text in cells.values:
        try:
            if text.isdigit() and len(text) > _MOST_DIGITS:
                raise ValueError(text)
            numbers.append(np.nan if is_blank(text) else float(text))
        except ValueError:
            return cells.mapped(lambda t: "" if is_blank(t) else t).texts_N()
    return np.asarray(numbers or [np.nan])[cells.codes_N]


def _synthetic_notes(source: Source) -> tuple[str, ...]:
    """Count the rows that the table marks as synthetic."""
    column = source.labels.find(SYNTHETIC)
    if column is None:
        return ()
    cells = source.first_text([column])
    num = sum(map(is_marked, cells))
    if not num:
        return ()
    return (
        f"CAUTION: {num:,} of {count(len(cells), 'row')} are synthetic (column {column}): the figures are not those of "
        "patients. Leave these rows out.",
    )
