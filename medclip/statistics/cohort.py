"""What is audited, understood: scores with their truths, patients and groups, and the rows that count for a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

ALL = "all"
"""Attribute and group of the row that counts everybody."""
MISSING = "not stated"
"""Group of the rows whose attribute is blank; always there where a cell is blank, and always last."""
CONFLICT = "contradictory"
"""Group of the rows of a patient for whom a constant attribute (sex, race) is stated in two ways."""


@dataclass(frozen=True, eq=False)
class Attribute:
    """One way of dividing the rows into groups; every row is in exactly one."""

    name: str
    """`sex`, `age`, `sex × age`."""
    groups: tuple[str, ...]
    """Printed names in printed order; `MISSING` and `CONFLICT`, where there are any, last."""
    codes_N: NDArray[np.int16]
    """Index into `groups` of each row."""
    constant: bool = False
    """Whether a patient can have only one value (sex, race), so that two of them are a fault of the table."""


@dataclass(frozen=True, eq=False)
class Label:
    """One question, with the score and the truth of each row."""

    name: str
    score_N: NDArray[np.float64]
    """Probability in 0 to 1, or any score where `probability` is False; NaN where the row was not scored."""
    truth_N: NDArray[np.float64]
    """1, 0, or NaN where the truth is not known: such rows do not count for this label."""
    probability: bool = True
    """Whether scores are probabilities: without them nothing of calibration, and no net benefit."""
    weight_N: NDArray[np.float64] | None = None
    """How much each row counts (inverse probability of being censored, reweighting); None: each counts once."""
    no_finding: bool = False
    """Whether a positive means a healthy patient, so that underdiagnosis is a false positive."""
    time_N: NDArray[np.float64] | None = None
    """Time to event or to the end of follow-up; then `truth_N` says whether the event was seen."""

    @property
    def valid_N(self) -> NDArray[np.bool_]:
        """Rows that have both a score and a truth."""
        return ~(np.isnan(self.score_N) | np.isnan(self.truth_N))


@dataclass(frozen=True)
class Missing:
    """The rows of one group that have no score, or no label, and so no part in what is measured."""

    attribute: str
    group: str
    num_rows: int
    """Of scores: labelled rows, scored or not. Of labels: scored rows, labelled or not."""
    num_patients: int
    num_missing: int
    reasons: Mapping[str, int]
    """Why, with the number of rows."""
    interval: tuple[float, float]
    """Of the share that is missing."""
    difference: tuple[float, float, float]
    """Of that share from that of all others, with its interval."""
    p: float
    """Of equal shares; NaN where it was not tested."""
    label: str = ""
    """Whose labels are missing; "" for scores."""


@dataclass(frozen=True, eq=False)
class Ordinal:
    """One grading in ordered classes (density A to D, grades 0 to 4), with truth and prediction of each row."""

    name: str
    classes: tuple[str, ...]
    """From the lowest to the highest."""
    truth_N: NDArray[np.int16]
    """Index into `classes`; −1 where it is not known."""
    predicted_N: NDArray[np.int16]
    """The same of what the model says."""

    @property
    def valid_N(self) -> NDArray[np.bool_]:
        """Rows that have both."""
        return (self.truth_N >= 0) & (self.predicted_N >= 0)


@dataclass(frozen=True, eq=False)
class Risk:
    """One event that may come later: its probability by the end of each year, and what was seen."""

    name: str
    risk_NK: NDArray[np.float64]
    """Probability of the event by the end of each of K years; NaN where the row was not scored."""
    years: tuple[int, ...]
    """Which years, rising."""
    event_months_N: NDArray[np.float64]
    """Months from the examination to the event; NaN where none was seen."""
    followup_months_N: NDArray[np.float64]
    """Months to the last that is known; NaN where that is not known."""

    @property
    def time_N(self) -> NDArray[np.float64]:
        """Months to the event, else to the end of follow-up."""
        return np.where(np.isnan(self.event_months_N), self.followup_months_N, self.event_months_N)

    @property
    def valid_N(self) -> NDArray[np.bool_]:
        """Rows that have all risks and a time."""
        return ~(np.isnan(self.risk_NK).any(axis=1) | np.isnan(self.time_N))


@dataclass(frozen=True, eq=False)
class Masks:
    """One structure that is marked in images: the files of true masks and of the model's, "" where there is none."""

    name: str
    truth_N: NDArray[Any]
    """Texts of the label table, relative as its files are."""
    predicted_N: NDArray[Any]
    """Paths as texts."""
    modality_N: NDArray[Any]
    """Modality of each image, as text."""
    share_N: NDArray[np.float64]
    """Of each image's pixels that the model marks; NaN where there is no mask of it."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """A whole audit set."""

    patients_N: NDArray[np.int32]
    """Patient of each row, 0 to P − 1; patients are what is resampled."""
    labels: tuple[Label, ...]
    attributes: tuple[Attribute, ...]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further columns of the label table, as asked for (device, view, age in years, month); texts as objects."""
    keys: tuple[str, ...] = ()
    """Join key of each row. Never written out; see `medclip.auditing.input.read`."""
    files: tuple[str, ...] = ()
    """File of each row relative to the label table, where the table names one; for embeddings and leakage."""
    identities: tuple[str, ...] = ()
    """The patient as the table writes it. Never written out."""
    notes: tuple[str, ...] = ()
    """What was left out, mended or assumed; sentences without identifiers."""
    steps: tuple[tuple[str, int], ...] = ()
    """Rows that are left after each step from the tables to the cohort."""
    unscored: tuple[Missing, ...] = ()
    """Everybody, then each group."""
    unlabelled: tuple[Missing, ...] = ()
    """The same of each label that is missing for a scored row; the rows by their scores first."""
    ordinals: tuple[Ordinal, ...] = ()
    risks: tuple[Risk, ...] = ()
    masks: tuple[Masks, ...] = ()

    @property
    def num_patients(self) -> int:
        """How many patients there are."""
        return int(self.patients_N.max()) + 1 if len(self.patients_N) else 0


