"""The rows of a run, as values: those of the result tables, and what its ledger keeps of files and chunks besides.

Field order of a row is column order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from medclip.errors import Problem
from medclip.files.readers.job_queue import NO_EFFORT, Effort
from medclip.sample import Stamp


@dataclass(frozen=True)
class FileRow:
    """One input path: what it was, how it ended, and everything that was done to its pixels."""

    row: int
    """Number of the file in this run by name, from 1; the report names files by it. In the ledger: its own number,
    as those of `unit` and `copy_of`."""
    path: str
    """Relative to the folder that was named. File names are here and in `ScoreRow.files`, and in no other table."""
    sha256: str | None
    size_bytes: int
    format: str | None
    status: str
    reason: str | None
    message: str | None
    study: str | None = None
    modality: str | None = None
    modality_source: str | None = None
    modality_probability: float | None = None
    """Only where the modality was inferred."""
    adapter: str | None = None
    preprocessing: str | None = None
    decoder: str | None = None
    laterality: str | None = None
    view: str | None = None
    grouping: str | None = None
    steps: str | None = None
    """JSON list of [name, detail]."""
    kind: str | None = None
    """What it is together with the files it is read with: image, volume, cine, signal, slide."""
    unit: int | None = None
    """Row of the first file that it is read with: equal for the slices of one series."""
    headers: str | None = None
    """JSON object of the allow-listed header values of what was read: scanner, sex, age and more; None where a file
    has no medical header."""
    copy_of: int | None = None
    """Row of the file that counts in the place of this one, which holds the same image of the same study."""
    home_distance: float | None = None
    """How far its image lies from those that the pack's figures were measured on, of which one in twenty lies beyond 1
    (`medclip.models.prototypes.home_images`); None where the pack does not know, and where files are read together."""


@dataclass(frozen=True)
class ScoreRow:
    """One study, task and class."""

    study: str
    patient: str | None
    modality: str
    task: str
    class_: str
    """Column `class`."""
    kind: str
    probability: float
    logit: float
    num_images: int
    model: str
    model_version: str
    preprocessing: str
    num_failed: int = 0
    """Files of the same study that failed, and so did not go into the score."""
    against: str | None = None
    """What a prompt was compared with; None for a task."""
    logit_spread: float | None = None
    """Standard deviation of the logit over the single sentences that stand for the class; None where it is said in one
    way only, or not in words (an adapted head)."""
    probability_spread: float | None = None
    """The same of the probability."""
    caution: str | None = None
    """Why the answer is grey in the report: "Not learned: ...", "within its source only (nih_cxr)", or that nobody has
    measured it; None for an answer like any other."""
    files: str = "[]"
    """JSON list of the paths that were scored, the first 16 by name."""
    num_files: int = 0
    """How many files were scored: more than images where files are read together, fewer where one holds many."""
    note: str | None = None
    """What is wrong with its ECG records or stands out, in words of a closed list, parted by blanks: arms_swapped,
    lead_off:V3,V4, short_record, ...; None where nothing is."""


def note_of(headers: Iterable[str | None]) -> str | None:
    """Return the note of a study by the headers of its files, as `FileRow.headers` has them.

    Example:
        >>> note_of(['{"ecg_flags": ["lead_off:V3", "rate_fast"]}', None, '{"ecg_flags": ["rate_fast"]}'])
        'lead_off:V3 rate_fast'
    """
    words: dict[str, None] = {}
    for text in headers:
        if text is not None and ECG_FLAGS in text:  # few files are ECGs, and there may be millions
            words |= dict.fromkeys(json.loads(text).get(ECG_FLAGS) or ())
    return " ".join(words) or None


ECG_FLAGS = "ecg_flags"
"""Of the headers of an ECG."""


@dataclass(frozen=True)
class Ranking:
    """What studies are sorted by, the highest first: the probability of a class, or the expected step of a scale.

    The expected step is Σ k · p(k) over the steps, divided by Σ p(k): from 0, the lowest, to K − 1.
    """

    task: str
    classes: tuple[str, ...]
    """The class, or the steps, the lowest first."""

    @property
    def is_scale(self) -> bool:
        """Whether it is the expected step."""
        return len(self.classes) > 1

    @property
    def highest(self) -> int:
        """Number of the highest step, and the highest probability."""
        return max(1, len(self.classes) - 1)

    def value_of(self, probability_of: Mapping[str, float]) -> float | None:
        """Compute it of a study's probabilities by class; None for one that was not asked.

        Example:
            >>> Ranking("grade", ("mild", "severe")).value_of({"mild": 0.25, "severe": 0.75})
            0.75
        """
        values = [probability_of.get(name, 0.0) for name in self.classes]
        if not any(name in probability_of for name in self.classes) or not sum(values):
            return None
        return sum(k * p for k, p in enumerate(values)) / sum(values) if self.is_scale else values[0]


@dataclass(frozen=True)
class ExamRow:
    """One class of a task, asked of a mammography examination, of one of its breasts, or of one of its images."""

    study: str
    patient: str | None
    level: str
    """exam, breast or view."""
    side: str | None
    """R or L; None for the examination, and for an image whose side nothing states."""
    position: str | None
    """Of an image: CC, MLO or another; None where nothing states it."""
    view_kind: str | None
    """Of an image: standard, low_energy, subtracted or synthetic."""
    row: int | None
    """Of an image: number of its file, as `FileRow.row`."""
    file: str | None
    """Of an image: its path, as `FileRow.path`, which the ledger has."""
    task: str
    class_: str
    """Column `class`."""
    kind: str
    probability: float
    logit: float
    attention_breast: float | None
    """Of an image: its share in the answer of its breast; None where the image was set aside."""
    attention_exam: float | None
    """The same of the examination."""
    fusion: str
    """How views become one answer: the pack's fusion of their vectors, or `mean_of_logits`."""
    num_views: int
    """Images that went into the probability."""
    missing: str
    """JSON list of the views that are not there: of the examination, or of the breast."""
    note: str | None
    """What is to be known of it in words of a closed list, parted by blanks: one_view, two_cc, no_position, ..."""
    model: str
    model_version: str
    caution: str | None = None
    """As `ScoreRow.caution`."""
    pooling: str | None = None
    """Of the examination: how its breasts' answers become its own, a row of `medclip.scoring.pooling.POOLINGS`."""
    probability_by_mean: float | None = None
    """Of the examination: its probability by the mean, whatever the pooling."""


