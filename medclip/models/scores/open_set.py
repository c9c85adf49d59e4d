"""Does an image look like anything the model was trained on? A guard before a modality is inferred.

A softmax over modalities is confident about a photograph of a cat. Here each modality keeps a Gaussian over the
features of its images (own mean, in which every source weighs alike, and one shared covariance, shrunk); an image
farther from the modality's mean than nearly all held-out images of that modality is not typical, and is skipped instead
of guessed. The guard may know what the pack is not for, too: images of other modalities and body parts, each kind with
a mean of its own. What is nearer to one of these than to the modality is not typical of it, however near it is.

Reference: Lee et al., A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018; known
outliers as Hendrycks et al., Deep anomaly detection with outlier exposure, ICLR 2019, here without training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import new_file

FILE_NAME = "open_set.safetensors"
FEWEST = 8
"""Held-out images of a source that say how far its images lie."""


@dataclass(frozen=True, eq=False)
class OpenSet:
    """Where the known modalities lie in the embedding space."""

    modalities: tuple[str, ...]
    means_MD: NDArray[np.float32]
    precision_DD: NDArray[np.float32]
    """Inverse of the shared covariance."""
    limits_M: NDArray[np.float32]
    """Largest squared Mahalanobis distance that still counts as typical, per modality."""
    others: tuple[str, ...] = ()
    """Kinds of images that the pack is not for: "dermatology", "mri of other body parts"."""
    other_means_KD: NDArray[np.float32] | None = None
    """Where these lie; None where the guard knows of none."""

    def distance(self, features_ND: NDArray[np.float32], modality: str) -> NDArray[np.float32]:
        """Squared Mahalanobis distance of float32 [N, D] features to one modality's mean, [N]."""
        return self._distance(features_ND, self.means_MD[self.modalities.index(modality)])

    def typical(self, features_ND: NDArray[np.float32], modality: str) -> NDArray[np.bool_]:
        """Whether each image is near enough to the modality, and nearest; True for modalities without a limit."""
        if modality not in self.modalities:
            return np.ones(len(features_ND), dtype=bool)
        distance = self.distance(features_ND, modality)
        is_near = distance <= self.limits_M[self.modalities.index(modality)]
        if self.other_means_KD is None:
            return is_near
        rivals = (self._distance(features_ND, mean) for mean in (*self.means_MD, *self.other_means_KD))
        return is_near & (distance <= np.min(list(rivals), axis=0))

    def _distance(self, features_ND: NDArray[np.float32], mean_D: NDArray[np.float32]) -> NDArray[np.float32]:
        offset = np.asarray(features_ND, dtype=np.float32) - mean_D
        return np.einsum("nd,nd->n", offset @ self.precision_DD, offset)

    def save(self, folder: Path) -> None:
        """Write open_set.safetensors into a folder.

        Raises:
            MedclipError: As `medclip.files.output.disk_errors`.
        """
        from safetensors.numpy import save_file

        arrays = {"means": self.means_MD, "precision": self.precision_DD, "limits": self.limits_M}
        about = {"modalities": ",".join(self.modalities)}
        if self.other_means_KD is not None:
            arrays["other_means"] = self.other_means_KD
            about["others"] = json.dumps(self.others)
        tensors = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in arrays.items()}
        with new_file(folder / FILE_NAME) as draft:
            save_file(tensors, draft, metadata=about)


@dataclass(frozen=True, eq=False)
class Examples:
    """Images that a guard is fitted to, or judged by."""

    features_ND: NDArray[np.float32]
    kind_N: NDArray[Any]
    """Modality of each, or the kind of what the pack is not for."""
    source_N: NDArray[Any]
    """Where each comes from."""

    def of(self, rows_N: NDArray[np.bool_]) -> Examples:
        """Return some of them."""
        return Examples(self.features_ND[rows_N], self.kind_N[rows_N], self.source_N[rows_N])


