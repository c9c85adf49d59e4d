"""One error type and one closed list of reasons, shared by exceptions, ledgers and result tables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

from medclip.wording import capital


class Status(StrEnum):
    """How an input file ended. Every file has exactly one."""

    SCORED = "scored"
    SKIPPED = "skipped"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a file was not scored, or why a call was refused. The list is closed: tables may rely on it."""

    # Skipped: nothing is wrong with the file, it is just not something to score here.
    NOT_SUPPORTED_YET = "not_supported_yet"
    UNKNOWN_FORMAT = "unknown_format"
    NOT_AN_IMAGE = "not_an_image"
    NO_PIXELS = "no_pixels"
    MODALITY_UNKNOWN = "modality_unknown"
    MODALITY_UNCERTAIN = "modality_uncertain"
    NO_TASK = "no_task"
    OTHER_INPUT = "other_input"
    LINK_LOOP = "link_loop"
    LINK_OUTSIDE = "link_outside"
    NOT_A_FILE = "not_a_file"
    TOO_SMALL = "too_small"
    COMPANION = "companion"
    NO_TISSUE = "no_tissue"
    DUPLICATE = "duplicate"
    OTHER_ORIENTATION = "other_orientation"
    OTHER_UNIT = "other_unit"
    SINGLE_SLICE = "single_slice"
    FROZEN_LOOP = "frozen_loop"
    OTHER_VIEW = "other_view"
    VIEW_UNKNOWN = "view_unknown"

    # Failed: the file should have been readable, and was not.
    EMPTY_FILE = "empty_file"
    PERMISSION_DENIED = "permission_denied"
    MISSING_FILE = "missing_file"
    READ_ERROR = "read_error"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    CONSTANT_IMAGE = "constant_image"
    TOO_LARGE = "too_large"
    MISSING_CODEC = "missing_codec"
    DECODER_CRASHED = "decoder_crashed"
    TIMEOUT = "timeout"
    NON_FINITE = "non_finite"
    EMPTY_CAPTION = "empty_caption"
    UNEVEN_SLICES = "uneven_slices"
    NO_SCALE = "no_scale"
    CHANGED = "changed"

    # The call itself could not be carried out.
    WRONG_USE = "wrong_use"
    NOTHING_TO_DO = "nothing_to_do"
    OUTPUT_IN_USE = "output_in_use"
    BUSY = "busy"
    DISK_FULL = "disk_full"
    OUT_OF_MEMORY = "out_of_memory"
    WRITE_ERROR = "write_error"
    UNREACHABLE = "unreachable"
    TABLE_INVALID = "table_invalid"
    PATIENT_OVERLAP = "patient_overlap"
    RECIPE_INVALID = "recipe_invalid"
    TOO_MANY_BAD = "too_many_bad"
    PACK_NOT_FOUND = "pack_not_found"
    PACK_INVALID = "pack_invalid"
    PREPROCESSING_MISMATCH = "preprocessing_mismatch"
    UNSAFE_WEIGHTS = "unsafe_weights"

    @property
    def status(self) -> Status:
        """The row status this reason leads to."""
        return Status.SKIPPED if self in _SKIPPED else Status.FAILED


_SKIPPED = frozenset(
    {
        Reason.NOT_SUPPORTED_YET,
        Reason.UNKNOWN_FORMAT,
        Reason.NOT_AN_IMAGE,
        Reason.NO_PIXELS,
        Reason.MODALITY_UNKNOWN,
        Reason.MODALITY_UNCERTAIN,
        Reason.NO_TASK,
        Reason.OTHER_INPUT,
        Reason.LINK_LOOP,
        Reason.LINK_OUTSIDE,
        Reason.NOT_A_FILE,
        Reason.TOO_SMALL,
        Reason.COMPANION,
        Reason.NO_TISSUE,
        Reason.DUPLICATE,
        Reason.OTHER_ORIENTATION,
        Reason.OTHER_UNIT,
        Reason.SINGLE_SLICE,
        Reason.FROZEN_LOOP,
        Reason.OTHER_VIEW,
        Reason.VIEW_UNKNOWN,
    }
)


@dataclass(frozen=True)
class Problem:
    """What went wrong with one input, as a value that can be stored in a row."""

    reason: Reason
    sentence: str
    """What was found, what was expected, what to do, as it stands behind a file's name: it begins small and ends with a
    full stop. Carries no path and no patient identifier."""

    @property
    def message(self) -> str:
        """The sentence as it stands alone, in a row or a list."""
        return capital(self.sentence)

    @property
    def status(self) -> Status:
        """The row status this problem leads to."""
        return self.reason.status

    def error(self, where: object) -> MedclipError:
        """Return the refusal of a file or folder with this problem."""
        return MedclipError(self.reason, self.sentence, where=where)


