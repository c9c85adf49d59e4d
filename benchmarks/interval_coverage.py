"""Do the intervals cover, and do tests err no more often than they say, on clustered data of which the truth is known?

    python benchmarks/interval_coverage.py [--simulations 1000] [--part NAME] [--seed 0]

Made cohorts: several images per patient; truth and score each have an intra-class correlation of 0.5 between images of
a patient (a normal patient effect).

- `quantities`: what `evaluate`, `adapt`, `compare`, `retrieval` and `audit` print, at 20, 40 and 100 patients with 1 to
  5 images: AUROC, balanced accuracy, macro AUROC, accuracy, precision, recall, F1, R@K, the paired difference of two
  models in each of them, and means over five draws of shots. Classes are even, four to one, or three; scores overlap,
  or tell the classes apart nearly or quite. The true values are those of 20,000 patients (R@K, which is of a gallery of
  this size: the mean of 1,000 cohorts).
- `audit`: what `audit` prints besides, for groups of 20, 40 and 100 patients with probabilities: every metric of a
  group, every gap, groups against the rest, and two models in a group. Groups are alike and told apart nearly without
  error; or differ, and the model is too sure of itself; or are four. True values are those of 20,000 patients a group.
- `groups`: the audit's main figures for groups of patients with 1 to 8 images, beside plain percentiles and the row
  bootstrap (images drawn, not patients). Given its truth an image's score is normal with standard deviation 1, so the
  true AUROC of images is Φ(d/√2) and the true TPR Φ(d − t), whatever the clustering.
- `unlabelled`: the AUROC of everybody where labels are missing by chance, by truth, by score, and by both.
- `errors`: how often a test finds something although all groups have the same law: single tests at 5 %, Holm's
  family-wise error and Benjamini-Hochberg's over labels x groups x metrics, and the permutation test of the largest
  gap.

Every share comes with its Monte Carlo standard error sqrt(q (1 - q)/S). Exits 1 where a quantity's coverage is below
93 % from 40 patients on, or below 90 % at 20, by more than two of those errors; where that of the AUROC or a gap of
groups is outside 93 to 97 % by more than three; or where a type-I error is above its nominal level by more than three.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from medclip.auditing.groups.differences import against, paired, rest_cells, with_rest
from medclip.auditing.groups.gap_test import gap_test
from medclip.auditing.groups.gaps import gap_info, gap_values, gaps
from medclip.auditing.groups.measure import compared, gaps_shown, gaps_tested
from medclip.evaluation.label_retrieval import retrieval
from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.estimate import Estimate
from medclip.statistics.metrics.classification import HeldOut, figures
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import of, percentile
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.significance import benjamini_hochberg, holm

ICC, MOST_IMAGES, THRESHOLD = 0.5, 8, 0.5
METRICS = ("auroc", "tpr", "fpr")
TARGET, LEVEL = (0.93, 0.97), 0.05
_APART = 1_000_000
"""Between the seeds of two settings, so that they share no draws."""

Shares = dict[str, list[float]]
"""What was counted, by what: one number for each simulation."""


@dataclass(frozen=True)
class Task:
    """Answers to a task, on a made cohort."""

    patients: int
    shares: tuple[float, ...] = (0.5, 0.5)
    """Of the classes."""
    distance: float = 1.2
    """By how many standard deviations the score of the true class is higher."""
    shots: int = 1
    """Draws of shots, each of which makes another model."""

    def __str__(self) -> str:
        shares = " : ".join(f"{100 * s:.0f}" for s in self.shares)
        shots = f", mean of {self.shots} draws of shots" if self.shots > 1 else ""
        return f"{self.patients} patients, classes {shares}, distance {self.distance:g}{shots}"


@dataclass(frozen=True)
class Gallery:
    """Images and texts, one of which belongs to each."""

    patients: int
    noise: float
    """Of an image about its text."""

    def __str__(self) -> str:
        return f"{self.patients} patients, retrieval, noise {self.noise:g}"


BINARY = ("auroc", "accuracy", "balanced_accuracy", "macro_f1", "macro_precision", "precision", "recall", "f1")
SEVERAL = ("macro_auroc", "accuracy", "balanced_accuracy", "macro_f1", "macro_precision")
SIZES, DISTANCES = (20, 40, 100), (0.8, 2.0, 3.3)
TASKS = (
    *(Task(n, s, d) for n in SIZES for s in ((0.5, 0.5), (0.8, 0.2), (0.4, 0.35, 0.25)) for d in DISTANCES),
    *(Task(n, shots=5) for n in SIZES),
    *(Gallery(n, noise) for n in SIZES for noise in (0.4, 0.8)),
)
_GAPS = tuple(name for name in (*gaps_tested(), *gaps_shown()) if "c_index" not in name)
_COMPARED = tuple(metric for metric in compared() if metric != "c_index")
BARS = {20: 0.90, 40: 0.93, 100: 0.93}
_MANY, _GALLERIES, _SHIFT = 20_000, 1000, 0.25
"""Patients and galleries that the truth is taken from; by how much a draw of shots moves a model."""


@dataclass(frozen=True)
class Audited:
    """Probabilities for groups of patients, each of which is as large."""

    patients: int
    """In a group."""
    distances_G: tuple[float, ...]
    """By how many standard deviations the scores of positives are higher."""
    prevalences_G: tuple[float, ...]
    sureness: float = 1.0
    """Factor on the log odds: 1 where they are calibrated."""
    ends: float = 0.0
    """Scores nearer to 0 or 1 than this are 0 or 1."""

    def __str__(self) -> str:
        distances, shares = (", ".join(f"{x:g}" for x in xs) for xs in (self.distances_G, self.prevalences_G))
        many = f"{self.patients} patients in a group"
        ends = f", 0 and 1 within {self.ends:g}" if self.ends else ""
        return f"{many}, distances {distances}, prevalences {shares}, log odds times {self.sureness:g}{ends}"


AUDITED = tuple(
    Audited(n, *kind)
    for n in SIZES
    for kind in (
        ((3.0, 3.0), (0.3, 0.3)),
        ((1.8, 0.9), (0.3, 0.3), 1.8),
        ((1.8, 1.4, 1.0, 0.8), (0.4, 0.3, 0.2, 0.3)),
        ((1.5, 1.5), (0.3, 0.3), 1.0, 0.03),
        ((1.5, 1.5), (0.3, 0.3), 3.0, 0.0005),
    )
)
ACT_AT = 0.3
"""Probability from which on it is called positive."""


@dataclass(frozen=True)
class Setting:
    """One kind of made cohort."""

    patients: int
    auroc_G: tuple[float, ...] = (0.8, 0.8)
    """True AUROC of each group; patients are divided evenly."""
    prevalence: float = 0.3
    labels: int = 1
    sizes: tuple[int, ...] = ()
    """Patients of each group, where they are not divided evenly."""

    def distance(self, group: int) -> float:
        """Give how far the mean scores of positives and negatives are apart."""
        return math.sqrt(2) * float(norm.ppf(self.auroc_G[group]))

    def true(self, metric: str, group: int) -> float:
        """Give the true value for images of a group."""
        if metric == "auroc":
            return self.auroc_G[group]
        at = THRESHOLD if metric == "fpr" else THRESHOLD - self.distance(group)
        return float(norm.sf(at))

    def __str__(self) -> str:
        aurocs = ", ".join(f"{a:.2f}" for a in self.auroc_G)
        sizes = f" ({', '.join(map(str, self.sizes))})" if self.sizes else ""
        return f"{self.patients} patients{sizes}, AUROC {aurocs}, prevalence {self.prevalence:.0%}"


COVERAGE = (
    Setting(60),
    Setting(120),
    Setting(400),
    Setting(120, (0.85, 0.75)),
    Setting(120, (0.95, 0.8)),
    Setting(200, (0.8, 0.8), 0.1),
    Setting(300, (0.9, 0.85, 0.8, 0.8, 0.75, 0.7)),
    Setting(440, (0.85, 0.85), sizes=(400, 40)),
    Setting(440, (0.85, 0.7), sizes=(400, 40)),
    Setting(440, (0.8, 0.92), sizes=(400, 40)),
)
ERRORS = (Setting(120, (0.8,) * 2, 0.3, 3), Setting(180, (0.8,) * 6, 0.3, 3), Setting(240, (0.95,) * 6, 0.15, 3))


@dataclass(frozen=True)
class Unlabelled:
    """Labels that are missing from 400 patients, AUROC 0.8, prevalence 30 %."""

    by: str
    shares: tuple[tuple[float, float], tuple[float, float]]
    """Of negatives and of positives: without a label, below the median score and above it."""

    def __str__(self) -> str:
        negatives, positives = (f"{100 * low:.0f} % and {100 * high:.0f} %" for low, high in self.shares)
        return f"labels missing by {self.by}: below and above the median score, {negatives} ({positives} of positives)"


UNLABELLED = (
    Unlabelled("chance", ((0.2, 0.2), (0.2, 0.2))),
    Unlabelled("truth", ((0.1, 0.1), (0.4, 0.4))),
    Unlabelled("score", ((0.4, 0.1), (0.4, 0.1))),
    Unlabelled("truth and score", ((0.1, 0.1), (0.4, 0.1))),
)


def make(setting: Setting, rng: np.random.Generator) -> Cohort:
    """Make a cohort."""
    patients_N = np.repeat(np.arange(setting.patients), rng.integers(1, MOST_IMAGES + 1, setting.patients))
    of_patients = np.arange(setting.patients) % len(setting.auroc_G)
    if setting.sizes:
        of_patients = np.repeat(np.arange(len(setting.sizes)), setting.sizes)
    group_N = of_patients[patients_N]
    distance_N = np.array([setting.distance(g) for g in range(len(setting.auroc_G))])[group_N]

    def clustered() -> NDArray[np.float64]:
        own = rng.normal(size=len(patients_N))
        return math.sqrt(ICC) * rng.normal(size=setting.patients)[patients_N] + math.sqrt(1 - ICC) * own

    labels = []
    for n in range(setting.labels):
        truth_N = (clustered() > norm.isf(setting.prevalence)).astype(np.float64)
        labels.append(Label(f"label {n}", clustered() + distance_N * truth_N, truth_N, probability=False))
    names = tuple(f"group {g}" for g in range(len(setting.auroc_G)))
    return Cohort(patients_N.astype(np.int32), tuple(labels), (Attribute("group", names, group_N.astype(np.int16)),))


def answers(
    task: Task, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Make labels [N], patients [N], noise of two models [2, S, N, C] (alike within a patient and between the models),
    and how well each draw of shots did [S]."""
    whose = np.repeat(np.arange(task.patients), rng.integers(1, 6, task.patients))

    def clustered(*shape: int) -> NDArray[np.float64]:
        own = rng.normal(size=(*shape, len(whose)))
        return math.sqrt(ICC) * rng.normal(size=(*shape, task.patients))[..., whose] + math.sqrt(1 - ICC) * own

    labels = np.searchsorted(norm.ppf(np.cumsum(task.shares)[:-1]), clustered())
    shared, own = clustered(len(task.shares)), clustered(2, task.shots, len(task.shares))
    noise = np.swapaxes(math.sqrt(0.5) * (shared + own), 2, 3)
    shifts_S = rng.normal(0, _SHIFT, task.shots) if task.shots > 1 else np.zeros(1)
    return labels, whose, noise, shifts_S


