"""Does an image look like anything the model was trained on? A guard before a modality is inferred.

A softmax over modalities is confident about a photograph of a cat. Here each modality keeps a Gaussian over the
training features of its generic renderings (own mean, one shared covariance, shrunk); an image farther from the
modality's mean than nearly all held-out images of that modality is not typical, and is skipped instead of guessed.

Reference: Lee et al., A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import new_file

FILE_NAME = "open_set.safetensors"


@dataclass(frozen=True, eq=False)
class OpenSet:
    """Where the known modalities lie in the embedding space."""

    modalities: tuple[str, ...]
    means_MD: NDArray[np.float32]
    precision_DD: NDArray[np.float32]
    """Inverse of the shared covariance."""
    limits_M: NDArray[np.float32]
    """Largest squared Mahalanobis distance that still counts as typical, per modality."""

    def distance(self, features_ND: NDArray[np.float32], modality: str) -> NDArray[np.float32]:
        """Squared Mahalanobis distance of float32 [N, D] features to one modality's mean, [N]."""
        offset = np.asarray(features_ND, dtype=np.float32) - self.means_MD[self.modalities.index(modality)]
        return np.einsum("nd,de,ne->n", offset, self.precision_DD, offset)

    def typical(self, features_ND: NDArray[np.float32], modality: str) -> NDArray[np.bool_]:
        """Whether each image is near enough to the modality; True for modalities without a limit."""
        if modality not in self.modalities:
            return np.ones(len(features_ND), dtype=bool)
        return self.distance(features_ND, modality) <= self.limits_M[self.modalities.index(modality)]

    def save(self, folder: Path) -> None:
        """Write open_set.safetensors into a folder.

        Raises:
            MedclipError: As `medclip.files.output.disk_errors`.
        """
        from safetensors.numpy import save_file

        arrays = {"means": self.means_MD, "precision": self.precision_DD, "limits": self.limits_M}
        tensors = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in arrays.items()}
        with new_file(folder / FILE_NAME) as draft:
            save_file(tensors, draft, metadata={"modalities": ",".join(self.modalities)})


def fit_open_set(
    train_ND: NDArray[np.float32],
    train_modality: NDArray[Any],
    held_out_ND: NDArray[np.float32],
    held_out_modality: NDArray[Any],
    *,
    shrinkage: float = 0.1,
    keep: float = 0.99,
    slack: float = 1.75,
) -> OpenSet:
    """Fit means and covariance on training features and the limits on held-out ones.

    Args:
        train_ND: float32 [N, D] features of generic renderings.
        train_modality: Modality name of each row, [N].
        held_out_ND: float32 [M, D] features of other patients.
        held_out_modality: Modality name of each row, [M].
        shrinkage: Weight of the mean variance on the covariance's diagonal.
        keep: Share of held-out images of a modality that must count as typical.
        slack: Factor on the limit: held-out images of the same few sites understate the spread elsewhere. With 1.75,
            medclip-mini accepts most images of other sites that were tried, and one of some 50 images of something
            else (tissue, paper ECGs, test patterns, a biscuit): a tissue tile, taken for CT. For the same reason no
            modality gets a limit below the median of all: a set from one camera looks narrower than its modality is.
    """
    names = tuple(sorted(set(train_modality.tolist())))
    means = np.stack([train_ND[train_modality == m].mean(axis=0) for m in names])
    centred = train_ND - means[[names.index(m) for m in train_modality]]
    covariance = centred.T @ centred / len(centred)
    mean_variance = np.trace(covariance) / len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(len(covariance))
    fitted = OpenSet(names, means, np.linalg.inv(covariance).astype(np.float32), np.zeros(len(names), dtype=np.float32))
    limits = [slack * np.quantile(fitted.distance(held_out_ND[held_out_modality == m], m), keep) for m in names]
    limits = np.maximum(limits, np.median(limits))
    return OpenSet(names, means.astype(np.float32), fitted.precision_DD, np.asarray(limits, dtype=np.float32))


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
            guard = OpenSet(modalities, f.get_tensor("means"), f.get_tensor("precision"), f.get_tensor("limits"))
        if not len(modalities) == len(guard.means_MD) == len(guard.limits_M):
            raise ValueError("rows")
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
