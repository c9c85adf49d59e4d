"""Does an image look like anything the model was trained on? A guard before a modality is inferred.

A softmax over modalities is confident about a photograph of a cat. Here each source of a modality keeps a Gaussian over
the features of its images (own mean, and one shared covariance, shrunk); an image farther from the nearest of the
modality's means than nearly all held-out images of that modality is not typical, and is skipped instead of guessed. The
guard may know what the pack is not for, too: images of other modalities and body parts, pages, charts and photographs,
each kind with a mean of its own. What is nearer to one of these than to the modality, or not nearer by a margin, is not
typical of it, however near it is. Sources are not averaged: between printed ECGs of two origins lie charts and pages.

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
from medclip.models.prototypes.tensor_file import save_tensors

FILE_NAME = "open_set.safetensors"
FEWEST = 8
"""Held-out images of a source that say how far its images lie."""


@dataclass(frozen=True, eq=False)
class OpenSet:
    """Where the known modalities lie in the embedding space."""

    modalities: tuple[str, ...]
    means_MD: NDArray[np.float32]
    """Where their images lie: a row for each modality, or several as `means_of` says."""
    precision_DD: NDArray[np.float32]
    """Inverse of the shared covariance."""
    limits_M: NDArray[np.float32]
    """Largest squared Mahalanobis distance that still counts as typical, per modality."""
    others: tuple[str, ...] = ()
    """Kinds of images that the pack is not for: "dermatology", "mri of other body parts"."""
    other_means_KD: NDArray[np.float32] | None = None
    """Where these lie; None where the guard knows of none."""
    means_of: tuple[str, ...] | None = None
    """The modality of each mean, sources having means of their own; None where every modality has one, in order."""
    margins_M: NDArray[np.float32] | None = None
    """Share of the distance to the nearest rival within which images of each modality lie; None is 1."""

    def distance(self, features_ND: NDArray[np.float32], modality: str) -> NDArray[np.float32]:
        """Squared Mahalanobis distance of float32 [N, D] features to the nearest of one modality's means, [N]."""
        return self._nearest(features_ND, self.means_MD[self._is_of(modality)])

    def rival_distance(self, features_ND: NDArray[np.float32], modality: str) -> NDArray[np.float32]:
        """Squared Mahalanobis distance to the nearest mean of anything but one modality, [N]; infinite without any."""
        others_KD = self.means_MD[:0] if self.other_means_KD is None else self.other_means_KD
        return self._nearest(features_ND, np.concatenate([self.means_MD[~self._is_of(modality)], others_KD]))

    def typical(self, features_ND: NDArray[np.float32], modality: str) -> NDArray[np.bool_]:
        """Whether each image is near enough to the modality, and nearest; True for modalities without a limit.

        Nearest by the margin, where the guard knows of others; one that knows of none has no rivals.
        """
        if modality not in self.modalities:
            return np.ones(len(features_ND), dtype=bool)
        distance = self.distance(features_ND, modality)
        is_near = distance <= self.limits_M[self.modalities.index(modality)]
        if self.other_means_KD is None:
            return is_near
        return is_near & (distance <= self.margin(modality) * self.rival_distance(features_ND, modality))

    def margin(self, modality: str) -> float:
        """Share of the distance to the nearest rival within which an image of a modality lies."""
        return 1.0 if self.margins_M is None else float(self.margins_M[self.modalities.index(modality)])

    def _is_of(self, modality: str) -> NDArray[np.bool_]:
        return np.array([name == modality for name in self.means_of or self.modalities])

    def _nearest(self, features_ND: NDArray[np.float32], means_KD: NDArray[np.float32]) -> NDArray[np.float32]:
        distances = []
        for mean_D in means_KD:
            offset = np.asarray(features_ND, dtype=np.float32) - mean_D
            distances.append(np.einsum("nd,nd->n", offset @ self.precision_DD, offset))
        return np.min(distances, axis=0) if distances else np.full(len(features_ND), np.inf, np.float32)

    def save(self, folder: Path) -> None:
        """Write open_set.safetensors into a folder."""
        arrays = {"means": self.means_MD, "precision": self.precision_DD, "limits": self.limits_M}
        about = {"modalities": ",".join(self.modalities)}
        if self.other_means_KD is not None:
            arrays["other_means"] = self.other_means_KD
            about["others"] = json.dumps(self.others)
        if self.means_of is not None:
            about["means_of"] = json.dumps(self.means_of)
        if self.margins_M is not None:
            arrays["margins"] = self.margins_M
        tensors = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in arrays.items()}
        save_tensors(folder / FILE_NAME, tensors, about)


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
    slack: float = 2.0,
    margin: float = 0.8,
    lone_margin: float = 1.0,
) -> OpenSet:
    """Fit means and covariance on some images and the limits on others.

    Args:
        train: Images of the modalities, and of what the pack is not for.
        held_out: Images of other patients; those of the modalities are looked at.
        modalities: Modalities that the pack is for; every other kind among `train` is what it is not for.
        shrinkage: Weight of the mean variance on the covariance's diagonal.
        keep: Share of held-out images of a modality that must count as typical, of that source of it whose images lie
            farthest (of sources with `FEWEST` images or more, where there is one).
        slack: Factor on the limit: held-out images of the same few sites understate the spread elsewhere. In
            pipelines/mini/guard.py, which leaves each source out in turn, 95 % of the images of a source that the guard
            was not fitted to lay within 0.3 to 2.9 times the limit without it. For the same reason no modality gets a
            limit below the median of all, and one of a single source none below the mean of those of several: a set
            from one camera looks narrower than its modality is.
        margin: Share of the distance to the nearest rival within which an image of a modality lies. The guard of
            pipelines/mini believed 0.13 of drawn images of kinds that it was not fitted to, and 0.21 with margins of 1;
            with 0.7 more than half of drawn ECG sheets were refused whose way of drawing it had not seen.
        lone_margin: Margin, likewise, of a modality with one source, which gets more room for the same reason as above.
    """
    names, others = tuple(sorted(modalities)), tuple(sorted({*train.kind_N.tolist()} - {*modalities}))
    pairs = zip(train.kind_N.tolist(), train.source_N.tolist(), strict=True)
    part_of = [(kind, source if kind in names else "") for kind, source in pairs]  # the sources of others are together
    parts = sorted({*part_of}, key=lambda part: (part[0] in others, part))
    part_N = np.array([parts.index(part) for part in part_of])
    means_KD = np.stack([train.features_ND[part_N == number].mean(axis=0) for number in range(len(parts))])
    centred = train.features_ND - means_KD[part_N]
    covariance = centred.T @ centred / len(centred)
    mean_variance = np.trace(covariance) / len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(len(covariance))
    precision = np.linalg.inv(covariance).astype(np.float32)
    means_of = tuple(kind for kind, _ in parts if kind in names)
    means_KD = means_KD.astype(np.float32)
    means_MD = means_KD[: len(means_of)]
    fitted = OpenSet(names, means_MD, precision, np.zeros(len(names), dtype=np.float32), means_of=means_of)
    limits = [slack * _farthest_quantile(fitted, held_out, name, keep) for name in names]
    limits = np.maximum(limits, np.median(limits))
    has_several = np.array([len(set(train.source_N[train.kind_N == name].tolist())) > 1 for name in names])
    if has_several.any():
        limits = np.where(has_several, limits, np.maximum(limits, limits[has_several].mean()))
    other_means_KD = means_KD[len(means_of) :] if others else None
    margins = np.where(has_several, margin, lone_margin).astype(np.float32)
    return OpenSet(names, means_MD, precision, limits.astype(np.float32), others, other_means_KD, means_of, margins)


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
            stated = f.metadata().get("means_of")
            means_of = None if stated is None else tuple(map(str, json.loads(stated)))
            margins = f.get_tensor("margins") if "margins" in {*f.keys()} else None
            guard = OpenSet(modalities, means, precision, limits, others, other_means, means_of, margins)
        if len(means_of or modalities) != len(guard.means_MD) or len(modalities) != len(guard.limits_M):
            raise ValueError("rows")
        if {*(means_of or modalities)} != {*modalities}:
            raise ValueError("modalities")
        if margins is not None and not (margins.shape == limits.shape and np.all((margins > 0) & (margins <= 1))):
            raise ValueError("margins")
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
