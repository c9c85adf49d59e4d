"""Truths: what the cells of a label table say, with 1, 0, words, -1, blanks, lists of findings, and times to events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import shown
from medclip.files.tables.table import Coded, is_blank, number_in, plain_name
from medclip.shards.writing.table import UNCERTAIN
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRUE = frozenset({"true", "yes", "y", "t", "positive", "pos", "present"})
_FALSE = frozenset({"false", "no", "n", "f", "negative", "neg", "absent"})
_UNSURE = frozenset({"uncertain", "unsure", "equivocal", "indeterminate", "u"})
NO_FINDING = frozenset({"nofinding", "nofindings", "normal", "noacutefinding", "healthy"})
"""Names of labels, as `plain_name` gives them, that mean a healthy patient."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of one label for N rows."""

    truth_N: NDArray[np.float64]
    """1, 0, or NaN where it is not known."""
    num_uncertain: int = 0
    num_blank: int = 0
    num_other: int = 0
    """Rows of a class that has no score."""


def meaning(text: str) -> float | str | None:
    """Read one cell of a label.

    Returns:
        1.0 or 0.0; "uncertain" or "blank"; None for anything else.

    Example:
        >>> meaning("Yes"), meaning("0.0"), meaning("-1"), meaning(""), meaning("mild")
        (1.0, 0.0, 'uncertain', 'blank', None)
    """
    small = text.strip().casefold()
    if is_blank(small):
        return "blank"
    number = number_in(small)
    if number in (0.0, 1.0):
        return number
    if number == UNCERTAIN or small in _UNSURE:
        return "uncertain"
    return 1.0 if small in _TRUE else 0.0 if small in _FALSE else None


def is_binary(cells: Coded) -> bool:
    """Whether a column answers a yes-or-no question: every cell is understood, and one says yes or no."""
    answered = False
    for text, number in zip(cells.values, cells.counts(), strict=True):
        means = meaning(text) if number else "blank"
        if means is None:
            return False
        answered |= isinstance(means, float)
    return answered


def not_understood(cells: Coded) -> tuple[int, str]:
    """Count the cells of a label that mean nothing, and show some of them (never what may be a name).

    Example:
        >>> import numpy
        >>> not_understood(Coded(numpy.asarray([0, 1, 1]), ("1", "maybe")))
        (2, "'maybe'")
    """
    counts = cells.counts()
    strange = [i for i, text in enumerate(cells.values) if counts[i] and meaning(text) is None]
    return int(counts[strange].sum()), ", ".join(shown(cells.values[i]) for i in strange[:4])


def read_truth(cells: Coded, name: str, options: ReadOptions, where: str) -> Truth:
    """Read a column of yes or no.

    Raises:
        MedclipError: TABLE_INVALID for cells that mean neither.
    """
    strange, samples = not_understood(cells)
    if strange:
        are = "is" if strange == 1 else "are"
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{count(strange, 'cell')} of the label {name!r} {are} neither 1, 0, yes, no, -1 nor blank: {samples}.",
            where=where,
            hint="A column of class names needs scores of those classes.",
        )
    counts = cells.counts()
    means = [meaning(v) for v in cells.values]
    policies = {"uncertain": _policy(options.uncertain), "blank": _policy(options.blank)}
    truth = np.asarray([policies[m] if isinstance(m, str) else m for m in means] or [np.nan], np.float64)
    number = {word: sum(int(n) for m, n in zip(means, counts, strict=True) if m == word) for word in policies}
    return Truth(truth[cells.codes_N], number["uncertain"], number["blank"])


def _policy(word: str) -> float:
    return {"ignore": np.nan, "zero": 0.0, "one": 1.0}[word]


def elements(cells: Coded, separator: str) -> dict[str, str]:
    """Return the different findings of a column of lists: the name as it is compared, and how it is first written."""
    names: dict[str, str] = {}
    for text in cells.used().values:
        for part in _parts(text, separator):
            names.setdefault(plain_name(part), part)
    return names


def read_list(cells: Coded, finding: str, options: ReadOptions) -> Truth:
    """Return for each row whether its list has a finding: as a whole element, never as a part of another's name."""
    wanted = plain_name(finding)
    truth, blank = [], 0
    for text, number in zip(cells.values, cells.counts().tolist(), strict=True):
        parts = _parts(text, options.separator)
        truth.append(float(wanted in {plain_name(p) for p in parts}) if parts else _policy(options.blank))
        blank += 0 if parts else number
    return Truth(np.asarray(truth or [np.nan])[cells.codes_N], num_blank=blank)


def _parts(text: str, separator: str) -> list[str]:
    if is_blank(text):
        return []
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text  # a list as Python prints it
    parts = [p.strip().strip("'\"").strip() for line in inside.split("\n") for p in line.split(separator)]
    return [p for p in parts if p]


def read_class(cells: Coded, names: Sequence[str], among: Sequence[str] = ()) -> Truth:
    """Return for each row whether it is of a class, one against all others; a blank is not known."""
    other = {v for v in cells.values if among and v not in among and not is_blank(v)}
    truth = np.asarray(
        [np.nan if is_blank(v) or v in other else float(v in names) for v in cells.values] or [np.nan], np.float64
    )
    counts = list(zip(cells.values, cells.counts().tolist(), strict=True))
    return Truth(
        truth[cells.codes_N],
        num_blank=sum(n for v, n in counts if is_blank(v)),
        num_other=sum(n for v, n in counts if v in other),
    )


def policy_notes(truths: Sequence[Truth], options: ReadOptions) -> list[str]:
    """Return how many uncertain and blank cells there were over all labels, and what was done with them."""
    notes = []
    how = {"ignore": "taken as not known", "zero": "taken as negative", "one": "taken as positive"}
    for word, number, policy in (
        ("uncertain (-1)", sum(t.num_uncertain for t in truths), options.uncertain),
        ("blank", sum(t.num_blank for t in truths), options.blank),
    ):
        if number:
            name = {"ignore": "U-Ignore", "zero": "U-Zero", "one": "U-One"}[policy] if "uncertain" in word else ""
            notes.append(f"Labels: {count(number, f'{word} cell')}, {how[policy]}{f' ({name})' if name else ''}.")
    return notes


def read_times(time_N: NDArray[np.float64], name: str, where: str) -> NDArray[np.float64]:
    """Check times to events.

    Raises:
        MedclipError: TABLE_INVALID for negative and infinite ones.
    """
    bad = int((time_N < 0).sum() + np.isinf(time_N).sum())
    if bad:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{count(bad, 'time')} in the column {name!r} are negative or infinite.",
            where=where,
            hint="Times run from the image to the event, or to the end of follow-up.",
        )
    return time_N
