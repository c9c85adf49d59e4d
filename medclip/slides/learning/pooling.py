"""Pooling of a slide's patches into one answer: mean, ABMIL and ACMIL, and what each patch adds to it.

A slide is a bag of N patch vectors. Each is reduced, h = ReLU(W x); attention a_t = w_t·(tanh(V h) ⊙ σ(U h)) + b_t
looks at it T times; the softmax of a_t over patches weighs h, and a head turns the sum into the answer of branch t. The
slide's own answer is that of a further head on the mean over branches. With T = 1 this is ABMIL, with T = 5 ACMIL,
which in training hides a part of what each branch looks at most and so keeps it from leaning on a few patches. With
attention that is the same everywhere it is the mean of patches: the baseline.

The slide's logit is a sum over patches, Σ a_n·(w·h_n) + b, so what a patch adds is known exactly (`evidence_of`): that
is the heat map.

References: Ilse et al., Attention-based deep multiple instance learning, ICML 2018; Zhang et al., Attention-challenging
multiple instance learning, ECCV 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.objectives.hazard import AdditiveHazard
from medclip.text.vocabulary.task_kinds import kind_named

POOLINGS = ("mean", "abmil", "acmil")
BRANCHES = {"mean": 1, "abmil": 1, "acmil": 5}
HIDDEN = 128
"""Width of the attention."""
MASKED_TOP = 10
"""ACMIL: so many patches that a branch looks at most may be hidden."""
MASKED_SHARE = 0.6
"""ACMIL: this share of them, drawn at random in each step, is."""
_HIDDEN_LOGIT = -1e9


@dataclass(frozen=True)
class Shape:
    """What a pooling is built by."""

    pooling: str
    """mean, abmil or acmil."""
    dim: int
    """D, of the patch vectors."""
    num_outputs: int
    """C classes, or K years of a risk."""
    kind: str = "multiclass"
    """Of the task, a row of `TASK_KINDS`."""
    num_branches: int = 0
    """T; 0: one, and five for acmil."""
    reduced: int = 0
    """Width of h; 0: half of D."""
    hidden: int = HIDDEN

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            hint = did_you_mean(self.pooling, POOLINGS, "Poolings are")
            raise MedclipError(Reason.WRONG_USE, f"there is no pooling {self.pooling!r}.", hint=hint)
        if min(self.dim, self.num_outputs, self.hidden) < 1 or self.num_branches < 0 or self.reduced < 0:
            raise MedclipError(
                Reason.WRONG_USE,
                f"dim={self.dim}, num_outputs={self.num_outputs}, num_branches={self.num_branches}, "
                f"reduced={self.reduced} and hidden={self.hidden} cannot be.",
                hint="Widths and counts are at least 1; branches and the reduced width may be 0, for the usual ones.",
            )
        object.__setattr__(self, "num_branches", self.num_branches or BRANCHES[self.pooling])
        object.__setattr__(self, "reduced", self.reduced or max(1, self.dim // 2))


@dataclass(frozen=True, eq=False)
class Pooled:
    """What a pooling answers for one slide."""

    slide_C: Tensor
    """Logits of the slide."""
    branch_TC: Tensor
    """Logits of each branch."""
    attention_TN: Tensor
    """Before the softmax; of patches that were hidden, -1e9."""


class GatedAttention(nn.Module):
    """Looks at each patch T times: a_t = w_t·(tanh(V h) ⊙ σ(U h)) + b_t.

    Args:
        reduced: Width of h.
        hidden: Width of the attention.
        num_branches: T, the number of branches.
    """

    def __init__(self, reduced: int, hidden: int, num_branches: int) -> None:
        super().__init__()
        self.content = nn.Linear(reduced, hidden)
        self.gate = nn.Linear(reduced, hidden)
        self.weights = nn.Linear(hidden, num_branches)

    def forward(self, h_NH: Tensor) -> Tensor:
        """Return float [T, N] of h [N, H]."""
        return self.weights(torch.tanh(self.content(h_NH)) * torch.sigmoid(self.gate(h_NH))).T


class SlidePooling(nn.Module):
    """Turns the patches of one slide into its logits.

    Args:
        shape: Shape that the head is built by.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.reduce = nn.Linear(shape.dim, shape.reduced, bias=False)
        num_branches = shape.num_branches
        self.attention = None if shape.pooling == "mean" else GatedAttention(shape.reduced, shape.hidden, num_branches)
        self.branches = nn.ModuleList(_head(shape) for _ in range(num_branches if num_branches > 1 else 0))
        self.slide = _head(shape)

    def forward(
        self, bag_ND: Tensor, generator: torch.Generator | None = None, masked_share: float = MASKED_SHARE
    ) -> Pooled:
        """Pool one bag.

        Args:
            bag_ND: float [N, D], the patches of a slide, N at least 1.
            generator: Generator that draws what ACMIL hides in training mode; None hides nothing.
            masked_share: Share that ACMIL hides of the patches that a branch looks at most.
        """
        h_NH = relu(self.reduce(bag_ND))
        attention_TN = self._attention(h_NH)
        if generator is not None and self.training and self.shape.pooling == "acmil":
            attention_TN = hide_top(attention_TN, generator, share=masked_share)
        weight_TN = attention_TN.softmax(dim=-1)
        branch_TH = weight_TN @ h_NH
        slide_C = self.slide(branch_TH.mean(dim=0, keepdim=True))[0]
        heads = [head(branch_TH[t : t + 1]) for t, head in enumerate(self.branches)]
        return Pooled(slide_C, torch.cat(heads) if heads else slide_C[None], attention_TN)

    def _attention(self, h_NH: Tensor) -> Tensor:
        if self.attention is None:
            return h_NH.new_zeros(self.shape.num_branches, len(h_NH))
        return self.attention(h_NH)

    def attention_of(self, bag_ND: Tensor) -> Tensor:
        """Return the share of attention on each patch, the mean over branches: float [N], their sum is 1."""
        return self._attention(relu(self.reduce(bag_ND))).softmax(dim=-1).mean(dim=0)

    def evidence_of(self, bag_ND: Tensor) -> Tensor:
        """Return what each patch adds to the slide's logits: float [N, C], whose sum is the logits less their bias.

        Raises:
            MedclipError: WRONG_USE for a risk, whose logits are no sum over patches.
        """
        if not isinstance(self.slide, nn.Linear):
            raise MedclipError(
                Reason.WRONG_USE,
                "the logits of a risk are no sum over patches.",
                hint="Use the attention: it says where the head looks, not what for.",
            )
        h_NH = relu(self.reduce(bag_ND))
        weight_N1 = self._attention(h_NH).softmax(dim=-1).mean(dim=0)[:, None]
        return weight_N1 * (h_NH @ self.slide.weight.T)


def hide_top(
    attention_TN: Tensor, generator: torch.Generator, *, top: int = MASKED_TOP, share: float = MASKED_SHARE
) -> Tensor:
    """Hide a random part of the patches that each branch looks at most, as ACMIL does in training.

    Args:
        attention_TN: float [T, N], before the softmax.
        generator: Generator of the draw.
        top: Number of the highest that may be hidden; all where a slide has fewer.
        share: Share of them that is hidden, below 1; their number is rounded down.
    """
    top = min(top, attention_TN.shape[1])
    _, index_TK = attention_TN.topk(top, dim=-1)
    order_TK = torch.rand(index_TK.shape, generator=generator).argsort(dim=-1)[:, : int(top * share)]
    hidden_TN = torch.zeros_like(attention_TN, dtype=torch.bool)
    hidden_TN.scatter_(1, index_TK.gather(1, order_TK), True)
    return attention_TN.masked_fill(hidden_TN, _HIDDEN_LOGIT)


def _head(shape: Shape) -> nn.Module:
    if kind_named(shape.kind).timed:
        return AdditiveHazard(shape.reduced, shape.num_outputs)
    return nn.Linear(shape.reduced, shape.num_outputs)
