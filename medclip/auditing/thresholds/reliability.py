"""Reliability: of those who were given 30 %, do 30 % have it? By group, and before and after one temperature for all.

The temperature is fitted on the data that thresholds are chosen on, never on the audited data. It is one for everybody:
a group whose probabilities stay off after it is off in another way than the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.thresholds.cohort_fingerprint import refuse_same_data
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Attribute, Cohort, Label, cells_of
from medclip.statistics.metrics.calibration import bins_of, cooled, edges, logits, temperature
from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import of
from medclip.statistics.resampling.standard_errors import Clusters
from medclip.statistics.valid_rows import Rows, valid_rows

Floats = NDArray[np.float64]

NUM_BINS = 10
"""At most so many bins."""
MIN_PATIENTS = 10


def temperatures(choosing: Cohort | None, audited: Cohort) -> tuple[dict[str, float], tuple[str, ...]]:
    """Fit one temperature for each label, over all groups together, on other patients than the audited ones.

    Args:
        choosing: The data to fit on; None where the user has none.
        audited: Cohort that is audited.

    Returns:
        Temperatures by label, and sentences about labels that have none.

    Raises:
        MedclipError: PATIENT_OVERLAP where a row or a patient is in both.
    """
    if choosing is None:
        return {}, (
            "No temperature was fitted: that needs patients who are not audited, and none were given. Calibration is "
            "shown as the scores are.",
        )
    notes = list(refuse_same_data(choosing, audited))
    wanted = {label.name for label in audited.labels if _has_bins(label)}
    fitted: dict[str, float] = {}
    for label in choosing.labels:
        if label.name not in wanted or not _has_bins(label):
            continue
        rows = label.valid_N if label.weight_N is None else label.valid_N & (label.weight_N > 0)
        weight = None if label.weight_N is None else label.weight_N[rows]
        try:
            fitted[label.name] = temperature(logits(label.score_N[rows]), label.truth_N[rows], weight=weight)
        except MedclipError as e:
            notes.append(f"No temperature for {label.name}: {e}")
    notes += [
        f"No temperature for {name}: the data that thresholds are chosen on lacks it."
        for name in sorted(wanted - {label.name for label in choosing.labels})
    ]
    return fitted, tuple(notes)


def table(
    cohort: Cohort,
    label: Label,
    weights_PB: NDArray[Any],
    shown_G: NDArray[np.bool_],
    *,
    t: float | None = None,
    min_patients: int = MIN_PATIENTS,
) -> list[dict[str, Any]]:
    """Return the bins of a reliability plot for each cell that may be shown.

    Bins are the same for all cells: of equal mass, between quantiles of all scores together. They hold their right
    edge. A bin with fewer than `min_patients` patients of a cell is put together with its neighbour, so that nobody can
    be picked out.

    Args:
        cohort: Cohort that is audited.
        label: Scores that are probabilities.
        weights_PB: Weight of each patient in each replicate.
        shown_G: Whether each cell may be shown, in the order of `cells_of`.
        t: A temperature of `temperatures`; None for the scores as they are.
        min_patients: Fewest patients in a bin.

    Returns:
        Rows of the table `calibration`. The interval is that of a proportion with the patients' clustering in it
        (`intervals.of`).

    Raises:
        MedclipError: WRONG_USE where the scores are no probabilities.
    """
    if not _has_bins(label):
        raise MedclipError(Reason.WRONG_USE, f"calibration needs probabilities, which {label.name!r} does not have.")
    if t is not None:
        known = label.valid_N
        score_N = label.score_N.copy()
        score_N[known] = cooled(label.score_N[known], t)
        label = Label(label.name, score_N, label.truth_N, True, label.weight_N, label.no_finding)
    rows = valid_rows(cohort, label)
    inner = _mass_edges(rows.score_n)
    bins_made: list[dict[str, Any]] = []
    chosen = [(cell, rows.cells[g]) for g, cell in enumerate(cells_of(cohort)) if shown_G[g] and len(rows.cells[g])]
    bounds, binned = [], []
    for cell, members in chosen:
        own = _merged(inner, rows, members, min_patients)
        code_N = np.full(len(label.score_N), len(own) + 1, np.int16)  # last: everybody outside the cell
        code_N[np.flatnonzero(label.valid_N)[members]] = bins_of(rows.score_n[members], own)
        bounds.append(np.array([0.0, *own, 1.0]))
        binned.append(Attribute(cell.group, tuple(map(str, range(len(own) + 2))), code_N))
    binned_cohort = Cohort(cohort.patients_N, (label,), tuple(binned))
    replicates = evaluate(binned_cohort, label, weights_PB, metrics=["prevalence"])
    # Not `clusters_of`, which would look at every bin again: for a proportion all patients of the bin count.
    patients_G = replicates.n_patients_G.astype(np.float64)
    clusters = Clusters(patients_G, patients_G, patients_G, label.no_finding)
    low_G, high_G, _ = of(replicates, "prevalence", clusters)
    weight_N = np.where(label.valid_N, 1.0 if label.weight_N is None else label.weight_N, 0.0)
    weighed_N = np.where(label.valid_N, weight_N * label.score_N, 0.0)
    g = 1
    for (cell, _), bound, attribute in zip(chosen, bounds, binned, strict=True):
        total = np.bincount(attribute.codes_N, weight_N, len(bound)).astype(np.float64)
        mean = ratio(np.bincount(attribute.codes_N, weighed_N, len(bound)).astype(np.float64), total)
        for b in range(len(bound) - 1):
            bins_made.append(
                {
                    "label": label.name,
                    "attribute": cell.attribute,
                    "group": cell.group,
                    "bin": b,
                    "low_edge": float(bound[b]),
                    "high_edge": float(bound[b + 1]),
                    "mean_score": float(mean[b]),
                    "observed": float(replicates.point["prevalence"][g + b]),
                    "low": float(low_G[g + b]),
                    "high": float(high_G[g + b]),
                    "n": int(replicates.n_G[g + b]),
                    "after": "raw" if t is None else "temperature",
                }
            )
        g += len(attribute.groups)
    return bins_made


def _has_bins(label: Label) -> bool:
    return label.probability and label.time_N is None


def _mass_edges(score_n: Floats) -> Floats:
    """Return the quantiles of all scores, each once, without the largest score: nothing would lie above it."""
    if not len(score_n):
        return np.zeros(0)
    quantiles = np.unique(np.quantile(score_n, edges(NUM_BINS), method="inverted_cdf"))
    return quantiles[quantiles < score_n.max()]


def _merged(inner: Floats, rows: Rows, members: NDArray[np.int64], min_patients: int) -> Floats:
    """Leave out inner edges, from the left, until each bin has enough patients."""
    bin_m, patient_m = bins_of(rows.score_n[members], inner), rows.patients_n[members]
    kept: list[float] = []
    inside: set[int] = set()
    in_bin = [set(patient_m[bin_m == b].tolist()) for b in range(len(inner) + 1)]
    for b, edge in enumerate([*inner, None]):
        inside |= in_bin[b]
        if edge is not None and len(inside) >= min_patients:
            kept.append(float(edge))
            inside = set()
    if kept and len(inside) < min_patients:  # what is left over at the top goes to the bin below it
        kept.pop()
    return np.array(kept)
