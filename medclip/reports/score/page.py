"""What a score report shows of a whole run, as plain data: picked from the ledger, nothing computed anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medclip.errors import printable
from medclip.reports.model_card import CardView, modality_title
from medclip.reports.score.histogram import HistogramData, collect_histograms
from medclip.reports.score.study import (
    SOURCES,
    Name,
    Score,
    StudyData,
    class_title,
    class_titles,
    collect_study,
    name_of,
    names_of,
)
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.score_run import not_learned
from medclip.runs.rows import FileRow
from medclip.sample import Modality
from medclip.scoring.cautions import KEY as FAR_NOTES
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.own_words import Prompt, ad_hoc_task, templates_of
from medclip.text.vocabulary.task import Task
from medclip.wording import capital

STUDIES_A_PAGE = 200
MAX_PAGES = 50
"""Studies beyond them are in the table alone."""
LEAST_LISTED = 20
_MAX_MESSAGES = 50


@dataclass(frozen=True)
class MessageData:
    """One sentence and the files it is about."""

    text: str
    files: str


@dataclass(frozen=True)
class ProblemData:
    """One reason."""

    title: str
    status: str
    num_files: int
    messages: tuple[MessageData, ...]
    num_more_messages: int


@dataclass(frozen=True)
class TreatmentData:
    """What was done to the files of one adapter."""

    adapter: str
    num_files: int
    steps: str
    decoder: str
    preprocessing: str


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
    problems: tuple[ProblemData, ...]
    treatments: tuple[TreatmentData, ...]
    pack_hash: str
    show_paths: bool
    sort_by: Score | None
    sort_title: str
    """Printed name of the score that studies are sorted by; empty for the order of files."""
    sort_task: str
    """Printed name of its task."""
    histograms: tuple[HistogramData, ...]
    num_more_histograms: int
    keys: tuple[str, ...]
    """The studies that are shown, in their order."""
    studies_a_page: int

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


def known_tasks(identity: Mapping[str, Any]) -> dict[str, Task]:
    """Return the tasks of the vocabulary, and what a run asked in a person's own words, by name.

    Args:
        identity: Identity of the run, as its ledger has it.
    """
    tasks, prompts = {name: load_task(name) for name in task_names()}, _prompts(identity)
    if prompts:
        prompt_task = ad_hoc_task(prompts)
        tasks[prompt_task.name] = prompt_task
    return tasks


def _prompts(identity: Mapping[str, Any]) -> tuple[Prompt, ...]:
    return tuple(Prompt.from_json(values) for values in identity.get("prompts") or ())


def collect(
    ledger: Ledger,
    card: CardView,
    *,
    show_paths: bool,
    sort_by: Score | None = None,
    studies_a_page: int = STUDIES_A_PAGE,
    max_pages: int = MAX_PAGES,
) -> ReportData:
    """Pick what the report shows, without its studies.

    Args:
        ledger: A ledger with all chunks committed.
        card: The model's card.
        show_paths: Whether files are named by their relative path; otherwise by row number and format.
        sort_by: Task and class by whose probability studies are sorted, the highest first; None: by their files.
        studies_a_page: Number of studies on one page.
        max_pages: Most pages.
    """
    identity: dict[str, Any] = ledger.get("identity") or {}
    tasks, prompts = known_tasks(identity), _prompts(identity)
    histograms, num_more = collect_histograms(ledger, identity.get("tasks") or (), tasks, card, sort_by)
    problems, treatments = _problems_and_treatments(ledger.files(), show_paths)
    sort_task, titles = class_titles(tasks.get(sort_by[0]), sort_by[0], card) if sort_by else ("", {})
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
        sort_title=class_title(titles, sort_by[1]) if sort_by else "",
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


def studies_of(ledger: Ledger, card: CardView, report: ReportData, page: int) -> Iterator[StudyData]:
    """Yield the studies of a page, from 1."""
    first = (page - 1) * report.studies_a_page
    for number, key in enumerate(report.keys[first : first + report.studies_a_page], start=first + 1):
        yield collect_study(
            ledger,
            key,
            number,
            report.tasks,
            card,
            show_paths=report.show_paths,
            sort_by=report.sort_by,
        )


def _problems_and_treatments(
    rows: Iterable[FileRow], show_paths: bool
) -> tuple[tuple[ProblemData, ...], tuple[TreatmentData, ...]]:
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
        tuple(
            TreatmentData(adapter, n, steps, decoder, preprocessing)
            for (adapter, steps, decoder, preprocessing), n in sorted(
                treatments.items(), key=lambda kv: (kv[0][0], -kv[1], kv[0])
            )
        ),
    )


def _problem(status: str, reason: str, messages: Mapping[str, list[Name]]) -> ProblemData:
    ordered = sorted(messages.items(), key=lambda kv: -len(kv[1]))  # else by their first files, as they came
    return ProblemData(
        title=capital(reason.replace("_", " ")),
        status=status,
        num_files=sum(map(len, messages.values())),
        messages=tuple(MessageData(text, names_of(files)) for text, files in ordered[:_MAX_MESSAGES]),
        num_more_messages=max(0, len(ordered) - _MAX_MESSAGES),
    )
