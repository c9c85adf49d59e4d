"""Does the model find the disease, or the device (chest drain, pacemaker, tube) that treats it?

Pneumothorax is treated with a chest drain. A model may learn the drain: it then does well on images of patients who are
treated already, and poorly on those who need it to be found. Two tests (Oakden-Rayner et al., Hidden stratification
causes clinically meaningful failures, CHIL 2020; Jiménez-Sánchez et al., Detecting shortcuts in medical images, ISBI
2023):

- `device_test`: positives with the device and positives without it, each against all negatives. A shortcut model is
  better with. Patients with the device may also be more ill, so the test is repeated on patients who have images of
  both kinds.
- `negatives_with_device`: among the negatives, the device must not raise the score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.estimate import Difference, Estimate
from medclip.statistics.metrics.catalogue import METRICS
from medclip.statistics.resampling.bootstrap import Replicates, evaluate
from medclip.statistics.resampling.intervals import estimates
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.standard_errors import Clusters, clusters_of
from medclip.statistics.resampling.sums import means

Floats = NDArray[np.float64]

PRESENT = frozenset({"1", "1.0", "true", "yes", "y", "present", "with"})
ABSENT = frozenset({"0", "0.0", "false", "no", "n", "absent", "none", "without"})
NOT_DONE = "Not done"
"""How the note of a test that could not be done begins."""
UNKNOWN = frozenset({"", "-1", "-1.0", "nan", "na", "unknown", "not stated"})


def device_of(cohort: Cohort, column: str) -> Floats:
    """Return 1 where the device is in the image, 0 where it is not, NaN where nobody knows (blank or −1), [N].

    Raises:
        MedclipError: WRONG_USE where there is no such column; TABLE_INVALID where it says something else than yes and
            no.
    """
    attribute = next((a for a in cohort.attributes if a.name == column), None)
    if attribute is not None:
        stated = np.asarray(attribute.groups, object)[attribute.codes_N]
    elif column in cohort.columns:
        stated = np.asarray(cohort.columns[column])
    else:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no column {column!r} that says whether a device is in the image.",
            hint=f"The label table's columns that were read: {', '.join(cohort.columns) or 'none'}.",
        )
    words, place_N = np.unique(["" if w is None else str(w).strip().casefold() for w in stated], return_inverse=True)
    strange = [w for w in words if w not in PRESENT | ABSENT | UNKNOWN]
    if strange:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {column!r} has {len(strange)} values that are neither yes nor no.",
            hint="Write 1 (device in the image), 0 (not in the image), and nothing or -1 where it is not known.",
        )
    value = [1.0 if w in PRESENT else 0.0 if w in ABSENT else np.nan for w in words]
    return np.asarray(value, np.float64)[place_N] if len(words) else np.zeros(0)


TIMES = "a time to an event has no positives and negatives; name a horizon."
"""Why none of the tests is done for such a label."""


def row(
    label: str,
    test: str,
    stratum: str,
    metric: str,
    estimate: Estimate,
    counts: tuple[int, int] | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Return a row of the table `shortcuts`; `counts` are rows and positives, None where they are not shown."""
    n, n_pos = counts if counts is not None else (None, None)
    return {
        "label": label,
        "test": test,
        "stratum": stratum,
        "metric": metric,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "p": estimate.p if isinstance(estimate, Difference) else float("nan"),
        "n": n,
        "n_pos": n_pos,
        "note": note,
    }


def not_done(label: str, test: str, why: str) -> list[dict[str, Any]]:
    """Return the one row of a test that could not be done."""
    return [row(label, test, "", "", Estimate(float("nan")), note=f"{NOT_DONE}: {why}")]


Bools = NDArray[np.bool_]
Row = dict[str, Any]

POSITIVES = "positives with and without the device"
SAME_PATIENTS = "positives with and without the device, same patients"
SAME_PREVALENCE = "positives with and without the device, same prevalence"
NEGATIVES = "negatives with and without the device"
WITH, WITHOUT, GAP = "with device", "without device", "with − without"
MIN_PATIENTS = 10
"""Fewest patients in each stratum; with fewer the test is not done, so that nobody can be picked out."""


