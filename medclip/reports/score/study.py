"""One study of a score report, as plain data: its images, its answers, its files; and the answers for a terminal."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from medclip.errors import printable
from medclip.models.packs.words import NO_TASK_OF_CARD, TRIED
from medclip.reports.model_card import PrintedCard, modality_title, task_title, view_card
from medclip.reports.score.hanging import HangingData, LevelData, collect_hanging, levels
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.score_run import STEPS, not_learned
from medclip.runs.rows import NAMED_FILES, ExamRow, FileRow, MapRow, Ranking, ScoreRow
from medclip.sample import Kind
from medclip.text.captions.record import VIEW_TASK
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.own_words import AD_HOC, BAR, Prompt, ad_hoc_task
from medclip.text.vocabulary.task import Task
from medclip.text.vocabulary.task_kinds import kind_named
from medclip.wording import capital, count, list_of, number, percent

MOST_STUDIES = 5
"""Studies whose answers a terminal has; of more it would be full: the report and the table have them."""
_MAX_THUMBNAILS = 4
_MAX_CLASSES = 5
_MAX_NAMES = 300
_LEAST_SPREAD = 0.1
"""A spread over wordings that is named beside a class of the vocabulary."""

SOURCES = {
    "header": "the file's header",
    "table": "the table",
    "option": "the option --modality",
    "inferred": "the model",
    "pack": "the model, which knows no other",
}
_GROUPING = {
    "uid": "one DICOM study",
    "table": "tied by the table",
    "folder": "one folder",
    "file": "a file of its own",
}
_FORMATS = {"dicom": "DICOM", "dicomdir": "DICOMDIR", "png": "PNG", "jpeg": "JPEG", "tiff": "TIFF", "csv": "table"}
NO_STEPS: Mapping[str, Sequence[str]] = {}
Score = tuple[str, str]
"""Task and class of a probability."""
Name = int | str
"""A file by its number, or by its path where paths are shown."""


@dataclass(frozen=True)
class Thumbnail:
    """One thumbnail."""

    label: str
    data: str
    """Base64 of a JPEG; empty where it is withheld."""
    mirrored: bool = False
    """It is shown as it hangs, with the chest wall on the right."""
    outlines: tuple[str, ...] = ()
    """Base64 of PNGs that lie over it: what was marked."""


@dataclass(frozen=True)
class MapData:
    """What was marked in one image."""

    title: str
    image: str
    """Label of the image; empty where the study has one only."""
    share: float
    area: str
    """In square millimetres; empty where the file states no spacing."""
    num_pieces: int
    unseen: float
    file: str
    """Its PNG, relative to the page."""


@dataclass(frozen=True)
class ClassData:
    """One bar."""

    title: str
    probability: float
    top: bool
    note: str = ""
    """What a prompt is compared with, and by how much the probability changes with the wording."""
    unlearned: str = ""
    """Why the answer is worth little: the model was never taught this. It is drawn grey."""
    quiet: bool = False
    """It holds within its source only, or nobody has measured it: it is drawn grey, and never as the answer."""
    name: str = ""
    """Its key in the tables."""
    caution: str = ""
    """Why it is grey, as the tables have it."""


@dataclass(frozen=True)
class TaskData:
    """One task of one study."""

    title: str
    classes: tuple[ClassData, ...]
    note: str
    limited: str
    """Name of the task, where its card says what must be known of the figure; it stands above the studies."""
    unlearned: str = ""
    """As for a class, of the whole task."""
    levels: tuple[LevelData, ...] = ()
    """Of a mammography examination, the probabilities of its breasts and views, class by class."""
    is_prompt: bool = False
    """It was asked in a person's own words, whose labels are long."""
    name: str = ""
    """Its key in the tables."""
    is_choice: bool = False
    """Its classes share 100 %, the likeliest first."""
    expected_step: float | None = None
    """Of a task whose classes are steps of a scale: Σ k · p(k), from 0."""

    @property
    def quiet(self) -> bool:
        """Whether all of it is drawn grey."""
        return all(one.quiet for one in self.classes)


