"""A study's answers and the images they belong to, for the tests of results in other systems' forms."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medclip.export.source_headers import Headers, read_headers
from medclip.export.study_result import Algorithm, Answer, Decision, Region, StudyResult, coding_of
from medclip.runs.rows import FileRow
from tests.kits.scoring import write_dicom

CREATED = datetime(2026, 11, 28, 7, 30, 15, tzinfo=UTC)
ALGORITHM = Algorithm("tiny", "1.2", "ab" * 32, "0.1.0")
ANSWERS = (
    Answer(
        "chest_xray_findings",
        "pneumonia",
        coding_of("chest_xray_findings:pneumonia", "Pneumonia", {"sct": "233604007", "radlex": "RID5350"}),
        coding_of("chest_xray_findings", "Chest X-ray findings"),
        0.812345,
        None,
    ),
    Answer(
        "ad_hoc",
        "a tube too low",
        coding_of("ad_hoc:a tube too low", "a tube too low"),
        coding_of("ad_hoc", "In your own words"),
        0.25,
        "no tube",
    ),
)

DECISION = Decision(0.42, True, "threshold 0.42 of the model card, chosen by sensitivity=0.9 on site A")


def exam_answers() -> tuple[Answer, ...]:
    """Return a finding of an examination of two images, 1.dcm (right) and 2.dcm (left), and of its parts."""
    finding = coding_of("mammography:mass", "Mass", {"sct": "4147007"})
    question = coding_of("mammography", "Mammography findings")

    def answer(probability: float, *region: Any) -> Answer:
        place = Region(*region) if region else None
        return Answer("mammography", "mass", finding, question, probability, None, place)

    return (
        answer(0.5),
        answer(0.75, "breast", "R", None, None, ("1.dcm",)),
        answer(0.25, "breast", "L", None, None, ("2.dcm",)),
        answer(0.75, "view", "R", "CC", "standard", ("1.dcm",)),
        answer(0.125, "view", "L", "MLO", "subtracted", ("2.dcm",)),
        answer(0.0625, "view", None, None, "standard", ("2.dcm",)),
    )


def file_row(path: str, **values: Any) -> FileRow:
    """Give the row of a scored DICOM file."""
    known = {"format": "dicom", "status": "scored", "sha256": None, "size_bytes": 1, "reason": None, "message": None}
    return FileRow(row=1, path=path, **(known | values))


def drawn_study(folder: Path, num_images: int = 2, **tags: Any) -> tuple[StudyResult, Headers]:
    """Write images and give the answers to them, with the headers read back."""
    paths = [write_dicom(folder / f"{number}.dcm", number, **tags) for number in range(1, num_images + 1)]
    files = tuple(file_row(path.name) for path in paths)
    result = StudyResult("0123456789abcdef", "fedcba9876543210", "xray", ANSWERS, files, 0, None)
    return result, read_headers(files, lambda name: folder / name)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder by name; one that goes meanwhile is left out."""
    files = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a draft that became a file meanwhile
            if path.is_file():
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def in_folder(folder: Path, *forms: str) -> list[str]:
    """Return forms of results as `export` takes them, all written into one folder."""
    return [f"{form}={folder}" for form in forms]
