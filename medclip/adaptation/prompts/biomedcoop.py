"""BiomedCoOp: CoOp held near what many sentences say of each class.

Koleilat et al., BiomedCoOp, CVPR 2025. The paper asks a language model for 50 sentences a class; here the teacher's
sentences are the task's own prompts, every wording in every template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.methods import Fitted
from medclip.adaptation.prompts.coop import Extra, PromptOptions, learn_context

if TYPE_CHECKING:
    from medclip.models.model import Model

_TINY = 1e-6


@dataclass(frozen=True)
class Parts:
    """The two terms beside the task's loss."""

    consistency: Tensor
    """mean((T − mean sentence)²), "SCCM"."""
    distillation: Tensor
    """KL from the selected sentences' answers to the learned ones', "KDSP"."""


def keep_sentences(images_ND: Tensor, teacher_RPD: Tensor, scale: float, tau: float) -> tuple[Tensor, Tensor]:
    """Choose the sentences whose scores on these images are not outliers.

    score_p = mean over images of the highest a·f·E[r, p] over r; z = (score − median) / MAD; sentence p stays where
    z lies at most tau standard deviations from the mean of z. Where all scores are alike all stay.

    Args:
        images_ND: Image features, unit norm.
        teacher_RPD: Sentence embeddings, unit norm.
        scale: Factor of the cosines, a.
        tau: Highest number of standard deviations by which a score may lie off.

    Returns:
        Scores [P], and which stay, bool [P]; at least one does.
    """
    scores_P = (scale * torch.einsum("nd,rpd->nrp", images_ND, teacher_RPD)).amax(dim=1).mean(dim=0)
    deviation_P = scores_P - scores_P.median()
    z_P = deviation_P / deviation_P.abs().median().clamp(min=_TINY)
    spread = z_P.std() if len(z_P) > 1 else z_P.new_zeros(())
    kept_P = ((z_P - z_P.mean()) / spread.clamp(min=_TINY)).abs() <= tau
    return scores_P, kept_P if bool(kept_P.any()) else torch.ones_like(kept_P)


def biomedcoop_parts(
    images_ND: Tensor,
    frozen_ND: Tensor,
    text_RD: Tensor,
    teacher_RPD: Tensor,
    *,
    scale: float,
    tau: float,
    pairs: bool = False,
) -> Parts:
    """Return the two terms, without their weights.

    Args:
        images_ND: Image features as the learner sees them, unit norm.
        frozen_ND: Image features of the base model; the same where the image tower is frozen and nothing is augmented.
        text_RD: Learned text features, unit norm.
        teacher_RPD: Embeddings of P sentences for each row, unit norm.
        scale: Factor of the cosines, a.
        tau: Limit of scores, see `keep_sentences`.
        pairs: Whether the second half of the rows denies the first: answers are taken between the two of a pair.

    Returns:
        The KL is summed over all entries and divided by N·R, as the reference does.
    """
    _, kept_P = keep_sentences(images_ND, teacher_RPD, scale, tau)
    selected_RD = normalize(teacher_RPD[:, kept_P].mean(dim=1), dim=-1)
    average_RD = normalize(teacher_RPD.mean(dim=1), dim=-1)
    taught = _log_answers(scale * frozen_ND @ selected_RD.T, pairs)
    learned = _log_answers(scale * images_ND @ text_RD.T, pairs)
    distillation = (taught.exp() * (taught - learned)).sum() / (len(images_ND) * len(text_RD))
    return Parts((text_RD - average_RD).square().mean(), distillation)


def teacher_sentences(base: Model, text: ClassText) -> Tensor:
    """Encode the task's prompts: float [R, P, D], R = C, or 2C with those that deny the classes.

    P is the length of the longest list; shorter ones begin again from their first sentence.
    """
    lists = (*text.positive(), *text.negative())
    longest = max(len(sentences) for sentences in lists)
    filled = [[sentences[p % len(sentences)] for p in range(longest)] for sentences in lists]
    return torch.tensor(np.stack([base.encode_text(sentences) for sentences in filled]), device=base.device)


def fit_biomedcoop(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    consistency: float = 0.5,
    distillation: float = 0.5,
    tau: float = 1.5,
    **prompt: Any,
) -> Fitted:
    """Learn a context as `fit_coop` does, with the two further terms.

    `consistency` weighs the first term (λ1) and `distillation` the second (λ2); `tau` is how far a sentence's score may
    lie off to stay. All other arguments are those of `fit_coop`; the last epoch is the model.
    """

    def further() -> tuple[Extra, dict[str, Any]]:
        teacher_RPD = teacher_sentences(base, text)
        pairs = text.rules.independent

        def terms(images_ND: Tensor, text_RD: Tensor) -> Tensor:
            parts = biomedcoop_parts(
                images_ND, images_ND, text_RD, teacher_RPD, scale=base.logit_scale, tau=tau, pairs=pairs
            )
            return consistency * parts.consistency + distillation * parts.distillation

        weights = {"consistency": consistency, "distillation": distillation, "tau": tau}
        return terms, {**weights, "num_sentences": teacher_RPD.shape[1]}

    options = PromptOptions(**prompt)
    return learn_context("biomedcoop", "BiomedCoOp", base, text, (train, val), seed, options, further)


def _log_answers(logits_NR: Tensor, pairs: bool) -> Tensor:
    """Return log-probabilities over all rows, or between the two of each pair [N, 2, C]."""
    if pairs:
        return log_softmax(logits_NR.unflatten(1, (2, -1)), dim=1)
    return log_softmax(logits_NR, dim=1)
