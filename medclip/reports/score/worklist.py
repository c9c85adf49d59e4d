"""The list of a run's studies that a browser sorts and searches: a small index in the page, images in files beside it.

The page holds what is needed to sort and to find, about 100 bytes a study, and shows fifty studies at a time, so that a
hundred thousand are as quick to use as a hundred. Images are sheets of a hundred each, ten by ten: a file of its own
for each image costs 3 ms of waiting for the disk, 300 s for a hundred thousand, and a sheet costs as much once. The
browser reads the sheets of those that it shows, fifty at most.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path

from medclip.errors import printable
from medclip.files.output import new_folder
from medclip.reports.model_card import PrintedCard, modality_title, task_title
from medclip.reports.score.page import ReportData
from medclip.reports.score.study import class_title, class_titles, ranges
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import REPORT_IMAGES
from medclip.runs.rows import NAMED_FILES, Ranking
from medclip.text.vocabulary.task_kinds import one_answer_kinds
from medclip.wording import list_of

MAX_STUDIES = 100_000
"""Studies beyond them are in the table alone."""
STUDIES_SHOWN = 50
"""Rows at a time; so many are in the page as they are, for browsers whose scripts are off."""
IMAGES = REPORT_IMAGES
CELL_PX = 80
"""Side of an image's cell on its sheet: half of a kept thumbnail, to which JPEG is read in a quarter of the time."""
CELLS = 10
"""Cells in a row of a sheet, and rows."""
_EXPECTED = ""
"""Stands for the expected step among the classes of a task; no class has no name."""
_LEAST_PERMILLE = 10
"""Answers below one in a hundred are left out of the index, and sorted as none."""


@dataclass(frozen=True)
class ListedStudy:
    """One line of the list."""

    key: str
    modality: str
    rows: str
    """Numbers of its files, such as "3–5, 9"."""
    paths: str
    """Empty unless they are shown."""
    num_failed: int
    image_row: int
    """File whose small image stands for it, 0 for none."""
    withheld: bool
    """The image is not shown: its header says that text is burned in."""
    answers: tuple[int, ...]
    """Class, permille, class, permille, ...; those of at least one in a hundred."""

    @property
    def named(self) -> str:
        """Its files by their numbers, in words."""
        return f"{'file' if self.rows.isdigit() else 'files'} {self.rows}"


@dataclass(frozen=True)
class Worklist:
    """All lines, in the order of the report."""

    studies: tuple[ListedStudy, ...]
    classes: tuple[tuple[str, str], ...]
    """Printed names of class and task; an expected step has a number of its own, as if it were a class."""
    chosen: int
    """The class whose probability is shown at first."""
    highest: Mapping[int, int] = field(default_factory=dict)
    """By the numbers of expected steps: the highest step, of which their answers are permille."""

    def index(self, report: ReportData) -> str:
        """Write what the page's script works with, as JSON that may stand in a page."""
        modalities = sorted({study.modality for study in self.studies})
        values = {
            "classes": self.classes,
            "chosen": self.chosen,
            "highest": self.highest,
            "modalities": modalities,
            "perPage": report.studies_a_page,
            "numPaged": len(report.keys),
            "shown": STUDIES_SHOWN,
            "images": {"sheet": f"{IMAGES}/#.jpg", "cell": CELL_PX, "across": CELLS},
            "studies": [
                [s.key, modalities.index(s.modality), s.rows, _image_code(s), s.num_failed, s.paths, s.answers]
                for s in self.studies
            ],
        }
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")

    def percent_of(self, study: ListedStudy) -> str:
        """Write a study's probability of the chosen class, as the script does."""
        permille = dict(zip(study.answers[::2], study.answers[1::2], strict=True)).get(self.chosen)
        if permille is None:
            return "–"
        if self.chosen in self.highest:
            return f"{permille * self.highest[self.chosen] / 1000:.1f}"
        return f"{(permille + 5) // 10} %"


def _image_code(study: ListedStudy) -> int:
    return 1 if study.image_row else 2 if study.withheld else 0


