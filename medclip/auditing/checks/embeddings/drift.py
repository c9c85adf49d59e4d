"""Do embeddings differ between sites, or change over the months? Three two-sample tests, with patients kept together.

- Maximum mean discrepancy with a Gaussian kernel, its width the median distance: differences of any kind.
- Fréchet distance of two normal laws, on the leading principal axes: differences of mean and covariance.
- A domain classifier: how well a ridge probe tells, on held-out patients, where an image comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.probe import FOLDS, RidgeProbe, patient_folds
from medclip.auditing.checks.embeddings.vectors import FEWEST_PATIENTS, Grouped, about, grouped, row
from medclip.auditing.checks.table import CheckRows
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import MISSING, Attribute
from medclip.statistics.significance import p_value, shuffled

if TYPE_CHECKING:
    from medclip.auditing.checks.evidence import Evidence

MOST = 2_000
"""Rows of one comparison; more are drawn by patient."""
AXES = 16
"""Principal axes of the Fréchet distance: a covariance needs several times as many patients."""
_ISO = re.compile(r"(\d{4})-(\d{1,2})(?:-(\d{1,2}))?(?:[T ].*)?")
_DICOM = re.compile(r"(\d{4})(\d{2})(\d{2})?(?:\d{2,}.*)?")


def check_drift(evidence: Evidence) -> CheckRows:
    """Compare the embeddings of sites and of months that the options name: table `embeddings`.

    Raises:
        MedclipError: WRONG_USE for a site that is none of the groups of the audit.
    """
    cohort, vectors_ND, options = evidence.cohort, evidence.vectors_ND, evidence.options
    assert vectors_ND is not None  # CHECKS needs them
    grouping: dict[str, Any] = {"seed": options.seed, "fewest": options.small_cells.min_patients}
    rows: list[dict[str, Any]] = []
    for site in options.image_checks.sites:
        attribute = next((a for a in evidence.single_attributes if a.name == site), None)
        if attribute is None:
            raise MedclipError(
                Reason.WRONG_USE, f"{site!r} is not one of the groups of this audit.", hint=f"Add --by {site}."
            )
        rows += drift_between(vectors_ND, cohort.patients_N, attribute, **grouping)
    if options.image_checks.date is not None:
        dates = cohort.columns[options.image_checks.date].tolist()
        rows += drift_months(vectors_ND, cohort.patients_N, dates, **grouping)
    return CheckRows({"embeddings": rows})


def drift_between(
    vectors_ND: NDArray[np.floating],
    patients_N: NDArray[np.integer],
    attribute: Attribute,
    *,
    reference: Sequence[str] = (),
    num_permutations: int = 200,
    fewest: int = FEWEST_PATIENTS,
    most: int = MOST,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare the embeddings of each group with those of the reference groups, or of all others.

    Args:
        vectors_ND: Unit vectors; rows of NaN are left out.
        patients_N: Patient of each row.
        attribute: Attribute whose groups are compared: sites, scanners, or months.
        reference: Names of the groups that together are the reference; () compares each group with all others.
        num_permutations: Number of permutations: labels are dealt anew among patients of the two sides.
        fewest: Patients that a group needs; smaller ones are left out and named.
        most: Number of rows above which whole patients are drawn, for each comparison.
        seed: Seed of the draws and folds.

    Returns:
        Rows of the table `embeddings`, `what` "drift". p says whether a difference can be seen, not whether it matters;
        it is not adjusted for the number of groups.

    Reference: Gretton et al., A kernel two-sample test, JMLR 13 (2012); Rabanser et al., Failing loudly, NeurIPS 2019.
    """
    usable = grouped(vectors_ND, patients_N, attribute, most=len(patients_N), seed=seed, fewest=fewest)
    compared = [g for g in usable.groups if g not in reference]
    if not compared or len(usable.groups) < 2 or (reference and not set(reference) & set(usable.groups)):
        note = f"Not measured: no two sides are large enough. {usable.note}".strip()
        return [row("drift", attribute.name, "drift", note=note)]
    if len(usable.groups) == 2:
        compared = compared[:1]  # the other way round is the same
    rows = []
    for name in compared:
        others = [g for g in usable.groups if g != name and (not reference or g in reference)]
        side_N = np.full(len(patients_N), -1, np.int16)
        side_N[np.isin(attribute.codes_N, [attribute.groups.index(g) for g in others])] = 1
        side_N[attribute.codes_N == attribute.groups.index(name)] = 0
        against = "reference" if reference else others[0] if len(others) == 1 else "others"
        sides = Attribute(attribute.name, (name, against), side_N)
        data = grouped(vectors_ND, patients_N, sides, most=most, seed=seed, fewest=fewest)
        if len(data.groups) == 2:
            rows += _compared(data, attribute.name, against, num_permutations, seed)
    if usable.note:
        rows.append(row("drift", attribute.name, "left out", note=usable.note))
    return rows


