"""Embeddings seen in two dimensions, and how far the means of groups lie apart.

That groups do not part in the two first axes does not show that the embedding hides them: a probe may still find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.vectors import FEWEST_PATIENTS, grouped, row
from medclip.statistics.cohort import Attribute
from medclip.statistics.significance import p_value, shuffled

MOST_POINTS = 2_000
"""Points of a plot; more are drawn by patient."""
MOST = 20_000
_TOP = 10
_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class Plane:
    """The first two principal axes, from one fit."""

    mean_D: NDArray[np.float64]
    axes_2D: NDArray[np.float64]
    """Unit vectors; the largest component of each is positive."""
    explained_2: NDArray[np.float64]
    """Share of the variance along each."""

    def points(self, vectors_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """Project vectors, [N, 2]."""
        return (vectors_ND - self.mean_D) @ self.axes_2D.T


def fit_plane(vectors_ND: NDArray[np.floating]) -> Plane:
    """Fit the principal axes of vectors without NaN; with fewer than two directions the rest is 0.

    Reference: Jolliffe, Principal component analysis, 2002.
    """
    values = np.asarray(vectors_ND, np.float64)
    mean_D = values.mean(axis=0)
    spread_DD = (values - mean_D).T @ (values - mean_D)
    variances, axes = np.linalg.eigh(spread_DD)
    axes_2D = np.zeros((2, values.shape[1]))
    axes_2D[: min(2, len(variances))] = axes[:, ::-1].T[:2]
    for axis in axes_2D:
        # of components equally large (to rounding) the first decides
        largest = np.flatnonzero(np.abs(axis) >= np.abs(axis).max() * (1 - 1e-9))[0]
        axis *= -1.0 if axis[largest] < 0 else 1.0
    explained = np.zeros(2)
    explained[: min(2, len(variances))] = np.clip(variances[::-1][:2], 0, None) / max(float(variances.sum()), 1e-300)
    return Plane(mean_D, axes_2D, explained)


def projection(
    vectors_ND: NDArray[np.floating],
    patients_N: NDArray[np.integer],
    attributes: Sequence[Attribute],
    *,
    fewest: int = FEWEST_PATIENTS,
    most: int = MOST_POINTS,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the points of the two-dimensional view: each patient in the plot of one attribute only.

    One image in two plots would have the same place in both, and whoever lays them side by side could read several
    attributes of one person.

    Args:
        vectors_ND: Unit vectors; rows of NaN are left out.
        patients_N: Patient of each row.
        attributes: Attributes that the points are coloured by.
        fewest: Patients that a group needs to be shown.
        most: Most points of each attribute.
        seed: Seed of the draws, also of which patient is in which plot.

    Returns:
        Rows of the table `projection`, in an order that says nothing about the input's, and sentences about the axes. A
        group has a multiple of ten points, some left out by chance: their exact number is not given away.
    """
    present = np.flatnonzero(~np.isnan(vectors_ND).any(axis=1))
    if len(present) < 3:
        return [], ["Fewer than three images have an embedding: there is no two-dimensional view."]
    plane = fit_plane(vectors_ND[present])
    rows: list[dict[str, Any]] = []
    for attribute, rows_of_attribute in zip(
        attributes, _dealt(patients_N[present], len(attributes), seed), strict=True
    ):
        mine = present[rows_of_attribute]
        part = replace(attribute, codes_N=attribute.codes_N[mine])
        data = grouped(vectors_ND[mine], patients_N[mine], part, most=most, seed=seed, fewest=fewest)
        points = np.round(plane.points(data.vectors_nD), 4)
        shown_n = _whole_tens(data.codes_n, len(data.groups), seed)
        rows += [
            {
                "x": float(points[i, 0]),
                "y": float(points[i, 1]),
                "attribute": attribute.name,
                "group": data.groups[data.codes_n[i]],
            }
            for i in np.lexsort((points[:, 1], points[:, 0]))
            if shown_n[i]
        ]
    first, second = plane.explained_2
    sentence = f"The two axes of the view hold {first:.0%} and {second:.0%} of the variance of the embeddings."
    if len(attributes) > 1:
        sentence += (
            f" Each patient is shown in the plot of one of the {len(attributes)} attributes only, drawn by chance, "
            "so that no image can be followed from one plot to another; the axes are the same in all."
        )
    return rows, [sentence]


