"""Distillation from stored vectors: the official code's values, the hand checks, and what changes nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.pairs import Pairs
from medclip.objectives.reinforced import reinforced_loss, teacher_probabilities
from tests.kits.objectives import check_golden, unit

NAMES = ("image_features", "text_features", "syn_text_features", "teacher_image", "teacher_text", "teacher_syn_text")


def _summed(golden: Path, scales: tuple[float, float], form: str = "average") -> Any:
    with np.load(golden / "mobileclip_dr_loss.npz") as g:
        values = {name: torch.tensor(g[name]) for name in NAMES}
        dims, scale = g["teacher_dims"].tolist(), float(g["student_logit_scale"])
    image, *texts = (values[name].requires_grad_() for name in NAMES[:3])
    known, *known_texts = (values[name] for name in NAMES[3:])
    terms = [
        reinforced_loss(image, text, scale, known, of, dims=dims, scales=scales, form=form)  # type: ignore[arg-type]
        for text, of in zip(texts, known_texts, strict=True)
    ]
    plain = [clip_loss(image, text, scale) for text in texts]
    return terms, plain, (image, *texts)


@pytest.mark.parametrize(("form", "average"), [("average", 1), ("plain", 0)])
def test_real_and_synthetic_captions_add_up_to_the_official_loss(form: str, average: int, golden: Path) -> None:
    terms, plain, features = _summed(golden, (100, 100), form)
    with np.load(golden / "mobileclip_dr_loss.npz") as g:
        check_golden(torch.stack(terms).sum(), g[f"v1_avg{average}_w0.0_1.0_distill"])
        check_golden(torch.stack(plain).sum(), g[f"v1_avg{average}_w1.0_1.0_contrastive"])
        if average:
            check_golden(terms[0], g["v1_gt_only_distill"])
            gradients = torch.autograd.grad(0.25 * torch.stack(plain).sum() + 0.75 * torch.stack(terms).sum(), features)
            for name, gradient in zip(("image", "text", "syn"), gradients, strict=True):
                np.testing.assert_allclose(gradient.numpy(), g[f"v1_avg1_w0.25_0.75_grad_{name}"], atol=2e-5)


def test_each_member_has_a_scale_of_its_own(golden: Path) -> None:
    terms, *_ = _summed(golden, (70, 60))
    with np.load(golden / "mobileclip_dr_loss.npz") as g:
        check_golden(torch.stack(terms).sum(), g["v2_scales70_60_distill"])


def test_a_student_that_says_nothing_has_the_loss_of_a_coin() -> None:
    eye = torch.eye(2)
    assert math.isclose(
        reinforced_loss(eye, eye, 0.0, eye, eye, dims=[2], scales=[3.0]).item(), math.log(2), abs_tol=1e-6
    )


def test_a_student_equal_to_its_teacher_has_no_gradient_and_the_entropy_of_the_rows() -> None:
    image, text = (unit(6, 5, seed).requires_grad_() for seed in (0, 1))
    loss = reinforced_loss(image, text, 7.0, image.detach(), text.detach(), dims=[5], scales=[7.0])
    gradients = torch.autograd.grad(loss, (image, text))
    assert max(g.abs().max().item() for g in gradients) < 1e-6
    both = [
        teacher_probabilities([c], [7.0]) for c in (image.detach() @ text.detach().T, text.detach() @ image.detach().T)
    ]
    entropy = sum(-(p * p.log()).sum(1).mean() for p in both) / 2
    assert math.isclose(loss.item(), float(entropy), abs_tol=1e-5)


def test_one_member_averaged_is_the_plain_form_and_the_order_of_samples_does_not_matter() -> None:
    image, text, known, known_text = (unit(6, 5, seed) for seed in range(4))
    values = [
        reinforced_loss(image, text, 9.0, known, known_text, dims=[5], scales=[20.0], form=form)
        for form in ("average", "plain")
    ]
    mixed = torch.tensor([3, 1, 5, 0, 2, 4])
    again = reinforced_loss(image[mixed], text[mixed], 9.0, known[mixed], known_text[mixed], dims=[5], scales=[20.0])
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[0], again)


def test_the_sigmoid_form_asks_of_each_pair() -> None:
    image, text, known, known_text = (unit(5, 4, seed) for seed in range(4))
    value = reinforced_loss(
        *(image, text, 8.0, known, known_text),
        dims=[1, 3],
        scales=[5.0, 9.0],
        biases=[-1.0, -2.0],
        bias=-3.0,
        form="sigmoid",
    )
    each = [
        torch.sigmoid(s * known[:, part] @ known_text[:, part].T + b)
        for part, s, b in ((slice(0, 1), 5.0, -1.0), (slice(1, 4), 9.0, -2.0))
    ]
    label = each[0] + each[1] - 1
    expected = -torch.log(torch.sigmoid(label * (8.0 * image @ text.T - 3.0))).sum() / 5
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("form", ["average", "sigmoid"])
def test_a_sample_that_takes_no_part_changes_nothing(form: str) -> None:
    features = [unit(6, 5, seed) for seed in range(4)]
    options = {"dims": [5], "scales": [20.0], "form": form}
    valid = torch.tensor([True, True, False, True, True, False])
    value = reinforced_loss(features[0], features[1], 9.0, *features[2:], pairs=Pairs(valid_B=valid), **options)  # type: ignore[arg-type]
    part = [of[valid] for of in features]
    alone = reinforced_loss(part[0], part[1], 9.0, *part[2:], **options)  # type: ignore[arg-type]
    torch.testing.assert_close(value, alone)
