"""How far is an image from those that a pack's figures were measured on?

A figure holds where it was measured. That of medclip-mini 1.2 for pneumonia was one of ChestX-ray14, and of normal
films of other sites it called nearly all pneumonia, with certainty: the score itself says nothing of it. The vectors
do. A pack may hold, for each modality and source, a normal law of the vectors of the images that its figures are of,
and how far images of that source lie from its middle that it was not fitted to. A distance is given in the unit of
those: one in twenty lies beyond 1.

What it cannot see: an image from elsewhere whose vector is like those at home, and whether the answer is right. A site
that the pack was trained on besides, and not measured on, is far as well. It is for a number of images, not for one:
of the best known source one in twenty lies beyond 1, too, or fewer where another source lies near.

Reference: Lee et al., A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018; the
covariance is that of Tipping and Bishop, JRSS-B 61 (1999) 611-622, drawn half-way to a multiple of the unit matrix.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.models.prototypes.tensor_file import save_tensors
from medclip.wording import list_of

FILE_NAME = "home.safetensors"
AXES = 16
"""Principal axes that are kept; with 8 to 32 of medclip-mini's 256 the same images are told apart as well."""
SHRINKAGE = 0.5
WITHIN = 0.95
"""Share of images of the same source, not fitted to, that lie within a distance of 1."""
_PARTS = ("mean", "axes", "variances", "rest", "limit")


@dataclass(frozen=True, eq=False)
class Law:
    """Where the images of one source lie."""

    mean_D: NDArray[np.float32]
    axes_KD: NDArray[np.float32]
    """Unit vectors along which they vary most."""
    variances_K: NDArray[np.float32]
    rest: float
    """Variance along every other direction."""
    limit: float
    """Distance within which `WITHIN` of images of the same source lie that it was not fitted to."""
    source: str
    """What they are called: "ChestX-ray14"."""
    num_fitted: int
    num_held_out: int

    def distances(self, features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the distance of each image, in units of `limit`, [N].

        Args:
            features_ND: Unit vectors of images through the adapter of their modality.
        """
        offsets = np.asarray(features_ND, np.float64) - self.mean_D
        along = offsets @ self.axes_KD.T.astype(np.float64)
        across = np.clip(np.square(offsets).sum(axis=1) - np.square(along).sum(axis=1), 0.0, None)
        return np.sqrt((np.square(along) / self.variances_K).sum(axis=1) + across / self.rest) / self.limit


@dataclass(frozen=True, eq=False)
class Home:
    """Where the images of one modality lie that a pack's figures were measured on: near one of its sources.

    One law of chests and knees would have its middle where neither is.
    """

    laws: tuple[Law, ...]

    @property
    def source(self) -> str:
        """What its sources are called, in a sentence."""
        return list_of([law.source for law in self.laws])

    @property
    def num_fitted(self) -> int:
        """Images that the laws were fitted to."""
        return sum(law.num_fitted for law in self.laws)

    @property
    def num_held_out(self) -> int:
        """Images that the units of the laws are of."""
        return sum(law.num_held_out for law in self.laws)

    def distances(self, features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the distance of each image from the nearest source, in units of its limit, [N].

        Args:
            features_ND: Unit vectors of images through the adapter of their modality.
        """
        return np.min([law.distances(features_ND) for law in self.laws], axis=0)


def fit_home(
    fitted_ND: NDArray[np.floating], held_out_MD: NDArray[np.floating], source: str, *, axes: int = AXES
) -> Home:
    """Fit the law of a source to some of its images, and its unit to others of other patients.

    Homes of several sources are one: `Home((*one.laws, *other.laws))`.

    Args:
        fitted_ND: Unit vectors.
        held_out_MD: Unit vectors of other patients of the same source: 40 or more, or the unit is a guess.
        source: Name of the source.
        axes: Principal axes that are kept.
    """
    fitted = np.asarray(fitted_ND, np.float64)
    centred = fitted - fitted.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    variances = np.square(singular) / len(fitted)
    num, size = min(axes, len(variances)), fitted.shape[1]
    mean_variance = variances.sum() / size
    rest = (1 - SHRINKAGE) * variances[num:].sum() / max(size - num, 1) + SHRINKAGE * mean_variance
    kept = (1 - SHRINKAGE) * variances[:num] + SHRINKAGE * mean_variance
    law = Law(
        fitted.mean(axis=0).astype(np.float32),
        directions[:num].astype(np.float32),
        kept.astype(np.float32),
        float(rest),
        1.0,
        source,
        len(fitted),
        len(held_out_MD),
    )
    return Home((replace(law, limit=float(np.quantile(law.distances(held_out_MD), WITHIN))),))


def save_homes(folder: Path, homes: Mapping[str, Home]) -> None:
    """Write home.safetensors into a folder."""
    tensors, about = {}, {}
    for modality, home in sorted(homes.items()):
        for number, law in enumerate(home.laws):
            key = f"{modality}/{number}" if number else modality
            values = (law.mean_D, law.axes_KD, law.variances_K, np.float64(law.rest), np.float64(law.limit))
            tensors |= {f"{key}.{name}": np.array(value) for name, value in zip(_PARTS, values, strict=True)}
            about[key] = {"source": law.source, "fitted": law.num_fitted, "held_out": law.num_held_out}
    save_tensors(folder / FILE_NAME, tensors, {"homes": json.dumps(about)})


def load_homes(folder: Path) -> Mapping[str, Home]:
    """Read the homes of a pack by modality; none where it has no such file.

    Raises:
        MedclipError: PACK_INVALID for a file that is none.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return {}
    from safetensors import SafetensorError, safe_open

    laws: dict[str, list[Law]] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for key, about in json.loads(file.metadata()["homes"]).items():
                mean, axes, variances, rest, limit = (file.get_tensor(f"{key}.{name}") for name in _PARTS)
                if axes.shape != (len(variances), len(mean)) or not (variances > 0).all() or not rest > 0 < limit:
                    raise ValueError("shapes")
                counts = int(about["fitted"]), int(about["held_out"])
                law = Law(mean, axes, variances, float(rest), float(limit), str(about["source"]), *counts)
                laws.setdefault(key.partition("/")[0], []).append(law)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"{FILE_NAME} does not hold where images lie that a pack was measured on.",
            where=folder,
            hint="Take the pack from its source again.",
        ) from e
    return {modality: Home(tuple(of)) for modality, of in laws.items()}


def home_distances(model: Any, features_ND: NDArray[np.floating], modality: str) -> NDArray[np.float64] | None:
    """Compute how far images lie from those that a loaded model's figures were measured on.

    Returns:
        [N], to three decimals, or None where the pack does not know.
    """
    home = load_homes(Path(model.path)).get(modality)
    return None if home is None else home.distances(features_ND).round(3)
