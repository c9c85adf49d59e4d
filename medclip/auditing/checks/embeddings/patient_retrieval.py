"""Patient re-identification: do embeddings let anybody find the same patient's other studies?

Each image asks for images of its patient from other studies, among the images of everybody else. The same study, and
where stated the same acquisition and the same bytes, are never an answer. Beside the gallery of everybody stands a
matched one, in which the others have the same sex, nearly the same age and the same site: what is left there is more
than sex, age and site. No patient, study or file is in what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.reciprocal_neighbours import encode_neighbours
from medclip.auditing.checks.embeddings.vectors import FEWEST_PATIENTS, about, estimated_mean, row, whole_patients
from medclip.auditing.checks.embeddings.verification import (
    FALSE_POSITIVES,
    Impostors,
    Linkage,
    Pairs,
    genuine_pairs,
    linkage,
    rounded,
)
from medclip.errors import MedclipError, Reason
from medclip.statistics.resampling.weights import draw_weights

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
        """Refuse columns of different lengths."""
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
        """Return which answers are right, and which wrong, for the queries of some rows; both [part, N]."""
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


MOST = 20_000
"""Images that are compared with each other."""
IDENTIFIABLE, AT_RISK = 0.05, 0.01
"""Linkage above which embeddings are called identifiable, and at risk."""
RANKS = (1, 5, 10)
_ROWS = 256
_FEWEST_ACCEPTED = (1, 10)
"""Impostor pairs that the false positive rate must amount to, before anything is said, and before all is clear."""


def reident(
    vectors_ND: NDArray[np.floating],
    images: Images,
    *,
    num_replicates: int = 1000,
    most: int = MOST,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure how well images of one patient find each other across studies.

    Args:
        vectors_ND: Unit vectors [N, D]; rows of NaN are left out.
        images: Patients and studies of the rows.
        num_replicates: Number of resamples of the bootstrap of patients.
        most: Number of images above which whole patients are drawn.
        seed: Seed of the draws.

    Returns:
        Rows of the table `embeddings`, `what` "reident", `attribute` the gallery: mAP, CMC@1, 5 and 10, mAP and CMC@1
        after k-reciprocal re-ranking, AUROC, equal error rate, linkage at a false positive rate of 0.001, and the
        verdict, whose note is a sentence.

    Raises:
        MedclipError: WRONG_USE where lengths differ.

    Reference: Habel et al., CLIP-ReIdent, MMSports 2022 (retrieval); Packhäuser et al., Deep learning-based patient
    re-identification is able to exploit the biometric nature of medical chest X-ray data, Sci Rep 12 (2022) 14851.
    """
    images.check(vectors_ND)
    present = np.flatnonzero(~np.isnan(vectors_ND).any(axis=1))
    rows = present[whole_patients(images.patients_N[present], most, seed)]
    vectors_ND, images = np.ascontiguousarray(vectors_ND[rows], np.float32), images.take(rows)
    _, patients_N = np.unique(images.patients_N, return_inverse=True)
    patients_N, groups = patients_N.astype(np.int32), images.groups()
    weights_PB = draw_weights(int(patients_N.max(initial=0)) + 1, num_replicates, seed=seed)
    notes = _notes(images, len(present), len(rows))
    galleries = {
        gallery: genuine_pairs(vectors_ND, patients_N, (*groups, *gallery.apart)) for gallery in images.galleries()
    }
    enough = [gallery for gallery, pairs in galleries.items() if len(np.unique(pairs.first_M)) >= FEWEST_PATIENTS]
    compared = dict(zip(enough, _compare(vectors_ND, patients_N, groups, enough), strict=True))
    table: list[dict[str, Any]] = []
    for gallery, genuine in galleries.items():
        if gallery not in compared:
            where = "two studies" if gallery.name == ANYBODY else f"two studies ({gallery.name})"
            note = f"cannot tell: fewer than {FEWEST_PATIENTS} patients have images of {where}."
            table.append(row("reident", gallery.name, "verdict", note=note))
            if gallery.name == ANYBODY:
                return table
            continue
        ranked, reranked, impostors = compared[gallery]
        if impostors.count == 0:
            note = "cannot tell: no two patients are alike in all of it."
            table.append(row("reident", gallery.name, "verdict", note=note))
            continue
        linked = linkage(genuine, impostors, weights_PB)
        table += _retrieval_rows(gallery.name, ranked, patients_N, weights_PB)
        table += _retrieval_rows(gallery.name, reranked, patients_N, weights_PB, ranks=RANKS[:1], how=", re-ranked")
        table += _linkage_rows(gallery.name, linked, notes)
    return table


@dataclass(frozen=True, eq=False)
class Ranked:
    """Retrieval, query by query; queries without a right answer, or without a wrong one, are not among them."""

    queries_Q: NDArray[np.int64]
    precision_Q: NDArray[np.float64]
    """Average precision."""
    first_Q: NDArray[np.int64]
    """Rank of the first right answer."""
    chance_Q: NDArray[np.float64]
    """Share of right answers in the gallery: what random order gives, nearly."""


