"""A study's answers as plain values, named for readers and coded where a vocabulary has a code: what SR and FHIR hold.

Nothing is computed anew: probabilities are those of scores.parquet and exam_scores.parquet, to six decimals. A study is
called positive or negative of a class only where the pack's card has a threshold for it, and then it alone: a threshold
of studies says nothing of a breast or an image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError
from medclip.models.packs.card_sources import caution_of
from medclip.models.packs.words import card_cautions, prompt_cautions
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.score_run import UNLEARNED, Unlearned, not_learned
from medclip.runs.rows import ChunkResult, ExamRow, FileRow, MapRow, ScoreRow, note_of
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.own_words import AD_HOC, Prompt
from medclip.wording import capital

DECIMALS = 6
"""Of a probability: float32 has no more."""
OWN_SCHEME = "99MEDCLIP"
"""Designator of the codes that medclip makes; 99 says that a scheme is private (PS3.16, 8.2)."""
_MOST_LETTERS = 64
"""Of a code's meaning in DICOM (LO)."""
_SCHEMES: Mapping[str, str] = {"sct": "SCT", "radlex": "RADLEX"}
"""Schemes of the vocabulary by their designators in DICOM, those that are preferred first."""


@dataclass(frozen=True)
class Coding:
    """A coded concept."""

    value: str
    scheme: str
    """Its designator in DICOM (PS3.16, 8.1): SCT, RADLEX, or `OWN_SCHEME`."""
    meaning: str
    """For readers; 64 letters at most."""


@dataclass(frozen=True)
class Region:
    """What of a mammography examination an answer is of."""

    level: str
    """breast or view."""
    side: str | None
    """R or L; None for an image whose side nothing states."""
    position: str | None
    """Of an image: CC, MLO or another; None where nothing states it."""
    view_kind: str | None
    """Of an image: as `ExamRow.view_kind`."""
    files: tuple[str, ...]
    """Those that answer, by `FileRow.path`."""

    @property
    def in_words(self) -> str:
        """What it is, such as "right breast" or "right breast, CC view"."""
        side = {"R": "right breast", "L": "left breast"}.get(self.side or "", "side not stated")
        if self.level == "breast":
            return side
        kind = "" if self.view_kind in (None, "standard") else f", {str(self.view_kind).replace('_', ' ')}"
        return f"{side}, {self.position or 'unnamed'} view{kind}"

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it apart from others of its examination."""
        return (self.level, self.side or "", *(self.files if self.level == "view" else ()))


@dataclass(frozen=True)
class Decision:
    """What a threshold of the pack's card makes of a probability."""

    threshold: float
    is_positive: bool
    source: str
    """Where the threshold comes from, in words."""


@dataclass(frozen=True)
class Answer:
    """How probable one class of one task is."""

    task: str
    name: str
    finding: Coding
    """The class."""
    question: Coding
    """The task."""
    probability: float
    against: str | None
    """What a prompt was compared with."""
    region: Region | None = None
    """None for the whole study."""
    decision: Decision | None = None
    """None where the card has no threshold for it."""
    caution: str = ""
    """What the card says must stand beside it, such as "within its source only (nih_cxr)"; empty where nothing must."""
    unlearned: str = ""
    """Why it is worth little, as in `medclip.runs.outputs.score_run.Unlearned`; empty where the model was taught it."""


@dataclass(frozen=True)
class Algorithm:
    """What answered: the pack."""

    name: str
    version: str
    digest: str
    """sha256 over the pack."""
    medclip: str
    """Version of medclip."""


@dataclass(frozen=True, eq=False)
class DrawnMap:
    """A heat map of one of a study's images, as a person looks at it."""

    pixels: NDArray[np.uint8]
    """[H, W, 3]."""
    finding: str
    """What is drawn, with its probability, such as "pneumonia 81 %"."""
    image: str
    """Which image of several, such as "slice 17"; empty for the only one."""
    files: tuple[str, ...]
    """Those that the image was read from, by `FileRow.path`."""
    caution: str = ""
    """Why the answer is grey, as `ScoreRow.caution`; empty for one like any other."""

    @property
    def described(self) -> str:
        """The finding, why its answer is grey, and which image it is."""
        return ", ".join(part for part in (self.finding, self.caution, self.image) if part)


@dataclass(frozen=True)
class MarkedImage:
    """What was marked in one image."""

    file: str
    """As `FileRow.path`."""
    structure: Coding
    png: bytes
    """Mask of the file's own rows and columns."""


