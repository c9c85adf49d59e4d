"""Let stored vectors of an ensemble of teachers say how well each image of a batch fits each text (MobileCLIP).

Each member of the ensemble says it with a softmax of its own scale; what they say is averaged behind the softmax, never
their logits. One term is about images and one set of captions; real and synthetic captions are two terms, added up.

Reference: Vasu et al., MobileCLIP: fast image-text models through multi-modal reinforced training, CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medclip.objectives.block import Block, check_features, make_block, scalar
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, gather_values, rank_and_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Form = Literal["average", "plain", "sigmoid"]
_LOWEST = torch.finfo(torch.float32).min / 4


def reinforced_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    scale: Tensor | float,
    teacher_image_BE: Tensor,
    teacher_text_BE: Tensor,
    *,
    dims: Sequence[int],
    scales: Sequence[float],
    biases: Sequence[float] = (),
    bias: Tensor | float = 0.0,
    form: Form = "average",
    pairs: Pairs | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the mean of both directions' cross-entropies with the targets that the teachers give.

    Args:
        image_BD: [B, D] unit-norm image features of the student.
        text_BD: [B, D] unit-norm text features of the student; row i belongs to image i.
        scale: Factor of the student's cosines.
        teacher_image_BE: [B, E] features of the same images: those of the members side by side, each of unit norm.
        teacher_text_BE: [B, E] features of the same texts, likewise.
        dims: Widths of the members; they add up to E.
        scales: Factors of the members' cosines, one each.
        biases: Biases of the members, one each, for "sigmoid"; 0 where empty.
        bias: Bias of the student, for "sigmoid".
        form: "average" averages the members' softmaxes; "plain" is one softmax of the product of the joined features,
            times the first scale; "sigmoid" asks of each pair by itself, with the soft label 2 p - 1.
        pairs: Weights of samples and which take part; what is positive the teachers say.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.

    Returns:
        Scalar float32. Memory is O(b x B) for b rows of a rank.

    Example:
        >>> image, text = torch.eye(2), torch.eye(2)
        >>> round(float(reinforced_loss(image, text, 0.0, image, text, dims=[2], scales=[100.0])), 6)
        0.693147
    """
    check_features(image_BD, text_BD)
    rank, ranks = rank_and_size(group)
    taking = None if pairs is None else Pairs(weights_B=pairs.weights_B, valid_B=pairs.valid_B)
    block = make_block(gather_pairs(taking, group), ranks * len(image_BD), rank, ranks, image_BD.device)
    factor = scalar(scale, image_BD.device)
    images, texts = image_BD.float(), text_BD.float()
    known_images, known_texts = teacher_image_BE.detach().float(), teacher_text_BE.detach().float()

    def of_members(rows_bE: Tensor, cols_NE: Tensor) -> list[Tensor]:
        split = zip(rows_bE.split(list(dims), 1), cols_NE.split(list(dims), 1), strict=True)
        return [rows @ cols.T for rows, cols in split]

    def one_way(rows_bD: Tensor, cols_ND: Tensor, known_bE: Tensor, known_NE: Tensor) -> Tensor:
        logits_bN = factor * (block.take_rows(rows_bD) @ block.take_cols(cols_ND).T)
        cosines = of_members(block.take_rows(known_bE), block.take_cols(known_NE))
        if form == "sigmoid":
            return _sigmoid(logits_bN + scalar(bias, logits_bN.device), cosines, scales, biases, block)
        left_out_bN = block.left_out(slice(0, len(block.own_b)), None)

        def hidden(values_bN: Tensor) -> Tensor:
            return values_bN if left_out_bN is None else values_bN.masked_fill(left_out_bN, _LOWEST)

        target_bN = teacher_probabilities(cosines, scales, hidden, plain=form == "plain")
        logs_bN = hidden(logits_bN).log_softmax(1)
        each_b = -torch.where(target_bN > 0, target_bN * logs_bN, 0).sum(1)
        return torch.where(block.row_weights_b > 0, each_b * block.row_weights_b, 0).sum()

    with torch.autocast(image_BD.device.type, enabled=False):
        first = one_way(images, gather(texts, group), known_images, gather_values(known_texts, group))
        if form == "sigmoid":  # each pair is one question, whichever side asks
            return first
        return (first + one_way(texts, gather(images, group), known_texts, gather_values(known_images, group))) / 2


def teacher_probabilities(
    cosines: Sequence[Tensor],
    scales: Sequence[float],
    hidden: Callable[[Tensor], Tensor] = lambda values: values,
    *,
    plain: bool = False,
) -> Tensor:
    """Return what the members say of each row, [b, N]; rows add up to 1.

    Args:
        cosines: Cosines of each member, [b, N].
        scales: Factor of each.
        hidden: Function that takes pairs out of the softmax.
        plain: Whether there is one softmax, of the sum of the cosines times the first scale.
    """
    if plain:
        return hidden(scales[0] * torch.stack(list(cosines)).sum(0)).softmax(1)
    each = [hidden(scale * cosine_bN).softmax(1) for scale, cosine_bN in zip(scales, cosines, strict=True)]
    return torch.stack(each).mean(0)


def _sigmoid(
    logits_bN: Tensor, cosines: Sequence[Tensor], scales: Sequence[float], biases: Sequence[float], block: Block
) -> Tensor:
    every = slice(0, len(block.own_b))
    shifts = biases or [0.0] * len(cosines)
    each = [(scale * c_bN + b).sigmoid() for c_bN, scale, b in zip(cosines, scales, shifts, strict=True)]
    label_bN = 2 * torch.stack(each).mean(0) - 1
    losses_bN = -F.logsigmoid(label_bN * logits_bN) * block.pair_weights(every)
    left_out_bN = block.left_out(every, None)
    return (losses_bN if left_out_bN is None else losses_bN.masked_fill(left_out_bN, 0)).sum()
