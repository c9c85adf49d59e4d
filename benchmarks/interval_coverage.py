"""Do the audit's intervals cover, and do its tests err no more often than they say, on clustered data?

    python benchmarks/audit_coverage.py [--simulations 1000] [--replicates 500] [--part coverage|errors|all] [--seed 0]

Made cohorts: 1 to 8 images per patient; truth and score each have an intra-class correlation of 0.5 between images of a
patient (a normal patient effect); two groups (or six) of patients. Given its truth an image's score is normal with
standard deviation 1, so the true AUROC of images is Φ(d/√2) and the true TPR Φ(d − t), whatever the clustering.

Coverage: share of simulations in which the 95 % interval holds the true value, with the audit's default intervals and
differences beside plain percentiles and beside the row bootstrap (images drawn, not patients). Type-I error: share of
simulations in which a test finds something although all groups have the same law: single tests at 5 %, Holm's
family-wise error and Benjamini-Hochberg's over labels x groups x metrics, and the permutation test of the largest gap.

Every share comes with its Monte Carlo standard error sqrt(q (1 - q)/S). Exits 1 where a coverage of the audit's own
intervals of AUROC and of gaps is significantly outside 93 to 97 %, or a type-I error significantly above its nominal
level (beyond three of those errors).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medclip.auditing.groups.differences import against, rest_cells, with_rest
from medclip.auditing.groups.gap_test import gap_test
from medclip.auditing.groups.gaps import gaps
from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import of, percentile
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.tests.multiple_testing import benjamini_hochberg, holm

ICC, MOST_IMAGES, THRESHOLD = 0.5, 8, 0.5
METRICS = ("auroc", "tpr", "fpr")
TARGET, LEVEL = (0.93, 0.97), 0.05
_APART = 1_000_000
"""Between the seeds of two settings, so that they share no draws."""

Shares = dict[str, list[float]]
"""What was counted, by what: one number for each simulation."""


@dataclass(frozen=True)
class Setting:
    """One kind of made cohort."""

    patients: int
    auroc_G: tuple[float, ...] = (0.8, 0.8)
    """True AUROC of each group; patients are divided evenly."""
    prevalence: float = 0.3
    labels: int = 1

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
        return f"{self.patients} patients, AUROC {aurocs}, prevalence {self.prevalence:.0%}"


COVERAGE = (
    Setting(60),
    Setting(120),
    Setting(400),
    Setting(120, (0.85, 0.75)),
    Setting(120, (0.95, 0.8)),
    Setting(200, (0.8, 0.8), 0.1),
    Setting(300, (0.9, 0.85, 0.8, 0.8, 0.75, 0.7)),
)
ERRORS = (Setting(120, (0.8,) * 2, 0.3, 3), Setting(180, (0.8,) * 6, 0.3, 3), Setting(240, (0.95,) * 6, 0.15, 3))


def make(setting: Setting, rng: np.random.Generator) -> Cohort:
    """Make a cohort."""
    patients_N = np.repeat(np.arange(setting.patients), rng.integers(1, MOST_IMAGES + 1, setting.patients))
    group_N = (np.arange(setting.patients) % len(setting.auroc_G))[patients_N]
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
        found_gap = gaps(drawn, range(1, 1 + len(setting.auroc_G)), [name], clusters=clusters)[name]
        found["largest gap of auroc"].append(_holds((found_gap.low, found_gap.high), largest))
        found["largest gap of auroc, percentiles"].append(_holds(percentile(found_gap.drawn_B), largest))
        if rows:
            each = replace(cohort, patients_N=np.arange(len(cohort.patients_N), dtype=np.int32))
            weights = draw_weights(each.num_patients, replicates, seed=seed + s)
            values_B = evaluate(each, label, weights, metrics=["auroc"]).drawn["auroc"]
            gap = setting.true("auroc", 0) - setting.true("auroc", 1)
            found["auroc of a group, rows drawn"].append(_holds(percentile(values_B[1]), setting.true("auroc", 0)))
            found["auroc gap, rows drawn"].append(_holds(percentile(values_B[1] - values_B[2]), gap))
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
            cohort, cohort.labels[0], "group", range(num_groups), names,
            threshold=THRESHOLD, num_permutations=min(replicates, 199), seed=seed + s,
        )  # fmt: skip
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


def _holds(interval: tuple[float, float], true: float) -> float:
    return float(interval[0] <= true <= interval[1])


def main() -> int:
    """Print all shares; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--part", choices=("coverage", "errors", "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    broken, start = 0, time.perf_counter()
    jobs = [("coverage of 95 %", coverage, s) for s in COVERAGE] if args.part != "errors" else []
    jobs += [("false findings at 5 %", errors, s) for s in ERRORS] if args.part != "coverage" else []
    for number, (title, job, setting) in enumerate(jobs):
        print(f"\n{title}: {setting}", flush=True)
        for name, values in job(setting, args.simulations, args.replicates, args.seed + _APART * number).items():
            mean, error = share(values)
            bad = outside(name, mean, error)
            broken += bad
            print(f"  {name:48} {100 * mean:5.1f} % ± {100 * error:.1f}{'   BROKEN' if bad else ''}", flush=True)
    print(f"\n{args.simulations} simulations of each, {time.perf_counter() - start:.0f} s; {broken} promises broken")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