def _dealt(patients_N: NDArray[np.integer], num: int, seed: int) -> list[NDArray[np.intp]]:
    """Deal whole patients out into `num` parts of about as many patients: the rows of each part."""
    _, codes_N = np.unique(patients_N, return_inverse=True)
    part_P = np.random.default_rng(seed).permutation(int(codes_N.max()) + 1) % max(num, 1)
    return [np.flatnonzero(part_P[codes_N] == i) for i in range(num)]


def centroids(
    vectors_ND: NDArray[np.floating],
    patients_N: NDArray[np.integer],
    attribute: Attribute,
    *,
    num_permutations: int = 999,
    fewest: int = FEWEST_PATIENTS,
    most: int = MOST,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure how far each group's mean vector lies from that of all others, against labels dealt anew among patients.

    Returns:
        Rows of the table `embeddings`, `what` "centroid": for each group (one of two) the norm of the difference, 0 to
        2, with its p, and the ten dimensions that differ most, by size.
    """
    data = grouped(vectors_ND, patients_N, attribute, most=most, seed=seed, fewest=fewest)
    if len(data.groups) < 2:
        note = f"Not measured: fewer than two groups are large enough. {data.note}".strip()
        return [row("centroid", attribute.name, "distance of means", note=note)]
    values = data.vectors_nD.astype(np.float64)
    dealt_RN = shuffled(data.codes_n, data.patients_n, num_permutations, seed=seed)
    rows = []
    two = len(data.groups) == 2  # the other way round is the same
    for g, name in enumerate(data.groups[:1] if two else data.groups):
        title = f"{name} minus {data.groups[1] if two else 'all others'}"
        difference_D = mean_differences(values, (data.codes_n == g)[None])[0]
        null_R = np.concatenate(
            [
                np.linalg.norm(mean_differences(values, dealt_RN[s : s + _AT_ONCE] == g), axis=1)
                for s in range(0, num_permutations, _AT_ONCE)
            ]
        )
        norm = float(np.linalg.norm(difference_D))
        null = f"by chance {np.nanmean(null_R):.3g} on average, {np.nanquantile(null_R, 0.95):.3g} one time in twenty"
        note = f"{null}. {data.note}".strip()
        rows.append(
            row(
                "centroid",
                attribute.name,
                f"{title}: distance of means",
                norm,
                p=p_value(norm, null_R),
                note=note,
            )
        )
        top = np.argsort(-np.abs(difference_D), kind="stable")[:_TOP]
        rows += [row("centroid", attribute.name, f"{title}: dimension {d}", float(difference_D[d])) for d in top]
    return rows


def mean_differences(values_ND: NDArray[np.floating], inside_RN: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return mean inside minus mean outside for each of R divisions, [R, D]; NaN where a side is empty."""
    inside = inside_RN.astype(np.float64)
    count_R = inside.sum(axis=1, keepdims=True)
    sums_RD = inside @ values_ND
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums_RD / count_R - (values_ND.sum(axis=0) - sums_RD) / (inside.shape[1] - count_R)


def _whole_tens(codes_n: NDArray[np.integer], num_groups: int, seed: int) -> NDArray[np.bool_]:
    """Leave as many rows of each group out, by chance, as make it a multiple of ten."""
    rng = np.random.default_rng(seed)
    shown_n = np.ones(len(codes_n), bool)
    for group in range(num_groups):
        rows = np.flatnonzero(codes_n == group)
        shown_n[rng.permutation(rows)[: len(rows) % 10]] = False
    return shown_n
