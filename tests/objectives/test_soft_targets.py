"""Pairs that say the same are positives of each other."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.soft_targets import same_meaning, soft_targets


def test_equal_captions_and_equal_label_keys_are_positives() -> None:
    same = same_meaning(["a", "A ", "b", "c"], ["k1", "k2", "k3", "k3"])
    assert same.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_an_empty_label_key_equals_no_other() -> None:
    assert same_meaning(["a", "b"], ["", ""]).int().tolist() == [[1, 0], [0, 1]]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=1, max_size=12))
def test_targets_are_symmetric_in_support_and_each_row_sums_to_one(pairs: list[tuple[str, str]]) -> None:
    same = same_meaning([p[0] for p in pairs], [p[1] for p in pairs])
    targets = soft_targets(same)
    assert torch.equal(same, same.T)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(pairs)))
    assert all(len(set(row[row > 0].tolist())) == 1 for row in targets)  # equal mass


def test_a_batch_of_one_meaning_has_no_negatives_to_push_away() -> None:
    image = torch.eye(4).requires_grad_()
    text = torch.nn.functional.normalize(torch.ones(4, 4), dim=1)
    clip_loss(image, text, 10.0, soft_targets(same_meaning(["same"] * 4))).backward()
    assert image.grad is not None
    assert float(image.grad.abs().max()) < 1e-6
