"""Several views of one examination become one vector: attention over the views that are there, by what each shows.

It reads embeddings and never pixels, so vectors from a store give what the files give. At its start every kind of
fusion is the unit mean of the views; what is better is learned.

References: Ilse et al., Attention-based deep multiple instance learning, ICML 2018 (the gated attention); Yala et al.,
Toward robust mammography-based models for breast cancer risk, Science Translational Medicine 2021 (views and sides by
embeddings of their own).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from medclip.errors import MedclipError, Reason
from medclip.sample import POSITIONS, SIDES, VIEW_KINDS, ViewType

FusionKind = Literal["attention", "mean", "concat"]
_HIDDEN = 128


class ViewFusion(nn.Module):
    """From the unit vectors of an examination's views to one unit vector.

    Args:
        dim: Width of the vectors, D.
        kind: Kind of fusion. "attention": a weighted sum, the weights and a shift of each view from its vector, side,
            position and kind; "concat": each place of an examination has a matrix of its own, and what they make is
            added up (which is one matrix on all views side by side, with zeros for those that are missing); "mean":
            nothing is learned.
        positions: Names of positions that have an embedding; all others share one.
        sides: Names of sides that have an embedding; an unknown one has its own.
        kinds: Names of kinds that have an embedding; an unknown one has its own.

    Raises:
        MedclipError: PACK_INVALID for another kind or no name.

    Example:
        >>> fusion = ViewFusion(4, "mean")
        >>> vectors = normalize(torch.randn(1, 2, 4), dim=-1)
        >>> types = fusion.types([ViewType("R", "CC"), ViewType("R", "MLO")])[None]
        >>> fused, attention = fusion(vectors, types, torch.tensor([[True, True]]))
        >>> fused.shape, attention.tolist()
        (torch.Size([1, 4]), [[0.5, 0.5]])
    """

    def __init__(
        self,
        dim: int,
        kind: FusionKind = "attention",
        positions: Sequence[str] = POSITIONS,
        sides: Sequence[str] = SIDES,
        kinds: Sequence[str] = VIEW_KINDS,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.names = tuple(map(tuple, (sides, positions, kinds)))
        if kind not in get_args(FusionKind) or not all(self.names):
            raise MedclipError(Reason.PACK_INVALID, f"its fusion of views is {kind!r} over {self.names}.")
        if kind == "attention":
            self.types_of = nn.ModuleList(nn.Embedding(len(names) + 1, dim) for names in self.names)
            for table in self.types_of:
                nn.init.normal_(table.weight, std=0.02)  # type: ignore[arg-type]
            self.tanh, self.gate = nn.Linear(dim, _HIDDEN), nn.Linear(dim, _HIDDEN)
            self.score = nn.Linear(_HIDDEN, 1, bias=False)
            self.shift = nn.Linear(dim, dim)
            for parameter in (self.score.weight, self.shift.weight, self.shift.bias):
                nn.init.zeros_(parameter)
        elif kind == "concat":
            num_places = len(self.names[0]) * len(self.names[1]) * len(self.names[2]) + 1
            self.places = nn.Parameter(torch.eye(dim).repeat(num_places, 1, 1))

    def forward(self, view_BVD: Tensor, type_BV3: Tensor, there_BV: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            view_BVD: Unit-norm vectors; what stands where no view is does not matter.
            type_BV3: int64 from `types`: numbers of side, position and kind.
            there_BV: bool: which views there are.

        Returns:
            float32 [B, D] of unit norm, zeros where there is no view at all; float32 [B, V]: each view's share, 0 where
            there is none: its weight of attention, or (concat) the length of what it adds. The shares add up to 1.
        """
        with torch.autocast(view_BVD.device.type, enabled=False):
            view_BVD = torch.where(there_BV[:, :, None], view_BVD.float(), 0)
            type_BV3 = torch.where(there_BV[:, :, None], type_BV3, 0)
            if self.kind == "concat":
                fused_BD, share_BV = self._concatenated(view_BVD, type_BV3, there_BV)
            else:
                score_BV, value_BVD = self._scored(view_BVD, type_BV3)
                # Not -inf: a sample without any view has shares of 0 and no NaN in its gradients.
                share_BV = score_BV.masked_fill(~there_BV, torch.finfo(torch.float32).min).softmax(dim=1) * there_BV
                fused_BD = (share_BV[:, :, None] * value_BVD).sum(dim=1)
            return normalize(fused_BD, dim=-1), share_BV

    def _scored(self, view_BVD: Tensor, type_BV3: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of each view's weight, and what is weighted."""
        if self.kind == "mean":
            return view_BVD.new_zeros(view_BVD.shape[:2]), view_BVD
        # A unit vector has numbers of size 1 / sqrt(D): brought to 1, as layers expect.
        known_BVD = view_BVD * view_BVD.shape[-1] ** 0.5
        for table, number_BV in zip(self.types_of, type_BV3.unbind(-1), strict=True):
            known_BVD = known_BVD + table(number_BV)
        hidden_BVH = torch.tanh(self.tanh(known_BVD)) * torch.sigmoid(self.gate(known_BVD))
        return self.score(hidden_BVH)[..., 0], view_BVD + self.shift(known_BVD)

    def _concatenated(self, view_BVD: Tensor, type_BV3: Tensor, there_BV: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum over places, and each view's share of it. Views of one place count as their mean."""
        sides, positions, kinds = (len(names) for names in self.names)
        side_BV, position_BV, kind_BV = type_BV3.unbind(-1)
        place_BV = (kind_BV * positions + position_BV) * sides + side_BV
        named_BV = (side_BV < sides) & (position_BV < positions) & (kind_BV < kinds)
        place_BV = torch.where(named_BV, place_BV, len(self.places) - 1)
        in_place_BVS = one_hot(place_BV, len(self.places)).float() * there_BV[:, :, None]
        mean_BVS = in_place_BVS / in_place_BVS.sum(dim=1, keepdim=True).clamp_min(1)
        made_BSD = torch.einsum("bvs,bvd,sde->bse", mean_BVS, view_BVD, self.places)
        share_BV = torch.einsum("bvs,bs->bv", mean_BVS, made_BSD.norm(dim=-1))
        return made_BSD.sum(dim=1), share_BV / share_BV.sum(dim=1, keepdim=True).clamp_min(1e-30)

    def types(self, views: Sequence[ViewType]) -> Tensor:
        """Number side, position and kind of views: int64 [V, 3]; one that has no name here has the last number."""
        return torch.tensor([type_numbers(view, self.names) for view in views], dtype=torch.int64).view(-1, 3)

    def to_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        sides, positions, kinds = (list(names) for names in self.names)
        return {"kind": self.kind, "positions": positions, "sides": sides, "kinds": kinds}

    @classmethod
    def from_config(cls, dim: int, config: Any) -> ViewFusion:
        """Build it from a pack's config, with random weights.

        Raises:
            MedclipError: PACK_INVALID where the config is none of a fusion.
        """
        if not isinstance(config, Mapping) or not config.keys() <= {"kind", "positions", "sides", "kinds"}:
            raise MedclipError(Reason.PACK_INVALID, f"its fusion of views is {config!r}.")
        return cls(dim, **config)


def type_numbers(
    view: ViewType, names: Sequence[Sequence[str]] = (SIDES, POSITIONS, VIEW_KINDS)
) -> tuple[int, int, int]:
    """Number side, position and kind of a view; what has no name has the number behind the last name."""
    side, position, kind = (
        known.index(value) if value in known else len(known)
        for value, known in zip((view.side, view.position, view.kind), names, strict=True)
    )
    return side, position, kind