def fit_open_set(
    train: Examples,
    held_out: Examples,
    modalities: Sequence[str],
    *,
    shrinkage: float = 0.1,
    keep: float = 0.99,
    slack: float = 1.75,
) -> OpenSet:
    """Fit means and covariance on some images and the limits on others.

    Args:
        train: Images of the modalities, and of what the pack is not for.
        held_out: Images of other patients; those of the modalities are looked at.
        modalities: What the pack is for; every other kind among `train` is what it is not for.
        shrinkage: Weight of the mean variance on the covariance's diagonal.
        keep: Share of held-out images of a modality that must count as typical, of that source of it whose images lie
            farthest (of sources with `FEWEST` images or more, where there is one).
        slack: Factor on the limit: held-out images of the same few sites understate the spread elsewhere. In
            pipelines/mini/guard.py, which leaves each source out in turn, 95 % of the images of a source that the guard
            was not fitted to lay within 0.3 to 2.9 times the limit without it. For the same reason no modality gets a
            limit below the median of all, and one of a single source none below the mean of those of several: a set
            from one camera looks narrower than its modality is.
    """
    names, others = tuple(sorted(modalities)), tuple(sorted({*train.kind_N.tolist()} - {*modalities}))
    kinds = (*names, *others)
    means_KD = np.stack([_mean_of_sources(train, kind) for kind in kinds])
    centred = train.features_ND - means_KD[[kinds.index(kind) for kind in train.kind_N]]
    covariance = centred.T @ centred / len(centred)
    mean_variance = np.trace(covariance) / len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(len(covariance))
    precision = np.linalg.inv(covariance).astype(np.float32)
    means_KD = means_KD.astype(np.float32)
    fitted = OpenSet(names, means_KD[: len(names)], precision, np.zeros(len(names), dtype=np.float32))
    limits = [slack * _farthest_quantile(fitted, held_out, name, keep) for name in names]
    limits = np.maximum(limits, np.median(limits))
    has_several = np.array([len(set(train.source_N[train.kind_N == name].tolist())) > 1 for name in names])
    if has_several.any():
        limits = np.where(has_several, limits, np.maximum(limits, limits[has_several].mean()))
    means = fitted.means_MD, precision, limits.astype(np.float32)
    return OpenSet(names, *means, others, means_KD[len(names) :] if others else None)


def _mean_of_sources(train: Examples, kind: str) -> NDArray[np.floating]:
    """Return the mean of the means of the sources of a kind: a large set is not the modality."""
    is_kind = train.kind_N == kind
    sources = sorted(set(train.source_N[is_kind].tolist()))
    return np.mean([train.features_ND[is_kind & (train.source_N == source)].mean(axis=0) for source in sources], axis=0)


def _farthest_quantile(guard: OpenSet, held_out: Examples, modality: str, keep: float) -> float:
    """Return the largest quantile of distances over the sources of a modality."""
    images = held_out.of(held_out.kind_N == modality)
    distances = guard.distance(images.features_ND, modality)
    sources, counts = np.unique(images.source_N, return_counts=True)
    large = sources[counts >= min(FEWEST, counts.max())]
    return max(float(np.quantile(distances[images.source_N == source], keep)) for source in large)


def load_open_set(folder: Path) -> OpenSet | None:
    """Read the guard of a pack, None where the pack has none.

    Raises:
        MedclipError: PACK_INVALID for a file that is no guard.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as f:
            modalities = tuple(f.metadata()["modalities"].split(","))
            others = tuple(map(str, json.loads(f.metadata().get("others", "[]"))))
            means, precision, limits = (f.get_tensor(name) for name in ("means", "precision", "limits"))
            other_means = f.get_tensor("other_means") if others else None
            guard = OpenSet(modalities, means, precision, limits, others, other_means)
        if not len(modalities) == len(guard.means_MD) == len(guard.limits_M):
            raise ValueError("rows")
        if guard.other_means_KD is not None and guard.other_means_KD.shape != (len(others), guard.means_MD.shape[1]):
            raise ValueError("other rows")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as e:
        raise MedclipError(
            Reason.PACK_INVALID, f"{FILE_NAME} is no guard.", where=folder, hint="Take the pack from its source again."
        ) from e
    return guard


def typical(model: Any, features_ND: NDArray[np.float32], modality: str) -> NDArray[np.bool_]:
    """Whether images are typical of a modality for a loaded model; always True where its pack has no guard.

    Args:
        model: A loaded `Model` (its pack folder is `model.path`).
        features_ND: float32 [N, D] features of generic renderings.
        modality: The modality that the zero-shot task chose.
    """
    guard = load_open_set(Path(model.path))
    return np.ones(len(features_ND), dtype=bool) if guard is None else guard.typical(features_ND, modality)