def scores_of(task: Task, labels: NDArray[np.int64], noise: NDArray[np.float64], shifts_S: NDArray[np.float64]) -> Any:
    """Add the truth to the noise; the second model tells it a little less well."""
    true_NC = np.eye(len(task.shares))[labels]
    return [
        (d + shifts_S)[:, None, None] * true_NC + own
        for d, own in zip((task.distance, task.distance - 0.3), noise, strict=True)
    ]


def task_truth(task: Task) -> dict[str, float]:
    """Compute the true values, over patients and over draws of shots."""
    labels, whose, noise, shifts_S = answers(replace(task, patients=_MANY, shots=1), np.random.default_rng(10**9))
    if task.shots > 1:
        shifts_S = _SHIFT * norm.ppf((np.arange(15) + 0.5) / 15)
    once = np.ones((_MANY, 2), np.uint8)
    test, names = HeldOut(labels, whose, len(task.shares)), BINARY if len(task.shares) == 2 else SEVERAL
    means: list[dict[str, float]] = []
    for shift in shifts_S:
        models = scores_of(task, labels, noise, np.array([shift]))
        one, other = ({k: f.value for k, f in figures(m, test, once, names).items()} for m in models)
        means.append(one | {_apart(name): other[name] - one[name] for name in one})
    return {name: float(np.mean([m[name] for m in means])) for name in means[0]}