@dataclass(frozen=True)
class StudyData:
    """One study."""

    number: int
    """Its place in the report, from 1."""
    key: str
    modality: str
    modality_note: str
    grouping: str
    num_images: int
    failed_note: str
    """Which of its files are missing in the score; empty where none is."""
    thumbnails: tuple[Thumbnail, ...]
    without_image: str
    """Its files, where no image of it is kept; else the images name them."""
    num_more_images: int
    tasks: tuple[TaskData, ...]
    rows: str
    """Its files by number: 1-3, 7."""
    files: str
    """Their paths, where paths are shown."""
    sorted_by: float | None
    """The probability, or expected step, that it has its place by."""
    sorted_caution: str = ""
    """Why that is grey."""
    has_map: bool = False
    """The last of its thumbnails is a heat map."""
    hanging: HangingData | None = None
    """Of a mammography examination its views as they hang, in the place of thumbnails."""
    is_record: bool = False
    """It is of ECGs, whose thumbnails are sheets of twelve leads."""
    note: str = ""
    """What is wrong with its ECGs or stands out."""
    maps: tuple[MapData, ...] = ()


def file_label(row: FileRow, show_paths: bool) -> str:
    """Name a file without giving away its name: "file 12 (DICOM)"."""
    if show_paths:
        return printable(row.path)
    kind = _FORMATS.get(row.format or "", (row.format or "not opened").replace("_", " "))
    return f"file {row.row} ({kind})"


def ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers as ranges: 1-3, 7."""
    parts = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}–{members[-1]}")
    return ", ".join(parts)


def collect_study(
    ledger: Ledger,
    key: str,
    number: int,
    tasks: Mapping[str, Task],
    card: PrintedCard,
    *,
    show_paths: bool = False,
    sort_by: Ranking | None = None,
    steps: Mapping[str, Sequence[str]] = NO_STEPS,
) -> StudyData:
    """Pick what the report shows of one study, in a place of the report and of a ledger with all chunks committed."""
    files, scores = ledger.files_of(key), ledger.scores_of(key)
    sorting = [] if sort_by is None else [score for score in scores if score.task == sort_by.task]
    chosen = [score for score in sorting if sort_by and score.class_ in sort_by.classes]
    exam, thumbnails, marked = ledger.exam_of(key), [], list(ledger.map_images(key))
    labels = {row.row: file_label(row, show_paths) for row in files}
    hanging = collect_hanging(ledger, exam, labels)
    columns = () if hanging is None else hanging.columns
    for row in files[:_MAX_THUMBNAILS] if hanging is None else ():
        kept = ledger.thumbnail(row.row)
        if kept is not None:  # of files that are read together the first has it
            data = base64.b64encode(kept.thumbnail).decode()
            outlines = tuple(base64.b64encode(o).decode() for one, _, o in marked if one.row == row.row and o)
            thumbnails.append(Thumbnail(_image_label(row, show_paths), data, outlines=outlines if data else ()))
    paths = [printable(row.path) for row in files] if show_paths else []
    return StudyData(
        number=number,
        key=key,
        modality=modality_title(scores[0].modality if scores else str(files[0].modality)),
        modality_note=_modality_note(files),
        grouping=_GROUPING.get(files[0].grouping or "", files[0].grouping or ""),
        num_images=max((score.num_images for score in scores), default=len(files)),
        failed_note=_failed_note(
            len(files), scores[0].num_failed if scores else 0, ledger.files_of(key, "failed"), show_paths
        ),
        thumbnails=tuple(thumbnails),
        without_image="" if thumbnails or hanging is not None else _files_label(files, show_paths),
        num_more_images=max(0, len(files) - _MAX_THUMBNAILS),
        tasks=tuple(
            _beside_stated(
                _task(
                    tasks.get(name),
                    name,
                    list(rows),
                    card,
                    [row for row in exam if row.task == name],
                    columns,
                    Ranking(name, tuple(steps.get(name, ()))),
                ),
                name,
                files,
            )
            for name, rows in groupby(scores, key=lambda score: score.task)
        ),
        hanging=hanging,
        is_record=all(row.kind == Kind.SIGNAL for row in files),
        note=_flags_in_words(scores[0].note if scores else None),
        maps=tuple(_map(one, tasks, card, labels if len(files) > 1 else {}) for one, _, _ in marked),
        rows=ranges([row.row for row in files]),
        files=list_of(paths, most=NAMED_FILES),
        sorted_by=sort_by.value_of({one.class_: one.probability for one in chosen}) if sort_by else None,
        sorted_caution=next((one.caution for one in chosen if one.caution), ""),
    )


def _map(row: MapRow, tasks: Mapping[str, Task], card: PrintedCard, labels: Mapping[int, str]) -> MapData:
    title, classes = class_titles(tasks.get(row.task), row.task, card)
    name = class_title(classes, row.class_)
    return MapData(
        title=title if title == name else f"{title}: {name}",
        image=labels.get(row.row, ""),
        share=row.share,
        area="" if row.area_mm2 is None else f"{number(round(row.area_mm2))} mm²",
        num_pieces=row.num_pieces,
        unseen=row.unseen,
        file=row.map,
    )


def _flags_in_words(note: str | None) -> str:
    """Write the flags of a study's ECGs as a person reads them: "Lead off: V3, V4. Arms swapped.".

    Example:
        >>> _flags_in_words("lead_off:V3,V4 arms_swapped")
        'Lead off: V3, V4. Arms swapped.'
    """
    parts = [flag.partition(":") for flag in (note or "").split()]
    named = [
        f"{capital(flag.replace('_', ' '))}{': ' * bool(leads)}{leads.replace(',', ', ')}" for flag, _, leads in parts
    ]
    return "".join(f"{words}. " for words in named).strip()


def class_titles(task: Task | None, name: str, card: PrintedCard) -> tuple[str, dict[str, str]]:
    """Return the printed names of a task and of its classes, in their order; those of the card's own task go first."""
    of_card = next((entry for entry in card.tasks if entry.name == name and entry.adapted), None)
    if of_card is not None:
        return of_card.title, dict(of_card.class_titles)
    if task is None:
        return task_title(name), {}
    title = "In your own words" if name == AD_HOC else task.title
    return title, {c.name: c.title for c in task.classes}


