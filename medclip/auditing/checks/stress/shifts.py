"""How much a measure changes from clean to stressed images, in every group, on the same patients.

Would anybody notice? How well the pack's own outputs tell corrupted images from clean ones, in every group: a score
that sees no difference where sensitivity is lost is no guard, the model errs in silence there. And in how many places
of an image spoiling one cell turns a right answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.vectors import estimated_mean
from medclip.auditing.disclosure import FEW_CASES, CellState, Rounding, Roundings, hidden, roundings
from medclip.auditing.groups.differences import paired, rest_cells, with_rest
from medclip.auditing.groups.measure import (
    Measured,
    adjust,
    defined,
    exported,
    fewest_of,
    rounded_values,
    short,
)
from medclip.auditing.input.read import rows_of
from medclip.auditing.options import MeasureOptions
from medclip.statistics.cohort import ALL, CONFLICT, MISSING, Cohort, Label
from medclip.statistics.metrics.catalogue import METRICS, names_of
from medclip.statistics.metrics.out_of_distribution import (
    energy,
    entropy,
    mahalanobis,
    max_logit,
    mcm,
    separation,
    shared_precision,
)
from medclip.statistics.metrics.ranks import resampled_auroc
from medclip.statistics.resampling.bootstrap import Replicates, evaluate_many
from medclip.statistics.resampling.intervals import of
from medclip.statistics.resampling.resampled import change, interval_of, share
from medclip.statistics.resampling.standard_errors import (
    Clusters,
    cases_of,
    clusters_of,
    effective_patients,
    standard_errors,
)
from medclip.statistics.resampling.weights import draw_weights

Row = dict[str, Any]
MISSED, FALSE_ALARMS = "missed", "false_alarms"
"""Metrics of `patch_rows`."""
CLEAN, MEAN, SHUFFLE = "clean", "mean", "shuffle"
"""Kinds of the rows of clean images, of the mean over all corruptions and grades, and of shuffled patches."""
ERROR = "auroc"
"""The metric whose errors, 1 - AUROC, are divided: the column `error_ratio`."""
INFERRED, CLASS_FREE, KNOWN = "inferred", "inferred without classes", "from the table"
"""How the context of prompts is known: the column `strength`."""


@dataclass(frozen=True)
class Condition:
    """One way in which images or prompts are not as they were."""

    kind: str
    """`corruption`, `shuffle`, `prompts` or `attention`."""
    name: str
    grade: int | None = None
    strength: str = ""
    metrics: tuple[str, ...] | None = None
    """What is measured; None: all that stress is measured in."""


def shift_rows(
    one: Measured,
    cohort: Cohort,
    scores: Mapping[str, NDArray[np.float64]],
    conditions: Sequence[Condition],
    samples: Mapping[str, NDArray[np.intp]],
    thresholds: Mapping[str, float],
    options: MeasureOptions,
    step: Callable[[], None],
) -> list[Row]:
    """Return the table `stress`.

    Args:
        one: The audited model, measured: its name, and how counts are rounded.
        cohort: The stressed rows; its labels' scores are not used.
        scores: Scores of each label, [1 + K, N], the clean ones first; NaN where an image could not be read.
        conditions: The K forms.
        samples: Rows that the figures of each attribute, and of everybody (`ALL`), are over.
        thresholds: Thresholds by label; labels without one have no rates.
        options: Options, of which resamples and the policy of small cells are used.
        step: Function called after each form of each attribute: `num_steps` times.

    Returns:
        Rows: clean, each form, and the mean over all corruptions; with the change from clean, and how much more a
        group changes than everybody else of its attribute. `error_ratio` divides 1 - AUROC by that of the same group's
        clean images, and in the clean rows of a group by that of everybody (Tu et al. 2025): above 1 the form, or being
        of the group, does harm. p tests, of the mean only, whether everybody changes and whether a group changes more
        than the others; together they are one family.
    """
    read_N = ~np.any([np.isnan(scores_KN).any(axis=0) for scores_KN in scores.values()], axis=0)
    rows: list[Row] = []
    for attribute in (ALL, *(a.name for a in cohort.attributes)):
        places = samples[attribute][read_N[samples[attribute]]]
        if len(places):
            rows += _of_attribute(one, cohort, scores, conditions, attribute, places, thresholds, options, step)
    adjust([row for row in rows if "family" in row])
    return [short(one.rounding, row) for row in rows]


def num_steps(cohort: Cohort, conditions: Sequence[Condition]) -> int:
    """Count how often `shift_rows` steps."""
    return (1 + len(cohort.attributes)) * (1 + len(conditions))


def _of_attribute(
    one: Measured,
    cohort: Cohort,
    scores: Mapping[str, NDArray[np.float64]],
    conditions: Sequence[Condition],
    attribute: str,
    places: NDArray[np.intp],
    thresholds: Mapping[str, float],
    options: MeasureOptions,
    step: Callable[[], None],
) -> list[Row]:
    part = rows_of(cohort, places, list(scores))
    part = replace(part, labels=tuple(replace(x, score_N=scores[x.name][0, places]) for x in part.labels))
    halves = replace(part, attributes=()) if attribute == ALL else with_rest(part, attribute)
    weights_PB = draw_weights(part.num_patients, options.num_resamples, seed=options.seed)

    def measured(k: int, metrics: Sequence[str]) -> dict[str, Replicates]:
        labels = tuple(replace(x, score_N=scores[x.name][k, places], probability=True) for x in part.labels)
        stressed = replace(halves, labels=labels)
        step()
        return evaluate_many(stressed, thresholds, weights_PB, metrics=metrics, threads=options.threads)

    stressed_in = names_of(lambda m: m.stress)
    clean = measured(0, stressed_in)
    everybody: Mapping[str, Replicates] = {}
    if attribute != ALL:
        together = replace(part, attributes=())
        everybody = evaluate_many(together, thresholds, weights_PB, metrics=(ERROR,), threads=options.threads)
    rounded = _rounding(one, part, attribute, options)
    tables = {
        x.name: _Cells.of(one, halves, x, clean[x.name], everybody.get(x.name), rounded, options) for x in part.labels
    }
    rows = [row for table in tables.values() for row in table.rows(Condition(CLEAN, CLEAN), None)]
    sums: dict[str, Replicates] = {}
    num_corruptions = 0
    for k, condition in enumerate(conditions, 1):
        stressed = measured(k, condition.metrics or stressed_in)
        for name, table in tables.items():
            rows += table.rows(condition, stressed[name])
        if condition.kind == "corruption":
            num_corruptions += 1
            sums = {name: _added(sums.get(name), stressed[name]) for name in tables}
    for name, total in sums.items():
        rows += tables[name].rows(Condition(MEAN, "all corruptions"), _divided(total, num_corruptions))
    return rows


def _rounding(one: Measured, part: Cohort, attribute: str, options: MeasureOptions) -> Rounding:
    """Choose how figures of an attribute are written: as in the whole audit, or coarser where a group of this sample is
    hidden. The rests are left out of it: no count of theirs is exported.
    """
    alone = replace(part, attributes=tuple(a for a in part.attributes if a.name == attribute))
    states = [hidden(alone, label, options.small_cells) for label in alone.labels]
    coarsest = roundings(alone, states, options.small_cells).coarsest
    return max(one.roundings.of(attribute), coarsest, key=lambda rounded: rounded.base)


@dataclass(frozen=True, eq=False)
class _Cells:
    """One label in the groups of one attribute and their rests, clean."""

    one: Measured
    label: Label
    states: tuple[CellState, ...]
    rounding: Rounding
    clusters: Clusters
    clean: Replicates
    everybody: Replicates | None
    """Clean, in one cell; None where these are everybody."""

    @classmethod
    def of(
        cls,
        one: Measured,
        halves: Cohort,
        label: Label,
        clean: Replicates,
        everybody: Replicates | None,
        rounded: Rounding,
        options: MeasureOptions,
    ) -> _Cells:
        states = hidden(halves, label, options.small_cells)
        return cls(one, label, states, rounded, clusters_of(halves, label), clean, everybody)

    def rows(self, condition: Condition, stressed: Replicates | None) -> list[Row]:
        """Return the rows of a form, or those of the clean images where there is none."""
        groups = [(0, None)] if len(self.states) == 1 else [rest_cells(g) for g in range(len(self.states) // 2)]
        visible = [(cell, rest) for cell, rest in groups if self.states[cell].shown]
        replicates = self.clean if stressed is None else stressed
        rows: list[Row] = []
        for metric in defined(replicates, tuple(self.clean.point)):
            low_G, high_G, _ = of(replicates, metric, self.clusters)
            weak_G = cases_of(replicates, metric, self.clusters) < FEW_CASES
            changes = (
                []
                if stressed is None
                else paired(self.clean, stressed, metric, [cell for cell, _ in visible], self.clusters)
            )
            for n, (cell, rest) in enumerate(visible):
                state = self.states[cell]
                fewest = fewest_of(metric, state)
                figure = replicates.point[metric][cell], low_G[cell], high_G[cell]
                row: Row = {
                    **{"model": self.one.name, "label": self.label.name},
                    **{"attribute": state.cell.attribute, "group": state.cell.group},
                    **{"kind": condition.kind, "name": condition.name, "grade": condition.grade},
                    **{"strength": condition.strength, "metric": metric},
                    **rounded_values(self.rounding, fewest, *figure),
                    **{"n": exported(self.rounding, state.n), "n_pos": exported(self.rounding, state.n_pos)},
                    "n_patients": exported(self.rounding, state.n_patients),
                    "flag": "underpowered" if weak_G[cell] else "",
                }
                base = self.everybody if stressed is None else self.clean
                if metric == ERROR and base is not None:
                    ratio = self._error_ratio(replicates, base, cell, 0 if stressed is None else cell)
                    row |= _named("error_ratio", rounded_values(self.rounding, fewest, *ratio))
                if stressed is not None:
                    d = changes[n]
                    row |= _named("change", rounded_values(self.rounding, fewest, d.value, d.low, d.high))
                    if rest is None and condition.kind == MEAN and METRICS[metric].stress == "tested":
                        row |= {"p": d.p, "family": f"stress, {self.one.name}"}
                    if rest is not None and self.states[rest].shown:
                        row |= self._more(condition, metric, stressed, cell, rest, fewest)
                rows.append(row)
        return rows

    def _error_ratio(self, over: Replicates, base: Replicates, cell: int, base_cell: int) -> tuple[float, float, float]:
        """Divide the error of a cell by that of another: value and interval, which is that of its logarithm."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.log(1 - over.point[ERROR][cell]) - np.log(1 - base.point[ERROR][base_cell])
            drawn_B = np.log(1 - over.drawn[ERROR][cell]) - np.log(1 - base.drawn[ERROR][base_cell])
        if not np.isfinite(value):
            return math.nan, math.nan, math.nan
        patients = float(standard_errors(self.clean, ERROR, self.clusters).df_G[cell]) + 1
        d = change(float(value), np.where(np.isfinite(drawn_B), drawn_B, np.nan), patients)
        return math.exp(d.value), math.exp(d.low), math.exp(d.high)

    def _more(self, condition: Condition, metric: str, stressed: Replicates, cell: int, rest: int, fewest: int) -> Row:
        """Compare the change of a group with that of everybody else of its attribute."""
        moved_G = stressed.point[metric] - self.clean.point[metric]
        moved_GB = stressed.drawn[metric] - self.clean.drawn[metric]
        errors = [standard_errors(one, metric, self.clusters) for one in (self.clean, stressed)]
        floors = sum(float((e.variance_G - e.bootstrap_G)[[cell, rest]].sum()) for e in errors)
        patients = float(min(errors[0].df_G[cell], errors[0].df_G[rest])) + 1
        d = change(float(moved_G[cell] - moved_G[rest]), moved_GB[cell] - moved_GB[rest], patients, added=floors)
        row = _named("more", rounded_values(self.rounding, fewest, d.value, d.low, d.high))
        if condition.kind == MEAN and METRICS[metric].stress == "tested":
            row |= {"p": d.p, "family": f"stress, {self.one.name}"}
        return row