def task_intervals(task: Task, replicates: int, seed: int) -> dict[str, Estimate]:
    """Compute the intervals of one made cohort, as they are printed."""
    labels, whose, noise, shifts_S = answers(task, np.random.default_rng(seed))
    test, names = HeldOut(labels, whose, len(task.shares)), BINARY if len(task.shares) == 2 else SEVERAL
    weights_PB = draw_weights(test.num_patients, replicates, seed=seed)
    models = scores_of(task, labels, noise, shifts_S)
    one, other = (figures(m, test, weights_PB, names, runs=(task.shots, 1)) for m in models)
    found = {name: interval_of(one[name]) for name in one}
    return found | {_apart(name): difference(one[name], other[name]) for name in one}


def gallery_intervals(gallery: Gallery, replicates: int, seed: int) -> dict[str, Estimate]:
    """Compute the intervals of R@K of texts that ask for images; some patients are harder than others."""
    rng = np.random.default_rng(seed)
    whose = np.repeat(np.arange(gallery.patients), rng.integers(1, 6, gallery.patients))
    hard_N1 = np.exp(rng.normal(0, 0.5, gallery.patients))[whose, None]
    texts = rng.normal(size=(len(whose), 8))
    images = texts + gallery.noise * hard_N1 * rng.normal(size=texts.shape)
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
    keys, patients = range(len(whose)), whose.tolist()
    found, _ = retrieval(
        images, texts, keys, keys, image_patients=patients, text_patients=patients, num_resamples=replicates, seed=seed
    )
    return {f"retrieval R@{k}": found.intervals[k] for k in found.recall}


