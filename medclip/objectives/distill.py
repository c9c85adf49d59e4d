"""Let a frozen sentence encoder teach the text tower which sentences are near each other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def relational_loss(student_BD: Tensor, teacher_BE: Tensor, temperature: float = 0.1) -> Tensor:
    """Match the similarities among a batch of sentences, each row a distribution over the other sentences.

    The two spaces may differ in width and rotation: only relations are compared. Zero when the student's cosines
    equal the teacher's.

    Args:
        student_BD: [B, D] unit-norm text features; gradients flow here.
        teacher_BE: [B, E] unit-norm features of the frozen teacher.
        temperature: Divides the cosines of both sides.

    Returns:
        Scalar float32: KL(teacher || student), mean over rows; 0 for fewer than two sentences.

    Reference: Park et al., Relational knowledge distillation, CVPR 2019; Tejankar et al., ISD, ICCV 2021 (the KL form).
    """
    if len(student_BD) < 2:
        return student_BD.float().sum() * 0.0
    student = _others(student_BD.float() @ student_BD.float().T) / temperature
    teacher = _others(teacher_BE.float() @ teacher_BE.float().T) / temperature
    return F.kl_div(student.log_softmax(1), teacher.detach().log_softmax(1), reduction="batchmean", log_target=True)


def _others(square_BB: Tensor) -> Tensor:
    """Drop the diagonal: [B, B] to [B, B - 1]."""
    size = len(square_BB)
    return square_BB.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)