class MedclipError(Exception):
    """Raised for everything medclip refuses or cannot read.

    Args:
        reason: The closed reason code.
        message: Sentence of what was found and what was expected, as it stands behind `where`: it begins small (a name
            or an acronym apart) and ends with a full stop. No patient identifier, no path.
        where: The file, folder or key concerned; named first in the text. None where the caller knows it.
        hint: Sentence of what to do about it.
    """

    def __init__(self, reason: Reason, message: str, *, where: object = None, hint: str = "") -> None:
        self.reason = reason
        self.message = message
        self.where = None if where is None else str(where)
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return one line: where, what, remedy."""
        head = f"{self.where}: " if self.where else ""
        tail = f" {self.hint}" if self.hint else ""
        return f"{head}{self.message}{tail}"

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the fields when the error crosses a process border."""
        return _rebuild, (self.reason, self.message, self.where, self.hint)

    def problem(self) -> Problem:
        """Return the row form: without the place, which has a column of its own.

        Raises:
            MedclipError: This one, where it is the machine's and no file's: a row would blame the file for ever.
        """
        if self.reason is Reason.OUT_OF_MEMORY:
            raise self
        return Problem(self.reason, f"{self.message} {self.hint}".strip())

    def at(self, where: object) -> MedclipError:
        """Return the same refusal with another place in it."""
        return MedclipError(self.reason, self.message, where=where, hint=self.hint)


def _rebuild(reason: Reason, message: str, where: str | None, hint: str) -> MedclipError:
    return MedclipError(reason, message, where=where, hint=hint)


@contextmanager
def naming(place: Path | str, instead: Path | None = None) -> Iterator[None]:
    """Name a place in errors that do not name one yet.

    Args:
        place: File or folder that the user named.
        instead: A folder of ours whose files mean nothing to the user: errors that name one of them name `place`.
    """
    try:
        yield
    except MedclipError as e:
        inner = instead is not None and e.where is not None and Path(e.where).is_relative_to(instead)
        if e.where is not None and not inner:
            raise
        raise e.at(place) from e


@contextmanager
def opening() -> Iterator[None]:
    """Refuse a file that may not be read or is not there.

    Raises:
        MedclipError: PERMISSION_DENIED, MISSING_FILE.
    """
    try:
        yield
    except PermissionError:
        raise MedclipError(Reason.PERMISSION_DENIED, "the file may not be read.") from None
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "the file does not exist.") from None


def printable(name: str) -> str:
    """Write what cannot be printed (control characters, marks that turn the direction of text) as escapes.

    A file name can hold anything but a slash, also what drives a terminal.

    Example:
        >>> printable("a" + chr(27) + ".png") == "a" + chr(92) + "x1b.png"
        True
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def did_you_mean(name: str, known: Iterable[str], lead: str = "") -> str:
    """Write the hint for a name that is none of the known ones: those close to it, as a question, and the list of all.

    Case, dashes, underscores and blanks do not count. A known name that has the given one in it is close
    to it, too.

    Args:
        name: Name that was given.
        known: The names that are right here.
        lead: Words that the list of all names begins with, such as "Methods are"; "" leaves the list out.

    Returns:
        The hint; "" where nothing is close and no list is wanted.

    Example:
        >>> did_you_mean("pneumona", ["pneumonia", "effusion"])
        "Did you mean 'pneumonia'?"
        >>> did_you_mean("ridg", ["ridge", "svd"], "Methods are")
        "Did you mean 'ridge'? Methods are: ridge, svd."
    """
    names = list(dict.fromkeys(map(str, known)))
    by_letters: dict[str, str] = {}
    for candidate in names:
        by_letters.setdefault(_letters(candidate), candidate)
    letters = _letters(name)
    close = [by_letters[match] for match in get_close_matches(letters, by_letters, 3, 0.6)]
    holding = [c for c in names if letters in _words(c) or (len(letters) > 2 and letters in _letters(c))]
    likely = list(dict.fromkeys([*close, *holding]))[:3]
    ways = " or ".join(part for part in (", ".join(map(repr, likely[:-1])), *map(repr, likely[-1:])) if part)
    question = f"Did you mean {ways}?" if likely else ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    shown = ", ".join(names[:_MOST_NAMES]) + more
    return f"{question} {lead}: {shown or 'none'}.".strip() if lead else question


_MOST_NAMES = 40


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.casefold()) if word]


def _letters(name: str) -> str:
    return "".join(_words(name))


def refuse_missing(path: object, what: str = "file or folder") -> None:
    """Refuse a path where there is nothing. What is no path (a data frame, None) passes.

    Args:
        path: A path, or another value that may stand in its place.
        what: Name of what the path should be, for the sentence.

    Raises:
        MedclipError: MISSING_FILE.
    """
    if isinstance(path, (str, os.PathLike)) and not os.path.lexists(path):  # takes any name; Path.exists does not
        is_pacs = str(path).startswith(("dicomweb:/", "dicomwebs:/"))
        hint = "A PACS is read by medclip score and medclip embed." if is_pacs else "Check the path."
        if str(path).startswith("dicom:/"):
            hint = "What is sent by DIMSE is received by medclip watch."
        raise MedclipError(Reason.MISSING_FILE, f"there is no such {what}.", where=path, hint=hint)
