"""Slide-level learning and zero-shot on a simulated cohort: AUROC and heat maps against the witness rate.

    python pipelines/slides/measure.py OUT [--quick]

For each rate: three folds by patient; mean, ABMIL and ACMIL on the same folds, paired differences; the share of
positive slides whose hottest patch is a witness, and how well the map ranks witnesses before other patches; zero-shot
answers of a class vector that points 60° away from the truth, pooled over the K highest patches. ACMIL is taken apart:
once without hiding what a branch looks at most, once without the term that keeps branches apart, once with one branch.
A rate that is done is kept: run it again to go on. OUT gets figures.json and table.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from simulated_slides import Cohort, simulate  # pyright: ignore[reportMissingImports]

from medclip.models.prototypes.class_vectors import ClassVectors
from medclip.slides.learning.labels import Bags
from medclip.slides.learning.learn import cross_validate
from medclip.slides.learning.pooling import SlidePooling
from medclip.slides.learning.predict import patch_logits, top_pooled
from medclip.slides.learning.train import SlideRecipe
from medclip.statistics.estimate import Estimate
from medclip.statistics.metrics.classification import measured, numbered
from medclip.statistics.metrics.ranks import auroc
from medclip.statistics.resampling.resampled import difference, interval_of, share
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import in_words, measure, plain  # pyright: ignore[reportMissingImports]

WAYS: Mapping[str, Mapping[str, Any]] = {
    "mean": {"pooling": "mean"},
    "abmil": {"pooling": "abmil"},
    "acmil": {"pooling": "acmil"},
    "acmil, nothing hidden": {"pooling": "acmil", "masked_share": 0.0},
    "acmil, branches may look alike": {"pooling": "acmil", "diversity": 0.0},
    "acmil, one branch": {"pooling": "acmil", "num_branches": 1},
}
"""What is changed in the recipe. One branch that hides nothing is ABMIL."""
APART = tuple(name for name in WAYS if name.startswith("acmil, "))
PAIRS = (("mean", "abmil"), ("mean", "acmil"), ("abmil", "acmil"), *(("acmil", name) for name in APART))
RATES = (0.01, 0.02, 0.05, 0.10, 0.20)
TOPS = (1, 10, 50, 500)
FOLDS = 3
RESAMPLES = 2000
AREA = "macro_auroc"
COSINE = 0.5
"""Of the class vector with the direction of a witness: the words are 60° off."""


def main(out: Path, quick: bool) -> None:
    """Measure each rate, write figures.json and table.md."""
    torch.set_num_threads(1)
    cohort = Cohort(num_patients=24, patches=(60, 90)) if quick else Cohort()
    # Epochs and rate were chosen on another cohort (seed 100, 5 % of witnesses); all poolings have the same.
    recipe = SlideRecipe(epochs=4, lr=1e-3) if quick else SlideRecipe(epochs=40, lr=1e-3)
    rates = (0.05, 0.2) if quick else RATES
    measure(out, {f"rate_{100 * rate:g}": partial(_of_rate, cohort, recipe, rate) for rate in rates}, _tables)


def _of_rate(cohort: Cohort, recipe: SlideRecipe, rate: float) -> dict[str, Any]:
    begin = time.perf_counter()
    bags, witnesses, direction_D = simulate(cohort, rate, seed=0)
    positive = bags.targets == 1
    areas, values = {}, {"rate": rate, "slides": len(bags), "patients": bags.num_patients}
    values |= {key: {} for key in ("auroc", "differences", "peak", "map_auroc")}
    for name, changes in WAYS.items():
        peak_S, rank_S = np.full(len(bags), np.nan), np.full(len(bags), np.nan)

        def look(_: str, model: SlidePooling, slides: NDArray[np.int64], peak_S: Any = peak_S, rank_S: Any = rank_S):
            for slide in slides[positive[slides]]:
                peak_S[slide], rank_S[slide] = _map_on(bags.read(int(slide)), witnesses[slide], model)

        own = replace(recipe, **changes)
        answers = cross_validate(bags, own, num_folds=FOLDS, num_resamples=RESAMPLES, each_fold=look)
        logits_SC = answers.poolings[own.pooling].logits_SC
        # The same resamples of patients for all ways: differences are paired.
        areas[name] = measured(bags.targets, logits_SC, bags.patients, [AREA], num_resamples=RESAMPLES)[AREA]
        values["auroc"][name] = plain(interval_of(areas[name]))
        values["peak"][name] = plain(_mean(bags, peak_S, positive))
        values["map_auroc"][name] = plain(_mean(bags, rank_S, positive))
    for one, other in PAIRS:
        values["differences"][f"{other} − {one}"] = plain(difference(areas[one], areas[other]))
    values["zero_shot"] = _zero_shot(bags, direction_D)
    return values | {"seconds": round(time.perf_counter() - begin, 1)}


def _map_on(bag_ND: NDArray[np.float32], witnesses: NDArray[np.int64], model: SlidePooling) -> tuple[float, float]:
    """Return whether the hottest patch of a slide is a witness, and the AUROC of its map for witnesses."""
    with torch.no_grad():
        evidence_NC = model.evidence_of(torch.from_numpy(bag_ND)).numpy()
    heat_N = evidence_NC[:, 1] - evidence_NC[:, 0]
    hit_N = np.isin(np.arange(len(heat_N)), witnesses)
    return float(hit_N[int(heat_N.argmax())]), float(auroc(heat_N, hit_N))


def _zero_shot(bags: Bags, direction_D: NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """AUROC of the K highest patches' similarity with a sentence that points 60° away."""
    rng = np.random.default_rng(1)
    aside_D = rng.normal(size=len(direction_D))
    aside_D -= aside_D @ direction_D * direction_D
    aside_D /= np.linalg.norm(aside_D)
    there_D = COSINE * direction_D + np.sqrt(1 - COSINE**2) * aside_D
    negation_D = np.sqrt(1 - COSINE**2) * aside_D - COSINE * direction_D
    vectors = ClassVectors(("positive",), there_D[None].astype(np.float32), negation_D[None].astype(np.float32))
    scores: dict[str, dict[str, float]] = {}
    logits = [patch_logits(bags.read(i), vectors, "multilabel", 100.0) for i in range(len(bags))]
    for top in TOPS:
        pooled = np.array([top_pooled(values, top)[0] for values in logits])
        area = measured(bags.targets, pooled, bags.patients, ["auroc"], num_resamples=RESAMPLES)["auroc"]
        scores[str(top)] = plain(interval_of(area))
    return scores


