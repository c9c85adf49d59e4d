"""What a few-shot comparison gives: figures, differences, costs, mistakes. Plain data that JSON can hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medclip.models.packs.word_control import WordControl, control_lines
from medclip.result import Result
from medclip.statistics.metrics.classification import METRICS, OF_STEPS, STEPS_IN_WORDS
from medclip.text.vocabulary.task_kinds import TaskKind, kind_named
from medclip.wording import capital, count, estimate, list_of

DECIMALS = 4
AUROC = "macro_auroc"
METRIC_TITLES: Mapping[str, str] = {
    **dict(zip(METRICS, ("Balanced accuracy", "Accuracy", "AUROC"), strict=True)),
    **{name: capital(words) for name, words in STEPS_IN_WORDS.items()},
}


@dataclass(frozen=True)
class Cell:
    """One method at K shots, by one metric."""

    method: str
    shots: int | None
    """K; None for the mean over `Comparison.averaged`."""
    metric: str
    value: float
    low: float | None
    high: float | None
    sd_shots: float | None
    """Standard deviation over draws of shots; None for one draw."""
    sd_inits: float | None
    """Standard deviation over initialisations on the same shots."""


@dataclass(frozen=True)
class Paired:
    """One method minus another, on the same shots and the same test images."""

    method: str
    reference: str
    shots: int | None
    metric: str
    value: float
    low: float | None
    high: float | None
    p: float | None
    """Two-sided; None where there are too few test patients for one."""
    p_holm: float | None
    """Adjusted for all methods that are compared with this reference at these shots."""
    family: int
    """How many those are."""


@dataclass(frozen=True)
class Cost:
    """What a method takes at K shots: medians over its runs, with one thread."""

    method: str
    shots: int
    fit_seconds: float
    predict_seconds: float
    num_trainable: int
    needs_towers: bool
    images: int | None = None
    """Images that training sees at each rate; None for a method that does not learn step by step."""
    rates: int | None = None
    """Rates that it tries."""
    chosen_on: str = ""
    """What settings were chosen on: val, folds, folds of shots and validation, default, given; empty for none."""


@dataclass(frozen=True)
class Failure:
    """A run that gave no predictions."""

    method: str
    shots: int
    seed: int
    init: int
    part: str
    reason: str
    message: str


@dataclass(frozen=True)
class Mistake:
    """A test image that a method gets wrong at the most shots."""

    row: int
    """Of the table."""
    example: int
    """Among the examples of the comparison."""
    num_wrong: int
    num_runs: int
    true: str
    predicted: str
    """Its most frequent prediction where it was wrong."""


@dataclass(frozen=True)
class Confusion:
    """One method at the most shots, over all its runs."""

    method: str
    shots: int
    counts: tuple[tuple[float, ...], ...]
    """Multi-class: rows are true classes, columns what was said, means over runs. Multi-label: a row for each class
    with true positives, false negatives, false positives and true negatives at p = 0.5."""
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class Novel:
    """A method that learned the base classes and was asked for the novel ones, by one metric."""

    method: str
    metric: str
    shots: int
    base: Mapping[str, float | None]
    """value, low, high."""
    novel: Mapping[str, float | None]
    hm_of_means: Mapping[str, float | None]
    """2bn/(b + n) of the two means over draws of shots and initialisations."""
    mean_of_hms: Mapping[str, float | None]
    """The mean over draws and initialisations of each run's 2bn/(b + n); never above the other."""