@dataclass(frozen=True)
class Cell:
    """One group of one attribute."""

    attribute: str
    group: str
    position: tuple[int, int]
    """Index of the attribute in the cohort and of the group in it; (-1, 0) for everybody."""


def cells_of(cohort: Cohort) -> tuple[Cell, ...]:
    """List everybody first, then each group of each attribute, in order: the columns of every [..., G] array."""
    cells = [Cell(ALL, ALL, (-1, 0))]
    for a, attribute in enumerate(cohort.attributes):
        cells += [Cell(attribute.name, group, (a, g)) for g, group in enumerate(attribute.groups)]
    return tuple(cells)


def cell_rows(cohort: Cohort, cell: Cell) -> NDArray[np.bool_]:
    """Return the rows of a cell, [N]."""
    a, g = cell.position
    if a < 0:
        return np.ones(len(cohort.patients_N), bool)
    return cohort.attributes[a].codes_N == g


@dataclass(frozen=True, eq=False)
class Rows:
    """The n valid rows of a label, in the order of the cohort."""

    num_patients: int
    """Patients of the whole cohort, P: the rows of the weight matrix."""
    patients_n: NDArray[np.int32]
    score_n: NDArray[np.float64]
    rank_n: NDArray[np.int64]
    """Dense rank of the score: equal scores share a rank, so that comparing ranks is comparing scores."""
    truth_n: NDArray[np.bool_]
    weight_n: NDArray[np.float64] | None
    time_n: NDArray[np.float64] | None
    codes_An: NDArray[np.int64]
    """Group of each row in each attribute."""
    num_groups_A: tuple[int, ...]
    cells: tuple[NDArray[np.int64], ...]
    """Indices of the rows of each cell, in the order of `cells_of`, each ascending."""

    @property
    def num_cells(self) -> int:
        """Cells of the cohort, G, with everybody first."""
        return len(self.cells)

    def values(self, rows: NDArray[np.int64], values: NDArray[np.float64] | None = None) -> NDArray[np.float64] | None:
        """Multiply values by the rows' own weights; None means that each row counts once."""
        if self.weight_n is None:
            return values
        return self.weight_n[rows] if values is None else values * self.weight_n[rows]


def valid_rows(cohort: Cohort, label: Label) -> Rows:
    """Take the rows that have a score and a truth (and a time, for a label with times).

    Raises:
        MedclipError: A truth is not 0 or 1, or a row's weight is negative or not a number.
    """
    if len(label.score_N) != len(cohort.patients_N):
        counted = f"{len(label.score_N)} scores for {len(cohort.patients_N)} rows"
        raise MedclipError(Reason.WRONG_USE, f"{counted}: one each is needed.", where=label.name)
    valid = label.valid_N if label.time_N is None else label.valid_N & ~np.isnan(label.time_N)
    truth = label.truth_N[valid]
    if not np.isin(truth, (0.0, 1.0)).all():
        raise MedclipError(Reason.WRONG_USE, "truths must be 0, 1 or missing.", where=label.name)
    weight = None if label.weight_N is None else np.asarray(label.weight_N, np.float64)[valid]
    if weight is not None and not (np.isfinite(weight) & (weight >= 0)).all():
        raise MedclipError(Reason.WRONG_USE, "weights of rows must be numbers of at least 0.", where=label.name)
    score = np.asarray(label.score_N, np.float64)[valid]
    codes_An = np.stack([np.zeros(len(score)), *(a.codes_N[valid] for a in cohort.attributes)])[1:].astype(np.int64)
    num_groups_A = tuple(len(a.groups) for a in cohort.attributes)
    cells = [np.arange(len(score))]
    for codes, num_groups in zip(codes_An, num_groups_A, strict=True):
        order = np.argsort(codes, kind="stable")
        cells += np.split(order, np.searchsorted(codes[order], np.arange(1, num_groups)))
    return Rows(
        num_patients=cohort.num_patients,
        patients_n=cohort.patients_N[valid],
        score_n=score,
        rank_n=np.unique(score, return_inverse=True)[1].astype(np.int64),
        truth_n=truth == 1,
        weight_n=weight,
        time_n=None if label.time_N is None else np.asarray(label.time_N, np.float64)[valid],
        codes_An=codes_An,
        num_groups_A=num_groups_A,
        cells=tuple(cells),
    )