@dataclass(frozen=True)
class StudyResult:
    """What is known of one study."""

    key: str
    """Keyed hash of the study, as in the tables."""
    patient: str | None
    """The same of the patient."""
    modality: str
    answers: tuple[Answer, ...]
    files: tuple[FileRow, ...]
    """Those that were scored, in the order of their names."""
    num_failed: int
    """Files of the study that could not be read."""
    note: str | None
    """As `ScoreRow.note`."""
    drawn: DrawnMap | None = None
    """None where no heat map was asked for, or there is none."""
    masks: tuple[MarkedImage, ...] = ()
    """Of its images, where the pack answers with maps."""


def algorithm_of(ledger: Ledger) -> Algorithm:
    """Return what answered in a run."""
    identity = ledger.get("identity")
    name, version, digest = str(identity["pack"]).rsplit(" ", 2)
    return Algorithm(name, version, digest, str(identity["version"]))


@dataclass(frozen=True)
class StudyRows:
    """The rows of one study; files are numbered alike in all of them."""

    scores: Sequence[ScoreRow]
    exams: Sequence[ExamRow]
    files: Sequence[FileRow]
    """Those that were scored, in the order of their names."""
    maps: Sequence[tuple[MapRow, bytes]] = ()
    """With the PNG of each."""


def read_result(ledger: Ledger, key: str, card: Any) -> StudyResult:
    """Return the answers of one study of a complete ledger, its files numbered."""
    unlearned = [Unlearned.from_json(answers) for answers in ledger.get(UNLEARNED) or ()]
    return result_of(rows_of(ledger, key), card, unlearned, cautions_of_run(ledger, card))


def rows_of(ledger: Ledger, key: str) -> StudyRows:
    """Return the rows of one study of a complete ledger."""
    maps = [(row, png) for row, png, _ in ledger.map_images(key)]
    return StudyRows(ledger.scores_of(key), ledger.exam_of(key), ledger.files_of(key), maps)


def cautions_of_run(ledger: Ledger, card: Any) -> dict[str, str]:
    """Return what must stand beside the answers to the prompts of a run, by their names; only where something must."""
    prompts = map(Prompt.from_json, (ledger.get("identity") or {}).get("prompts") or ())
    return prompt_cautions(prompts, card_cautions(card))


def committed_rows(result: ChunkResult) -> Iterator[StudyRows]:
    """Yield the rows of the studies of a chunk as `rows_of` returns them once the run is complete, but for numbers."""
    scores: dict[str, list[ScoreRow]] = {}
    exams: dict[str, list[ExamRow]] = {}
    files: dict[str | None, list[FileRow]] = {}
    for row in result.scores:
        scores.setdefault(row.study, []).append(row)
    for exam in result.exams:
        exams.setdefault(exam.study, []).append(exam)
    for file in sorted(result.files, key=lambda file: file.path.encode()):
        if file.status == "scored":
            files.setdefault(file.study, []).append(file)
    images = {(one.row, one.task, one.class_): one.png for one in result.map_images}
    maps: dict[str, list[tuple[MapRow, bytes]]] = {}
    for marked in result.maps:
        maps.setdefault(marked.study, []).append((marked, images[marked.row, marked.task, marked.class_]))
    for key, of_study in scores.items():
        note = note_of(file.headers for file in files.get(key, ()))
        yield StudyRows(
            [replace(row, note=note) for row in of_study], exams.get(key, ()), files.get(key, ()), maps.get(key, ())
        )


def result_of(
    rows: StudyRows, card: Any, unlearned: Sequence[Unlearned] = (), cautions: Mapping[str, str] = MappingProxyType({})
) -> StudyResult:
    """Return the answers of one study, from its rows and the cautions that `cautions_of_run` returns.

    `unlearned` are answers that are worth little, of studies of any modality.
    """
    scores, files = rows.scores, rows.files
    if not scores:  # of a pack that answers with maps alone
        marked = rows.maps[0][0]
        masks = _masks(rows, card)
        return StudyResult(marked.study, marked.patient, marked.modality, (), tuple(files), 0, None, masks=masks)
    first = scores[0]
    of_study = [
        _with_reason(_answer(row, card, row.against, cautions, decision=_decision(row, card)), not_learned(row.caution))
        for row in scores
    ]
    against = {(row.task, row.class_): row.against for row in scores}
    of_regions = _of_regions(rows.exams, files, against, card, cautions)
    return StudyResult(
        first.study,
        first.patient,
        first.modality,
        tuple(
            one if one.unlearned else _with_reason(one, _reason(one, first.modality, unlearned))
            for one in (*of_study, *of_regions)
        ),
        tuple(files),
        first.num_failed,
        first.note,
        masks=_masks(rows, card),
    )


def _masks(rows: StudyRows, card: Any) -> tuple[MarkedImage, ...]:
    names = {file.row: file.path for file in rows.files}
    marked = []
    for row, png in rows.maps:
        _, title, codes = _words(row.task, row.class_, card)
        structure = coding_of(f"{row.task}:{row.class_}", title or capital(row.class_.replace("_", " ")), codes)
        marked.append(MarkedImage(names[row.row], structure, png))
    return tuple(marked)