def device_test(
    cohort: Cohort,
    label: Label,
    device_N: Floats,
    weights_PB: NDArray[Any],
    *,
    min_patients: int = MIN_PATIENTS,
) -> list[Row]:
    """Compare how well positives with and without the device are told from the same negatives, in three ways.

    As they are; only patients who have positive images of both kinds, each counting alike in both; and with the
    positives of the larger stratum weighed down until both have the prevalence of the smaller one, so that average
    precision can be compared too.

    Args:
        cohort: Patients.
        label: Scores and truths.
        device_N: Device in each row: 1, 0, or NaN where nobody knows (`device.device_of`); positives of unknown device
            are left out.
        weights_PB: Weight of each patient in each replicate; pairs the strata.
        min_patients: Fewest patients with positives in each stratum.

    Returns:
        Rows of the table `shortcuts`: each measure with, without, and the difference.
    """
    if label.time_N is not None:
        return not_done(label.name, POSITIVES, TIMES)
    positive = label.valid_N & (label.truth_N == 1)
    with_N, without_N = positive & (device_N == 1), positive & (device_N == 0)
    compare = _Comparison(cohort, label, weights_PB, min_patients)
    rows = [
        _with_caution(r) if (r["metric"], r["stratum"]) == ("auprc_adjusted", GAP) else r
        for r in compare(POSITIVES, with_N, without_N, ("auroc", "auprc_adjusted"), None)
    ]

    both = np.intersect1d(cohort.patients_N[with_N], cohort.patients_N[without_N])
    matched = np.isin(cohort.patients_N, both)
    once_N = np.ones(len(device_N))
    for part in (with_N & matched, without_N & matched):
        images_P = np.bincount(cohort.patients_N[part], minlength=cohort.num_patients)
        once_N[part] = 1 / images_P[cohort.patients_N[part]]
    rows += compare(SAME_PATIENTS, with_N & matched, without_N & matched, ("auroc",), once_N)

    totals = [float(compare.own_N[part].sum()) for part in (with_N, without_N)]
    equal_N = np.ones(len(device_N))
    for part, total in zip((with_N, without_N), totals, strict=True):
        equal_N[part] = min(totals) / total if total > 0 else 0.0
    rows += compare(SAME_PREVALENCE, with_N, without_N, ("auprc", "auprc_adjusted"), equal_N)
    return rows


