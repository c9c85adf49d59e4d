"""A head for whole slides from a store of vectors and labels, measured by cross-validation and kept.

Every slide is scored by a head that has seen none of its patient's. Figures are of all out-of-fold scores together,
with intervals that resample patients. Scores of different folds come from different heads, whose scales may differ: an
area over all of them is not the mean of the folds' own areas. Poolings that are compared share folds, held-back
patients and resamples, so that differences are paired. Intervals hold the heads fixed: what other patients to learn
from would change is not in them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.shot_features import folds
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.key_value import Overrides, read_overrides
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.models.prototypes.class_vectors import probabilities
from medclip.progress import Progress, Silent
from medclip.result import Result
from medclip.slides.learning.head_file import CARD, HeadCard, SlideHead, write_head
from medclip.slides.learning.labels import Bags, LabelledSlides
from medclip.slides.learning.pooling import SlidePooling
from medclip.slides.learning.train import SlideRecipe, held_back, of_pooling, slide_logits, train_slides
from medclip.slides.slide_features import SlideFeatures
from medclip.slides.slide_store import SlideStore
from medclip.statistics.cohort import Cohort, Risk
from medclip.statistics.estimate import NUM_RESAMPLES, Difference, Estimate
from medclip.statistics.metrics.classification import METRICS, HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import Resampled, difference, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.yearly_risk import POPULATIONS, yearly_figures
from medclip.wording import count, estimate

if TYPE_CHECKING:
    import pyarrow as pa


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
        MedclipError: WRONG_USE where the patients do not suffice.
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
        recipe_of_pooling = recipe if name == recipe.pooling else of_pooling(recipe, name)
        logits_SC = np.zeros((len(bags), len(bags.names)), np.float32)
        epochs, notes = [], []
        for k in range(count):
            rows = np.flatnonzero(fold_S != k)
            learn, back = held_back(bags.select(rows), recipe.val_share, seed + k)
            val = bags.select(rows[back]) if len(back) else None
            learned = train_slides(bags.select(rows[learn]), recipe_of_pooling, seed=seed + k, val=val)
            if recipe.val_share and val is None:
                notes = ["Too few patients to hold some back in each fold: the last epoch was kept."]
            held_out = np.flatnonzero(fold_S == k)
            logits_SC[held_out] = slide_logits(learned.model, bags.select(held_out))
            epochs.append(learned.epoch)
            if each_fold is not None:
                each_fold(name, learned.model, held_out)
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
    if bags.rules.timed:
        return _risk_figures(bags, logits_SC, patients, weights_PB), {}
    test = HeldOut(bags.targets, patients, len(bags.names))
    measured = figures(logits_SC[None].astype(np.float64), test, weights_PB, METRICS)
    return {name: interval_of(figure) for name, figure in measured.items()}, measured


def _risk_figures(
    bags: Bags, logits_SC: NDArray[np.float32], patients: NDArray[np.int64], weights_PB: NDArray[Any]
) -> dict[str, Estimate]:
    """Measure concordance of all years, then each year; slides show what is there, so nobody is left out."""
    years = tuple(range(1, len(bags.names) + 1))
    chances = probabilities(logits_SC, bags.kind).astype(np.float64)
    risk = Risk("event", chances, years, bags.targets[:, 0], bags.targets[:, 1])
    cohort = Cohort(patients.astype(np.int32), (), ())
    measured: dict[str, Estimate] = {}
    for part in yearly_figures(cohort, risk, weights_PB):
        if part.population == POPULATIONS[1]:
            for name, of_cells in part.estimates.items():
                measured[f"{name} {part.year}" if part.year else name] = of_cells[0]
    return measured


FIGURES, OUT_OF_FOLD = "figures.csv", "out_of_fold"
_OWN = ("pooling",)
"""Fields of the recipe that have an argument of their own."""


@dataclass(frozen=True, eq=False, repr=False)
class LearnedSlides(Result):
    """A head that learned from slides, and what cross-validation says of its like."""

    head: SlideHead
    compared: Compared
    num_slides: int
    num_patients: int
    notes: tuple[str, ...]
    out: Path

    @property
    def figures(self) -> Mapping[str, Estimate]:
        """Out-of-fold figures of the head's own pooling, by metric."""
        return self.compared.poolings[self.head.card.shape.pooling].figures

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        card = self.head.card
        return {
            "out": str(self.out),
            "label": card.label,
            "names": list(card.names),
            "pooling": card.shape.pooling,
            "slides": self.num_slides,
            "patients": self.num_patients,
            "figures": self._rows(),
            "notes": list(self.notes),
        }

    def _facts(self) -> dict[str, object]:
        card = self.head.card
        return {
            "label": f"{card.label}: {', '.join(card.names)}",
            "learned from": f"{count(self.num_slides, 'slide')} of {count(self.num_patients, 'patient')}",
            "pooling": card.shape.pooling,
            **{f"{name}, left-out patients": estimate(e.value, e.low, e.high) for name, e in self.figures.items()},
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return _figure_rows(self.compared)[:most]


@dataclass(frozen=True)
class Validation:
    """How a way of learning is measured."""

    others: Sequence[str] = ()
    """Poolings that are measured on the same folds."""
    num_folds: int = 5
    num_resamples: int = NUM_RESAMPLES


def learn_slides(
    slides: LabelledSlides,
    store: SlideStore,
    recipe: SlideRecipe,
    validation: Validation,
    seed: int,
    folder: Path,
    progress: Progress,
) -> LearnedSlides:
    """Measure a way of learning by cross-validation, and write the head that learned in that way from all slides."""
    bags = slides.bags
    poolings = [recipe.pooling, *(name for name in validation.others if name != recipe.pooling)]
    compared = cross_validate(
        bags,
        recipe,
        poolings=poolings,
        num_folds=validation.num_folds,
        seed=seed,
        num_resamples=validation.num_resamples,
        progress=progress,
    )
    rows, back = held_back(bags, recipe.val_share, seed)
    val = bags.select(back) if len(back) else None
    learned = train_slides(bags.select(rows), recipe, seed=seed, val=val)
    notes = (*slides.notes, *compared.poolings[recipe.pooling].notes)
    first = store.read(bags.keys[0])
    head = SlideHead(
        _card(slides, first, recipe, seed, compared, learned.epoch, notes, learned.model.shape), learned.model
    )
    with new_folder(folder) as draft:
        write_head(draft, head)
        write_file(draft / FIGURES, csv_bytes(_table(_figure_rows(compared))))
        answers = _table(_answers(slides, compared, {row.key: row.file for row in store.rows}))
        write_file(draft / f"{OUT_OF_FOLD}.parquet", parquet_bytes(answers))
        write_file(draft / f"{OUT_OF_FOLD}.csv", csv_bytes(answers))
    return LearnedSlides(head, compared, len(bags), bags.num_patients, notes, folder)


def recipe_of(pooling: str, overrides: Overrides) -> SlideRecipe:
    """Make a recipe of settings.

    Raises:
        MedclipError: WRONG_USE for a setting that there is not, or a value of another type.
    """
    types = {field.name: type(field.default) for field in fields(SlideRecipe) if field.name not in _OWN}
    values = {key.replace("-", "_"): value for key, value in read_overrides(overrides).items()}
    for name, value in values.items():
        if name not in types:
            raise MedclipError(
                Reason.WRONG_USE,
                f"slide heads have no setting {name!r}.",
                hint=did_you_mean(name, types, "Settings are"),
            )
        if isinstance(value, bool) or not isinstance(value, (types[name], int)):
            raise MedclipError(
                Reason.WRONG_USE, f"{name} is {value!r}.", hint=f"It is a number, such as {getattr(SlideRecipe, name)}."
            )
    return SlideRecipe(pooling=pooling, **values)


def claim_head(folder: Path, store: Path, *, overwrite: bool) -> None:
    """Make sure that a head may be written to a folder.

    Raises:
        MedclipError: OUTPUT_IN_USE.
    """
    holds = claim_folder(folder, "slide head", marks=(CARD,), inputs={"the store of slides": store}, in_one_step=True)
    if holds and not overwrite:
        remedy = "Name another folder, or replace it with --overwrite."
        raise in_use(folder, "this folder holds a slide head already", remedy)


def _card(
    slides: LabelledSlides,
    features: SlideFeatures,
    recipe: SlideRecipe,
    seed: int,
    compared: Compared,
    epoch: int,
    notes: Sequence[str],
    shape: Any,
) -> HeadCard:
    bags = slides.bags
    return HeadCard(
        label=slides.title,
        names=bags.names,
        kind=bags.kind,
        shape=shape,
        pack=features.pack,
        size_px=features.size_px,
        mpp_um=features.mpp_um,
        grid=features.grid,
        record={
            "recipe": recipe.to_dict(),
            "seed": seed,
            "slides": len(bags),
            "patients": bags.num_patients,
            "epoch": epoch,
            "out_of_fold": [row for row in _figure_rows(compared) if row["pooling"] == recipe.pooling],
            "notes": list(notes),
        },
    )


def _figure_rows(compared: Compared) -> list[dict[str, Any]]:
    """One row for each figure, and for each paired difference."""
    rows: list[dict[str, Any]] = []
    for name, answer in compared.poolings.items():
        for metric, figure in answer.figures.items():
            rows.append({"pooling": name, "minus": None, "metric": metric, **_ends(figure), "p": None})
    for (metric, one, other), apart in compared.differences.items():
        rows.append({"pooling": other, "minus": one, "metric": metric, **_ends(apart), "p": _number(apart.p)})
    return rows


def _ends(figure: Estimate) -> dict[str, float | None]:
    return {name: _number(getattr(figure, name)) for name in ("value", "low", "high")}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _answers(slides: LabelledSlides, compared: Compared, files: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for each slide and pooling: its fold, what is true, and the probabilities."""
    bags, rows = slides.bags, []
    for name, answer in compared.poolings.items():
        chances = probabilities(answer.logits_SC, bags.kind)
        for i, key in enumerate(bags.keys):
            truth = bags.targets[i]
            written = bags.names[int(truth)] if bags.rules.one_answer else json.dumps(_plain(truth))
            row: dict[str, Any] = {"slide": key, "file": files[key], "patient": bags.patients[i], "pooling": name}
            row["fold"] = int(answer.fold_S[i])
            values = {f"p_{n}": float(p) for n, p in zip(bags.names, chances[i], strict=True)}
            rows.append({**row, "truth": written, **values})
    return rows


def _plain(values: Any) -> list[float | None]:
    return [_number(float(value)) for value in values]


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows])