def _named(name: str, figure: Row) -> Row:
    return {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}


def _added(total: Replicates | None, more: Replicates) -> Replicates:
    if total is None:
        return more
    point = {m: total.point[m] + more.point[m] for m in more.point}
    return replace(more, point=point, drawn={m: total.drawn[m] + more.drawn[m] for m in more.drawn})


def _divided(total: Replicates, by: int) -> Replicates:
    point = {m: values / by for m, values in total.point.items()}
    return replace(total, point=point, drawn={m: values / by for m, values in total.drawn.items()})


MAX_LOGIT, DISTANCE = "max_logit", "distance"
"""The Mahalanobis distance from the clean images of the other half of the patients."""
_MOST_RESAMPLES = 1000


def strangeness_scores(
    features_FND: NDArray[np.float32],
    class_vectors_CD: NDArray[np.float32] | None,
    patients_N: NDArray[np.integer],
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Compute scores that are larger for stranger images.

    Args:
        features_FND: Unit vectors of N images in F forms, the clean one first; NaN where there is none.
        class_vectors_CD: Unit vectors of the classes of a task; for one or more findings those of their presence;
            None for an image-only pack, which has the distance alone.
        patients_N: Patient of each image: half of them are what the distance is measured from.
        seed: Seed of the halves.

    Returns:
        [F, N] by name. Softmax scores (mcm, energy, entropy; at temperature 1, on cosines) only where there are two
        classes or more; NaN in the distance for the patients that it is measured from.
    """
    scores: dict[str, NDArray[np.float64]] = {}
    if class_vectors_CD is not None:
        cosines_FNC = features_FND.astype(np.float64) @ class_vectors_CD.T.astype(np.float64)
        scores[MAX_LOGIT] = max_logit(cosines_FNC)
        if class_vectors_CD.shape[0] > 1:
            scores |= {"mcm": mcm(cosines_FNC), "energy": energy(cosines_FNC), "entropy": entropy(cosines_FNC)}
    half_P = np.random.default_rng(seed).permutation(int(patients_N.max()) + 1) % 2 == 0
    known_N = ~np.isnan(features_FND).any(axis=(0, 2))
    before_N = known_N & half_P[patients_N]
    distance_FN = np.full(features_FND.shape[:2], np.nan)
    if before_N.sum() > 1:
        clean_MD = features_FND[0, before_N].astype(np.float64)
        precision = shared_precision(clean_MD)
        rest_N = known_N & ~before_N
        for f, features_ND in enumerate(features_FND):
            distance_FN[f, rest_N] = mahalanobis(features_ND[rest_N], clean_MD.mean(axis=0)[None], precision)
    return {**scores, DISTANCE: distance_FN}


def strangeness_rows(
    cohort: Cohort,
    scores: Mapping[str, NDArray[np.float64]],
    conditions: Sequence[Condition],
    samples: Mapping[str, NDArray[np.intp]],
    rounded: Roundings,
    *,
    fewest: int,
    num_resamples: int,
    seed: int,
    step: Callable[[], None],
) -> list[Row]:
    """Return the table `stress_ood`: AUROC of corrupted against clean images, for each score, form and group."""
    rows: list[Row] = []
    for attribute, group, places in groups(cohort, samples):
        for name, scores_FN in scores.items():
            scored = places[~np.isnan(scores_FN[:, places]).any(axis=0)]
            present, patients_n = np.unique(cohort.patients_N[scored], return_inverse=True)
            if len(present) < fewest:
                continue
            twice_n = np.tile(patients_n, 2)
            weights_PB = draw_weights(len(present), min(num_resamples, _MOST_RESAMPLES), seed=seed)
            effective = effective_patients(patients_n)
            for k, condition in enumerate(conditions, 1):
                both = np.concatenate([scores_FN[k, scored], scores_FN[0, scored]])
                corrupted = np.arange(len(both)) < len(scored)
                value, drawn_B = resampled_auroc(both, corrupted, twice_n, weights_PB)
                count = float(len(scored))
                figure = interval_of(share(value, drawn_B, cases=count, patients=effective, pairs=(count, count)))
                n = rounded.of(attribute).count(len(scored))
                rows.append(
                    {
                        **{"attribute": attribute, "group": group, "name": condition.name, "grade": condition.grade},
                        **{"score": name, "value": figure.value, "low": figure.low, "high": figure.high},
                        "fpr95": separation(scores_FN[0, scored], scores_FN[k, scored]).fpr95,
                        "n": None if isinstance(n, str) else n,
                    }
                )
        step()
    return rows


def groups(cohort: Cohort, samples: Mapping[str, NDArray[np.intp]]) -> list[tuple[str, str, NDArray[np.intp]]]:
    """List everybody and each known group, with its rows among the stressed ones."""
    listed = [(ALL, ALL, samples[ALL])]
    for attribute in cohort.attributes:
        places = samples[attribute.name]
        for g, group in enumerate(attribute.groups):
            if group not in (MISSING, CONFLICT):
                listed.append((attribute.name, group, places[attribute.codes_N[places] == g]))
    return listed


def patch_rows(
    cohort: Cohort,
    scores: Mapping[str, NDArray[np.float64]],
    samples: Mapping[str, NDArray[np.intp]],
    thresholds: Mapping[str, float],
    rounded: Roundings,
    named: Row,
    *,
    fewest: int,
    num_resamples: int,
    seed: int,
    step: Callable[[], None],
) -> list[Row]:
    """Return rows of the table `stress`: the share of cells that turn a right answer, by label and group.

    Args:
        cohort: The rows that were shown.
        scores: Scores of each label, [1 + P, N]; NaN where an image was not shown.
        samples: Rows of each attribute, and of everybody.
        thresholds: Thresholds by label.
        rounded: Roundings of counts and values.
        named: Columns that are the same in each row: model, kind, name, grade, strength.
        fewest: Patients and images that a group needs to be shown.
        num_resamples: Resamples of patients.
        seed: Seed of the draws.
        step: Function called after each group.
    """
    rows: list[Row] = []
    for attribute, group, places in groups(cohort, samples):
        for label in cohort.labels:
            if label.name not in scores:
                continue
            called_FN = scores[label.name] >= thresholds[label.name]
            scored = places[~np.isnan(scores[label.name][:, places]).any(axis=0)]
            for metric, truth in ((MISSED, 1), (FALSE_ALARMS, 0)):
                right = scored[(label.truth_N[scored] == truth) & (called_FN[0, scored] == bool(truth))]
                present, patients_n = np.unique(cohort.patients_N[right], return_inverse=True)
                if len(present) < fewest:
                    continue
                turned_n = (called_FN[1:, right] != called_FN[0, right]).mean(axis=0)
                weights_PB = draw_weights(len(present), num_resamples, seed=seed)
                figure = estimated_mean(turned_n, patients_n, weights_PB)
                ends = (rounded.of(attribute).value(x, len(right)) for x in (figure.value, figure.low, figure.high))
                counts = (rounded.of(attribute).count(len(right)), rounded.of(attribute).count(len(present)))
                n, n_patients = (None if isinstance(c, str) else c for c in counts)
                rows.append(
                    {
                        **named,
                        **{"label": label.name, "attribute": attribute, "group": group, "metric": metric},
                        **dict(zip(("value", "low", "high"), ends, strict=True)),
                        **{"n": n, "n_patients": n_patients},
                    }
                )
        step()
    return rows