def _mean(bags: Bags, values_S: NDArray[np.float64], rows_S: NDArray[np.bool_]) -> Estimate:
    """Average a share over positive slides, patients resampled."""
    patients = numbered([bags.patients[i] for i in np.flatnonzero(rows_S)])
    weights_PB = draw_weights(int(patients.max()) + 1, RESAMPLES, seed=0)
    values = values_S[rows_S]
    _, drawn_RB = ratios(patients, weights_PB, values[None], np.ones((1, len(values))))
    figure = share(float(values.mean()), drawn_RB[0], cases=len(values), patients=int(patients.max()) + 1)
    return interval_of(figure)


def _tables(figures: Mapping[str, Any]) -> str:
    """Write a table of each kind of figure: a row for each way, a column for each rate."""
    columns, parts = list(figures.values()), []
    for title, key, corner in (
        ("AUROC of slides, patients left out; chance is 0.5", "auroc", "pooling"),
        ("Paired difference of AUROC", "differences", "poolings"),
        ("Positive slides whose hottest patch is a witness; chance is the witness rate", "peak", "pooling"),
        ("AUROC of the map for witnesses, mean over positive slides; chance is 0.5", "map_auroc", "pooling"),
        ("Zero-shot AUROC by K highest patches; chance is 0.5", "zero_shot", "K"),
    ):
        rates = " | ".join(f"{one['rate']:.0%}" for one in columns)
        lines = [f"**{title}**", "", f"| {corner} | {rates} |"]
        lines.append("|---|" + "---|" * len(columns))
        lines += [f"| {n} | {' | '.join(in_words(one[key][n]) for one in columns)} |" for n in columns[0][key]]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--quick" in sys.argv)
