"""Heads: what an adapted model does with image features. Plain arrays; scoring needs nothing of the training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.lazy import import_name, plug_ins
from medclip.models.prototypes.class_vectors import ClassVectors

HEADS = {
    "linear": "medclip.adaptation.data.heads:LinearHead",
    "hazard": "medclip.adaptation.data.heads:HazardHead",
    "tip": "medclip.adaptation.frozen.tip_adapter:TipHead",
    "clip_adapter": "medclip.adaptation.frozen.clip_adapter:ClipAdapterHead",
    "knn": "medclip.adaptation.frozen.classical:KnnHead",
    "cocoop": "medclip.adaptation.prompts.cocoop:CoCoOpHead",
    "ranking": "medclip.adaptation.frozen.ranking_adapter:RankingHead",
    "ordinal": "medclip.adaptation.frozen.ordinal:OrdinalHead",
    "map": "medclip.adaptation.maps.map_head:MapHead",
}
"""Kind to class. A head of another kind is one file and one line here."""
ENTRY_POINTS = "medclip.heads"


class Head(Protocol):
    """Turns image features into logits. Probabilities are their softmax (multiclass) or sigmoid (multilabel).

    A head with `takes = "tokens"` is given `medclip.models.towers.tokens.Tokens` of N views (patch tokens with their
    mask and grids) in the place of features, everywhere, and returns as many logits.
    """

    kind: ClassVar[str]

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C].

        Args:
            features_ND: float32 [N, D] of unit norm, one row for each view.
            model: The loaded `Model` of the pack; only heads that run the text tower look at it.
        """
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that it takes to make it again."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make it again."""
        ...


_STORED_AS = {"float": np.float64, "int": np.int64, "bool": np.uint8, "NDArray[np.bool_]": np.uint8}
"""Type of a field to that of its array; float32 for all others."""


class ArrayHead:
    """What heads share that are dataclasses of arrays and numbers: each field is stored without its axes' letters."""

    takes: ClassVar[Literal["features", "tokens"]] = "features"
    """What `logits` is given."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that it takes to make it again."""
        return {
            _stored_name(f): np.asarray(getattr(self, f.name), _STORED_AS.get(str(f.type), np.float32))
            for f in _of(self)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make it again."""
        return cls(**{f.name: _restored(f, np.asarray(arrays[_stored_name(f)])) for f in _of(cls)})


def _of(head: Any) -> tuple[Field[Any], ...]:
    return fields(head)


def _stored_name(field: Field[Any]) -> str:
    return re.sub(r"_[A-Z]+$", "", field.name)


def _restored(field: Field[Any], stored: NDArray[Any]) -> Any:
    number = {"float": float, "int": int, "bool": bool}.get(str(field.type))
    if number is not None:
        return number(stored.item())
    return stored.astype(np.bool_ if field.type == "NDArray[np.bool_]" else np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class LinearHead(ArrayHead):
    """logits = f W + b: class vectors of any origin, and every linear classifier on frozen features."""

    weight_DC: NDArray[np.float32]
    bias_C: NDArray[np.float32]
    kind: ClassVar[str] = "linear"

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C]."""
        return np.asarray(features_ND, np.float32) @ self.weight_DC + self.bias_C


def text_head(vectors: ClassVectors, logit_scale: float) -> LinearHead:
    """Make the head that scores as zero-shot does: a·cos(f, g⁺), or a·(cos(f, g⁺) − cos(f, g⁻)) for multilabel tasks.

    Args:
        vectors: Class vectors, [C, D].
        logit_scale: Scale a, the model's exp(logit_scale).
    """
    weight = vectors.positive if vectors.negative is None else vectors.positive - vectors.negative
    weight_DC = np.ascontiguousarray((np.float32(logit_scale) * weight).T, dtype=np.float32)
    return LinearHead(weight_DC, np.zeros(weight_DC.shape[1], np.float32))


def load_head(kind: str, arrays: Mapping[str, NDArray[Any]]) -> Head:
    """Make a head from what `Head.arrays` gave.

    Raises:
        MedclipError: PACK_INVALID for a kind or arrays that this medclip does not know.
    """
    place = HEADS.get(kind) or plug_ins(ENTRY_POINTS, HEADS).get(kind)
    if place is None:
        raise MedclipError(Reason.PACK_INVALID, f"its head is of the kind {kind!r}.", hint="Update medclip.")
    try:
        return import_name(place).from_arrays(arrays)
    except KeyError as e:
        raise MedclipError(Reason.PACK_INVALID, f"its head lacks the array {e}.") from e


@dataclass(frozen=True, eq=False)
class HazardHead(ArrayHead):
    """The logit of an event by the end of a year: f B + b, and all years' relu(f W + c) up to it.

    The form of Mirai (`medclip.objectives.hazard.AdditiveHazard`), in plain arrays.
    """

    base_weight_D: NDArray[np.float32]
    base_bias: float
    weight_DK: NDArray[np.float32]
    bias_K: NDArray[np.float32]
    years_C: NDArray[np.float32]
    """The asked ones, of the years 1 to K."""
    kind: ClassVar[str] = "hazard"

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C], of the asked years."""
        features_ND = np.asarray(features_ND, np.float32)
        rises_NK = np.maximum(features_ND @ self.weight_DK + self.bias_K, 0)
        base_N = features_ND @ self.base_weight_D + np.float32(self.base_bias)
        logits_NK = base_N[:, None] + rises_NK.cumsum(axis=1)
        return logits_NK[:, self.years_C.astype(np.int64) - 1]
