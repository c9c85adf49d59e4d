"""InfoNCE among several images and several texts of one examination."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.block import Block, check_features, make_block, scalar
from medclip.objectives.contrastive import symmetric_info_nce
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, gather_values, rank_and_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class ExamKeys:
    """Which views and texts samples have, and of what they are; None where all have all, of the whole."""

    image_there_BV: Tensor | None = None
    """bool [B, V]: which views a sample has. A combination takes the samples that have both sides."""
    text_there_BT: Tensor | None = None
    """bool [B, T]: which texts a sample has."""
    image_part_BV: Tensor | None = None
    """int64 [B, V]: number of the part of an examination that a view shows (the right breast, the left one), -1 where
    it is not known. Views and texts of two parts are neither positives of each other nor negatives."""
    text_part_BT: Tensor | None = None
    """int64 [B, T]: the same for texts, -1 for one that is about the whole."""
    text_positive_BT: Tensor | None = None
    """int64 [B, T] keys of texts, -1 for none: two samples with the same one are positives of each other in the
    combinations with that text alone, for what it says need not be true of the other side."""
    text_ignored_BT: Tensor | None = None
    """The same for pairs that are neither positives nor negatives."""


WHOLE = ExamKeys()
"""Every sample has every view and text, and they are about all of it."""


def multi_view_clip_loss(
    images: Sequence[Tensor],
    texts: Sequence[Tensor],
    logit_scale: Tensor | float,
    *,
    w_it: float = 1.0,
    w_vv: float = 0.0,
    w_tt: float = 0.0,
    w_joint: float = 0.0,
    joint_BD: Tensor | None = None,
    exams: ExamKeys = WHOLE,
    pairs: Pairs | None = None,
    group: ProcessGroup | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Add up contrastive terms of V images and T texts per sample, each term the mean over its combinations.

    Where samples lack views or texts, a combination counts as much as there are samples that have both its sides.

    The terms are: every image with every text (w_it), every two images (w_vv), every two texts (w_tt), and the joint
    embedding of the images with every text (w_joint). One image and one text with the default weights is `clip_loss`;
    two and two with 1, 1, 0.5 and 0 is the loss of Mammo-CLIP. A term of weight 0 costs nothing.

    Args:
        images: V tensors [B, D] of unit-norm features, one for each view (CC and MLO, frontal and lateral).
        texts: T tensors [B, D], one for each wording or section.
        logit_scale: Scale, as in `clip_loss`.
        w_it: Weight of images with texts.
        w_vv: Weight of images with images; needs two views.
        w_tt: Weight of texts with texts; needs two texts.
        w_joint: Weight of the joint embedding with texts.
        joint_BD: [B, D] unit-norm joint embedding made by the model. None: the mean of the views that are there.
        exams: Keys of examinations: which views and texts samples have, and of what they are.
        pairs: Pairs, as in `clip_loss`; they hold for every combination.
        group: Ranks, as in `clip_loss`.
        chunk: Rows at a time, as in `clip_loss`.

    Returns:
        Scalar float32.

    Raises:
        MedclipError: WRONG_USE for no image or no text, a term without its two sides, or tensors of another size.

    Reference: Ghosh et al., Mammo-CLIP, MICCAI 2024; Liu et al., MERL, ICML 2024.

    Example:
        >>> eye = torch.eye(2)
        >>> bool(multi_view_clip_loss([eye], [eye], 5.0) == multi_view_clip_loss([eye, eye], [eye], 5.0))
        True
    """
    of_texts = (exams.text_there_BT, exams.text_part_BT, exams.text_positive_BT, exams.text_ignored_BT)
    _check(images, texts, (w_vv, w_tt), (exams.image_there_BV, exams.image_part_BV), of_texts)
    num_views, num_texts = len(images), len(texts)
    features = [x.float() for x in (*images, *texts)]
    check_features(*features, *([] if joint_BD is None else [joint_BD]))
    present = [*_columns(exams.image_there_BV, num_views), *_columns(exams.text_there_BT, num_texts)]
    parts = [*_columns(exams.image_part_BV, num_views), *_columns(exams.text_part_BT, num_texts), None]
    if w_joint:
        features.append(_mean_view(images, exams.image_there_BV) if joint_BD is None else joint_BD.float())
        present.append(None if exams.image_there_BV is None else exams.image_there_BV.any(dim=1))
    views, wordings = range(num_views), range(num_views, num_views + num_texts)
    terms = (
        (w_it, list(itertools.product(views, wordings))),
        (w_vv, list(itertools.combinations(views, 2))),
        (w_tt, list(itertools.combinations(wordings, 2))),
        (w_joint, [(num_views + num_texts, wording) for wording in wordings]),
    )
    scale = scalar(logit_scale, features[0].device)
    gathered = functools.cache(lambda i: gather(features[i], group))
    keys = [
        [*[None] * num_views, *_columns(x, num_texts), None] for x in (exams.text_positive_BT, exams.text_ignored_BT)
    ]
    block = _blocks(pairs, present, parts, keys, len(features[0]), group, scale.device)
    total = scale.new_zeros(())
    for weight, combinations in terms:
        laid_out = [block(rows, cols) for rows, cols in combinations] if weight else []
        sizes = torch.stack([size for _, size in laid_out]) if laid_out else scale.new_zeros(0)
        shares = sizes / sizes.sum().clamp_min(1e-30)
        for (rows, cols), (pair, _), share in zip(combinations, laid_out, shares, strict=False):
            loss = symmetric_info_nce(features[rows], gathered(cols), scale, pair, group=group, chunk=chunk)
            total = total + weight * share * loss
    return total