def drift_months(
    vectors_ND: NDArray[np.floating],
    patients_N: NDArray[np.integer],
    dates_N: Sequence[Any],
    *,
    reference: Sequence[str] = (),
    num_permutations: int = 200,
    fewest: int = FEWEST_PATIENTS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare each month with a reference period.

    Args:
        vectors_ND: Unit vectors.
        patients_N: Patient of each row.
        dates_N: Date of each row: ISO or DICOM texts, or `datetime.date`.
        reference: Months of the reference ("2021-03"); () for the first three that are large enough.
        num_permutations: Number of permutations, as in `drift_between`.
        fewest: Patients that a month needs, as in `drift_between`.
        seed: Seed of the draws and folds.

    Returns:
        As `drift_between`, `attribute` "month". Rows without a date that can be read are left out and named.
    """
    months = months_of(dates_N)
    names = sorted({m for m in months if m})
    number = {m: i for i, m in enumerate([*names, MISSING])}
    codes_N = np.array([number[m or MISSING] for m in months], np.int16)
    attribute = Attribute("month", (*names, MISSING), codes_N)
    if not reference:
        usable = grouped(vectors_ND, patients_N, attribute, most=len(patients_N), seed=seed, fewest=fewest).groups
        reference = usable[: min(3, max(1, len(usable) - 1))]
    return drift_between(
        vectors_ND,
        patients_N,
        attribute,
        reference=reference,
        num_permutations=num_permutations,
        fewest=fewest,
        seed=seed,
    )


def months_of(values: Sequence[Any]) -> list[str]:
    """Return the month of each date as "2021-03"; "" where it cannot be read.

    Example:
        >>> months_of(["2021-03-05", "20210305", "20210305101500.000", "2021-3", "5.3.2021", None])
        ['2021-03', '2021-03', '2021-03', '2021-03', '', '']
    """
    months = []
    for value in values:
        text = "" if value is None else str(value).strip()
        match = _ISO.fullmatch(text) or _DICOM.fullmatch(text)
        month = ""
        if match:
            year, number, day = (int(part or 1) for part in match.groups())
            try:
                month = date(year, number, day).strftime("%Y-%m")
            except ValueError:
                month = ""
        months.append(month)
    return months


def _compared(data: Grouped, attribute: str, against: str, num_permutations: int, seed: int) -> list[dict[str, Any]]:
    """Run the three tests of one pair of sides on the same permutations."""
    dealt_RN = shuffled(data.codes_n, data.patients_n, num_permutations, seed=seed) == 0
    inside_N = data.codes_n == 0
    name = f"{data.groups[0]} against {against}"
    sizes = f"{about(int(inside_N.sum()))} and {about(int((~inside_N).sum()))} images. {data.note}".strip()
    folds = patient_folds(data.codes_n, data.patients_n, FOLDS, seed)
    ridge = RidgeProbe(data.vectors_nD, folds)
    discrepancy, frechet = _discrepancy(data.vectors_nD), _frechet(data.vectors_nD)
    tests: tuple[tuple[str, Callable[[NDArray[np.bool_]], NDArray[np.float64]]], ...] = (
        ("maximum mean discrepancy", discrepancy),
        ("Fréchet distance", frechet),
        ("domain classifier AUROC", lambda sides: ridge.auroc((~sides).astype(np.int64), 2)),
    )
    rows = []
    for title, measure in tests:
        observed, null_R = float(measure(inside_N[None])[0]), measure(dealt_RN)
        chance = f"by chance {np.nanmean(null_R):.3g} on average, {np.nanquantile(null_R, 0.95):.3g} one time in twenty"
        note = f"{chance}; {sizes}"
        rows.append(row("drift", attribute, f"{name}: {title}", observed, p=p_value(observed, null_R), note=note))
    return rows


def _discrepancy(vectors_ND: NDArray[np.floating]) -> Callable[[NDArray[np.bool_]], NDArray[np.float64]]:
    """Make the unbiased squared discrepancy of R divisions, [R, N] to [R]."""
    values = vectors_ND.astype(np.float64)
    squares = np.einsum("nd,nd->n", values, values)
    distance = np.clip(squares[:, None] + squares - 2 * values @ values.T, 0, None)
    middle = float(np.median(distance[np.triu_indices(len(values), 1)]))
    kernel = np.exp(-distance / max(middle, 1e-12))
    np.fill_diagonal(kernel, 0)
    everything = float(kernel.sum())

    def measure(inside_RN: NDArray[np.bool_]) -> NDArray[np.float64]:
        inside = inside_RN.astype(np.float64)
        m, n = inside.sum(axis=1), (1 - inside).sum(axis=1)
        along = inside @ kernel
        within = np.einsum("rn,rn->r", along, inside)
        crossed = along.sum(axis=1) - within
        other = everything - within - 2 * crossed
        with np.errstate(invalid="ignore", divide="ignore"):
            return within / (m * (m - 1)) + other / (n * (n - 1)) - 2 * crossed / (m * n)

    return measure


def _frechet(vectors_ND: NDArray[np.floating]) -> Callable[[NDArray[np.bool_]], NDArray[np.float64]]:
    """Make |difference of means|² + tr(A + B - 2 (A B)^½) of R divisions, on the leading axes of all."""
    values = vectors_ND - vectors_ND.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(values.T @ values)
    points = values @ axes[:, ::-1][:, :AXES]

    def one(inside_N: NDArray[np.bool_]) -> float:
        first, second = points[inside_N], points[~inside_N]
        if min(len(first), len(second)) < 2:
            return float("nan")
        a, b = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (first, second))
        weights, turn = np.linalg.eigh(a)
        root = (turn * np.sqrt(np.clip(weights, 0, None))) @ turn.T
        shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0, None)).sum()
        gap = first.mean(axis=0) - second.mean(axis=0)
        return float(gap @ gap + np.trace(a) + np.trace(b) - 2 * shared)

    return lambda inside_RN: np.array([one(inside) for inside in inside_RN])