def gallery_truth(gallery: Gallery) -> dict[str, float]:
    """Compute the mean recall over many cohorts of this size."""
    each = [gallery_intervals(gallery, 2, 10**9 + n) for n in range(_GALLERIES)]
    return {name: float(np.mean([found[name].value for found in each])) for name in each[0]}


def quantities(task: Task | Gallery, simulations: int, replicates: int, seed: int) -> Shares:
    """Count how often the interval of each quantity holds the truth; cohorts that allow no interval do not count."""
    true: Mapping[str, float] = task_truth(task) if isinstance(task, Task) else gallery_truth(task)
    counted = defaultdict[str, list[float]](list)
    for s in range(simulations):
        if isinstance(task, Task):
            found = task_intervals(task, replicates, seed + s)
        else:
            found = gallery_intervals(task, replicates, seed + s)
        for name, e in found.items():
            if e.has_interval:
                counted[name].append(_holds((e.low, e.high), true[name]))
    return counted


def probabilities(task: Audited, rng: np.random.Generator) -> Cohort:
    """Make a cohort of two models and a time to an event."""
    groups = np.arange(task.patients * len(task.distances_G)) % len(task.distances_G)
    whose = np.repeat(np.arange(len(groups)), rng.integers(1, 6, len(groups)))
    distance_N, prevalence_N = (np.array(x)[groups][whose] for x in (task.distances_G, task.prevalences_G))

    def clustered() -> NDArray[np.float64]:
        own = rng.normal(size=len(whose))
        return math.sqrt(ICC) * rng.normal(size=len(groups))[whose] + math.sqrt(1 - ICC) * own

    truth_N = (clustered() > norm.isf(prevalence_N)).astype(np.float64)
    shared, labels = clustered(), []
    for model, share in (("model", 1.0), ("other", 0.8)):
        signal_N = math.sqrt(0.5) * (shared + clustered()) + share * distance_N * truth_N
        odds_N = share * distance_N * (signal_N - share * distance_N / 2) + logit(prevalence_N)
        score_N = expit(task.sureness * odds_N)
        score_N = np.where(np.minimum(score_N, 1 - score_N) < task.ends, np.round(score_N), score_N)
        labels.append(Label(model, score_N, truth_N, probability=True))
    until_N, censored_N = rng.exponential(np.exp(-truth_N - 0.5 * clustered())), rng.exponential(size=len(whose))
    time_N = np.minimum(until_N, censored_N)
    event_N = (until_N <= censored_N).astype(np.float64)
    labels.append(replace(labels[0], name="time", truth_N=event_N, probability=False, time_N=time_N))
    names = tuple(f"group {g}" for g in range(len(task.distances_G)))
    attribute = Attribute("group", names, groups[whose].astype(np.int16))
    return Cohort(whose.astype(np.int32), tuple(labels), (attribute,))