def negatives_with_device(
    cohort: Cohort,
    label: Label,
    device_N: Floats,
    weights_PB: NDArray[Any],
    *,
    threshold: float | None = None,
    min_patients: int = MIN_PATIENTS,
) -> list[Row]:
    """Ask whether the device by itself raises the score, among images without the disease.

    Args:
        cohort: Patients.
        label: Scores and truths.
        device_N: Device in each row: 1, 0, or NaN where nobody knows.
        weights_PB: Weight of each patient in each replicate.
        threshold: Threshold for the false positive rates; None: without them.
        min_patients: Fewest patients with negatives in each stratum.

    Returns:
        Rows of the table `shortcuts`: false positive rate and mean score with, without, and the difference; and how
        well the score tells the device from no device where there is no disease (AUROC; .5 is what it should be).
    """
    if label.time_N is not None:
        return not_done(label.name, NEGATIVES, TIMES)
    negative = label.valid_N & (label.truth_N == 0)
    with_N, without_N = negative & (device_N == 1), negative & (device_N == 0)
    why = _too_few(cohort, {"negatives with": with_N, "negatives without": without_N}, min_patients)
    if why:
        return not_done(label.name, NEGATIVES, why)
    counts = {WITH: (int(with_N.sum()), 0), WITHOUT: (int(without_N.sum()), 0)}
    counts[GAP] = (counts[WITH][0] + counts[WITHOUT][0], 0)
    sentence_of = _Sentences(label.name).negatives
    rows: list[Row] = []
    if threshold is not None:
        device = Attribute("device", (WITH, WITHOUT, "not known"), _codes(with_N, without_N))
        grouped = replace(cohort, attributes=(device,))
        replicates = evaluate(grouped, label, weights_PB, threshold=threshold, metrics=["fpr"])
        rows += _three_rows(
            label, NEGATIVES, replicates, "fpr", clusters_of(grouped, label), (1, 2), counts, sentence_of
        )
    point_K, drawn_KB = means(
        cohort.patients_N, weights_PB, [(with_N, label.score_N), (without_N, label.score_N)], label.weight_N
    )
    fewer = min(len(np.unique(cohort.patients_N[part])) for part in (with_N, without_N))
    for k, stratum in enumerate((WITH, WITHOUT)):
        here = change(float(point_K[k]), drawn_KB[k], fewer)
        value = Estimate(here.value, here.low, here.high)  # that it is not 0 is no finding
        rows.append(row(label.name, NEGATIVES, stratum, "mean score", value, counts[stratum]))
    apart = change(float(point_K[0] - point_K[1]), drawn_KB[0] - drawn_KB[1], fewer)
    rows.append(row(label.name, NEGATIVES, GAP, "mean score", apart, counts[GAP], sentence_of("mean score", apart)))

    truth_N = np.where(with_N, 1.0, np.where(without_N, 0.0, np.nan))
    relabelled = replace(label, truth_N=truth_N)
    grouped = replace(cohort, attributes=())
    replicates = evaluate(grouped, relabelled, weights_PB, metrics=["auroc"])
    value = estimates(replicates, "auroc", clusters_of(grouped, relabelled))[0]
    rows.append(row(label.name, NEGATIVES, GAP, "AUROC of the device", value, counts[GAP], sentence_of("auroc", value)))
    return rows


class _Comparison:
    """Positives of two kinds, each against all negatives."""

    def __init__(self, cohort: Cohort, label: Label, weights_PB: NDArray[Any], min_patients: int) -> None:
        self._cohort, self._label, self._weights_PB, self._min = cohort, label, weights_PB, min_patients
        self.own_N = np.ones(len(label.score_N)) if label.weight_N is None else label.weight_N

    def __call__(
        self, test: str, with_N: Bools, without_N: Bools, metrics: tuple[str, ...], weight_N: Floats | None
    ) -> list[Row]:
        label, cohort = self._label, self._cohort
        negative = label.valid_N & (label.truth_N == 0)
        parts = {"positives with": with_N, "positives without": without_N, "negatives": negative}
        why = _too_few(cohort, parts, self._min)
        if why:
            return not_done(label.name, test, why)
        halves = tuple(
            Attribute(stratum, ("in", "out"), (~(part | negative)).astype(np.int16))
            for stratum, part in ((WITH, with_N), (WITHOUT, without_N))
        )
        halved = replace(cohort, attributes=halves)
        if weight_N is not None:
            label = replace(label, weight_N=self.own_N * weight_N)
        replicates = evaluate(halved, label, self._weights_PB, metrics=metrics)
        clusters = clusters_of(halved, label)
        negatives = int(negative.sum())
        pos = {WITH: int(with_N.sum()), WITHOUT: int(without_N.sum())}
        pos[GAP] = pos[WITH] + pos[WITHOUT]
        counts = {stratum: (n + negatives, n) for stratum, n in pos.items()}
        sentence_of = _Sentences(label.name).positives
        return [
            one_row
            for metric in metrics
            for one_row in _three_rows(label, test, replicates, metric, clusters, (1, 3), counts, sentence_of)
        ]


