"""Relational distillation compares relations, not coordinates."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medclip.objectives.distill import relational_loss
from tests.kits.objectives import unit


def test_a_rotated_copy_of_the_teacher_has_no_loss() -> None:
    teacher = unit(6, 5, 0)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    assert float(relational_loss(teacher @ rotation, teacher)) == pytest.approx(0, abs=1e-5)


def test_another_geometry_has_a_loss_and_only_the_student_gets_gradients() -> None:
    student, teacher = unit(6, 8, 2).requires_grad_(), unit(6, 5, 3).requires_grad_()
    loss = relational_loss(student, teacher)
    loss.backward()
    assert float(loss.detach()) > 0.01
    assert student.grad is not None
    assert teacher.grad is None


def test_two_sentences_have_one_relation_and_so_no_loss_and_one_has_none() -> None:
    assert float(relational_loss(unit(2, 4, 0), unit(2, 4, 1))) == pytest.approx(0, abs=1e-6)
    assert float(relational_loss(unit(1, 4, 0), unit(1, 4, 1))) == 0


def test_the_value_is_the_divergence_over_the_other_sentences() -> None:
    teacher = torch.eye(3)  # every other sentence equally near: 1/2 each
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    t = 0.5
    far, near = 1 / (1 + math.exp(1 / t)), math.exp(1 / t) / (1 + math.exp(1 / t))
    one = 0.5 * math.log(0.5 / far) + 0.5 * math.log(0.5 / near)
    assert float(relational_loss(student, teacher, t)) == pytest.approx(2 * one / 3, rel=1e-5)  # row 0 has none


def _dense(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    away = torch.eye(len(student), dtype=torch.bool)
    said, known = ((x @ x.T / temperature)[~away].view(len(x), -1).log_softmax(1) for x in (student, teacher))
    return F.kl_div(said, known, reduction="batchmean", log_target=True)


@given(size=st.integers(2, 9), chunk=st.integers(1, 10), seed=st.integers(0, 10_000), hot=st.floats(0.02, 2))
def test_loss_and_gradient_equal_the_dense_form_for_any_chunk(size: int, chunk: int, seed: int, hot: float) -> None:
    student, teacher = unit(size, 4, seed).requires_grad_(), unit(size, 6, seed + 1)
    wide = student.detach().double().requires_grad_()
    loss, expected = relational_loss(student, teacher, hot, chunk=chunk), _dense(wide, teacher.double(), hot)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(student.grad.double(), wide.grad, atol=3e-5, rtol=1e-4)


def test_sentences_that_are_not_valid_take_no_part() -> None:
    student, teacher = unit(5, 4, 0), unit(5, 6, 1)
    valid = torch.tensor([True, False, True, True, False])
    expected = relational_loss(student[valid], teacher[valid])
    student[1] = torch.nan
    student.requires_grad_()
    loss = relational_loss(student, teacher, valid_B=valid)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert student.grad[~valid].abs().sum().item() == 0
    assert relational_loss(student, teacher, valid_B=torch.zeros(5, dtype=torch.bool)).item() == 0
