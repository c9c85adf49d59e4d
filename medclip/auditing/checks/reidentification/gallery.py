"""What is known about the images that are searched, and which of them are right and wrong answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

ANYBODY = "anybody"
AGE_YEARS = 5.0


@dataclass(frozen=True, eq=False)
class Images:
    """What is known about the images beside their vectors; N rows."""

    patients_N: NDArray[np.integer]
    studies_N: Sequence[Any] | NDArray[Any] | None = None
    """Study of each row as the table writes it, unique within a patient; None or "" where it is not known. None for
    all: every image counts as a study of its own."""
    captures_N: Sequence[Any] | NDArray[Any] | None = None
    """Acquisition series, likewise."""
    hashes_N: Sequence[str] = ()
    """sha256 of the files, "" where it is not known: identical files are no answers."""
    same: Mapping[str, NDArray[np.integer]] = field(default_factory=dict)
    """What the matched gallery holds fixed: name to codes, -1 where it is not known ({"sex": ..., "site": ...})."""
    age_years_N: NDArray[np.floating] | None = None
    """Held within five years in the matched gallery; NaN where it is not known."""
    apart: Mapping[str, Sequence[Any] | NDArray[Any]] = field(default_factory=dict)
    """For each name a gallery more, in which all answers are of another value than the query ({"device": ...,
    "year": ...}): what links them then is not the device."""

    def take(self, rows: NDArray[np.integer]) -> Images:
        """Return some of the images."""

        def some(column: Any) -> Any:
            return None if column is None else [column[i] for i in rows]

        return Images(
            np.asarray(self.patients_N)[rows],
            some(self.studies_N),
            some(self.captures_N),
            some(self.hashes_N) if len(self.hashes_N) else (),
            {name: np.asarray(codes)[rows] for name, codes in self.same.items()},
            None if self.age_years_N is None else np.asarray(self.age_years_N, np.float32)[rows],
            {name: some(values) for name, values in self.apart.items()},
        )

    def groups(self) -> tuple[NDArray[np.integer], ...]:
        """Return the codes in which two images of one patient must differ; -1 for what is not known."""
        groups: list[NDArray[np.integer]] = [
            np.arange(len(self.patients_N)) if self.studies_N is None else _codes(self.studies_N)
        ]
        if self.captures_N is not None:
            groups.append(_codes(self.captures_N))
        if len(self.hashes_N):
            codes = _codes(self.hashes_N)
            unknown = codes < 0  # a file without a hash is like no other
            codes[unknown] = codes.max(initial=0) + 1 + np.arange(int(unknown.sum()))
            groups.append(codes)
        return tuple(groups)

    def check(self, vectors_ND: NDArray[np.floating]) -> None:
        """Refuse columns of different lengths.

        Raises:
            MedclipError: WRONG_USE.
        """
        lengths = {len(vectors_ND), len(self.patients_N), len(self.hashes_N) or len(vectors_ND)}
        for column in (self.studies_N, self.captures_N, self.age_years_N, *self.same.values(), *self.apart.values()):
            lengths.add(len(vectors_ND) if column is None else len(column))
        if len(lengths) > 1:
            raise MedclipError(Reason.WRONG_USE, f"columns of different lengths: {sorted(lengths)}.")

    def galleries(self) -> list[Gallery]:
        """List the galleries: anybody, those alike in sex, age and site, and those that are set apart."""
        galleries = [Gallery(ANYBODY)]
        names = [f"same {name}" for name in self.same]
        if self.age_years_N is not None:
            names.append(f"age within {AGE_YEARS:g} years")
        if names:
            galleries.append(Gallery(", ".join(names), tuple(self.same.values()), self.age_years_N))
        return galleries + [Gallery(f"other {name}", apart=(_codes(values),)) for name, values in self.apart.items()]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Which answers are looked among."""

    name: str
    same: tuple[NDArray[np.integer], ...] = ()
    """Codes in which wrong answers are like the query."""
    age_years_N: NDArray[np.floating] | None = None
    """Age in which they are near it."""
    apart: tuple[NDArray[np.integer], ...] = ()
    """Codes in which all answers are unlike it."""

    def answers(
        self, part: slice, patients_N: NDArray[np.integer], groups: tuple[NDArray[np.integer], ...]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which answers are right, and which wrong, for the queries of some rows; both [part, N].

        Args:
            part: Rows of the queries.
            patients_N: Patient of each row.
            groups: Codes in which right answers differ from the query in every gallery.
        """
        right = patients_N[part, None] == patients_N[None]
        wrong = ~right
        for codes_N in groups:
            right &= _unlike(codes_N, part)
        for codes_N in self.apart:
            unlike = _unlike(codes_N, part)
            right, wrong = right & unlike, wrong & unlike
        for codes_N in self.same:
            wrong &= (codes_N[part, None] == codes_N[None]) & (codes_N[part, None] >= 0)
        if self.age_years_N is not None:
            wrong &= np.abs(self.age_years_N[part, None] - self.age_years_N[None]) <= AGE_YEARS  # NaN is never near
        return right, wrong


def _unlike(codes_N: NDArray[np.integer], part: slice) -> NDArray[np.bool_]:
    """Return which rows are known to differ from those of a part, [part, N]."""
    return (codes_N[part, None] != codes_N[None]) & (codes_N[part, None] >= 0) & (codes_N[None] >= 0)


def _codes(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    """Number equal values alike; -1 for what is blank."""
    texts = np.array(["" if v is None or v != v else str(v) for v in values], dtype=np.str_)
    names, codes = np.unique(texts, return_inverse=True)
    return np.where(names[codes] == "", -1, codes).astype(np.int64)
