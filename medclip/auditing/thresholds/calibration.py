"""What probabilities mean, by group: reliability, and what acting on them is worth.

Reliability: of those who were given 30 %, do 30 % have it? Before and after one temperature for all. The temperature is
fitted on the data that thresholds are chosen on, never on the audited data. It is one for everybody: a group whose
probabilities stay off after it is off in another way than the others.

Decision curves: what acting on the score is worth, against acting on everybody and on nobody. Whoever acts at a
probability of t says that one ill patient found is worth (1 − t)/t healthy ones treated in vain. Net benefit counts in
that currency: TP/N − FP/N · t/(1 − t). It needs probabilities that mean what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.groups.measure import Measured, exported, fewest_of
from medclip.auditing.options import MeasureOptions
from medclip.auditing.thresholds.cohort_fingerprint import refuse_same_data
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Attribute, Cohort, Label, Rows, cells_of, valid_rows
from medclip.statistics.metrics.calibration import bins_of, cooled, edges, logits, temperature
from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import of, symmetric_interval
from medclip.statistics.resampling.standard_errors import Clusters, clusters_of, mended
from medclip.statistics.resampling.sums import blocks, summing_matrix

Floats = NDArray[np.float64]
Row = dict[str, Any]

NUM_BINS = 10
"""At most so many bins."""
MIN_PATIENTS = 10


def temperatures_of(choosing: Cohort | None, audited: Cohort) -> tuple[dict[str, float], tuple[str, ...]]:
    """Fit one temperature for each label, over all groups together, on other patients than the audited ones.

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
        valid = label.valid_N
        score_N = label.score_N.copy()
        score_N[valid] = cooled(label.score_N[valid], t)
        label = Label(label.name, score_N, label.truth_N, True, label.weight_N, label.no_finding)
    rows = valid_rows(cohort, label)
    inner = _mass_edges(rows.score_n)
    bins_made: list[dict[str, Any]] = []
    chosen = [(cell, rows.cells[g]) for g, cell in enumerate(cells_of(cohort)) if shown_G[g] and len(rows.cells[g])]
    bounds, binned = [], []
    for cell, members in chosen:
        edges_of = _merged(inner, rows, members, min_patients)
        code_N = np.full(len(label.score_N), len(edges_of) + 1, np.int16)  # last: everybody outside the cell
        code_N[np.flatnonzero(label.valid_N)[members]] = bins_of(rows.score_n[members], edges_of)
        bounds.append(np.array([0.0, *edges_of, 1.0]))
        binned.append(Attribute(cell.group, tuple(map(str, range(len(edges_of) + 2))), code_N))
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


GRID: tuple[float, ...] = tuple(k / 100 for k in range(1, 51))
"""Probabilities at which one may act: 1 % to 50 %."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Net benefit of one label in each of G cells, in the order of `cells_of`; NaN where a cell is empty."""

    grid_T: Floats
    model_GT: Floats
    treat_all_GT: Floats
    """Prevalence − (1 − prevalence) · t/(1 − t). Acting on nobody is worth 0."""
    drawn_GTB: Floats
    """Of the model, in each replicate."""

    def rows(self, cohort: Cohort, label: Label, shown_G: NDArray[np.bool_]) -> list[dict[str, Any]]:
        """Return the rows of the table `decision`, of the cells that may be shown."""
        rows, patients_G = [], clusters_of(cohort, label).any_G
        ends_TG = [
            symmetric_interval(point_G, mended(point_G, drawn_GB, patients_G, patients_G, share=False))
            for point_G, drawn_GB in zip(self.model_GT.T, self.drawn_GTB.swapaxes(0, 1), strict=True)
        ]
        for g in np.flatnonzero(shown_G):
            cell = cells_of(cohort)[g]
            for t, threshold in enumerate(self.grid_T):
                low, high = (float(end_G[g]) for end_G in ends_TG[t])
                rows.append(
                    {
                        "label": label.name,
                        "attribute": cell.attribute,
                        "group": cell.group,
                        "threshold": float(threshold),
                        "net_benefit": float(self.model_GT[g, t]),
                        "low": low,
                        "high": high,
                        "treat_all": float(self.treat_all_GT[g, t]),
                    }
                )
        return rows


def net_benefit(tp: Floats | float, fp: Floats | float, n: Floats | float, threshold: Floats | float) -> Floats:
    """Return TP/N − FP/N · t/(1 − t); NaN where N is 0.

    Reference: Vickers & Elkin, Medical Decision Making 26 (2006) 565-574.
    """
    t = np.asarray(threshold, np.float64)
    top = np.asarray(tp - fp * (t / (1 - t)), np.float64)
    return ratio(top, np.broadcast_to(np.asarray(n, np.float64), top.shape))