def class_title(titles: Mapping[str, str], name: str) -> str:
    """Return the printed name of a class; its key where nothing has one."""
    return titles.get(name, name.replace("_", " "))


def name_of(row: FileRow, show_paths: bool) -> Name:
    """Return what a file is named by."""
    return printable(row.path) if show_paths else row.row


def names_of(files: Sequence[Name]) -> str:
    """Write files by their paths, or by the ranges of their numbers: "files 1-3, 7"."""
    numbers = [name for name in files if isinstance(name, int)]
    names = ranges(numbers).split(", ") if numbers else [str(name) for name in files]
    more = f" and more, see files.parquet ({len(files)} files)" if len(names) > _MAX_NAMES else ""
    prefix = "" if not numbers else "files " if len(files) > 1 else "file "
    return f"{prefix}{', '.join(names[:_MAX_NAMES])}{more}"


def _files_label(files: Sequence[FileRow], show_paths: bool) -> str:
    if len(files) == 1:
        return file_label(files[0], show_paths)
    return names_of([name_of(row, show_paths) for row in files])


def _failed_note(num_scored: int, num_failed: int, failed: Sequence[FileRow], show_paths: bool) -> str:
    if not num_failed:
        return ""
    named = f" ({names_of([name_of(row, show_paths) for row in failed])})" if failed else ""
    return f"{num_failed} of {num_scored + num_failed} files of this study could not be read{named}"


def _image_label(row: FileRow, show_paths: bool) -> str:
    return ", ".join(part for part in (file_label(row, show_paths), row.laterality, row.view) if part)


def _modality_note(files: Sequence[FileRow]) -> str:
    sources = list(dict.fromkeys(row.modality_source or "" for row in files))
    if sources != ["inferred"]:
        return f"from {list_of([SOURCES.get(source, source) for source in sources])}"
    least = min(row.modality_probability or 0.0 for row in files)
    if least >= 0.995:  # a model is never certain
        return "inferred, p > 0.99"
    return f"inferred, p = {least:.2f}" if len(files) == 1 else f"inferred, p ≥ {int(least * 100) / 100:.2f}"