@dataclass(frozen=True)
class MapRow:
    """One structure in one image: how much of it the model marks. Which places, is in the file `map`."""

    row: int
    """Number of the image's file, as `FileRow.row`."""
    file: str
    """Its path, as `FileRow.path`, which the ledger has."""
    study: str
    patient: str | None
    modality: str
    task: str
    class_: str
    """Column `class`: the structure."""
    map: str
    """PNG of the file's own rows and columns, white where the structure is, relative to the folder of results."""
    area_px: int
    """Pixels of the file that are marked."""
    share: float
    """Of all pixels of the file."""
    area_mm2: float | None
    """None where the file states no spacing."""
    num_pieces: int
    """Marked pieces that do not touch each other."""
    unseen: float
    """Share of the file's pixels that the model was not shown, in which nothing can be marked."""
    model: str
    model_version: str


MAPS = "maps"
"""Folder of the maps of a run."""


def map_name(row: int, task: str, class_: str) -> str:
    """Return where a map lies in the folder of results; numbers and names of tasks alone, nothing of the file's name.

    Example:
        >>> map_name(12, "polyp", "polyp"), map_name(12, "chest", "left_lung")
        ('maps/000012-polyp.png', 'maps/000012-chest-left_lung.png')
    """
    structure = task if task == class_ else f"{task}-{class_}"
    return f"{MAPS}/{row:06}-{structure}.png"


@dataclass(frozen=True)
class MapImage:
    """What the ledger keeps of a map beside its row."""

    row: int
    task: str
    class_: str
    png: bytes
    """As `MapRow.map`."""
    outline: bytes
    """PNG with transparent ground: the outline over the report's small image."""


@dataclass(frozen=True)
class UnitRow:
    """What the ledger of `medclip embed` keeps of a unit beside its file's row."""

    row: int
    grouped: str
    """Study before files of two modalities split it."""
    patient: str | None
    sha256: str
    body_part: str
    burned_in: bool
    stranger: bool
    instead_of: int | None
    """File that it is a copy of, where that one could not be read."""
    features: bytes
    """float32 [V, D], little-endian; empty for a unit that failed after its modality was known."""
    look: bytes = b""
    """What its image is known again by."""


@dataclass(frozen=True)
class Thumbnail:
    """What the ledger keeps beside a file's row and the tables do not show."""

    row: int
    thumbnail: bytes
    """Empty where it is withheld."""
    burned_in: bool


LISTED, LOOKED_AT, DONE, DONE_FOR_GOOD = range(4)
"""How far a file is."""


@dataclass(frozen=True)
class KnownFile:
    """What the ledger knows of one path."""

    id: int
    name: str
    stamp: Stamp
    window: int
    cut: bool
    """Its folder goes on in other windows."""
    state: int
    sha256: str | None
    problem: Problem | None
    """Why it could not be opened, or what became of the process that looked at it."""


@dataclass(frozen=True)
class Look:
    """What was learnt of a file when it was looked at."""

    id: int
    stamp: Stamp
    sha256: str
    format: str | None
    instance: str | None = None
    """Hash of the SOP Instance UID; None where it has none."""
    problem: Problem | None = None
    """Only where its process died or took too long: it is not looked at a second time."""
    effort: Effort = NO_EFFORT


NAMED_FILES = 16
"""Files of a study that its scores name; the table of files has them all."""


@dataclass(frozen=True)
class ChunkResult:
    """Everything that one chunk adds to a run. Rows are numbered by the ledger's ids."""

    files: tuple[FileRow, ...]
    scores: tuple[ScoreRow, ...]
    thumbnails: tuple[Thumbnail, ...]
    state: int = DONE
    units: tuple[UnitRow, ...] = ()
    """Vectors, in a run that keeps them."""
    exams: tuple[ExamRow, ...] = ()
    """Of the mammography examinations among the studies, in a run that asks them by their views."""
    efforts: tuple[tuple[int, Effort], ...] = ()
    """What reading each file took, by its number."""
    maps: tuple[MapRow, ...] = ()
    """Of images, in a run that asks where something is."""
    map_images: tuple[MapImage, ...] = ()