def audited(task: Audited, simulations: int, replicates: int, seed: int) -> Shares:
    """Count how often the interval of each figure of an audit holds the truth."""
    true = _audit_truth(task)
    counted = defaultdict[str, list[float]](list)
    for s in range(simulations):
        cohort = probabilities(task, np.random.default_rng(seed + s))
        weights_PB = draw_weights(cohort.num_patients, replicates, seed=seed + s)
        for name, (low, high) in _audit_intervals(task, cohort, weights_PB).items():
            if not np.isnan(low + high + true[name]):
                counted[name].append(_holds((low - 1e-12, high + 1e-12), true[name]))
    return counted


_OTHER = "difference of two models"
_REST = "group against the rest"


def _audit_intervals(
    task: Audited, cohort: Cohort, weights_PB: NDArray[np.unsignedinteger[Any]]
) -> dict[str, tuple[float, float]]:
    model, _, time = cohort.labels
    ends: dict[str, tuple[float, float]] = {}
    measured, clusters = {}, clusters_of(cohort, model)
    for label in cohort.labels:
        measured[label.name] = evaluate(cohort, label, weights_PB, threshold=ACT_AT)
    for label in (model, time):
        for metric in measured[label.name].point:
            low_G, high_G, _ = of(measured[label.name], metric, clusters_of(cohort, label))
            ends[metric] = low_G[1], high_G[1]
    cells = range(1, 1 + len(task.distances_G))
    for name, gap in gaps(measured["model"], cells, clusters, _GAPS).items():
        ends[f"gap {name}"] = gap.low, gap.high
    halves = with_rest(cohort, "group")
    drawn = evaluate(halves, model, weights_PB, threshold=ACT_AT, metrics=_COMPARED)
    for metric in _COMPARED:
        (apart,) = against(drawn, metric, [1], 2, clusters_of(halves, model))
        ends[f"{metric}, {_REST}"] = apart.low, apart.high
        (apart,) = paired(measured["model"], measured["other"], metric, [1], clusters)
        ends[f"{metric}, {_OTHER}"] = apart.low, apart.high
    return ends


def _audit_truth(task: Audited) -> dict[str, float]:
    """Compute the true values; groups that are alike have the same ones."""
    cohort = probabilities(replace(task, patients=_MANY), np.random.default_rng(10**9))
    alone_P0 = np.ones((cohort.num_patients, 0), np.uint8)
    rest = with_rest(cohort, "group")
    values = {x.name: evaluate(cohort, x, alone_P0, threshold=ACT_AT).point for x in cohort.labels}
    halves = evaluate(rest, cohort.labels[0], alone_P0, threshold=ACT_AT, metrics=_COMPARED).point
    kinds = list(zip(task.distances_G, task.prevalences_G, strict=True))
    same = len(set(kinds)) == 1
    if same:  # what is left between them is the noise of so many patients
        values = {name: {m: np.full(len(v), v[0]) for m, v in point.items()} for name, point in values.items()}
        for name in ("auroc_bpsn", "auroc_bnsp"):
            values["model"][name][:] = values["model"]["auroc"]
    true = {metric: float(value_G[1]) for name in ("model", "time") for metric, value_G in values[name].items()}
    for name in _GAPS:
        points = [values["model"][metric] for metric in gap_info(name).metrics]
        groups_MG1, all_M1 = np.stack(points)[:, 1:, None], np.stack(points)[:, :1]
        true[f"gap {name}"] = float(gap_values(gap_info(name), groups_MG1, all_M1)[0])
    for metric in _COMPARED:
        true[f"{metric}, {_REST}"] = 0.0 if same else float(halves[metric][1] - halves[metric][2])
        true[f"{metric}, {_OTHER}"] = float(values["other"][metric][1] - values["model"][metric][1])
    return true


def too_narrow(task: Task | Gallery | Audited, mean: float, error: float) -> bool:
    """Whether a quantity's coverage is under its bar, beyond Monte Carlo error."""
    return mean + 2 * error < BARS[task.patients]


def _apart(name: str) -> str:
    return f"{name}, difference of two models"


