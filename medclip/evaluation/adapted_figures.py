"""How good an adapted model is on its test patients, beside zero-shot, with intervals that resample patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.run import AdaptRun, ScoredTest
from medclip.evaluation.word_control import measure_task_words
from medclip.models.packs.card import training_hashes
from medclip.models.packs.word_control import WordControl, control_lines
from medclip.statistics.estimate import NUM_RESAMPLES, Difference, Estimate
from medclip.statistics.metrics.classification import METRICS, STEPS_IN_WORDS, HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.wording import estimate

_DECIMALS = 4
_COLUMNS = {"zero_shot": "zero-shot", "adapted": "adapted", "gain": "difference"}


@dataclass(frozen=True)
class Compared:
    """One metric: the adapted model, the base's prompts on the same images, and the difference, paired.

    An image-only base has no prompts, and nothing to differ from.
    """

    adapted: Estimate
    zero_shot: Estimate | None = None
    gain: Difference | None = None

    def by_name(self) -> dict[str, Estimate]:
        """Return what there is of the three."""
        parts = {"adapted": self.adapted, "zero_shot": self.zero_shot, "gain": self.gain}
        return {name: part for name, part in parts.items() if part is not None}


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
    word_control: Mapping[str, WordControl] = field(default_factory=dict)
    """By finding, or under "all": zero-shot with words that are not the classes' own; empty for an image-only base."""

    @property
    def has_intervals(self) -> bool:
        """Whether any figure has one."""
        every = [*self.figures.values(), *self.by_class.values()]
        return any(e.has_interval for c in every for e in c.by_name().values())

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the figures as a card holds them."""
        entries = {name: self._entry(name, compared) for name, compared in self.figures.items()}
        if len(self.by_class) > 1:
            entries["auroc_by_class"] = {name: self._entry("auroc", c) for name, c in self.by_class.items()}
        return entries

    def lines(self) -> tuple[str, ...]:
        """Return a table in plain text."""
        if not self.figures:
            return ()
        named = [(_said(n), c.by_name()) for n, c in self.figures.items()]
        if len(self.by_class) > 1:
            named += [(f"AUROC of {n}", c.by_name()) for n, c in self.by_class.items()]
        columns = [name for name in ("zero_shot", "adapted", "gain") if name in named[0][1]]
        rows = [("", *(_COLUMNS[name] for name in columns))]
        rows += [(title, *(_shown(of[name]) for name in columns)) for title, of in named]
        widths = [max(len(row[k]) for row in rows) for k in range(len(columns) + 1)]
        table = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
        controls = control_lines(self.word_control)
        return (*table, *(["Zero-shot by its words and by others:", *controls] if self.word_control else []))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "figures": {name: _plain(compared) for name, compared in self.figures.items()},
            "auroc_by_class": {name: _plain(compared) for name, compared in self.by_class.items()},
            "num_test_files": self.num_files,
            "num_test_patients": self.num_patients,
            "num_left_out": self.num_left_out,
            "word_control": {name: asdict(control) for name, control in self.word_control.items()},
        }

    def _entry(self, name: str, compared: Compared) -> dict[str, Any]:
        chance = {"macro_auroc": 0.5, "auroc": 0.5, "balanced_accuracy": self.chance}.get(name)
        counts = {"num_patients": self.num_patients, "num_images": self.num_files}
        adapted = _figure(compared.adapted) | counts
        if chance is not None:
            adapted["chance"] = round(chance, _DECIMALS)
        if compared.zero_shot is None:
            return {"adapted": adapted}
        return {"adapted": adapted, "zero_shot": _figure(compared.zero_shot)}


def measure(run: AdaptRun, *, num_resamples: int = NUM_RESAMPLES) -> AdaptedFigures:
    """Measure a run on its test patients.

    Balanced accuracy, accuracy and the area under the ROC curve (mean over classes, each against the rest); for
    multi-label tasks with a threshold of one half; and what else the task's kind is measured by. Files that the base
    was trained on, and the other files of their patients, are left out: a base looks too good on them.

    Args:
        run: Finished run, from `medclip.adapt`.
        num_resamples: Number of resamples of patients.

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
    patients = numbered([test.patients[i] for i in rows])
    held = HeldOut(test.targets[rows], patients, len(text.names), text.steps)
    answers = [test.logits_NC] if test.zero_shot_NC is None else [test.zero_shot_NC, test.logits_NC]
    logits = np.stack([of_model[rows] for of_model in answers])
    compared, more = _compare(logits, held, num_resamples, (*METRICS, *text.rules.metrics))
    by_class = {}
    for c, name in enumerate(text.names):
        alone = replace(held, targets=held.targets[:, [c]], num_classes=1) if held.multilabel else None
        if alone is not None and alone.measured():
            of_class, _ = _compare(logits[:, :, [c]], alone, num_resamples)
            by_class[name] = of_class["macro_auroc"]
    if held.multilabel and len(by_class) < len(text.names) and len(rows):
        lacking = ", ".join(n for n in text.names if n not in by_class)
        more.append(f"Too few test patients with or without: {lacking}; no figure is given for it.")
    if len(text.names) == 1 and "macro_auroc" in compared:
        compared = {"auroc" if n == "macro_auroc" else n: c for n, c in compared.items()}
    measured_classes = held.measured()
    if compared and not held.multilabel and len(measured_classes) < len(text.names):
        named = ", ".join(text.names[c] for c in measured_classes)
        more.append(
            f"The figures are over {len(measured_classes)} of {len(text.names)} classes, those of test patients: "
            f"{named}."
        )
    name, first = next(iter(compared.items()), ("", None))
    if first is not None and first.gain is not None and first.gain.value < 0:
        more.append(
            f"On these test patients it is worse than the base's prompts, by {_said(name)}: {_shown(first.gain)}."
        )
    chance = 0.5 if held.multilabel else 1 / max(1, len(measured_classes))
    controls: dict[str, WordControl] = {}
    if compared and test.features_ND is not None:
        controls = measure_task_words(
            run.adapted.model,
            text,
            test.features_ND[rows],
            test.targets[rows],
            held.patients.tolist(),
            test.modality,
            num_resamples=num_resamples,
        )
    counts = len(rows), held.num_patients, num_left_out
    return AdaptedFigures(compared, by_class, *counts, chance, (*notes, *more), controls)


