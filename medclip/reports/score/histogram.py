"""How the probabilities of a run are spread: one large histogram of the chosen score, or a small one for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from medclip.reports.forest_plot import drawing, stroke, words
from medclip.reports.model_card import CardView
from medclip.reports.score.study import Score, class_title, class_titles
from medclip.runs.ledger.ledger import Ledger
from medclip.text.vocabulary.task import Task
from medclip.wording import count, number

_BINS = 20
_MAX_SMALL = 12
LEAST_STUDIES = 20
"""Fewer are read one by one; a histogram of them shows nothing more."""
_SLIVER = 1.5
"""Least height of a bar that stands for any study."""


@dataclass(frozen=True)
class HistogramData:
    """Studies by the probability of one class, in equal bins from 0 to 1."""

    identity: str
    score: Score
    task: str
    title: str
    counts: tuple[int, ...]
    threshold: float | None
    """The card's."""
    num_called: int
    """Studies at or above it."""

    @property
    def num_studies(self) -> int:
        """Studies that were asked this."""
        return sum(self.counts)

    @property
    def bins(self) -> tuple[str, ...]:
        """The bins in words."""
        step = 100 // len(self.counts)
        return tuple(f"{step * n}–{step * (n + 1)} %" for n in range(len(self.counts)))


def collect_histograms(
    ledger: Ledger, run_tasks: Sequence[str], tasks: Mapping[str, Task], card: CardView, sort_by: Score | None
) -> tuple[tuple[HistogramData, ...], int]:
    """Count studies by probability.

    Args:
        ledger: A ledger with all chunks committed.
        run_tasks: Names of the run's tasks, in their order.
        tasks: Tasks that are known, by name.
        card: The model's card.
        sort_by: Score that was chosen; None: those of all classes, where there are studies enough.

    Returns:
        The histograms, and how many more there are.
    """
    counts = ledger.spread(_BINS)
    if sort_by is not None:
        chosen = [sort_by] if sort_by in counts else []  # or none of the studies was asked this
        return tuple(_collect(ledger, 1, score, counts[score], tasks, card) for score in chosen), 0

    def place(score: Score) -> tuple[int, str, int, str]:
        order = list(class_titles(tasks.get(score[0]), score[0], card)[1])
        of_class = order.index(score[1]) if score[1] in order else len(order)
        of_task = run_tasks.index(score[0]) if score[0] in run_tasks else len(run_tasks)
        return of_task, score[0], of_class, score[1]

    enough = sorted((score for score, n in counts.items() if sum(n) >= LEAST_STUDIES), key=place)
    halves = {score: [a + b for a, b in zip(counts[score][::2], counts[score][1::2], strict=True)] for score in enough}
    drawn = enumerate(enough[:_MAX_SMALL], start=1)
    return tuple(_collect(ledger, n, score, halves[score], tasks, card) for n, score in drawn), len(enough[_MAX_SMALL:])


def _collect(
    ledger: Ledger, n: int, score: Score, counts: Sequence[int], tasks: Mapping[str, Task], card: CardView
) -> HistogramData:
    task, titles = class_titles(tasks.get(score[0]), score[0], card)
    threshold = next((entry.thresholds.get(score[1]) for entry in card.tasks if entry.name == score[0]), None)
    num_called = 0 if threshold is None else ledger.num_from(score, threshold)
    return HistogramData(
        f"histogram-{n}", score, task, class_title(titles, score[1]), tuple(counts), threshold, num_called
    )


def histogram(data: HistogramData, *, small: bool) -> Markup:
    """Draw a histogram; a bar that stands for any study can be seen, and a large one has its counts above its bars."""
    width, height, left, top, bottom = (270, 118, 2, 18, 96) if small else (850, 236, 4, 22, 204)
    bar = (width - 2 * left) / len(data.counts)
    most = max(1, *data.counts)
    body: list[str] = []
    for n, studies in enumerate(data.counts):
        if not studies:
            continue
        tall, x = max(_SLIVER, (bottom - top) * studies / most), left + bar * n
        size = f'width="{bar - 2:.1f}" height="{tall:.1f}"'
        body.append(f'<rect class="fill" x="{x + 1:.1f}" y="{bottom - tall:.1f}" {size}/>')
        if not small or studies == most:
            middle = _inside(x + bar / 2, width)
            body.append(words(middle, bottom - tall - 5, number(studies), "t tiny-t", anchor="middle"))
    body.append(stroke(left, bottom, width - left, bottom, "axis"))
    for percent in (0, 50, 100) if small else range(0, 101, 10):
        anchor = {0: "start", 100: "end"}.get(percent, "middle")
        x = left + (width - 2 * left) * percent / 100
        body.append(stroke(x, bottom, x, bottom + 4, "axis"))
        body.append(words(x, bottom + 17, f"{percent} %", "t tiny-t soft-t", anchor=anchor))
    if data.threshold is not None:
        x = left + (width - 2 * left) * data.threshold
        body.append(stroke(x, top - 8, x, bottom, "reference"))
    title = f"{data.title}: {count(data.num_studies, 'study')} by probability"
    return drawing(data.identity, title, _described(data), width, height, body, "histogram")


def _inside(x: float, width: int) -> float:
    """Keep a count of five letters inside the drawing."""
    return min(max(x, 18.0), width - 18.0)


def _described(data: HistogramData) -> str:
    bars = [f"{bin_} {number(n)}" for bin_, n in zip(data.bins, data.counts, strict=True) if n]
    return f"Studies in each bin: {', '.join(bars) or 'none'}."
