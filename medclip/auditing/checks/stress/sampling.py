"""Which images are stressed: at most so many of each group, chosen by a hash of their names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.cohort import ALL, Cohort

MOST = 500
"""Images of a group, unless asked otherwise."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some rows of a cohort."""

    rows: NDArray[np.intp]
    """Rows of the cohort that are stressed, ascending."""
    of: Mapping[str, NDArray[np.intp]]
    """Of each attribute, and of `ALL`: the places in `rows` that its figures are over."""
    num_eligible: int
    """Rows of which some could be chosen."""


def choose(cohort: Cohort, most: int = MOST) -> Chosen:
    """Choose rows with a file and a truth.

    Of each group the first `most` are taken in the order of a hash of their files' names: a sample that is as good as
    random, does not depend on the order of the table, and is the same in each call. Figures of a group are over its own
    sample alone. Those of everybody are over the longest beginning of that order of which every row was taken.

    Args:
        cohort: Cohort that is audited; its `files` are known.
        most: Most images of a group.
    """
    known_N = np.array([bool(name) for name in cohort.files], bool)
    known_N &= np.any([~np.isnan(label.truth_N) for label in cohort.labels], axis=0)
    eligible = np.flatnonzero(known_N)
    ordered = eligible[np.argsort([_hash(cohort.files[i]) for i in eligible.tolist()], kind="stable")]
    taken: dict[str, NDArray[np.intp]] = {}
    for attribute in cohort.attributes:
        codes = attribute.codes_N[ordered]
        taken[attribute.name] = np.concatenate(
            [ordered[codes == g][:most] for g in range(len(attribute.groups))] or [ordered[:0]]
        )
    rows = np.unique(np.concatenate([ordered[:most], *taken.values()]))
    in_order = np.isin(ordered, rows)
    taken[ALL] = ordered[: len(ordered) if in_order.all() else int(in_order.argmin())]
    place = {name: np.sort(np.searchsorted(rows, chosen)) for name, chosen in taken.items()}
    return Chosen(rows, place, len(eligible))


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
