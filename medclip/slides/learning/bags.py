"""Labelled slides to learn from: the vectors of each slide's patches, what is true of it, and whose it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.slides.learning.pooling import Kind


@dataclass(frozen=True, eq=False)
class Bags:
    """S labelled slides, read one at a time: a cohort need not fit into memory."""

    read: Callable[[int], NDArray[np.floating]]
    """Patch vectors of a slide by its number, float [N, D], N at least 1."""
    targets: NDArray
    """int64 [S], the class (multiclass); float32 [S, C] with 1, 0 and NaN where nobody knows (multilabel); float64
    [S, 2], months to the event (NaN: none seen) and months followed (risk)."""
    patients: tuple[str, ...]
    """Whose each slide is."""
    names: tuple[str, ...]
    """Classes, or years of a risk, in the order of logits."""
    kind: Kind
    keys: tuple[str, ...] = ()
    """What each slide is called in tables."""

    def __post_init__(self) -> None:
        kinds = {"multiclass": (1, np.integer), "multilabel": (2, np.floating), "risk": (2, np.floating)}
        axes, number = kinds[self.kind]
        fits = self.targets.ndim == axes and np.issubdtype(self.targets.dtype, number)
        if fits and self.kind == "multiclass":
            fits = bool(((self.targets >= 0) & (self.targets < len(self.names))).all())
        elif fits:
            fits = self.targets.shape[1] == (2 if self.kind == "risk" else len(self.names))
        if not fits or len(self.targets) != len(self.patients) or len(self.keys) not in (0, len(self.patients)):
            raise MedclipError(
                Reason.WRONG_USE,
                f"targets of {list(self.targets.shape)} do not fit {len(self.patients)} slides of a {self.kind} task "
                f"with {len(self.names)} answers.",
                hint="A slide has one class, a value for each finding, or two times in months.",
            )

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def num_patients(self) -> int:
        """How many patients the slides are of."""
        return len(set(self.patients))

    @property
    def strata(self) -> NDArray[np.int64]:
        """What folds are balanced by, int64 [S]: the class; whether there is a finding; whether an event was seen."""
        if self.kind == "multiclass":
            return self.targets.astype(np.int64)
        if self.kind == "risk":
            return np.asarray(~np.isnan(self.targets[:, 0]), np.int64)
        return np.asarray((np.nan_to_num(self.targets) > 0).any(axis=1), np.int64)

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> Bags:
        """Return some of them, in this order."""
        chosen = [int(row) for row in rows]
        read = self.read
        return replace(
            self,
            read=lambda i: read(chosen[i]),
            targets=self.targets[chosen],
            patients=tuple(self.patients[row] for row in chosen),
            keys=tuple(self.keys[row] for row in chosen) if self.keys else (),
        )


def bags_in_memory(
    features: Sequence[NDArray[np.floating]],
    targets: NDArray,
    patients: Sequence[str],
    names: Sequence[str],
    kind: Kind = "multiclass",
) -> Bags:
    """Take slides whose vectors are held.

    Args:
        features: Patch vectors of each slide, float [N, D].
        targets: Truths of the slides, as in `Bags`.
        patients: Patient of each slide.
        names: Classes, or years of a risk.
        kind: Kind of the task.

    Raises:
        MedclipError: WRONG_USE where they do not fit together.
    """
    if len(features) != len(patients) or any(f.ndim != 2 or not len(f) for f in features):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{len(features)} arrays of patch vectors for {len(patients)} slides, each [patches, dimensions].",
            hint="A slide without a patch has nothing to learn from; leave it out.",
        )
    return Bags(features.__getitem__, np.asarray(targets), tuple(patients), tuple(names), kind)