def coverage(setting: Setting, simulations: int, replicates: int, seed: int, *, rows: bool = True) -> Shares:
    """Count how often intervals hold the truth.

    Args:
        setting: Of the cohorts.
        simulations: How many cohorts.
        replicates: Of each bootstrap.
        seed: Of everything.
        rows: Whether to try the row bootstrap as well.
    """
    rng, found = np.random.default_rng(seed), defaultdict[str, list[float]](list)
    for s in range(simulations):
        cohort = make(setting, rng)
        label = cohort.labels[0]
        clusters = clusters_of(cohort, label)
        weights = draw_weights(cohort.num_patients, replicates, seed=seed + s)
        drawn = evaluate(cohort, label, weights, threshold=THRESHOLD, metrics=METRICS)
        for metric in METRICS:
            first, gap = setting.true(metric, 0), setting.true(metric, 0) - setting.true(metric, 1)
            low_G, high_G, _ = of(drawn, metric, clusters)
            (difference,) = against(drawn, metric, [1], 2, clusters)
            values_B = drawn.drawn[metric]
            found[f"{metric} of a group"].append(_holds((low_G[1], high_G[1]), first))
            found[f"{metric} gap"].append(_holds((difference.low, difference.high), gap))
            found[f"{metric} of a group, percentiles"].append(_holds(percentile(values_B[1]), first))
            found[f"{metric} gap, percentiles"].append(_holds(percentile(values_B[1] - values_B[2]), gap))
        largest = max(setting.auroc_G) - min(setting.auroc_G)
        name = "auroc_max_min"
        found_gap = gaps(drawn, range(1, 1 + len(setting.auroc_G)), clusters, [name])[name]
        found["largest gap of auroc"].append(_holds((found_gap.low, found_gap.high), largest))
        found["largest gap of auroc, percentiles"].append(_holds(percentile(found_gap.drawn_B), largest))
        rates = [setting.true("tpr", g) for g in range(len(setting.auroc_G))]
        rate_gap = gaps(drawn, range(1, 1 + len(rates)), clusters, ["tpr_max_min"])["tpr_max_min"]
        found["largest gap of tpr"].append(_holds((rate_gap.low, rate_gap.high), max(rates) - min(rates)))
        if rows:
            each = replace(cohort, patients_N=np.arange(len(cohort.patients_N), dtype=np.int32))
            weights = draw_weights(each.num_patients, replicates, seed=seed + s)
            values_B = evaluate(each, label, weights, metrics=["auroc"]).drawn["auroc"]
            gap = setting.true("auroc", 0) - setting.true("auroc", 1)
            found["auroc of a group, rows drawn"].append(_holds(percentile(values_B[1]), setting.true("auroc", 0)))
            found["auroc gap, rows drawn"].append(_holds(percentile(values_B[1] - values_B[2]), gap))
    return found


def unlabelled(missing: Unlabelled, simulations: int, replicates: int, seed: int) -> Shares:
    """Count how often the interval of the labelled rows' AUROC holds that of all rows."""
    rng, found = np.random.default_rng(seed), defaultdict[str, list[float]](list)
    setting = Setting(400, (0.8,))
    for s in range(simulations):
        cohort = make(setting, rng)
        (label,) = cohort.labels
        is_high_N = label.score_N > np.median(label.score_N)
        gone_N = rng.random(len(is_high_N)) < np.array(missing.shares)[label.truth_N.astype(int), is_high_N.astype(int)]
        label = replace(label, truth_N=np.where(gone_N, np.nan, label.truth_N))
        cohort = replace(cohort, labels=(label,))
        weights = draw_weights(cohort.num_patients, replicates, seed=seed + s)
        drawn = evaluate(cohort, label, weights, metrics=["auroc"])
        low_G, high_G, _ = of(drawn, "auroc", clusters_of(cohort, label))
        found["auroc of the labelled rows"].append(_holds((low_G[0], high_G[0]), setting.true("auroc", 0)))
        found["mean of that auroc"].append(float(drawn.point["auroc"][0]))
    return found


