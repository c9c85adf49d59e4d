"""How the views of a mammography examination hang: R beside L, CC above MLO, chest walls facing in the middle.

That is how readers compare the breasts: as mirror images. The model's images have the chest wall on the left, so those
of the right breast are mirrored back, which also lets their markers read the right way round.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from medclip.files.grouping.mammography_exam import Aside, why_aside
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import ExamRow
from medclip.sample import POSITIONS, SIDES, VIEW_KINDS, ViewType
from medclip.scoring.pooling import MEAN as POOLED_BY_MEAN
from medclip.scoring.pooling import POOLINGS
from medclip.wording import capital, list_of, percent

_MAX_ASIDE = 4
_ALL = 1 - 1e-6
"""The share of the only image, which goes without saying."""
_NOTES: Mapping[str, str] = {
    "one_view": "one view only",
    "missing_views": "",  # the places say so
    "implant": "breast implant",
    "only_for_processing": "for processing: raw detector values",
}


@dataclass(frozen=True)
class Hung:
    """One place of a hanging, or an image that was set aside."""

    place: str
    """Such as R-CC."""
    file: str
    """How its file is named; empty where the view is missing."""
    data: str
    """Base64 of a JPEG; empty where there is none to show."""
    shares: tuple[str, ...]
    """How much it counts in the answers of the exam and of its breast."""
    note: str
    is_right: bool

    @property
    def is_missing(self) -> bool:
        """Whether there is no such view."""
        return not self.file


@dataclass(frozen=True)
class LevelData:
    """The probabilities of one class: of the examination, of its breasts and of its views."""

    title: str
    probabilities: tuple[float | None, ...]
    """In the order of `HangingData.columns`."""


@dataclass(frozen=True)
class HangingData:
    """The views of one examination."""

    kinds: tuple[tuple[str, tuple[Hung, ...]], ...]
    """Kind of mammogram, empty for the standard one, and its places as they hang: R-CC, L-CC, R-MLO, L-MLO."""
    placeless: tuple[Hung, ...]
    """Images that have no place and answer all the same, for want of others; the first few."""
    others: tuple[Hung, ...]
    """Images that were set aside; the first few."""
    num_more: int
    """Images of both that are not among the first few."""
    note: str
    """What is to be known of the examination's answer."""
    fused: str
    """How its views become one answer; empty where one image answers."""
    columns: tuple[str, ...]
    """What has probabilities of its own: Exam, R, L, R-CC, ..."""


def collect_hanging(ledger: Ledger, rows: Sequence[ExamRow], labels: Mapping[int, str]) -> HangingData | None:
    """Pick how the views of an examination hang; None where it was not asked by its views.

    `labels` are those of the examination's scored files, by their numbers.
    """
    if not rows:
        return None
    first = [row for row in rows if row.task == rows[0].task and row.class_ == rows[0].class_]
    classes = dict.fromkeys((row.task, row.class_) for row in rows)
    of_classes = [[row for row in rows if (row.task, row.class_) == one] for one in classes]
    fused = first[0].fusion
    views = {row.row: row for row in first if row.level == "view" and row.row in labels}
    hung = {number: _hung(ledger, row, labels[number], fused) for number, row in views.items() if number is not None}
    answering = [number for number in hung if views[number].attention_exam is not None]
    at = {_type(views[number]).slot: hung[number] for number in answering if _type(views[number]).slot}
    kinds = [kind for kind in VIEW_KINDS if any(views[number].view_kind == kind for number in answering)]
    grids = []
    for kind in kinds:
        types = [ViewType(side, position, kind) for position in POSITIONS for side in SIDES]
        places = tuple(at.get(view.slot or "") or _missing(view) for view in types)
        if not all(view.is_missing for view in places):
            grids.append(("" if kind == VIEW_KINDS[0] else capital(kind.replace("_", " ")), places))
    hung_files = {view.file for _, places in grids for view in places}
    placeless = [hung[number] for number in answering if hung[number].file not in hung_files]
    others = [view for number, view in hung.items() if number not in answering]
    return HangingData(
        tuple(grids),
        tuple(placeless[:_MAX_ASIDE]),
        tuple(others[:_MAX_ASIDE]),
        max(0, len(placeless) - _MAX_ASIDE) + max(0, len(others) - _MAX_ASIDE),
        _in_words(first[0].note, asides=False),  # the images say that for themselves
        f"{fused_in_words(fused)} {pooled_in_words(rows)}".strip() if len(answering) > 1 else "",
        tuple(column for column, _ in max(map(_columns, of_classes), key=len)),
    )


