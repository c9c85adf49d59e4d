"""Cross-validation of slide heads by patient: every slide is scored by a head that has seen none of its patient's.

Figures are of all out-of-fold scores together, with intervals that resample patients. Scores of different folds come
from different heads, whose scales may differ: an area over all of them is not the mean of the folds' own areas.
Poolings that are compared share folds, held-back patients and resamples, so that differences are paired. Intervals hold
the heads fixed: what other patients to learn from would change is not in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.shot_features import folds
from medclip.errors import MedclipError, Reason
from medclip.models.prototypes.class_vectors import probabilities
from medclip.progress import Progress, Silent
from medclip.slides.learning.bags import Bags
from medclip.slides.learning.pooling import SlidePooling
from medclip.slides.learning.train import SlideRecipe, held_back, of_pooling, slide_logits, train_slides
from medclip.statistics.cohort import Cohort, Risk
from medclip.statistics.estimate import NUM_RESAMPLES, Difference, Estimate
from medclip.statistics.metrics.classification import METRICS, HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import Resampled, difference, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.yearly_risk import POPULATIONS, yearly_figures


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """One pooling's answers to all slides, each from the fold that left its patient out."""

    pooling: str
    logits_SC: NDArray[np.float32]
    fold_S: NDArray[np.int64]
    figures: Mapping[str, Estimate]
    """By metric; of a risk by metric and year, such as `auroc 5`."""
    epochs: tuple[int, ...]
    """The epoch that each fold kept."""
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Compared:
    """Poolings on the same folds."""

    poolings: Mapping[str, OutOfFold]
    differences: Mapping[tuple[str, str, str], Difference]
    """By metric, pooling and other pooling: the other minus the first; none for a risk."""


def make_folds(bags: Bags, num_folds: int, seed: int) -> NDArray[np.int64]:
    """Divide slides into folds of whole patients, classes spread evenly.

    Returns:
        The fold of each slide, int64 [S].

    Raises:
        MedclipError: WRONG_USE where a fold would take all patients of a class away.
    """
    nothing = tuple(np.zeros((1, 1), np.float32) for _ in range(len(bags)))
    strata = bags.strata
    present, codes = np.unique(strata, return_inverse=True)
    divided = folds(Examples(nothing, nothing, codes, bags.patients), len(present), seed, num_folds)
    if len(divided) < 2:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{bags.num_patients} patients cannot be divided into folds that each leave every answer to learn from.",
            hint="Every class takes slides of two patients at least.",
        )
    fold_S = np.zeros(len(bags), np.int64)
    for number, rows in enumerate(divided):
        fold_S[rows] = number
    return fold_S


def cross_validate(
    bags: Bags,
    recipe: SlideRecipe,
    *,
    poolings: Sequence[str] = (),
    num_folds: int = 5,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    each_fold: Callable[[str, SlidePooling, NDArray[np.int64]], None] | None = None,
    progress: Progress | None = None,
) -> Compared:
    """Measure how well slides are told apart that were not learned from.

    Args:
        bags: The slides.
        recipe: Recipe that heads learn by.
        poolings: Poolings that are compared with each other; the recipe's alone where none is named.
        num_folds: Largest number of folds; fewer where a class has fewer patients.
        seed: Seed of folds, held-back patients and training.
        num_resamples: Number of resamples of the patients.
        each_fold: Function called with a pooling's name, the head of a fold and the rows of the slides that it has not
            seen, such as to draw their heat maps.
        progress: Progress bar of the folds.

    Raises:
        MedclipError: WRONG_USE where the patients do not suffice; as `train_slides`.
    """
    progress = progress or Silent()
    names = tuple(dict.fromkeys(poolings)) or (recipe.pooling,)
    fold_S = make_folds(bags, num_folds, seed)
    count = int(fold_S.max()) + 1
    progress.stage("Cross-validating", count * len(names))
    weights_PB = draw_weights(bags.num_patients, num_resamples, seed=seed)
    answers: dict[str, OutOfFold] = {}
    resampled: dict[str, Mapping[str, Resampled]] = {}
    for name in names:
        own = recipe if name == recipe.pooling else of_pooling(recipe, name)
        logits_SC = np.zeros((len(bags), len(bags.names)), np.float32)
        epochs, notes = [], []
        for k in range(count):
            rows = np.flatnonzero(fold_S != k)
            learn, back = held_back(bags.select(rows), recipe.val_share, seed + k)
            val = bags.select(rows[back]) if len(back) else None
            learned = train_slides(bags.select(rows[learn]), own, seed=seed + k, val=val)
            if recipe.val_share and val is None:
                notes = ["Too few patients to hold some back in each fold: the last epoch was kept."]
            left = np.flatnonzero(fold_S == k)
            logits_SC[left] = slide_logits(learned.model, bags.select(left))
            epochs.append(learned.epoch)
            if each_fold is not None:
                each_fold(name, learned.model, left)
            progress.step()
        measured, resampled[name] = _figures(bags, logits_SC, weights_PB)
        unsure = [metric for metric, figure in measured.items() if np.isfinite(figure.value) and np.isnan(figure.low)]
        if unsure:
            notes.append(f"Too few patients for an interval of {', '.join(unsure)}: the figure alone means little.")
        answers[name] = OutOfFold(name, logits_SC, fold_S, measured, tuple(epochs), tuple(notes))
    apart = {
        (metric, one, other): difference(resampled[one][metric], resampled[other][metric])
        for i, one in enumerate(names)
        for other in names[i + 1 :]
        for metric in resampled[one]
        if metric in resampled[other]
    }
    return Compared(answers, apart)


def _figures(
    bags: Bags, logits_SC: NDArray[np.float32], weights_PB: NDArray[Any]
) -> tuple[dict[str, Estimate], dict[str, Resampled]]:
    patients = numbered(bags.patients)
    if bags.kind == "risk":
        return _risk_figures(bags, logits_SC, patients, weights_PB), {}
    test = HeldOut(bags.targets, patients, len(bags.names))
    measured = figures(logits_SC[None].astype(np.float64), test, weights_PB, METRICS)
    return {name: interval_of(figure) for name, figure in measured.items()}, measured


def _risk_figures(
    bags: Bags, logits_SC: NDArray[np.float32], patients: NDArray[np.int64], weights_PB: NDArray[Any]
) -> dict[str, Estimate]:
    """Measure concordance of all years, then each year; slides show what is there, so nobody is left out."""
    years = tuple(range(1, len(bags.names) + 1))
    chances = probabilities(logits_SC, "risk").astype(np.float64)
    risk = Risk("event", chances, years, bags.targets[:, 0], bags.targets[:, 1])
    cohort = Cohort(patients.astype(np.int32), (), ())
    measured: dict[str, Estimate] = {}
    for part in yearly_figures(cohort, risk, weights_PB):
        if part.population == POPULATIONS[1]:
            for name, of_cells in part.estimates.items():
                measured[f"{name} {part.year}" if part.year else name] = of_cells[0]
    return measured