def errors(setting: Setting, simulations: int, replicates: int, seed: int) -> Shares:
    """Count how often tests find a difference where there is none.

    Args:
        setting: Of the cohorts; all groups alike.
        simulations: How many cohorts.
        replicates: Of each bootstrap, and shuffles of each permutation test.
        seed: Of everything.
    """
    rng, found = np.random.default_rng(seed), defaultdict[str, list[float]](list)
    num_groups = len(setting.auroc_G)
    for s in range(simulations):
        cohort = make(setting, rng)
        apart = with_rest(cohort, "group")
        weights = draw_weights(cohort.num_patients, replicates, seed=seed + s)
        family = []
        for label in cohort.labels:
            drawn = evaluate(apart, label, weights, threshold=THRESHOLD, metrics=METRICS)
            clusters = clusters_of(apart, label)
            for metric in METRICS:
                pairs = [rest_cells(g) for g in range(num_groups if num_groups > 2 else 1)]
                p_values = [against(drawn, metric, [cell], rest, clusters)[0].p for cell, rest in pairs]
                found[f"{metric}, group against rest, single test"].append(np.nanmean(np.array(p_values) < LEVEL))
                family += p_values
        found["Holm, one false finding or more"].append(float(np.nanmin(holm(family)) < LEVEL))
        found["Benjamini-Hochberg, one false finding or more"].append(
            float(np.nanmin(benjamini_hochberg(family)) < LEVEL)
        )
        names = ["auroc_max_min", "equalised_odds"]
        tests = gap_test(
            cohort,
            cohort.labels[0],
            "group",
            range(num_groups),
            names,
            threshold=THRESHOLD,
            num_permutations=min(replicates, 199),
            seed=seed + s,
        )
        for name, test in tests.items():
            found[f"{name}, permutation test"].append(float(test.p <= LEVEL))
    return found


def share(values: Sequence[float]) -> tuple[float, float]:
    """Give the mean over simulations with its Monte Carlo standard error (at least that of one in as many)."""
    mean, number = float(np.mean(values)), len(values)
    return mean, max(math.sqrt(mean * (1 - mean) / number), 1 / number)


def outside(name: str, mean: float, error: float) -> bool:
    """Whether a figure of the audit's own methods breaks its promise beyond Monte Carlo error."""
    if name.endswith(("percentiles", "rows drawn")):
        return False
    if name.endswith("test") or name.startswith(("Holm", "Benjamini")):
        return mean - 3 * error > LEVEL
    return name.startswith(("auroc", "tpr gap")) and not TARGET[0] - 3 * error <= mean <= TARGET[1] + 3 * error


def _is_bad(setting: Any, name: str, mean: float, error: float) -> bool:
    if isinstance(setting, Unlabelled):  # no interval allows for it
        return False
    return outside(name, mean, error) if isinstance(setting, Setting) else too_narrow(setting, mean, error)


def _holds(interval: tuple[float, float], true: float) -> float:
    return float(interval[0] <= true <= interval[1])


def main() -> int:
    """Print all shares; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument(
        "--part", choices=("quantities", "audit", "groups", "unlabelled", "errors", "all"), default="all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    parts: list[tuple[str, str, Callable[..., Shares], Sequence[Any]]] = [
        ("quantities", "coverage of 95 %", quantities, TASKS),
        ("audit", "coverage of 95 %", audited, AUDITED),
        ("groups", "coverage of 95 %", coverage, COVERAGE),
        ("unlabelled", "coverage of 95 %", unlabelled, UNLABELLED),
        ("errors", "false findings at 5 %", errors, ERRORS),
    ]
    jobs = [(title, f, x) for part, title, f, settings in parts for x in settings if args.part in (part, "all")]
    broken, start = 0, time.perf_counter()
    with ProcessPoolExecutor(args.processes) as pool:
        doing = [
            pool.submit(job, setting, args.simulations, args.replicates, args.seed + _APART * number)
            for number, (_, job, setting) in enumerate(jobs)
        ]
        for (title, _, setting), done in zip(jobs, doing, strict=True):
            print(f"\n{title}: {setting}", flush=True)
            for name, values in done.result().items():
                mean, error = share(values)
                bad = _is_bad(setting, name, mean, error)
                broken += bad
                few = f" of {len(values)}" if len(values) < args.simulations else ""
                print(
                    f"  {name:48} {100 * mean:5.1f} % ± {100 * error:.1f}{few}{'   BROKEN' if bad else ''}", flush=True
                )
    print(f"\n{args.simulations} simulations of each, {time.perf_counter() - start:.0f} s; {broken} promises broken")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