def curve(cohort: Cohort, label: Label, weights_PB: NDArray[Any], *, grid: Sequence[float] = GRID) -> Curve:
    """Measure net benefit over thresholds in every cell and every resample of patients.

    Args:
        cohort: Patients and attributes.
        label: Scores that are probabilities, and truths; `weight_N` multiplies the patients' weights.
        weights_PB: Weight of each patient in each replicate.
        grid: Thresholds, rising, above 0 and below 1; a row is acted on at or above it.

    Raises:
        MedclipError: WRONG_USE where the scores are no probabilities, or for a grid that does not rise from above 0 to
            below 1.
    """
    grid_T = np.asarray(grid, np.float64)
    if not label.probability or label.time_N is not None:
        raise MedclipError(Reason.WRONG_USE, f"net benefit needs probabilities, which {label.name!r} does not have.")
    if not len(grid_T) or grid_T[0] <= 0 or grid_T[-1] >= 1 or (np.diff(grid_T) <= 0).any():
        raise MedclipError(Reason.WRONG_USE, "the thresholds of a decision curve rise from above 0 to below 1.")
    rows = valid_rows(cohort, label)
    num_bins = len(grid_T) + 1
    # Each row once in each of its cells, at its place: [cell, how many thresholds it reaches, truth].
    place_n = 2 * np.searchsorted(grid_T, rows.score_n, side="right") + rows.truth_n
    every = np.concatenate(rows.cells)
    cell = np.repeat(np.arange(rows.num_cells), [len(c) for c in rows.cells])
    matrix = summing_matrix(
        cell * 2 * num_bins + place_n[every],
        rows.num_cells * 2 * num_bins,
        rows.patients_n[every],
        rows.num_patients,
        rows.values(every),
    )

    def measured(weights: NDArray[Any]) -> tuple[Floats, Floats]:
        models = np.empty((rows.num_cells, len(grid_T), weights.shape[1]))
        shares = np.empty((rows.num_cells, weights.shape[1]))
        for block in blocks(weights, len(every), rows.weight_n is None):
            sums = block.sums(matrix)[:, : block.num].astype(np.float64)
            sums = sums.reshape(rows.num_cells, num_bins, 2, block.num)
            reached = np.cumsum(sums[:, ::-1], axis=1)[:, ::-1]
            n, positives = reached[:, 0].sum(axis=1), reached[:, 0, 1]
            here = slice(block.start, block.start + block.num)
            shares[:, here] = ratio(positives, n)
            models[:, :, here] = net_benefit(reached[:, 1:, 1], reached[:, 1:, 0], n[:, None], grid_T[:, None])
        return models, shares

    model_GT1, share_G1 = measured(np.ones((rows.num_patients, 1), np.uint8))
    drawn_GTB, _ = measured(weights_PB)
    return Curve(grid_T, model_GT1[..., 0], share_G1 - (1 - share_G1) * grid_T / (1 - grid_T), drawn_GTB)


def reliability_rows(one: Measured, label: Label, temperature: float | None, options: MeasureOptions) -> list[Row]:
    """Return the table `calibration` of a label, as scored and after its temperature; nothing without probabilities."""
    if not _has_bins(label):
        return []
    shown_G, least = one.shown_G(label.name), options.small_cells.min_patients
    return [
        {"model": one.name, **_safe_bin(one, row)}
        for t in (None, temperature)[: 1 + (temperature is not None)]
        for row in table(one.cohort, label, one.weights_PB, shown_G, t=t, min_patients=least)
    ]


def decision_rows(one: Measured, label: Label) -> list[Row]:
    """Return the table `decision` of a label; nothing without probabilities."""
    if not _has_bins(label):
        return []
    fewest = {(s.cell.attribute, s.cell.group): fewest_of("selection_rate", s) for s in one.states[label.name]}
    shares = _prevalences(one, label.name)
    rows = []
    for row in curve(one.cohort, label, one.weights_PB).rows(one.cohort, label, one.shown_G(label.name)):
        cell = row["attribute"], row["group"]
        share, odds = shares[cell], row["threshold"] / (1 - row["threshold"])
        safe = _safe(one, row, fewest[cell], _WORTH) | {"treat_all": share - (1 - share) * odds}
        rows.append({"model": one.name, **safe})
    return rows


_BIN = ("observed", "low", "high")
_WORTH = ("net_benefit", "low", "high")


def _prevalences(one: Measured, label: str) -> dict[tuple[str, str], float]:
    """Return the share of positives of each cell, as the table of metrics has it: acting on everybody is worth as much,
    and exact values at fifty thresholds would give the counts away.
    """
    share_G = one.replicates[label].point["prevalence"]
    return {
        (s.cell.attribute, s.cell.group): one.roundings.of(s.cell.attribute).value(
            float(share), fewest_of("prevalence", s)
        )
        for s, share in zip(one.states[label], share_G, strict=True)
    }


def _safe(one: Measured, row: Mapping[str, Any], fewest: int, names: tuple[str, str, str]) -> dict[str, Any]:
    """Round values so that they give no count away that is hidden elsewhere."""
    value, low, high = (float(row[name]) for name in names)
    written = one.roundings.of(row["attribute"]).with_interval(value, low, high, fewest)
    return {**row, **dict(zip(names, written, strict=True))}


def _safe_bin(one: Measured, row: Mapping[str, Any]) -> dict[str, Any]:
    """Round a bin; one with a small count is there without its values."""
    rounded = one.roundings.of(row["attribute"])
    n = exported(rounded, row["n"])
    if rounded.base == 1:
        return dict(row)
    if n is None:
        return {**row, "n": None, "mean_score": None, **dict.fromkeys(_BIN)}
    edges = {name: round(float(row[name]), 3) for name in ("low_edge", "high_edge")}  # scores of single rows
    edges["mean_score"] = round(float(row["mean_score"]), 3)
    return {**_safe(one, row, row["n"], _BIN), **edges, "n": n}
