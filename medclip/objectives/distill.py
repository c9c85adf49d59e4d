"""Let a frozen model teach the text tower: which sentences are near each other, or what each text and word is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medclip.objectives.block import FeatureGradients, make_block, walked
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, gather_values, rank_and_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def relational_loss(
    student_BD: Tensor,
    teacher_BE: Tensor,
    temperature: float = 0.1,
    *,
    valid_B: Tensor | None = None,
    group: ProcessGroup | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Match the similarities among a batch of sentences, each row a distribution over the other sentences.

    The two spaces may differ in width and rotation: only relations are compared. Zero when the student's cosines
    equal the teacher's.

    Args:
        student_BD: [B, D] unit-norm text features; gradients flow here.
        teacher_BE: [B, E] unit-norm features of the frozen teacher.
        temperature: Temperature that divides the cosines of both sides.
        valid_B: bool [B]: which sentences take part. None: all.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.
        chunk: Rows at a time. Memory is O(B x chunk); the result does not depend on it.

    Returns:
        Scalar float32: KL(teacher || student), mean over rows; 0 for fewer than two sentences.

    Reference: Park et al., Relational knowledge distillation, CVPR 2019; Tejankar et al., ISD, ICCV 2021 (the KL form).
    """
    rank, ranks = rank_and_size(group)
    pairs = None if valid_B is None else gather_pairs(Pairs(valid_B=valid_B), group)
    block = make_block(pairs, ranks * len(student_BD), rank, ranks, student_BD.device)
    student, teacher = student_BD.float(), teacher_BE.detach().float()
    rows, cols = block.take_rows(student), block.take_cols(gather(student, group))
    known_bE, known_NE = block.take_rows(teacher), block.take_cols(gather_values(teacher, group))
    rows_bD, cols_ND = rows.detach(), cols.detach()
    sharpness = rows_bD.new_tensor(1 / temperature)

    def others(logits_cN: Tensor, part: slice) -> Tensor:
        """Return the log-probability of the other sentences; the sentence itself has the lowest number there is."""
        lowest, left_out_cN = torch.finfo(torch.float32).min, block.left_out(part, None)
        logits_cN.mul_(sharpness).scatter_(1, block.own_b[part, None], lowest)
        return F.log_softmax(logits_cN if left_out_cN is None else logits_cN.masked_fill_(left_out_cN, lowest), dim=1)

    def walk(needs: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        grads = FeatureGradients(rows_bD, cols_ND, [*needs, False])
        value = sharpness.new_zeros(())
        for part in block.parts(chunk):
            log_said_cN = others(rows_bD[part] @ cols_ND.T, part)
            log_known_cN = others(known_bE[part] @ known_NE.T, part)
            known_cN, weights_c = log_known_cN.exp(), block.row_weights_b[part]
            value += weights_c @ log_known_cN.sub_(log_said_cN).mul_(known_cN).sum(dim=1)
            if any(needs):
                grads.add(part, log_said_cN.exp_().sub_(known_cN).mul_(weights_c[:, None]))
        return value, grads.result(sharpness)[:2]

    return walked(walk, rows, cols)


def token_errors(student_BLW: Tensor, teacher_BLW: Tensor, mask_BL: Tensor) -> Tensor:
    """Compare token states of a student with those of its teacher, text by text.

    Args:
        student_BLW: [B, L, W]; gradients flow here.
        teacher_BLW: [B, L, W] of the frozen teacher.
        mask_BL: bool [B, L]: which tokens count.

    Returns:
        float32 [B, 2]: mean square of the differences over W, summed over a text's tokens; and how many tokens count.

    Reference: Stage 1 of CLIP-IN, whose formula is a reconstruction.
    """
    squared_BL = (student_BLW.float() - teacher_BLW.detach().float()).square().mean(dim=2)
    return torch.stack([torch.where(mask_BL, squared_BL, 0).sum(dim=1), mask_BL.sum(dim=1).float()], dim=1)


def mean_of_windows(feature_WD: Tensor, text_W: Tensor, num_texts: int) -> Tensor:
    """Return the unit mean of the unit features of each text's windows.

    Args:
        feature_WD: [W, D] of unit norm.
        text_W: int64 [W]: number of the text of each window.
        num_texts: Number of texts, B.

    Returns:
        float32 [B, D]; zeros for a text without a window.
    """
    summed_BD = feature_WD.new_zeros(num_texts, feature_WD.shape[1], dtype=torch.float32)
    return F.normalize(summed_BD.index_add(0, text_W, feature_WD.float()), dim=1)