def _fresh(run: AdaptRun) -> NDArray[np.int64]:
    """Return the test rows whose patients the base has not seen in training, as far as its list tells."""
    base, test = run.adapted.model, run.test
    seen = training_hashes(base.path, base.card) or frozenset()
    seen_patients = {p for p, sha in zip(test.patients, test.sha256, strict=True) if sha in seen}
    return np.array([n for n, p in enumerate(test.patients) if p not in seen_patients], np.int64)


def _allows_figures(test: ScoredTest, rows: NDArray[np.int64]) -> bool:
    """Whether no class loses all of its files, or for several labels its last with or without."""
    if test.targets.ndim == 1:
        return set(test.targets[rows].tolist()) == set(test.targets.tolist())
    before, after = test.targets, test.targets[rows]
    return all(((after == v).any(axis=0) >= (before == v).any(axis=0)).all() for v in (0, 1))


def _compare(
    logits_RNC: NDArray[np.float32], held: HeldOut, num_resamples: int, metrics: Sequence[str] = METRICS
) -> tuple[dict[str, Compared], list[str]]:
    """Measure the adapted model (last), beside zero-shot (before it) where the base has words."""
    if not held.measured():
        return {}, ["There are too few test patients for figures."] if len(held.patients) else []
    weights_PB = draw_weights(held.num_patients, num_resamples, seed=0)
    order = sorted(dict.fromkeys(metrics), key=lambda name: name != held.primary)
    *before, adapted = (figures(logits_NC[None], held, weights_PB, order) for logits_NC in logits_RNC)
    compared = {name: Compared(interval_of(figure)) for name, figure in adapted.items()}
    for zero_shot in before:
        compared = {
            name: Compared(interval_of(figure), interval_of(zero_shot[name]), difference(zero_shot[name], figure))
            for name, figure in adapted.items()
        }
    without = [_said(name) for name, c in compared.items() if not c.adapted.has_interval]
    notes = [f"There are too few test patients for an interval of: {', '.join(without)}."] if without else []
    return compared, notes


def _figure(e: Estimate) -> dict[str, float]:
    values = {"value": e.value, "low": e.low, "high": e.high} if e.has_interval else {"value": e.value}
    return {name: round(v, _DECIMALS) for name, v in values.items()}


def _plain(compared: Compared) -> dict[str, Any]:
    return {name: _figure(part) for name, part in compared.by_name().items()}


def _shown(e: Estimate) -> str:
    return estimate(e.value, e.low, e.high)


def _said(metric: str) -> str:
    named = {"macro_auroc": "AUROC, mean over classes", "auroc": "AUROC", **STEPS_IN_WORDS}
    return named.get(metric, metric.replace("_", " "))


def notes_of(run: AdaptRun) -> Sequence[str]:
    """Return all that should be known of a run, its figures' notes last."""
    return (*run.notes, *(run.measured.notes if isinstance(run.measured, AdaptedFigures) else ()))