def levels(rows: Sequence[ExamRow], titles: Mapping[str, str], columns: Sequence[str]) -> tuple[LevelData, ...]:
    """Pick the probabilities of a task's classes at each level, in the columns of `HangingData`."""
    picked = []
    for name, of_class in groupby(sorted(rows, key=lambda row: row.class_), key=lambda row: row.class_):
        by_column = dict(_columns(list(of_class)))
        if name in titles:
            picked.append(LevelData(titles[name], tuple(by_column.get(column) for column in columns)))
    order = list(titles.values())
    return tuple(sorted(picked, key=lambda level: order.index(level.title)))


def most_telling(rows: Sequence[ExamRow], task: str, class_: str) -> ExamRow | None:
    """Return the image that counts most in the answer of an examination, of equal ones the one of most probability."""
    views = [r for r in rows if (r.task, r.class_, r.level) == (task, class_, "view") and r.attention_exam is not None]
    return max(views, key=lambda row: (round(row.attention_exam or 0.0, 6), row.probability), default=None)


def place_of(row: ExamRow) -> str:
    """Name the view of an image, such as R-CC."""
    return "-".join(part for part in (row.side, row.position) if part) or "view not known"


def fused_in_words(fusion: str) -> str:
    """Write how views become one answer."""
    return {
        "mean_of_logits": "Each view counts as much as the others: the model does not weigh them.",
        "mean": "Each view counts as much as the others: the model does not weigh them.",
    }.get(
        fusion,
        "The shares are the model’s attention: how much of each view is in the answer. They are evidence of what it "
        "looked at, no localisation and no cause.",
    )


def pooled_in_words(rows: Sequence[ExamRow]) -> str:
    """Write by which rule the breasts of an examination became its answer; blank where all is the mean."""
    rules = dict.fromkeys(row.pooling for row in rows if row.level == "exam" and row.pooling in POOLINGS)
    named = list_of([POOLINGS[rule].title for rule in rules if rule and rule != POOLED_BY_MEAN], "or")
    return (
        f"The examination’s answer is that of {named}; beside it stands that by the mean of its images."
        if named
        else ""
    )


def _columns(rows: Sequence[ExamRow]) -> list[tuple[str, float]]:
    """Return what has a probability of one class, in the order of the rows: views that answer, without the others."""
    named = []
    for row in rows:
        if row.level == "view":
            slot = _type(row).slot
            if slot is None or row.attention_exam is None:
                continue
            named.append((slot.replace("_", " "), row.probability))
        else:
            named.append(("Exam" if row.level == "exam" else row.side or "", row.probability))
            if row.pooling in POOLINGS and row.pooling != POOLED_BY_MEAN and row.probability_by_mean is not None:
                named.append((f"Exam by {POOLINGS[POOLED_BY_MEAN].title}", row.probability_by_mean))
    return named


def _type(row: ExamRow) -> ViewType:
    return ViewType(row.side or "", row.position or "", row.view_kind or VIEW_KINDS[0])


def _missing(view: ViewType) -> Hung:
    return Hung(f"{view.side}-{view.position}", "", "", (), "", view.side == "R")


def _hung(ledger: Ledger, row: ExamRow, label: str, fusion: str) -> Hung:
    assert row.row is not None
    kept = ledger.thumbnail(row.row)
    data = "" if kept is None else base64.b64encode(kept.thumbnail).decode()
    shares: list[str] = []
    if row.attention_exam is not None and row.attention_exam < _ALL and not fusion.startswith("mean"):
        shares.append(f"{percent(row.attention_exam)} of the exam")
        if row.attention_breast is not None and row.attention_breast < _ALL:
            shares.append(f"{percent(row.attention_breast)} of the breast")
    return Hung(place_of(row), label, data, tuple(shares), _in_words(row.note), row.side == "R")


def _in_words(note: str | None, *, asides: bool = True) -> str:
    words = []
    for code in (note or "").split():
        if code not in set(Aside):
            words.append(_NOTES.get(code, code.replace("_", " ")))
        elif asides:
            words.append(why_aside(Aside(code)))
    return "; ".join(word for word in words if word)