@dataclass(frozen=True)
class Drawing:
    """What K shots came to, over all draws."""

    shots: int
    images: str
    """How many were learned from: "64", or "60–64" where draws differ."""
    patients: str
    val_images: str


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """A whole comparison."""

    table: str
    base: str
    base_version: str
    base_digest: str
    kind: str
    classes: tuple[str, ...]
    titles: Mapping[str, str]
    """Method label to what a page calls it."""
    shots: tuple[int, ...]
    averaged: tuple[int, ...]
    seeds: tuple[int, ...]
    inits: tuple[int, ...]
    references: tuple[str, ...]
    num_replicates: int
    primary: str
    measured: tuple[str, ...]
    """Classes that macro means are over."""
    counts: Mapping[str, Mapping[str, int]]
    """Side (train, val, test) to images, patients, and images of each class as `class:<name>`."""
    num_in_training: int | None
    problems: Mapping[str, int]
    notes: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    cells: tuple[Cell, ...]
    differences: tuple[Paired, ...]
    costs: tuple[Cost, ...]
    deviations: Mapping[str, tuple[str, ...]]
    """Method label to where it differs from its published code."""
    failures: tuple[Failure, ...]
    confusions: tuple[Confusion, ...]
    novel: tuple[Novel, ...]
    novel_classes: tuple[str, ...]
    """Classes that were asked for without being learned; empty where that was not asked."""
    version: str
    word_control: Mapping[str, WordControl] = field(default_factory=dict)
    """By finding, or under "all": zero-shot with words that are not the classes' own; empty without that row."""
    folder: Path | None = None

    def _facts(self) -> dict[str, object]:
        best = self.ranked[0] if self.ranked else None
        title = METRIC_TITLES[self.primary]
        metric = title if title.isupper() else title.lower()
        return {
            "base": f"{self.base} {self.base_version}",
            "classes": list_of(self.classes, most=5),
            "methods": list_of(self.ranked, most=5),
            "shots": list_of([str(k) for k in self.shots], most=5),
            f"best by {metric}": f"{best} {said(self.cell(best, None))}" if best else "none",
            "failed runs": len(self.failures),
            "folder": self.folder or "",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(cell) for cell in self.cells[:most]]

    def cell(self, method: str, shots: int | None, metric: str | None = None) -> Cell | None:
        """Return one figure; None where the method failed."""
        wanted = metric or self.primary
        return next((c for c in self.cells if c.method == method and c.shots == shots and c.metric == wanted), None)

    def differences_of(self, reference: str, shots: int | None) -> tuple[Paired, ...]:
        """Return every method against a reference, by the primary metric."""
        return tuple(
            d for d in self.differences if d.reference == reference and d.shots == shots and d.metric == self.primary
        )

    @property
    def rules(self) -> TaskKind:
        """The row of the task's kind."""
        return kind_named(self.kind)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Methods by their mean over `averaged`, best first; those without a figure last."""
        means = {m: self.cell(m, None) for m in self.titles}
        return tuple(sorted(self.titles, key=lambda m: -c.value if (c := means[m]) is not None else 1.0))

    @property
    def columns(self) -> tuple[int | None, ...]:
        """What tables have a column for: each K and, where it is over several of them, the mean (None)."""
        return (*self.shots, None) if len(self.averaged) > 1 else self.shots

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics that stand first: the primary one, the area beside it where that takes a threshold, and those of
        steps.
        """
        measured = {c.metric for c in self.cells}
        return tuple(dict.fromkeys((self.primary, AUROC, *(name for name in OF_STEPS if name in measured))))

    def title_of(self, metric: str) -> str:
        """Name a metric in words, and of an area of several classes how it is made."""
        over_classes = metric == AUROC and len(self.measured) > 2 and not self.rules.independent
        return METRIC_TITLES[metric] + (" (each class against the rest, their mean)" if over_classes else "")

    def to_json(self) -> str:
        """Write it as JSON; seconds and all."""
        values = asdict(self)
        values.pop("folder")
        return json.dumps(values, indent=1) + "\n"

    def lines(self) -> Iterator[str]:
        """Write the figures as tables of text."""
        width = max(len(m) for m in self.titles)
        images = count(self.counts["test"]["images"], "test image")
        heads = [f"mean K={min(self.averaged)}+" if k is None else f"K={k}" for k in self.columns]
        for metric in self.shown:
            yield f"{self.title_of(metric)} on {images}, by shots a class"
            yield f"{'':{width}}  " + "  ".join(f"{h:>22}" for h in heads)
            for method in self.ranked:
                cells = [self.cell(method, k, metric) for k in self.columns]
                yield f"{method:{width}}  " + "  ".join(f"{said(c):>22}" for c in cells)
                if method == "zero-shot" and metric == self.primary:
                    yield from control_lines(self.word_control)
        for failure in {(f.method, f.message): f for f in self.failures}.values():
            yield f"{failure.method}: {failure.message}"


def said(cell: Cell | Paired | None) -> str:
    """Write a figure with its interval: 0.812 (0.750 to 0.860)."""
    return "failed" if cell is None else estimate(cell.value, cell.low, cell.high)