def _task(
    task: Task | None,
    name: str,
    scores: Sequence[ScoreRow],
    card: PrintedCard,
    exam: Sequence[ExamRow],
    columns: Sequence[str],
    scale: Ranking,
) -> TaskData:
    """Pick what is shown of a task: which answers are grey and why is what their rows say, and nothing else."""
    of_card = next((entry for entry in card.tasks if entry.name == name), None)
    title, titles = class_titles(task, name, card)
    is_prompt = name == AD_HOC
    reasons = {score.class_: printable(not_learned(score.caution)) for score in scores}
    of_all = set(reasons.values()) if len(reasons) > 1 or not is_prompt else set[str]()
    unlearned = of_all.pop() if len(of_all) == 1 else ""
    cautions = {s.class_: printable(s.caution) for s in scores if s.caution and not reasons[s.class_]}
    is_risk = kind_named(scores[0].kind).timed  # by the years, whose probabilities never fall
    ordered = list(scores) if is_risk else sorted(scores, key=lambda score: -score.probability)
    listed = ordered if len(ordered) <= _MAX_CLASSES + 1 else ordered[:_MAX_CLASSES]
    is_choice = kind_named(scores[0].kind).one_answer
    note = "nobody has measured how good the model is at this" if of_card is None else of_card.summary
    if is_prompt:
        note = "nobody has measured these words: the card’s figures are of its own wordings"
    elif of_card is None and any(reason.startswith(TRIED) for reason in reasons.values()):
        note = NO_TASK_OF_CARD
    beside = {class_: caution for class_, caution in cautions.items() if caution not in note}
    if beside and is_choice and len({cautions.get(score.class_, "") for score in scores}) == 1:
        note = " · ".join(filter(None, (cautions.get(scores[0].class_), note)))  # of one answer among several
        beside = {}
    remarks = {} if is_prompt or of_card is None else of_card.remarks
    if len({remarks.get(score.class_, "") for score in scores}) == 1:
        note = " · ".join(filter(None, (note, remarks.get(scores[0].class_))))
    else:
        beside = {**remarks, **beside}
    if of_card is not None and of_card.unanswered:
        note = f"{note} · {printable(of_card.unanswered)}"
    if task is not None and task.none_in_words:
        note = f"{task.none_in_words} · {note}"
    expected = scale.value_of({score.class_: score.probability for score in scores})
    if expected is not None:
        note = f"{expected_in_words(expected, [class_title(titles, step) for step in scale.classes])} · {note}"
    if len(listed) < len(ordered):
        note = f"{len(ordered) - len(listed)} more below these · {note}"
    return TaskData(
        title=title,
        classes=tuple(
            ClassData(
                class_title(titles, score.class_),
                score.probability,
                # of a choice in which none has the half, none
                top=score.probability > 0.5 and not is_risk and not score.caution,
                note=_class_note(score, is_prompt, beside.get(score.class_, "")),
                unlearned="" if unlearned else reasons[score.class_],
                quiet=score.class_ in cautions,
                name=score.class_,
                caution=printable(score.caution or ""),
            )
            for score in listed
        ),
        note=note,
        limited=name if of_card is not None and of_card.note else "",
        unlearned=unlearned,
        levels=levels(exam, {score.class_: class_title(titles, score.class_) for score in listed}, columns),
        is_prompt=is_prompt,
        name=name,
        is_choice=is_choice,
        expected_step=expected,
    )


def expected_in_words(value: float, titles: Sequence[str]) -> str:
    """Write an expected step beside the ends of its scale.

    Example:
        >>> expected_in_words(1.62, ["none", "mild", "severe"])
        'expected step 1.6 of 0 (none) to 2 (severe)'
    """
    return f"expected step {value:.1f} of 0 ({titles[0]}) to {len(titles) - 1} ({titles[-1]})"


def _beside_stated(task: TaskData, name: str, files: Sequence[FileRow]) -> TaskData:
    """Return a task with the view that a header or a table states, beside what the model makes of it."""
    views = list(dict.fromkeys(row.view for row in files if row.view))
    if name != VIEW_TASK or not views:
        return task
    return replace(task, note=f"stated is {list_of(views, last='and')} · {task.note}")


def _class_note(score: ScoreRow, is_prompt: bool, where: str) -> str:
    """Return where the figure holds, what a prompt is compared with, and a spread over wordings that matters."""
    spread = score.probability_spread
    parts = [where] if where else []
    parts += [f"against “{(score.against or '').replace(f' {BAR} ', '” or “')}”"] if is_prompt else []
    if spread is not None and (is_prompt or spread >= _LEAST_SPREAD):
        parts.append(changes_with_wording(spread))
    return " · ".join(parts)


def changes_with_wording(spread: float) -> str:
    """Write by how much a probability changes between the sentences that ask the same.

    Example:
        >>> changes_with_wording(0.07), changes_with_wording(0.001)
        ('changes by ± 7 points with the wording', 'hardly changes with the wording')
    """
    points = round(100 * spread)
    return f"changes by ± {points} points with the wording" if points else "hardly changes with the wording"


def known_tasks(identity: Mapping[str, Any]) -> dict[str, Task]:
    """Return the tasks of the vocabulary, and what a run asked in a person's own words, by name."""
    tasks, prompts = {name: load_task(name) for name in task_names()}, prompts_of(identity)
    if prompts:
        prompt_task = ad_hoc_task(prompts)
        tasks[prompt_task.name] = prompt_task
    return tasks