class _Sentences:
    """What a difference means, for somebody who does not know the measure."""

    def __init__(self, label: str) -> None:
        self._label = label

    def positives(self, metric: str, gap: Estimate) -> str:
        title = METRICS[metric].title
        if gap.above_zero:
            return (
                f"{self._label} is found better where the device is in the image; {title}: difference {gap}. The model "
                "may lean on the device, and do less well on patients who are not treated yet; or those with the "
                "device are more ill."
            )
        if gap.below_zero:
            return f"{self._label} is found less well where the device is in the image; {title}: difference {gap}."
        return f"{title}: no difference with and without the device that could be told from chance: {gap}."

    def negatives(self, metric: str, gap: Estimate) -> str:
        if metric == "auroc":
            if gap.low > 0.5:
                return (
                    f"Among images without {self._label}, one with the device scores higher than one without it with "
                    f"probability {gap}; where the device plays no part that is one half."
                )
            return f"Among images without {self._label}, the score does not point to the device: {gap}, against 0.50."
        fpr, about = metric == "fpr", f"Images without {self._label}"
        if gap.above_zero:
            what = "are called positive more often" if fpr else "get higher scores"
            why = "The device, or what comes with it, raises the score."
            return f"{about} but with the device {what}: difference {gap}. {why}"
        if gap.below_zero:
            what = "are called positive less often" if fpr else "get lower scores"
            return f"{about} but with the device {what}: difference {gap}."
        return f"{about} are scored alike with and without the device, as far as is seen: difference {gap}."


def _three_rows(
    label: Label,
    test: str,
    replicates: Replicates,
    metric: str,
    clusters: Clusters,
    cells: tuple[int, int],
    counts: dict[str, tuple[int, int]],
    sentence_of: Callable[[str, Estimate], str],
) -> list[Row]:
    values = estimates(replicates, metric, clusters)
    rows = [
        row(label.name, test, stratum, metric, values[cell], counts[stratum])
        for stratum, cell in zip((WITH, WITHOUT), cells, strict=True)
    ]
    gap = _apart(replicates, metric, clusters, cells)
    return [*rows, row(label.name, test, GAP, metric, gap, counts[GAP], sentence_of(metric, gap))]


def _with_caution(row: Row) -> Row:
    """Take the p from a difference that honest models have too (in simulations up to 12 % had p below 5 %)."""
    gap = Estimate(row["value"], row["low"], row["high"])
    note = (
        f"{METRICS[row['metric']].title}: difference {gap}. The strata differ in prevalence, which this measure takes "
        "out in part only; compare those of the same prevalence."
    )
    return {**row, "p": float("nan"), "note": note}


def _apart(replicates: Replicates, metric: str, clusters: Clusters, cells: tuple[int, int]) -> Difference:
    """Compute the difference of two strata.

    Strata share patients or negatives, so the bootstrap of the difference is taken as it is: floors under the variance
    of each stratum, as `differences.against` has them, are several times the variance of the difference, and little
    would be found. For a rate near 0 the floor is the variance that independent rows would have if both strata had one
    rate. In simulations of honest models with 150 and 400 patients, p was below 5 % in 3 to 7 % of AUROC differences
    and in 1 to 3 % of rate differences.
    """
    point_G, drawn_GB = replicates.point[metric], replicates.drawn[metric]
    pair = list(cells)
    value = float(point_G[cells[0]] - point_G[cells[1]])
    least, patients_G = 0.0, clusters.positive_G
    if metric == "fpr":
        patients_G, count = clusters.negative_G, replicates.n_neg_G[pair]
        rate = (float(point_G[pair] @ count) + 2) / (count.sum() + 4)  # Agresti and Coull
        least = float(rate * (1 - rate) * (1 / count).sum())
    return change(value, drawn_GB[cells[0]] - drawn_GB[cells[1]], int(patients_G[pair].min()), least=least)


def _codes(with_N: Bools, without_N: Bools) -> NDArray[np.int16]:
    return np.where(with_N, 0, np.where(without_N, 1, 2)).astype(np.int16)


def _too_few(cohort: Cohort, parts: dict[str, Bools], fewest: int) -> str:
    for name, part in parts.items():
        if len(np.unique(cohort.patients_N[part])) < fewest:
            where = f"{name} the device" if name != "negatives" else name
            return f"fewer than {fewest} patients have {where}."
    return ""
