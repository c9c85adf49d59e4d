"""What a score report shows of a whole run, as plain data picked from the ledger; and how its probabilities are spread.

The spread is one large histogram of the chosen score, or a small one for each class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from medclip.errors import printable
from medclip.reports.forest_plot import drawing, stroke, words
from medclip.reports.model_card import PrintedCard, modality_title
from medclip.reports.score.study import (
    SOURCES,
    Name,
    Score,
    StudyData,
    class_title,
    class_titles,
    collect_study,
    known_tasks,
    name_of,
    names_of,
    prompts_of,
    steps_in,
)
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.score_run import not_learned
from medclip.runs.rows import FileRow, Ranking
from medclip.sample import Modality
from medclip.scoring.cautions import KEY as FAR_NOTES
from medclip.text.vocabulary.own_words import Prompt, templates_of
from medclip.text.vocabulary.task import Task
from medclip.wording import capital, count, number

STUDIES_A_PAGE = 200
MAX_PAGES = 50
"""Studies beyond them are in the table alone."""
LEAST_LISTED = 20
_MAX_MESSAGES = 50
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
    steps: tuple[str, ...] = ()
    """Of the expected step of a scale, over whose whole range the bins are: the printed names of its steps."""

    @property
    def num_studies(self) -> int:
        """Studies that were asked this."""
        return sum(self.counts)

    @property
    def bins(self) -> tuple[str, ...]:
        """The bins in words."""
        if self.steps:
            wide = (len(self.steps) - 1) / len(self.counts)
            return tuple(f"{wide * n:.2f}–{wide * (n + 1):.2f}" for n in range(len(self.counts)))
        step = 100 // len(self.counts)
        return tuple(f"{step * n}–{step * (n + 1)} %" for n in range(len(self.counts)))


@dataclass(frozen=True)
class ReportData:
    """What all pages share: everything but the studies."""

    version: str
    counts: Mapping[str, int]
    num_added: int
    """Files that came after the folder was listed and were added."""
    tasks: Mapping[str, Task]
    """Those that are known, by name."""
    prompts: tuple[Prompt, ...]
    """What was asked in a person's own words."""
    templates: tuple[str, ...]
    """Sentences that prompts were put into that but name a finding."""
    notes: tuple[str, ...]
    """What should be known of the questions."""
    modalities: tuple[tuple[str, int], ...]
    sources: tuple[tuple[str, int], ...]
    problems: tuple[dict[str, Any], ...]
    """Reasons why files were not scored: `title`, `status`, `num_files`, and each sentence with its files."""
    treatments: tuple[tuple[tuple[str, str, str, str], int], ...]
    """What was done to files: adapter, steps, decoder and preprocessing, and of how many."""
    pack_hash: str
    show_paths: bool
    sort_by: Ranking | None
    sort_title: str
    """Printed name of the score that studies are sorted by; empty for the order of files."""
    sort_task: str
    """Printed name of its task."""
    histograms: tuple[HistogramData, ...]
    num_more_histograms: int
    keys: tuple[str, ...]
    """The studies that are shown, in their order."""
    studies_a_page: int
    steps: Mapping[str, Sequence[str]]
    """Of the tasks that are scales."""

    cautions: Mapping[Score, tuple[str, ...]]
    """Why answers of a class are grey, of some studies at least, as the table has it."""

    def grey(self, score: Score) -> str:
        """Return in a few words why the answers of a class are grey, of some studies at least; else none."""
        cautions = self.cautions.get(score, ())
        return "not learned" if any(map(not_learned, cautions)) else "; ".join(map(printable, cautions))

    @property
    def num_hidden(self) -> int:
        """Studies that are in the table alone."""
        return self.counts["studies"] - len(self.keys)

    @property
    def num_unasked(self) -> int:
        """Studies without the score that others are sorted by."""
        return self.counts["studies"] - sum(h.num_studies for h in self.histograms) if self.sort_by else 0

    @property
    def has_list(self) -> bool:
        """Whether a page of its own sorts and searches the studies: of a few, everybody sees all at once."""
        return len(self.keys) >= LEAST_LISTED or self.num_pages > 1

    @property
    def num_pages(self) -> int:
        """At least one."""
        return max(1, -(-len(self.keys) // self.studies_a_page))


def collect(
    ledger: Ledger,
    card: PrintedCard,
    *,
    show_paths: bool,
    sort_by: Ranking | None = None,
    studies_a_page: int = STUDIES_A_PAGE,
    max_pages: int = MAX_PAGES,
) -> ReportData:
    """Pick what the report shows, without its studies; files have numbers where their paths are not to be shown."""
    identity: dict[str, Any] = ledger.get("identity") or {}
    tasks, prompts = known_tasks(identity), prompts_of(identity)
    histograms, num_more = collect_histograms(ledger, identity.get("tasks") or (), tasks, card, sort_by)
    problems, treatments = _problems_and_treatments(ledger.files(), show_paths)
    sort_task, titles = class_titles(tasks.get(sort_by.task), sort_by.task, card) if sort_by else ("", {})
    return ReportData(
        version=str(identity.get("version", "")),
        counts=ledger.counts(),
        num_added=ledger.get("added") or 0,
        tasks=tasks,
        prompts=prompts,
        templates=_templates(prompts, ledger) if identity.get("templates") else (),
        notes=(*(ledger.get("notes") or ()), *(ledger.get(FAR_NOTES) or ())),
        modalities=tuple((modality_title(name), n) for name, n in ledger.counts_by("modality").items()),
        sources=tuple((SOURCES.get(name, name), n) for name, n in ledger.counts_by("modality_source").items()),
        problems=problems,
        treatments=treatments,
        pack_hash=str(identity.get("pack", "")).split(" ")[-1],
        show_paths=show_paths,
        sort_by=sort_by,
        sort_title=_sorted_by(sort_by, titles) if sort_by else "",
        steps=steps_in(ledger, sort_by),
        sort_task=sort_task,
        histograms=histograms,
        num_more_histograms=num_more,
        keys=tuple(ledger.studies(studies_a_page * max_pages, sort_by)),
        studies_a_page=studies_a_page,
        cautions=ledger.cautions(),
    )


def _templates(prompts: Sequence[Prompt], ledger: Ledger) -> tuple[str, ...]:
    if not any(prompt.is_bare for prompt in prompts):
        return ()
    plain, *_ = templates_of(None)
    modalities = map(Modality, sorted(ledger.counts_by("modality")))
    return tuple(t.replace("{}", "…") for modality in modalities for t in templates_of(modality) if t != plain)


def studies_of(ledger: Ledger, card: PrintedCard, report: ReportData, page: int) -> Iterator[StudyData]:
    """Yield the studies of a page, from 1."""
    first = (page - 1) * report.studies_a_page
    for place, key in enumerate(report.keys[first : first + report.studies_a_page], start=first + 1):
        yield collect_study(
            ledger,
            key,
            place,
            report.tasks,
            card,
            show_paths=report.show_paths,
            sort_by=report.sort_by,
            steps=report.steps,
        )


def _problems_and_treatments(
    rows: Iterable[FileRow], show_paths: bool
) -> tuple[tuple[dict[str, Any], ...], tuple[tuple[tuple[str, str, str, str], int], ...]]:
    """Group the files that were not scored by reason and sentence, and the scored ones by what was done to them."""
    problems: dict[tuple[str, str], dict[str, list[Name]]] = {}
    treatments: dict[tuple[str, str, str, str], int] = {}
    for row in rows:
        if row.reason is not None:
            messages = problems.setdefault((row.status, row.reason), {})
            messages.setdefault(row.message or "", []).append(name_of(row, show_paths))
        else:
            steps = " → ".join(name.replace("_", " ") for name, _ in json.loads(row.steps or "[]"))
            kind = (row.adapter or "", steps or "none", row.decoder or "", row.preprocessing or "")
            treatments[kind] = treatments.get(kind, 0) + 1
    # Failed before skipped, then the most frequent reason first.
    ordered = sorted(problems.items(), key=lambda kv: (kv[0][0], -sum(map(len, kv[1].values())), kv[0][1]))
    return (
        tuple(_problem(status, reason, messages) for (status, reason), messages in ordered),
        tuple(sorted(treatments.items(), key=lambda kv: (kv[0][0], -kv[1], kv[0]))),
    )


def _problem(status: str, reason: str, messages: Mapping[str, list[Name]]) -> dict[str, Any]:
    ordered = sorted(messages.items(), key=lambda kv: -len(kv[1]))  # else by their first files, as they came
    return {
        "title": capital(reason.replace("_", " ")),
        "status": status,
        "num_files": sum(map(len, messages.values())),
        "messages": [(text, names_of(files)) for text, files in ordered[:_MAX_MESSAGES]],
        "num_more_messages": max(0, len(ordered) - _MAX_MESSAGES),
    }


def collect_histograms(
    ledger: Ledger, run_tasks: Sequence[str], tasks: Mapping[str, Task], card: PrintedCard, sort_by: Ranking | None
) -> tuple[tuple[HistogramData, ...], int]:
    """Count studies by probability: of the chosen score, or of all classes where there are studies enough.

    Returns:
        The histograms, and how many more there are.
    """
    if sort_by is not None:
        spread = ledger.spread_by(sort_by, _BINS)  # empty where none of the studies was asked this
        return (_histogram(ledger, 1, sort_by, spread, tasks, card),) if sum(spread) else (), 0
    counts = ledger.spread(_BINS)

    def place(score: Score) -> tuple[int, str, int, str]:
        order = list(class_titles(tasks.get(score[0]), score[0], card)[1])
        of_class = order.index(score[1]) if score[1] in order else len(order)
        of_task = run_tasks.index(score[0]) if score[0] in run_tasks else len(run_tasks)
        return of_task, score[0], of_class, score[1]

    enough = sorted((score for score, n in counts.items() if sum(n) >= LEAST_STUDIES), key=place)
    halves = {score: [a + b for a, b in zip(counts[score][::2], counts[score][1::2], strict=True)] for score in enough}
    drawn = enumerate(enough[:_MAX_SMALL], start=1)
    histograms = tuple(
        _histogram(ledger, n, Ranking(score[0], (score[1],)), halves[score], tasks, card) for n, score in drawn
    )
    return histograms, len(enough[_MAX_SMALL:])


def _histogram(
    ledger: Ledger, n: int, of: Ranking, counts: Sequence[int], tasks: Mapping[str, Task], card: PrintedCard
) -> HistogramData:
    task, titles = class_titles(tasks.get(of.task), of.task, card)
    score, steps = (of.task, of.classes[0]), tuple(class_title(titles, step) for step in of.classes)
    threshold = next((entry.thresholds.get(score[1]) for entry in card.tasks if entry.name == of.task), None)
    if threshold is None or of.is_scale:
        threshold, num_called = None, 0
    else:
        num_called = ledger.num_from(score, threshold)
    shown = steps if of.is_scale else ()
    return HistogramData(
        f"histogram-{n}", score, task, _sorted_by(of, titles), tuple(counts), threshold, num_called, shown
    )


def _sorted_by(of: Ranking, titles: Mapping[str, str]) -> str:
    return "Expected step" if of.is_scale else class_title(titles, of.classes[0])


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
    percents = [(percent / 100, f"{percent} %") for percent in ((0, 50, 100) if small else range(0, 101, 10))]
    ticks = [(k / (len(data.steps) - 1), f"{k} {title}") for k, title in enumerate(data.steps)] or percents
    for share, text in ticks:
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        x = left + (width - 2 * left) * share
        body.append(stroke(x, bottom, x, bottom + 4, "axis"))
        body.append(words(x, bottom + 17, text, "t tiny-t soft-t", anchor=anchor))
    if data.threshold is not None:
        x = left + (width - 2 * left) * data.threshold
        body.append(stroke(x, top - 8, x, bottom, "reference"))
    title = f"{data.title}: {count(data.num_studies, 'study')}{'' if data.steps else ' by probability'}"
    return drawing(data.identity, title, _described(data), width, height, body, "histogram")


def _inside(x: float, width: int) -> float:
    """Keep a count of five letters inside the drawing."""
    return min(max(x, 18.0), width - 18.0)


def _described(data: HistogramData) -> str:
    bars = [f"{bin_} {number(n)}" for bin_, n in zip(data.bins, data.counts, strict=True) if n]
    return f"Studies in each bin: {', '.join(bars) or 'none'}."