def steps_in(ledger: Ledger, sort_by: Ranking | None = None) -> dict[str, Sequence[str]]:
    """Return the steps of a run's tasks that are scales, by task; a ledger of before knows what it is sorted by."""
    of_choice = {sort_by.task: sort_by.classes} if sort_by is not None and sort_by.is_scale else {}
    return {**of_choice, **(ledger.get(STEPS) or {})}


def prompts_of(identity: Mapping[str, Any]) -> tuple[Prompt, ...]:
    """Return what a run asked in a person's own words."""
    return tuple(Prompt.from_json(values) for values in identity.get("prompts") or ())


def collect_answers(
    ledger: Ledger, card: Any, *, show_paths: bool = False, sort_by: Ranking | None = None
) -> tuple[dict[str, Any], ...]:
    """Pick the answers of a run of a few studies, as plain values.

    Of a task whose classes exclude each other that is the likeliest class, of any other each class that the report
    shows.

    Args:
        ledger: A ledger with all chunks committed.
        card: The model's card.
        show_paths: Whether files are named by their relative path; otherwise by their row in files.parquet.
        sort_by: Order of the studies; None: by their files.

    Returns:
        One mapping for each study in the order of the report: `number`, `study` (its keyed hash), `modality`, `files`,
        `note` and `answers`, which have task, class, probability, `grey`, `caution` (as in scores.parquet), `beside`
        (what the report has beside the probability), `expected_step` (of a task of steps, from 0) and `figure` (what it
        has of the whole task). Empty where there are more than five.
    """
    if not 0 < ledger.counts()["studies"] <= MOST_STUDIES:
        return ()
    tasks, printed = known_tasks(ledger.get("identity") or {}), view_card(card)
    shown = {"show_paths": show_paths, "sort_by": sort_by, "steps": steps_in(ledger, sort_by)}
    return tuple(
        _answers_of(collect_study(ledger, key, number, tasks, printed, **shown))
        for number, key in enumerate(ledger.studies(MOST_STUDIES, sort_by), start=1)
    )


def _answers_of(study: StudyData) -> dict[str, Any]:
    numbered = f"{'file' if study.rows.isdigit() else 'files'} {study.rows}"
    return {
        "number": study.number,
        "study": study.key,
        "modality": study.modality,
        "files": study.files or numbered,
        "note": " ".join(filter(None, (study.note, study.failed_note))) or None,
        "answers": [row for task in study.tasks for row in _answers(task)],
        "maps": [asdict(one) for one in study.maps],
    }


def _answers(task: TaskData) -> Iterator[dict[str, Any]]:
    for one in task.classes[:1] if task.is_choice else task.classes:
        reason = one.unlearned or task.unlearned
        beside = (f"Not learned: {reason}" if reason else "", one.note)
        yield {
            "task": task.name,
            "task_title": task.title,
            "class": one.name,
            "class_title": one.title,
            "probability": one.probability,
            "grey": bool(reason) or one.quiet,
            "caution": one.caution or None,
            "expected_step": task.expected_step,
            "beside": " · ".join(filter(None, beside)) or None,
            "figure": task.note or None,
        }


def answer_lines(study: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a study for a terminal, each with whether it is grey.

    Args:
        study: One study, as `collect_answers` returns it.

    Example:
        >>> row = {"task_title": "View", "class_title": "PA", "probability": 0.8, "grey": False}
        >>> one = {"number": 1, "modality": "X-ray", "files": "file 1", "note": None}
        >>> for line, grey in answer_lines({**one, "answers": [{**row, "beside": None, "figure": "AUROC 0.9"}]}):
        ...     print(line, grey)
        Study 1: X-ray, file 1 False
          View: PA 80 % · AUROC 0.9 False
    """
    note = f" · {study['note']}" if study["note"] else ""
    maps = [
        f"  {one['title']}: {100 * one['share']:.1f} % of the image marked, in {count(one['num_pieces'], 'piece')}"
        for one in study.get("maps", ())
    ]
    yield f"Study {study['number']}: {study['modality']}, {study['files']}{note}", False
    yield from ((line, False) for line in maps)
    before = ""
    for row in study["answers"]:
        figure = row["figure"] if row["task_title"] != before else None  # once for all classes of a task
        before = row["task_title"]
        words = f"{before}: {row['class_title']} {percent(row['probability'])}"
        yield f"  {' · '.join(filter(None, (words, row['beside'], figure)))}", row["grey"]