def rank(
    distance_QG: NDArray[np.floating], right_QG: NDArray[np.bool_], wrong_QG: NDArray[np.bool_], first: int = 0
) -> Ranked:
    """Rank a gallery by distance; of equal distances the wrong answers come first.

    Args:
        distance_QG: Distance of each query from each image of the gallery; smaller is more alike.
        right_QG: Whether each image of the gallery is an answer looked for.
        wrong_QG: Whether each image of the gallery is another valid answer.
        first: Number of the first query.
    """
    ranks = []
    for q in np.flatnonzero(right_QG.any(axis=1) & wrong_QG.any(axis=1)):
        right, wrong = np.sort(distance_QG[q, right_QG[q]]), np.sort(distance_QG[q, wrong_QG[q]])
        among_right = np.searchsorted(right, right, "right")
        ahead = np.searchsorted(wrong, right, "right")
        precision = float(np.mean(among_right / (among_right + ahead)))
        ranks.append((first + q, precision, ahead[0] + 1, len(right) / (len(right) + len(wrong))))
    q, precision, place, chance = zip(*ranks, strict=True) if ranks else ((), (), (), ())
    return Ranked(np.array(q, np.int64), np.array(precision), np.array(place, np.int64), np.array(chance))


def verdict(linked: Linkage) -> str:
    """Name what the linkage rate means, with the interval deciding where the sample is too small.

    "identifiable" (above 5 %) and "at risk" (1 to 5 %) need an interval that lies above 1 %, "not shown" (at most 1 %)
    one that does not reach 5 %, and ten impostor pairs among one in a thousand; "cannot tell" otherwise.
    """
    value, low, high = linked.linked.value, linked.linked.low, linked.linked.high
    accepted = linked.num_impostors * FALSE_POSITIVES
    if accepted < _FEWEST_ACCEPTED[0] or math.isnan(value) or math.isnan(low):
        return "cannot tell"
    if low > AT_RISK:
        return "identifiable" if value > IDENTIFIABLE else "at risk"
    clear = value <= AT_RISK and high <= IDENTIFIABLE and accepted >= _FEWEST_ACCEPTED[1]
    return "not shown" if clear else "cannot tell"


def _compare(
    vectors_ND: NDArray[np.float32],
    patients_N: NDArray[np.int32],
    groups: tuple[NDArray[np.integer], ...],
    galleries: Sequence[Gallery],
) -> list[tuple[Ranked, Ranked, Impostors]]:
    """Rank each gallery for every image, by distance and re-ranked, and collect the impostor pairs.

    The matrix of cosines is made in blocks of rows, once for all galleries. Re-ranking reads the neighbours among all
    images, whatever the gallery.
    """
    if not galleries:
        return []
    count, neighbours = len(vectors_ND), encode_neighbours(vectors_ND)
    impostors = [Impostors(count * (count - 1) // 2) for _ in galleries]
    ranked: list[list[Ranked]] = [[] for _ in galleries]
    reranked: list[list[Ranked]] = [[] for _ in galleries]
    for start in range(0, count, _ROWS):
        part = slice(start, start + _ROWS)
        cosines, distances = rounded(vectors_ND[part] @ vectors_ND.T), neighbours.distances(part)
        for g, gallery in enumerate(galleries):
            right, wrong = gallery.answers(part, patients_N, groups)
            ranked[g].append(rank(-cosines, right, wrong, start))
            reranked[g].append(rank(distances, right, wrong, start))
            i, j = np.nonzero(np.triu(wrong, start + 1))
            impostors[g].add(Pairs(cosines[i, j], patients_N[i + start], patients_N[j]))
    return [
        (_joined(plain), _joined(again), pairs) for plain, again, pairs in zip(ranked, reranked, impostors, strict=True)
    ]


def _joined(parts: list[Ranked]) -> Ranked:
    columns = zip(*((p.queries_Q, p.precision_Q, p.first_Q, p.chance_Q) for p in parts), strict=True)
    return Ranked(*(np.concatenate(c) for c in columns))


def _linkage_rows(name: str, linked: Linkage, notes: str) -> list[dict[str, Any]]:
    answer, sentence = verdict(linked), _sentence(linked)
    return [
        row("reident", name, "verification AUROC", linked.auroc),
        row("reident", name, "equal error rate", linked.equal_error),
        row("reident", name, "linkage at FPR 0.001", linked.linked, note=sentence),
        row("reident", name, "verdict", linked.linked, note=f"{answer}: {sentence} {notes}".strip()),
    ]


def _retrieval_rows(
    name: str,
    ranked: Ranked,
    patients_N: NDArray[np.int32],
    weights_PB: NDArray[np.integer],
    *,
    ranks: Sequence[int] = RANKS,
    how: str = "",
) -> list[dict[str, Any]]:
    owners_Q = patients_N[ranked.queries_Q]
    chance = float(ranked.chance_Q.mean()) if len(ranked.chance_Q) else math.nan
    note = f"{len(owners_Q)} queries; a random order gives about {chance:.2g}."
    rows = [row("reident", name, f"mAP{how}", estimated_mean(ranked.precision_Q, owners_Q, weights_PB), note=note)]
    for k in ranks:
        hits_Q = (ranked.first_Q <= k).astype(float)
        rows.append(row("reident", name, f"CMC@{k}{how}", estimated_mean(hits_Q, owners_Q, weights_PB)))
    return rows


def _sentence(linked: Linkage) -> str:
    value, low, high = linked.linked.value, linked.linked.low, linked.linked.high
    return (
        f"{value:.1%} ({low:.1%} to {high:.1%}) of {linked.num_genuine} pairs of images of {linked.num_patients} "
        f"patients are linked at a false positive rate of 0.001 ({about(linked.num_impostors)} pairs of two patients)."
    )


def _notes(images: Images, num_there: int, num_taken: int) -> str:
    notes = []
    if images.studies_N is None:
        notes.append("The table names no studies: images of one study count as two, which overstates linkage.")
    if num_taken < num_there:
        notes.append(f"Drawn by patient: {about(num_taken)} of {about(num_there)} images were compared.")
    return " ".join(notes)
