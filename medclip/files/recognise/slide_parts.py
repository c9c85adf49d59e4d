"""Slides of several files: MIRAX (a .mrxs and a folder of data) and Hamamatsu (a .vms or .vmu that names its images).

A .mrxs is a JPEG by its bytes, an overview of the slide; only the folder beside it makes it a slide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medclip.errors import Problem, Reason
from medclip.files.recognise.sniff import SLIDE_TEXTS, Format

_OVERVIEW = ".mrxs"
_INDEX = "Slidedat.ini"
_LISTS = (".vms", ".vmu")
_LIST_BYTES = 64 * 1024
_TAKEN = frozenset({Format.TIFF, Format.SLIDE, Format.DICOM, Format.EMPTY})
"""What OpenSlide does not take for MIRAX either, whatever its name."""
_DATA = frozenset({".dat", ".ini"})
_IMAGES = frozenset({".jpg", ".jpeg", ".ngr", ".opt"})
_NUMBERED = re.compile(r"(\(\d+,\d+(,\d+)?\)|_macro|_map\d*)$", re.IGNORECASE)
_PART = Problem(Reason.COMPANION, "the file is a part of the slide beside it and is not read on its own.")


@dataclass(frozen=True)
class Placed:
    """A file with its neighbours taken into account."""

    format: Format
    parts: tuple[str, ...] = ()
    """Names, in the same folder, of the files that are read with this one."""
    problem: Problem | None = None


def may_be_part(path: Path) -> bool:
    """Return whether, by its name alone, a file may belong to a slide."""
    return path.suffix.lower() in (_OVERVIEW, *_DATA, *_IMAGES)


def slide_part(path: Path, fmt: Format) -> Placed | None:
    """Recognise the overview of a MIRAX slide, and the data of slides of several files.

    Args:
        path: The file.
        fmt: Format that the file's bytes state.

    Returns:
        None for any other file.
    """
    suffix = path.suffix.lower()
    if suffix == _OVERVIEW and fmt not in _TAKEN:
        return _mirax(path)
    if suffix in _DATA and _belongs_to_mirax(path):
        return Placed(fmt, (), _PART)
    if suffix in _IMAGES and _is_listed(path):
        return Placed(fmt, (), _PART)
    return None


def _mirax(path: Path) -> Placed:
    if (path.with_suffix("") / _INDEX).is_file():
        return Placed(Format.SLIDE)
    message = (
        "the file is the overview of a MIRAX slide, and the folder of the same name with the slide itself is not "
        "beside it; put both into one folder."
    )
    return Placed(Format.SLIDE, (), Problem(Reason.MISSING_FILE, message))


def _belongs_to_mirax(path: Path) -> bool:
    folder = path.parent
    if not (folder / _INDEX).is_file():
        return False
    return any(folder.with_name(folder.name + suffix).is_file() for suffix in (_OVERVIEW, _OVERVIEW.upper()))


def _is_listed(path: Path) -> bool:
    """Return whether a Hamamatsu list of the same stem names a file."""
    stem = _NUMBERED.sub("", path.stem)
    for suffix in _LISTS:
        listing = path.with_name(stem + suffix)
        try:
            if not listing.is_file():  # a pipe would never end
                continue
            with listing.open("rb") as file:
                text = file.read(_LIST_BYTES)
        except OSError:
            continue
        if text.startswith(SLIDE_TEXTS):
            named = {line.partition("=")[2].strip().casefold() for line in text.decode("latin-1").splitlines()}
            if path.name.casefold() in named or path.suffix.lower() == ".opt":
                return True
    return False
