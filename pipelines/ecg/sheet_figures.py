"""What the ways to classify sheets are worth: areas, accuracies and paired differences, with intervals over numbers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from records import macro_area
from scipy.stats import rankdata
from sheet_set import CLASSES, Row, divided, shares_of

from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import Resampled, difference, interval_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import in_words, plain  # pyright: ignore[reportMissingImports]

NUM_RESAMPLES = 2000
Answers = Mapping[str, Sequence[float]]
"""By file the log probability of each class, as if all were equally frequent."""
_COMPARED = (("grid", "border", "minus_border"), ("rendered", "nothing", "minus_nothing"))


def figures_of(answers: Mapping[str, Sequence[Answers]], sheets: Sequence[Row]) -> dict[str, Any]:
    """Measure the answers of each way, fold by fold.

    Areas are of ranks within each fold, since two models have scales of their own. Accuracy is that of the classes as
    frequent as they are in training, balanced accuracy that of classes equally frequent. Intervals resample printed
    numbers; that another training would give another model is not in them.
    """
    groups, labels = [row["group"] for row in sheets], np.array([CLASSES.index(row["label"]) for row in sheets])
    folds = np.array([int(row["fold"]) for row in sheets])
    shares = [shares_of(sheets, divided(sheets, fold)) for fold in range(folds.max() + 1)]
    frequent = np.log(np.clip(shares, 1e-6, 1))[folds]
    figures: dict[str, Any] = {}
    areas: dict[str, Resampled] = {}
    for way, of_folds in answers.items():
        every = {file: own for of_fold in of_folds for file, own in of_fold.items()}
        scores = np.array([every[row["file"]] for row in sheets])
        ranks = np.zeros_like(scores)
        for fold in set(folds.tolist()):
            at = folds == fold
            ranks[at] = rankdata(scores[at], axis=0) / at.sum()
        by_class = {name: _area(ranks, labels, groups, [c]) for c, name in enumerate(CLASSES)}
        areas[way] = _area(ranks, labels, groups, range(len(CLASSES)))
        even = measured(labels, scores, groups, ["balanced_accuracy"], num_resamples=NUM_RESAMPLES)
        found = measured(labels, scores + frequent, groups, ["accuracy"], num_resamples=NUM_RESAMPLES)
        figures[way] = {
            "macro_auroc": plain(interval_of(areas[way])),
            "auroc": {name: plain(interval_of(area)) for name, area in by_class.items()},
            "balanced_accuracy": plain(interval_of(even["balanced_accuracy"])),
            "accuracy": plain(interval_of(found["accuracy"])),
        }
    for way, area in areas.items():
        for one, other, name in _COMPARED:
            beside = areas.get(way.replace(one, other)) if one in way else None
            if beside is not None:
                figures[way][name] = plain(difference(beside, area))
    return figures


def _area(ranks: np.ndarray, labels: np.ndarray, groups: Sequence[str], classes: Sequence[int]) -> Resampled:
    """Measure each class against the rest; the mean of the areas."""
    chosen = list(classes)
    area, _ = macro_area(ranks[None, :, chosen], np.eye(len(CLASSES))[labels][:, chosen], groups, NUM_RESAMPLES)
    if area is None:
        raise SystemExit("too few sheets of each class to measure anything")
    return area


def table_of(figures: Mapping[str, Any]) -> str:
    """Write the figures as Markdown."""
    lines = [
        f"{figures['sheets']} sheets of {figures['groups']} printed numbers in {figures['folds']} folds.",
        "",
        "| model | shown | macro AUC (95 % interval) | minus its border | minus from nothing | balanced accuracy "
        "| accuracy |",
        "|" + "---|" * 7,
    ]
    for way, one in figures["ways"].items():
        name, _, kind = way.rpartition(", ")
        area, even, found = (in_words(one[metric], 2) for metric in ("macro_auroc", "balanced_accuracy", "accuracy"))
        border, nothing = (in_words(one[m], 2) if m in one else "" for m in ("minus_border", "minus_nothing"))
        lines.append(f"| {name} | {kind} | {area} | {border} | {nothing} | {even} | {found} |")
    lines += ["", "| AUC of a class against the rest | shown | " + " | ".join(CLASSES) + " |", "|" + "---|" * 6]
    for way, one in figures["ways"].items():
        name, _, kind = way.rpartition(", ")
        lines.append(f"| {name} | {kind} | " + " | ".join(in_words(one["auroc"][c], 2) for c in CLASSES) + " |")
    return "\n".join(lines) + "\n"
