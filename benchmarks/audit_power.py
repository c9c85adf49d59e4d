"""Claim: the audit's test of a gap errs in at most 5 % where groups are alike, and a small group does not drown it.

    python benchmarks/audit_power.py [--simulations 400] [--shuffles 399] [--seed 0]

Made cohorts of patients with 1 to 3 images (intra-class correlation 0.5 of truth and score), in groups of unequal
sizes. Groups are alike; or scores are only shifted between groups (one AUROC, other rates); or one large group has an
AUROC that is lower by 0.12; or sensitivities and selection rates that are lower. In the last setting the attribute
varies within patients (a view of each image).

Beside the test (maxT: the group that stands out most, in standard errors) the statistic that it took the place of is
tested on the same shuffles (largest minus smallest, in raw units), and the group that differs is tested against the
rest by the patient bootstrap, as `differences` has it: the yardstick, for who would know beforehand which group to ask
about. "Seen from" is the mean of `smallest_gap`, the true difference that is found in 80 %.

The family that findings come from (`family`) is measured by itself: one of six groups of 1,000 patients has an AUROC
that is lower by 0.08, or none has; a label in one of ten. How often the group is found in AUROC, how often in any
measure, and how often anything is found, by Holm's method over five measures of each group, as before, and by the
family's one-sided step-down test of three.

Ends with 1 where the test errs in more than 5 % by more than three Monte Carlo errors, or finds the AUROC gap of 0.12
beside a group of 40 in less than 90 % of what the group against the rest does.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medclip.auditing.groups.differences import against, rest_cells, with_rest
from medclip.auditing.groups.family import Tested, adjust_together, sign_of_worse
from medclip.auditing.groups.gap_test import Shuffles, gap_test, units_of
from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.significance import holm, p_value

METRICS = ("auroc", "tpr", "selection_rate")
ICC, LEVEL, THRESHOLD, PREVALENCE, AUROC = 0.5, 0.05, 0.5, 0.3, 0.85


@dataclass(frozen=True)
class Setting:
    """One kind of made cohort."""

    name: str
    sizes: tuple[int, ...]
    """Patients of each group."""
    drops: tuple[float, ...] = ()
    """By how much the AUROC of each group is lower; none: by nothing."""
    shifts: tuple[float, ...] = ()
    """By how much the scores of each group are higher."""
    prevalence: float = PREVALENCE
    most_images: int = 3
    """Of a patient; each number from 1 is as frequent."""
    view: bool = False
    """Whether the group is that of an image and not of a patient; sizes say how frequent each is."""

    def differs(self, metric: str) -> bool:
        """Whether the metric truly differs between groups."""
        return len(set(self.drops)) > 1 or (len(set(self.shifts)) > 1 and metric != "auroc")


SETTINGS = (
    Setting("alike", (1000, 1000, 40)),
    Setting("alike", (400, 40)),
    Setting("alike", (60, 60, 60, 60, 60, 60)),
    Setting("alike, view of an image", (500, 300, 40), view=True),
    Setting("shifted scores", (600, 600, 40), shifts=(0.0, 1.0, 0.5)),
    Setting("AUROC .12 lower in a large group", (1000, 1000, 40), drops=(0.0, 0.12, 0.0)),
    Setting("AUROC .12 lower in a large group", (1000, 1000), drops=(0.0, 0.12)),
    Setting("AUROC .12 lower in one of seven", (300, 300, 300, 300, 300, 40, 40), drops=(0, 0.12, 0, 0, 0, 0, 0)),
    Setting("AUROC .08 lower in a group of 300", (300, 300, 40), drops=(0.0, 0.08, 0.0)),
    Setting("AUROC .25 lower in the group of 40", (1000, 1000, 40), drops=(0.0, 0.0, 0.25)),
    Setting("scores lower in a large group", (1000, 1000, 40), shifts=(0.0, -0.25, 0.0)),
    Setting("scores lower in one view", (500, 300, 40), shifts=(0.0, -0.25, 0.0), view=True),
)


def make(setting: Setting, rng: np.random.Generator) -> Cohort:
    """Make a cohort."""
    num = sum(setting.sizes)
    patients_N = np.repeat(np.arange(num), rng.integers(1, setting.most_images + 1, num))
    of_patients = np.repeat(np.arange(len(setting.sizes)), setting.sizes)
    group_N = of_patients[patients_N]
    if setting.view:
        group_N = rng.permutation(group_N)
    zero = (0.0,) * len(setting.sizes)
    distance_N = math.sqrt(2) * norm.ppf(AUROC - np.array(setting.drops or zero))[group_N]

    def clustered() -> NDArray[np.float64]:
        own = rng.normal(size=len(patients_N))
        return math.sqrt(ICC) * rng.normal(size=num)[patients_N] + math.sqrt(1 - ICC) * own

    truth_N = (clustered() > norm.isf(setting.prevalence)).astype(np.float64)
    score_N = clustered() + distance_N * truth_N + np.array(setting.shifts or zero)[group_N]
    label = Label("label", score_N, truth_N, probability=False)
    names = tuple(f"group {g}" for g in range(len(setting.sizes)))
    return Cohort(patients_N.astype(np.int32), (label,), (Attribute("group", names, group_N.astype(np.int16)),))


def findings(setting: Setting, simulations: int, shuffles: int, seed: int) -> dict[tuple[str, str], list[float]]:
    """Test cohorts in each way; by metric and way 1 where p is at most 5 %."""
    rng, counted = np.random.default_rng(seed), defaultdict[tuple[str, str], list[float]](list)
    differing = int(np.argmax(np.abs(np.array(setting.drops or setting.shifts or (0.0,)))))
    groups = range(len(setting.sizes))
    names = {"auroc_max_min": "auroc", "tpr_max_min": "tpr", "selection_rate_max_min": "selection_rate"}
    for s in range(simulations):
        cohort = make(setting, rng)
        label, codes_N = cohort.labels[0], cohort.attributes[0].codes_N
        how = {"threshold": THRESHOLD, "num_permutations": shuffles, "seed": seed + s}
        for name, test in gap_test(cohort, label, "group", groups, list(names), **how).items():
            counted[names[name], "maxT"].append(test.p <= LEVEL)
            counted[names[name], "seen from"].append(test.smallest)
        units = units_of(cohort, label, codes_N, groups)
        drawn = Shuffles(units, METRICS, len(groups), THRESHOLD, seed=seed + s).first(shuffles)
        halves = with_rest(cohort, "group")
        weights_PB = draw_weights(cohort.num_patients, 200, seed=seed + s)
        replicates = evaluate(halves, label, weights_PB, threshold=THRESHOLD, metrics=METRICS)
        clusters = clusters_of(halves, label)
        for metric in METRICS:
            range_B = np.nanmax(drawn[metric], axis=0) - np.nanmin(drawn[metric], axis=0)
            counted[metric, "max − min"].append(p_value(range_B[0], range_B[1:]) <= LEVEL)
            inside, outside = rest_cells(differing)
            (against_rest,) = against(replicates, metric, [inside], outside, clusters)
            counted[metric, "group against rest"].append(against_rest.p <= LEVEL)
    return counted


def table(setting: Setting, counted: Mapping[tuple[str, str], list[float]]) -> list[str]:
    """Write the shares of a setting in %."""
    sizes = ", ".join(map(str, setting.sizes))
    lines = [f"\n{setting.name}: {sizes}"]
    for metric in METRICS:
        ways = {way: float(np.nanmean(counted[metric, way])) for way in ("maxT", "max − min", "group against rest")}
        what = "power" if setting.differs(metric) else "error"
        shares = "  ".join(f"{way} {100 * share:5.1f} %" for way, share in ways.items())
        seen = float(np.nanmean(counted[metric, "seen from"]))
        lines.append(f"  {metric:15} {what}  {shares}  seen from {seen:.3f}")
    return lines


def broken(setting: Setting, counted: Mapping[tuple[str, str], list[float]]) -> list[str]:
    """Name the promises that a setting breaks."""
    faults = []
    for metric in METRICS:
        found = counted[metric, "maxT"]
        share, error = float(np.mean(found)), math.sqrt(LEVEL * (1 - LEVEL) / len(found))
        if not setting.differs(metric) and share > LEVEL + 3 * error:
            faults.append(f"{setting.name}, {metric}: errs in {100 * share:.1f} %")
    drowned = np.mean(counted["auroc", "maxT"]) < 0.9 * np.mean(counted["auroc", "group against rest"])
    if setting.sizes == (1000, 1000, 40) and max(setting.drops, default=0) == 0.12 and drowned:
        faults.append(f"{setting.name}: a small group drowns it")
    return faults


FAMILY_DROPS, FAMILY_SIZES = (0.08, 0.0), (1000,) * 6
MEASURED = ("auroc", "tpr", "fpr", "ppv", "selection_rate")


def family(drop: float, simulations: int, seed: int) -> dict[str, list[bool]]:
    """Test the first of six groups, and all of them, in each way; by what was found."""
    counted = defaultdict[str, list[bool]](list)
    setting = Setting("family", FAMILY_SIZES, drops=(drop, *(0.0,) * 5), prevalence=0.1, most_images=1)
    for s in range(simulations):
        cohort = make(setting, np.random.default_rng(seed + s))
        halves, label = with_rest(cohort, "group"), cohort.labels[0]
        weights_PB = draw_weights(cohort.num_patients, 200, seed=seed + s)
        replicates = evaluate(halves, label, weights_PB, threshold=1.0, metrics=MEASURED)
        clusters, tests = clusters_of(halves, label), list[Tested]()
        for metric in MEASURED:
            for g in range(len(FAMILY_SIZES)):
                inside, outside = rest_cells(g)
                (d,) = against(replicates, metric, [inside], outside, clusters)
                drawn_B = replicates.drawn[metric][inside] - replicates.drawn[metric][outside]
                tests.append(Tested({"metric": metric, "group": g}, d, drawn_B, sign_of_worse(metric)))
        p_K = holm([test.difference.p for test in tests])
        counted["raw test"].append(tests[0].difference.p <= LEVEL)
        confirmed = [test for test in tests if test.row["metric"] in MEASURED[:3]]
        adjust_together(confirmed, seed=s)
        ways = {"Holm": dict(zip(map(_place, tests), p_K, strict=True))}
        ways["step-down"] = {_place(test): test.row["p_holm"] for test in confirmed}
        for way, adjusted in ways.items():
            counted[f"{way}, AUROC of the group"].append(adjusted["auroc", 0] <= LEVEL)
            counted[f"{way}, the group"].append(any(p <= LEVEL for (_, g), p in adjusted.items() if g == 0))
            counted[f"{way}, anything"].append(any(p <= LEVEL for p in adjusted.values()))
    return counted


def _place(test: Tested) -> tuple[str, int]:
    return test.row["metric"], test.row["group"]


def main() -> int:
    """Print all shares; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--shuffles", type=int, default=399)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    start, faults = time.perf_counter(), []
    with ProcessPoolExecutor(args.processes) as pool:
        doing = [
            pool.submit(findings, setting, args.simulations, args.shuffles, args.seed + 1_000_000 * number)
            for number, setting in enumerate(SETTINGS)
        ]
        for setting, done in zip(SETTINGS, doing, strict=True):
            print("\n".join(table(setting, done.result())), flush=True)
            faults += broken(setting, done.result())
        for drop, done in [(d, pool.submit(family, d, args.simulations, args.seed)) for d in FAMILY_DROPS]:
            print(f"\nfamily of six groups of 1,000, AUROC of one lower by {drop:g}")
            for what, found in done.result().items():
                print(f"  {what:32} {100 * float(np.mean(found)):5.1f} %", flush=True)
            share = float(np.mean(done.result()["step-down, anything"]))
            if not drop and share > LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / args.simulations):
                faults.append(f"family: errs in {100 * share:.1f} %")
    print(f"\n{args.simulations} simulations of each, {time.perf_counter() - start:.0f} s; promises broken: {faults}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