def _blocks(
    pairs: Pairs | None,
    present: Sequence[Tensor | None],
    parts: Sequence[Tensor | None],
    keys: Sequence[Sequence[Tensor | None]],
    size: int,
    group: ProcessGroup | None,
    device: torch.device,
) -> Callable[[int, int], tuple[Block, Tensor]]:
    """Return a function that lays out feature i against feature j: the valid samples that have both, of one part.

    Beside the block it returns how many these are, by their weight.
    """
    rank, ranks = rank_and_size(group)
    every = gather_pairs(pairs, group) or Pairs()
    present_N = [None if x is None else gather_values(x.to(torch.uint8), group).bool() for x in present]
    part = [None if x is None else gather_values(x, group) for x in parts]
    keys_by_relation = [[None if x is None else gather_values(x, group)[:, None] for x in columns] for columns in keys]

    def block(rows: int, cols: int) -> tuple[Block, Tensor]:
        given = [x for x in (every.valid_B, present_N[rows], present_N[cols]) if x is not None]
        of_rows, of_cols = part[rows], part[cols]
        if of_rows is not None and of_cols is not None:
            given.append((of_rows == of_cols) | (of_rows < 0) | (of_cols < 0))
        valid = functools.reduce(torch.logical_and, given) if given else None
        weights = torch.ones(ranks * size, device=device) if every.weights_B is None else every.weights_B.float()
        number = (weights if valid is None else weights * valid).sum()
        positive, ignored = (
            _beside(of_all, columns[rows], columns[cols])
            for of_all, columns in zip((every.positive_BK, every.ignored_BK), keys_by_relation, strict=True)
        )
        pair = replace(every, positive_BK=positive, ignored_BK=ignored, valid_B=valid, text_positive_BK=None)
        return make_block(pair, ranks * size, rank, ranks, device), number

    return block


def _beside(*columns: Tensor | None) -> Tensor | None:
    given = [x for x in columns if x is not None]
    return torch.cat(given, dim=1) if given else None


def _columns(there_BV: Tensor | None, count: int) -> Sequence[Tensor | None]:
    return [None] * count if there_BV is None else there_BV.unbind(1)


def _mean_view(images: Sequence[Tensor], there_BV: Tensor | None) -> Tensor:
    """Return the unit-norm mean of the views that are there: float32 [B, D]."""
    views_VBD = torch.stack([x.float() for x in images])
    if there_BV is not None:
        views_VBD = torch.where(there_BV.T[:, :, None], views_VBD, 0)
    return F.normalize(views_VBD.sum(dim=0), dim=-1)


def _check(
    images: Sequence[Tensor],
    texts: Sequence[Tensor],
    weights: tuple[float, float],
    of_images: Sequence[Tensor | None],
    of_texts: Sequence[Tensor | None],
) -> None:
    for what, features, weight, given in (
        ("image", images, weights[0], of_images),
        ("text", texts, weights[1], of_texts),
    ):
        needed = 2 if weight else 1
        if len(features) < needed:
            raise MedclipError(Reason.WRONG_USE, f"{len(features)} {what} features; these weights need {needed}.")
        for present in given:
            if present is not None and present.shape != (len(features[0]), len(features)):
                raise MedclipError(
                    Reason.WRONG_USE,
                    f"what is known of {what}s is {list(present.shape)}; expected {[len(features[0]), len(features)]}.",
                )