def collect_worklist(
    ledger: Ledger, card: PrintedCard, report: ReportData, *, max_studies: int = MAX_STUDIES
) -> Worklist:
    """Pick the lines of the list from a complete ledger; tables are gone through once."""
    keys = ledger.studies(max_studies, report.sort_by)
    rows: dict[str, list[int]] = {key: [] for key in keys}
    paths: dict[str, list[str]] = {key: [] for key in keys}
    for file in ledger.files():
        if file.status == "scored" and file.study in rows:
            rows[file.study].append(file.row)
            if report.show_paths:
                paths[file.study].append(printable(file.path))
    numbers: dict[tuple[str, str], int] = {}
    answers: dict[str, list[int]] = {key: [] for key in keys}
    scales = {task: Ranking(task, tuple(steps)) for task, steps in report.steps.items()}
    on_scale: dict[tuple[str, str], dict[str, float]] = {}
    modality, failed, kinds = dict.fromkeys(keys, ""), dict.fromkeys(keys, 0), {}
    for score in ledger.scores():
        if score.study in answers:
            number = numbers.setdefault((score.task, score.class_), len(numbers))
            kinds.setdefault(number, score.kind)
            modality[score.study], failed[score.study] = modality_title(score.modality), score.num_failed
            if (permille := round(1000 * score.probability)) >= _LEAST_PERMILLE:
                answers[score.study] += [number, permille]
            if score.task in scales:
                on_scale.setdefault((score.task, score.study), {})[score.class_] = score.probability
    highest: dict[int, int] = {}
    for (task, key), probability_of in on_scale.items():
        number = numbers.setdefault((task, _EXPECTED), len(numbers))
        highest[number] = scales[task].highest
        value = scales[task].value_of(probability_of)
        answers[key] += [] if value is None else [number, round(1000 * value / highest[number])]
    findings = (number for number, kind in kinds.items() if kind not in one_answer_kinds())
    by = report.sort_by
    if by is None:
        chosen = next(findings, next(iter(highest), 0))
    else:
        chosen = numbers.get((by.task, _EXPECTED if by.is_scale else by.classes[0]), 0)
    studies = tuple(
        ListedStudy(
            *(key, modality[key], ranges(rows[key]), list_of(paths[key], most=NAMED_FILES), failed[key]),
            *_image_of(ledger, rows[key]),
            tuple(answers[key]),
        )
        for key in keys
    )
    return Worklist(studies, tuple(_titles(report, card, *pair) for pair in numbers), chosen, highest)


def _titles(report: ReportData, card: PrintedCard, task: str, name: str) -> tuple[str, str]:
    title, titles = class_titles(report.tasks.get(task), task, card)
    if name == _EXPECTED:
        return "Expected step", title or task_title(task)
    grey = report.grey((task, name))
    return f"{class_title(titles, name)}{f', {grey}' if grey else ''}", title or task_title(task)


def _image_of(ledger: Ledger, rows: list[int]) -> tuple[int, bool]:
    """Return the file whose small image stands for a study, 0 for none, and whether it is withheld."""
    for row in rows:
        if (kept := ledger.thumbnail(row)) is not None:
            return (row, False) if kept.thumbnail else (0, True)
    return 0, False


@dataclass(frozen=True)
class Cell:
    """Where the image of a study lies."""

    sheet: str
    """File beside the page."""
    left: int
    top: int
    """In px."""


def cell_of(number: int) -> Cell:
    """Return where the image of a study lies.

    Args:
        number: Place of the study in the list, from 1.

    Example:
        >>> cell_of(1), cell_of(112)
        (Cell(sheet='report-images/0.jpg', left=0, top=0), Cell(sheet='report-images/1.jpg', left=80, top=80))
    """
    sheet, place = divmod(number - 1, CELLS**2)
    return Cell(f"{IMAGES}/{sheet}.jpg", place % CELLS * CELL_PX, place // CELLS * CELL_PX)


def write_images(ledger: Ledger, worklist: Worklist, folder: Path) -> None:
    """Write the images of the list, all or none; those of an earlier list go."""
    numbered = [(n, s.image_row) for n, s in enumerate(worklist.studies, start=1) if s.image_row]
    if not numbered:
        remove_images(folder)
        return
    with new_folder(folder / IMAGES) as draft:
        for name, of_sheet in groupby(numbered, key=lambda one: cell_of(one[0]).sheet):
            (draft / Path(name).name).write_bytes(_sheet(ledger, of_sheet))


def _sheet(ledger: Ledger, numbered: Iterable[tuple[int, int]]) -> bytes:
    """Draw a hundred images on one, each in the middle of its cell, and return its JPEG; grey where all are."""
    from PIL import Image

    sheet = Image.new("RGB", (CELLS * CELL_PX, CELLS * CELL_PX))
    is_grey = True
    for number, row in numbered:
        kept, cell = ledger.thumbnail(row), cell_of(number)
        assert kept is not None
        with Image.open(BytesIO(kept.thumbnail)) as image:
            is_grey &= image.mode == "L"
            image.draft(None, (CELL_PX, CELL_PX))
            image.thumbnail((CELL_PX, CELL_PX), Image.Resampling.BOX)
            sheet.paste(image, (cell.left + (CELL_PX - image.width) // 2, cell.top + (CELL_PX - image.height) // 2))
    buffer = BytesIO()
    (sheet.convert("L") if is_grey else sheet).save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def remove_images(folder: Path) -> None:
    """Remove the images of an earlier list, if there are any."""
    shutil.rmtree(folder / IMAGES, ignore_errors=True)