def _with_reason(answer: Answer, reason: str) -> Answer:
    """Add why an answer is worth little; of a prompt that nobody measured there no figure's caution says anything."""
    caution = "" if reason and answer.task == AD_HOC else answer.caution
    return replace(answer, unlearned=reason, caution=caution)


def _reason(answer: Answer, modality: str, unlearned: Sequence[Unlearned]) -> str:
    about = (answers.reason for answers in unlearned if answers.is_about(modality, answer.task, answer.name))
    return next(about, "")


def _of_regions(
    rows: Sequence[ExamRow],
    files: Sequence[FileRow],
    against: Mapping[tuple[str, str], str | None],
    card: Any,
    cautions: Mapping[str, str],
) -> Iterator[Answer]:
    """Yield the answers of an examination's breasts and of the images that count in its answer."""
    named = {file.row: file.path for file in files}
    views = [row for row in rows if row.level == "view" and row.attention_exam is not None and row.row in named]
    for row in (*(row for row in rows if row.level == "breast"), *views):
        of_answer = [v for v in views if (v.task, v.class_) == (row.task, row.class_)]
        of_it = [row] if row.level == "view" else [v for v in of_answer if v.side == row.side]
        paths = tuple(named[v.row] for v in of_it if v.row is not None)
        region = Region(row.level, row.side, row.position, row.view_kind, paths)
        yield _answer(row, card, against.get((row.task, row.class_)), cautions, region=region)


def _answer(
    row: ScoreRow | ExamRow,
    card: Any,
    against: str | None,
    cautions: Mapping[str, str],
    *,
    region: Region | None = None,
    decision: Decision | None = None,
) -> Answer:
    task_title, titles, codes = _words(row.task, row.class_, card)
    entry = card.tasks.get(row.task)
    caution = "" if entry is None else caution_of(entry.sources, row.class_)
    title = titles or capital(row.class_.replace("_", " "))
    return Answer(
        row.task,
        row.class_,
        coding_of(f"{row.task}:{row.class_}", title, codes),
        coding_of(row.task, task_title),
        round(row.probability, DECIMALS),
        against,
        region,
        decision,
        cautions.get(row.class_, "") if row.task == AD_HOC else caution,
    )


def _decision(row: ScoreRow, card: Any) -> Decision | None:
    """Return what the card's threshold makes of a score; None without one: nothing is decided by a number of ours."""
    entry = card.tasks.get(row.task)
    threshold = None if entry is None else entry.thresholds.get(row.class_)
    if threshold is None:
        return None
    return Decision(threshold.value, row.probability >= threshold.value, threshold.in_words())


def _words(task: str, name: str, card: Any) -> tuple[str, str, Mapping[str, str]]:
    """Return the printed names of a task and of a class of it, and the class's codes."""
    if task == AD_HOC:
        return "In your own words", name, {}
    entry = card.tasks.get(task)
    adapted = card.adapted is not None and card.adapted.task == task
    printed = (entry.model_extra or {}) if adapted and entry is not None else {}
    try:
        vocabulary_task = load_task(task)
        class_ = next((one for one in vocabulary_task.classes if one.name == name), None)
    except MedclipError:  # a task of a person's own, whose file is elsewhere by now
        vocabulary_task = class_ = None
    task_title = str(
        printed.get("title") or (vocabulary_task.title if vocabulary_task else capital(task.replace("_", " ")))
    )
    title = str((printed.get("class_titles") or {}).get(name) or (class_.title if class_ else ""))
    return task_title, title, class_.codes if class_ else {}


def coding_of(concept: str, meaning: str, codes: Mapping[str, str] | None = None) -> Coding:
    """Return the code of a concept: a vocabulary's where there is one, otherwise one of our own.

    Codes of our own are 16 hex characters of a hash, so that they fit every system and one concept has one code
    wherever it is written.

    Args:
        concept: Text that tells the concept apart, such as TASK:CLASS.
        meaning: Meaning of the concept, for readers.
        codes: Codes by the names of vocabularies, as in `TaskClass.codes`.

    Example:
        >>> coding_of("chest_xray_findings:pneumonia", "Pneumonia", {"sct": "233604007"}).value
        '233604007'
        >>> coding_of("t:a", "A").scheme
        '99MEDCLIP'
    """
    text = " ".join(meaning.split())
    text = text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"
    for name, scheme in _SCHEMES.items():
        if codes and name in codes:
            return Coding(codes[name], scheme, text)
    return Coding(hashlib.sha256(concept.encode()).hexdigest()[:16], OWN_SCHEME, text)
