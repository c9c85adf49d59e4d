"""What a method learns from: labelled units, their pixels, the base model's features, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images


@dataclass(frozen=True, eq=False)
class Examples:
    """N labelled units. A unit is one image, or all views of one slide, volume, loop or record."""

    pixels: tuple[Images, ...]
    """The images of each unit at the model's size, uint8 [V, S, S, 3] where that is a square; V may differ."""
    features: tuple[NDArray[np.float32], ...]
    """float32 [V, D] of each unit, each row of unit norm: the base model's."""
    targets: NDArray
    """int64 [N], the class of each (multiclass); float32 [N, C] with 1, 0 and NaN where nobody knows (multilabel)."""
    patients: tuple[str, ...]
    """Whose each unit is, as a keyed hash."""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def multilabel(self) -> bool:
        """Whether a unit may have several classes."""
        return self.targets.ndim == 2

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> Examples:
        """Return some of them, in the order of `rows`."""
        chosen = [int(r) for r in rows]
        return Examples(
            tuple(self.pixels[r] for r in chosen),
            tuple(self.features[r] for r in chosen),
            self.targets[chosen],
            tuple(self.patients[r] for r in chosen),
        )

    def joined(self, other: Examples | None) -> Examples:
        """Return these and others, in this order."""
        if other is None:
            return self
        return Examples(
            self.pixels + other.pixels,
            self.features + other.features,
            np.concatenate([self.targets, other.targets]),
            self.patients + other.patients,
        )

    def pooled(self) -> NDArray[np.float32]:
        """Return one feature for each unit: the mean over its views, of unit norm; float32 [N, D]."""
        means = np.stack([views.mean(axis=0, dtype=np.float64) for views in self.features])
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


class LookedAt(Exception):
    """Somebody wants to see examples that are not read yet."""


class Unread(Examples):
    """Stands for examples before the first image is read: a method that gets as far as to look at it is stopped."""

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> NoReturn:
        raise LookedAt

    def __len__(self) -> NoReturn:
        raise LookedAt
