"""Several images and texts of one sample: special cases, golden vectors, missing views."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.multi_view import ExamKeys, multi_view_clip_loss
from medclip.objectives.pairs import Pairs
from tests.kits.objectives import batches, check_golden, check_golden_gradient, leaves, unit


def _mammo(images: list[Tensor], texts: list[Tensor], scale: float = 14.0) -> Tensor:
    return multi_view_clip_loss(images, texts, scale, w_it=1.0, w_vv=1.0, w_tt=0.5)


@given(batch=batches(), seed=st.integers(0, 10_000))
def test_one_image_and_one_text_is_the_plain_loss(batch: tuple[int, int, Pairs | None, int], seed: int) -> None:
    size, width, pairs, chunk = batch
    image, text = unit(size, width, seed), unit(size, width, seed + 1)
    ours = multi_view_clip_loss([image], [text], 7.0, pairs=pairs, chunk=chunk)
    torch.testing.assert_close(ours, clip_loss(image, text, 7.0, pairs, chunk=chunk))


def test_equal_orthonormal_rows_give_the_closed_form() -> None:
    eye = torch.eye(4)
    one = math.log1p(3 * math.exp(-1 / 0.07))
    assert float(_mammo([eye, eye], [eye, eye], 1 / 0.07)) == pytest.approx(2.5 * one, rel=0.05)


@given(n=st.integers(1, 7), seed=st.integers(0, 10_000))
def test_the_order_of_views_and_of_texts_makes_no_difference(n: int, seed: int) -> None:
    images, texts = [unit(n, 5, seed), unit(n, 5, seed + 1)], [unit(n, 5, seed + 2), unit(n, 5, seed + 3)]
    loss = _mammo(images, texts)
    torch.testing.assert_close(_mammo(images[::-1], texts), loss)
    torch.testing.assert_close(_mammo(images, texts[::-1]), loss)


def test_the_terms_are_means_of_plain_losses() -> None:
    images, texts = [unit(5, 4, i) for i in range(3)], [unit(5, 4, 10 + i) for i in range(2)]
    cross = sum(clip_loss(a, b, 9.0) for a in images for b in texts) / 6
    views = sum(clip_loss(images[i], images[j], 9.0) for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    joint = torch.nn.functional.normalize(sum(images), dim=1)
    fused = sum(clip_loss(joint, b, 9.0) for b in texts) / 2
    expected = 0.5 * cross + 2 * views + 3 * clip_loss(texts[0], texts[1], 9.0) + 4 * fused
    weights = {"w_it": 0.5, "w_vv": 2.0, "w_tt": 3.0, "w_joint": 4.0}
    torch.testing.assert_close(multi_view_clip_loss(images, texts, 9.0, **weights), expected)
    torch.testing.assert_close(multi_view_clip_loss(images, texts, 9.0, **weights, joint_BD=joint), expected)


def test_a_combination_counts_the_samples_that_have_both_sides() -> None:
    images, texts = [unit(4, 3, 0), unit(4, 3, 1)], [unit(4, 3, 2)]
    there = torch.tensor([[True, True], [True, False], [True, True], [False, True]])
    images[1][1], images[0][3] = torch.nan, torch.nan
    loss = multi_view_clip_loss(images, texts, 5.0, w_vv=1.0, w_joint=1.0, exams=ExamKeys(image_there_BV=there))
    first, second = there[:, 0], there[:, 1]
    both = first & second
    cross = [clip_loss(images[i][x], texts[0][x], 5.0) for i, x in enumerate((first, second))]
    joint = torch.nn.functional.normalize(torch.stack([x.nan_to_num(0) for x in images]).sum(0), dim=1)
    expected = sum(cross) / 2 + clip_loss(images[0][both], images[1][both], 5.0) + clip_loss(joint, texts[0], 5.0)
    torch.testing.assert_close(loss, expected)


def test_a_text_that_is_not_there_takes_no_part() -> None:
    image, texts = unit(3, 4, 0), [unit(3, 4, 1), unit(3, 4, 2)]
    there = torch.tensor([[True, False], [True, True], [True, True]])
    loss = multi_view_clip_loss([image], texts, 5.0, exams=ExamKeys(text_there_BT=there))
    expected = (3 * clip_loss(image, texts[0], 5.0) + 2 * clip_loss(image[1:], texts[1][1:], 5.0)) / 5
    torch.testing.assert_close(loss, expected)


def test_views_and_texts_of_two_breasts_are_neither_positives_nor_negatives_of_each_other() -> None:
    images, texts = [unit(5, 4, i) for i in range(3)], [unit(5, 4, 10 + i) for i in range(2)]
    # Right, right, left; the third sample shows the left one alone, of the last the third view is not known.
    views = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1], [0, 0, -1]])
    wordings = torch.tensor([[0, 1], [0, 1], [1, 1], [0, -1], [0, 1]])
    weights = {"w_it": 1.0, "w_vv": 2.0, "w_tt": 3.0, "w_joint": 4.0}
    loss = multi_view_clip_loss(
        images, texts, 5.0, **weights, exams=ExamKeys(image_part_BV=views, text_part_BT=wordings)
    )

    def of(a: Tensor, b: Tensor, which: list[int]) -> tuple[Tensor, int]:
        return clip_loss(a[which], b[which], 5.0), len(which)

    cross = [
        of(images[0], texts[0], [0, 1, 2, 3, 4]),
        of(images[1], texts[0], [0, 1, 2, 3, 4]),
        of(images[2], texts[0], [2, 4]),
        of(images[0], texts[1], [2, 3]),
        of(images[1], texts[1], [2, 3]),
        of(images[2], texts[1], [0, 1, 2, 3, 4]),
    ]
    among = [of(images[0], images[1], [0, 1, 2, 3, 4])] + [of(images[i], images[2], [2, 4]) for i in (0, 1)]
    joint = torch.nn.functional.normalize(sum(images), dim=1)
    whole = (clip_loss(joint, texts[0], 5.0) + clip_loss(joint, texts[1], 5.0)) / 2
    means = [sum(n * x for x, n in term) / sum(n for _, n in term) for term in (cross, among)]
    expected = means[0] + 2 * means[1] + 3 * clip_loss(texts[0][[2, 3]], texts[1][[2, 3]], 5.0) + 4 * whole
    torch.testing.assert_close(loss, expected)


def test_a_term_whose_combinations_nobody_has_is_nothing() -> None:
    images, texts = [unit(3, 4, 0), unit(3, 4, 1)], [unit(3, 4, 2)]
    parts = torch.tensor([[0, 1]] * 3)
    loss = multi_view_clip_loss(images, texts, 5.0, w_vv=1.0, exams=ExamKeys(image_part_BV=parts))
    torch.testing.assert_close(loss, multi_view_clip_loss(images, texts, 5.0))


def test_a_term_without_its_two_sides_is_refused() -> None:
    eye = torch.eye(3)
    for images, texts, others in (
        ([], [eye], {}),
        ([eye], [], {}),
        ([eye], [eye], {"w_vv": 1.0}),
        ([eye], [eye], {"w_tt": 1.0}),
        ([eye], [eye], {"exams": ExamKeys(image_there_BV=torch.ones(3, 2, dtype=torch.bool))}),
        ([eye], [eye], {"exams": ExamKeys(text_part_BT=torch.ones(3, 2, dtype=torch.int64))}),
    ):
        with pytest.raises(MedclipError) as caught:
            multi_view_clip_loss(images, texts, 5.0, **others)
        assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.golden
@pytest.mark.parametrize("chunk", [2, 1024])
def test_the_loss_of_mammo_clip_and_its_gradients_equal_the_golden_vectors(golden: Path, chunk: int) -> None:
    stored = np.load(golden / "mammo_clip_loss.npz", allow_pickle=False)
    for case in sorted({key.split("/")[0] for key in stored}):
        names = ("image", "image_view", "text", "text2")
        given_ = leaves(*(torch.tensor(stored[f"{case}/{name}"]) for name in names))
        images, texts, scale = given_[:2], given_[2:], float(stored[f"{case}/scale"])
        full = multi_view_clip_loss(images, texts, scale, w_it=1.0, w_vv=1.0, w_tt=0.5, w_joint=0.0, chunk=chunk)
        full.backward()
        check_golden(full, stored[f"{case}/loss_full"])
        for tensor, name in zip(given_, names, strict=True):
            check_golden_gradient(tensor, stored[f"{case}/grad_{name}"])
        for name, weights in (("it_only", {}), ("i2i", {"w_vv": 1.0}), ("t2t", {"w_tt": 1.0})):
            check_golden(multi_view_clip_loss(images, texts, scale, **weights), stored[f"{case}/loss_{name}"])


@pytest.mark.golden
def test_with_the_settings_of_merl_the_loss_equals_the_golden_vector(golden: Path) -> None:
    stored = np.load(golden / "ecg_vit1d_and_loss.npz", allow_pickle=False)
    ecg, report = (torch.nn.functional.normalize(torch.tensor(stored[f"loss_{k}"]), dim=1) for k in "ab")
    check_golden(2 * multi_view_clip_loss([ecg], [report], 1 / 0.07), stored["merl_clip_loss"])
