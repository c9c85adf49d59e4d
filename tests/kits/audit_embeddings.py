"""Embeddings with planted patients and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medclip.auditing.checks.embeddings.vectors import unit_vectors
from medclip.statistics.cohort import Attribute


def people(num: int, most: int = 4, seed: int = 0) -> np.ndarray:
    """Patient of each row: `num` patients with 1 to `most` rows."""
    rng = np.random.default_rng(seed)
    return np.repeat(np.arange(num), rng.integers(1, most + 1, num))


def noise(num: int, dims: int = 16, seed: int = 0) -> np.ndarray:
    """Unit vectors that know nothing."""
    return unit_vectors(np.random.default_rng(seed).normal(size=(num, dims)))


def of_patients(patients: np.ndarray, strength: float, dims: int = 16, seed: int = 0) -> np.ndarray:
    """Unit vectors of which each patient has a part of its own."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(patients.max() + 1, dims))
    return unit_vectors(rng.normal(size=(len(patients), dims)) + strength * own[patients])


def attribute(codes: np.ndarray, names: Sequence[str], name: str = "sex") -> Attribute:
    return Attribute(name, tuple(names), codes.astype(np.int16), True)


def named(rows: Sequence[Mapping[str, Any]], name: str, of: str | None = None) -> Mapping[str, Any]:
    """The one row of this name (and attribute)."""
    found = [r for r in rows if r["name"] == name and (of is None or r["attribute"] == of)]
    assert len(found) == 1, [(r["attribute"], r["name"]) for r in rows]
    return found[0]
