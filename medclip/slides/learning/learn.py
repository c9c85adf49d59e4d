"""A head for whole slides from a store of vectors and labels, measured and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.key_value import Overrides, read_overrides
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.models.prototypes.class_vectors import probabilities
from medclip.progress import Progress
from medclip.result import Result
from medclip.slides.learning.cross_validate import Compared, cross_validate
from medclip.slides.learning.head_file import CARD, HeadCard, SlideHead, write_head
from medclip.slides.learning.labels import LabelledSlides
from medclip.slides.learning.train import SlideRecipe, held_back, train_slides
from medclip.slides.store.slide_features import SlideFeatures
from medclip.slides.store.slide_store import SlideStore
from medclip.statistics.estimate import NUM_RESAMPLES, Estimate
from medclip.wording import count, estimate

if TYPE_CHECKING:
    import pyarrow as pa

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
    """Measure a way of learning by cross-validation, and write the head that learned in that way from all slides.

    Args:
        slides: Truths, by slide.
        store: Vectors of the slides.
        recipe: Recipe that heads learn by.
        validation: Way in which heads are measured.
        seed: Seed of folds, held-back patients and training.
        folder: Folder of the head, claimed by `claim_head`.
        progress: Progress bar of the folds.

    Raises:
        MedclipError: As `cross_validate` and `train_slides`.
    """
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
    known = {field.name: type(field.default) for field in fields(SlideRecipe) if field.name not in _OWN}
    values = {key.replace("-", "_"): value for key, value in read_overrides(overrides).items()}
    for name, value in values.items():
        if name not in known:
            raise MedclipError(
                Reason.WRONG_USE,
                f"slide heads have no setting {name!r}.",
                hint=did_you_mean(name, known, "Settings are"),
            )
        if isinstance(value, bool) or not isinstance(value, (known[name], int)):
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
            written = bags.names[int(truth)] if bags.kind == "multiclass" else json.dumps(_plain(truth))
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
