"""How good an adapted model is on its test patients, beside zero-shot, with intervals that resample patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.run import AdaptRun, ScoredTest
from medclip.evaluation.few_shot.bootstrap import Draws, Estimate, draw, estimate
from medclip.models.packs.training_files import training_hashes
from medclip.statistics.metrics.weighted import METRICS, HeldOut, weighted_metrics

_DECIMALS = 4
FEWEST_PATIENTS = 5
"""Test patients of a class, or with and without a finding, below which no interval is given: in many draws of patients
the class would be missing, and those that are left are too alike."""


@dataclass(frozen=True)
class Compared:
    """One metric: the adapted model, the base's prompts on the same images, and the difference, paired."""

    adapted: Estimate
    zero_shot: Estimate
    gain: Estimate


@dataclass(frozen=True)
class AdaptedFigures:
    """All figures of an adaptation."""

    figures: Mapping[str, Compared]
    """By metric, the one that matters most first."""
    by_class: Mapping[str, Compared]
    """Area under the ROC curve of each class that has enough test patients."""
    num_files: int
    num_patients: int
    num_left_out: int
    """Test files that were not tested on, since the base was trained on them or on another file of the patient."""
    chance: float
    """Balanced accuracy of guessing among the classes that are tested on."""
    notes: tuple[str, ...]

    @property
    def has_intervals(self) -> bool:
        """Whether any figure has one."""
        every = [*self.figures.values(), *self.by_class.values()]
        return any(e.low is not None for c in every for e in (c.adapted, c.zero_shot, c.gain))

    @property
    def metrics(self) -> dict[str, Any]:
        """Give the figures as a card holds them."""
        made = {name: self._entry(name, compared) for name, compared in self.figures.items()}
        if len(self.by_class) > 1:
            made["auroc_by_class"] = {name: self._entry("auroc", c) for name, c in self.by_class.items()}
        return made

    def lines(self) -> tuple[str, ...]:
        """Give a table in plain text."""
        if not self.figures:
            return ()
        rows = [("", "zero-shot", "adapted", "difference")]
        rows += [(_said(n), *map(_shown, (c.zero_shot, c.adapted, c.gain))) for n, c in self.figures.items()]
        if len(self.by_class) > 1:
            rows += [
                (f"AUROC of {n}", *map(_shown, (c.zero_shot, c.adapted, c.gain))) for n, c in self.by_class.items()
            ]
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        return tuple("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def to_json(self) -> dict[str, Any]:
        """Give everything as plain values."""
        return {
            "figures": {name: _plain(compared) for name, compared in self.figures.items()},
            "auroc_by_class": {name: _plain(compared) for name, compared in self.by_class.items()},
            "num_test_files": self.num_files,
            "num_test_patients": self.num_patients,
            "num_left_out": self.num_left_out,
        }

    def _entry(self, name: str, compared: Compared) -> dict[str, Any]:
        chance = {"macro_auroc": 0.5, "auroc": 0.5, "balanced_accuracy": self.chance}.get(name)
        counts = {"num_patients": self.num_patients, "num_images": self.num_files}
        own = _figure(compared.adapted) | counts
        if chance is not None:
            own["chance"] = round(chance, _DECIMALS)
        return {"adapted": own, "zero_shot": _figure(compared.zero_shot)}


def measure(run: AdaptRun, *, num_replicates: int = 2000) -> AdaptedFigures:
    """Measure a run on its test patients.

    Balanced accuracy, accuracy and the area under the ROC curve (mean over classes, each against the rest); for
    multi-label tasks with a threshold of one half. Files that the base was trained on, and the other files of their
    patients, are left out: a base looks too good on them.

    Args:
        run: What `medclip.adaptation.run.adapt` gave.
        num_replicates: Bootstrap replicates.

    Returns:
        The figures; empty where there are no test files that allow any.
    """
    text, test, notes = run.text, run.test, []
    rows = _fresh(run)
    num_left_out = len(test.numbers) - len(rows)
    if test.numbers and not _allows_figures(test, rows):
        rows = np.arange(len(test.numbers))
        if num_left_out:
            notes.append(
                f"{num_left_out} of {len(rows)} test files are of patients that the base was trained on, and without "
                "them too few are left: the figures, zero-shot above all, are too good."
            )
            num_left_out = 0
    elif num_left_out:
        notes.append(
            f"{num_left_out} of {len(test.numbers)} test files are not tested on: the base was trained on them or on "
            "others of the same patients."
        )
    numbers: dict[str, int] = {}
    patients = np.array([numbers.setdefault(test.patients[i], len(numbers)) for i in rows], np.int64)
    held = HeldOut(test.targets[rows], patients, len(text.names))
    logits = np.stack([test.zero_shot_NC[rows], test.logits_NC[rows]])
    figures, more = _compare(logits, held, num_replicates)
    by_class = {}
    for c, name in enumerate(text.names):
        alone = replace(held, targets=held.targets[:, [c]], num_classes=1) if held.multilabel else None
        if alone is not None and alone.measured():
            of_class, _ = _compare(logits[:, :, [c]], alone, num_replicates)
            by_class[name] = of_class["macro_auroc"]
    if held.multilabel and len(by_class) < len(text.names) and len(rows):
        lacking = ", ".join(n for n in text.names if n not in by_class)
        more.append(f"Too few test patients with or without: {lacking}; no figure is given for it.")
    if len(text.names) == 1 and "macro_auroc" in figures:
        figures = {"auroc" if n == "macro_auroc" else n: c for n, c in figures.items()}
    there = held.measured()
    if figures and not held.multilabel and len(there) < len(text.names):
        named = ", ".join(text.names[c] for c in there)
        more.append(f"The figures are over {len(there)} of {len(text.names)} classes, those of test patients: {named}.")
    chance = 0.5 if held.multilabel else 1 / max(1, len(there))
    return AdaptedFigures(figures, by_class, len(rows), held.num_patients, num_left_out, chance, (*notes, *more))


def _fresh(run: AdaptRun) -> NDArray[np.int64]:
    """Give the test rows whose patients the base has not seen in training, as far as its list tells."""
    base, test = run.adapted.model, run.test
    seen = training_hashes(base.path, base.card) or frozenset()
    known = {p for p, sha in zip(test.patients, test.sha256, strict=True) if sha in seen}
    return np.array([n for n, p in enumerate(test.patients) if p not in known], np.int64)


def _allows_figures(test: ScoredTest, rows: NDArray[np.int64]) -> bool:
    """Whether no class loses all of its files, or for several labels its last with or without."""
    if test.targets.ndim == 1:
        return set(test.targets[rows].tolist()) == set(test.targets.tolist())
    before, after = test.targets, test.targets[rows]
    return all(((after == v).any(axis=0) >= (before == v).any(axis=0)).all() for v in (0, 1))


def _compare(
    logits_RNC: NDArray[np.float32], held: HeldOut, num_replicates: int
) -> tuple[dict[str, Compared], list[str]]:
    """Measure zero-shot (first) and adapted (second)."""
    if not held.measured():
        return {}, ["There are too few test patients for figures."] if len(held.patients) else []
    few = _fewest(held) < FEWEST_PATIENTS
    draws = _alone(held) if few else draw(held, 1, 1, num_replicates=num_replicates)
    notes = []
    if few:
        which = "of the means " if held.multilabel and held.num_classes > 1 else ""
        said = "finding with fewer than {} with or without it" if held.multilabel else "class with fewer than {}"
        what = said.format(FEWEST_PATIENTS)
        notes.append(f"There are too few test patients for intervals {which}(a {what}).")
    values = weighted_metrics(logits_RNC, held, draws.images_NB)
    order = sorted(METRICS, key=lambda name: name != held.primary)
    found = {}
    for name in order:
        zero_shot, adapted = values[name]
        if not np.isnan(adapted).any():
            one, two = (estimate(v[None, None], draws) for v in (adapted, zero_shot))
            if name == "accuracy" and not (few or held.multilabel):
                one, two = (_exact(e, held.num_patients) for e in (one, two))
                if {one.value, two.value} & {0.0, 1.0}:
                    notes.append("The interval of an accuracy of 1 or 0 is the exact one (Clopper and Pearson).")
            found[name] = Compared(one, two, estimate((adapted - zero_shot)[None, None], draws, bounds=(-1.0, 1.0)))
    return found, notes


def _fewest(held: HeldOut) -> int:
    """Give the patients of the rarest class that is measured; of findings, with or without the rarest."""
    counts = []
    for c in held.measured():
        sides = held.sides(c) if held.multilabel else held.sides(c)[:1]
        counts += [len(set(held.patients[rows].tolist())) for rows in sides]
    return min(counts, default=0)


def _exact(e: Estimate, num_patients: int) -> Estimate:
    """Give an accuracy of 1 or 0 its exact interval: a bootstrap draws no answers that were not given."""
    end = 0.025 ** (1 / num_patients)
    if e.value == 1:
        return replace(e, low=end, high=1.0)
    return replace(e, low=0.0, high=1 - end) if e.value == 0 else e


def _alone(held: HeldOut) -> Draws:
    """Give the sample as it is, twice: figures without intervals."""
    ones = np.ones((len(held.patients), 2))
    return Draws(ones, np.ones((1, 2)), np.ones((1, 2)), held.num_patients, 0)


def _figure(e: Estimate) -> dict[str, float]:
    values = {"value": e.value, "low": e.low, "high": e.high}
    return {name: round(v, _DECIMALS) for name, v in values.items() if v is not None}


def _plain(compared: Compared) -> dict[str, Any]:
    return {name: _figure(getattr(compared, name)) for name in ("adapted", "zero_shot", "gain")}


def _shown(e: Estimate) -> str:
    return f"{e.value:.3f}" + ("" if e.low is None or e.high is None else f" ({e.low:.3f} to {e.high:.3f})")


def _said(metric: str) -> str:
    return {"macro_auroc": "AUROC, mean over classes", "auroc": "AUROC"}.get(metric, metric.replace("_", " "))


def notes_of(run: AdaptRun) -> Sequence[str]:
    """Give all that should be known of a run, its figures' notes last."""
    return (*run.notes, *(run.measured.notes if isinstance(run.measured, AdaptedFigures) else ()))
