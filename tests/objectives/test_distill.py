"""Relational distillation compares relations, not coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from medclip.objectives.distill import relational_loss


def _unit(n: int, d: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_a_rotated_copy_of_the_teacher_has_no_loss() -> None:
    teacher = _unit(6, 5, 0)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    assert float(relational_loss(teacher @ rotation, teacher)) == pytest.approx(0, abs=1e-5)


def test_another_geometry_has_a_loss_and_only_the_student_gets_gradients() -> None:
    student, teacher = _unit(6, 8, 2).requires_grad_(), _unit(6, 5, 3).requires_grad_()
    loss = relational_loss(student, teacher)
    loss.backward()
    assert float(loss.detach()) > 0.01
    assert student.grad is not None
    assert teacher.grad is None


def test_two_sentences_have_one_relation_and_so_no_loss_and_one_has_none() -> None:
    assert float(relational_loss(_unit(2, 4, 0), _unit(2, 4, 1))) == pytest.approx(0, abs=1e-6)
    assert float(relational_loss(_unit(1, 4, 0), _unit(1, 4, 1))) == 0


def test_the_value_is_the_divergence_over_the_other_sentences() -> None:
    teacher = torch.eye(3)  # every other sentence equally near: 1/2 each
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    t = 0.5
    far, near = 1 / (1 + math.exp(1 / t)), math.exp(1 / t) / (1 + math.exp(1 / t))
    one = 0.5 * math.log(0.5 / far) + 0.5 * math.log(0.5 / near)
    assert float(relational_loss(student, teacher, t)) == pytest.approx(2 * one / 3, rel=1e-5)  # row 0 has none
