"""Patches matched with words: golden matchings, hand checks, and what holds of any matching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from medclip.errors import MedclipError
from medclip.objectives.pairs import Pairs
from medclip.objectives.token_alignment import match_tokens, token_alignment_loss, token_scores
from tests.kits.objectives import unit

HAND = torch.tensor([[[0.9, 0.1], [0.8, 0.7], [0.2, 0.3]]])


def _score(similarity: torch.Tensor, mode: str, cap: int = 1) -> tuple[torch.Tensor, float]:
    matched = match_tokens(similarity, torch.ones_like(similarity, dtype=torch.bool), mode, cap)  # type: ignore[arg-type]
    return matched[0], float(similarity[matched].mean())


@pytest.mark.parametrize(
    ("mode", "cap", "pairs", "score"),
    [
        ("relaxed", 1, [[0, 0], [1, 1]], 0.8),
        ("relaxed", 2, [[0, 0], [1, 0], [2, 1]], 2 / 3),
        ("hungarian", 1, [[0, 0], [1, 1]], 0.8),
        ("filip", 1, [[0, 0], [1, 1]], 0.8),
    ],
)
def test_the_hand_checks_of_the_matchings(mode: str, cap: int, pairs: list[list[int]], score: float) -> None:
    matched, value = _score(HAND, mode, cap)
    assert matched.nonzero().tolist() == pairs
    assert value == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("mode", "cap", "name"),
    [("relaxed", 1, "greedy_cap1"), ("relaxed", 3, "greedy_cap3"), ("hungarian", 1, "hungarian"), ("filip", 1, None)],
)
def test_matchings_are_those_of_the_formula(mode: str, cap: int, name: str | None, golden: Path) -> None:
    with np.load(golden / "spec_lightclip.npz") as g:
        patches, words = torch.tensor(g["patches"]), torch.tensor(g["words"])
        matched, value = _score((patches @ words.T)[None], mode, cap)
        if name is not None:
            assert matched.nonzero().tolist() == sorted(g[f"{name}_pairs"].tolist())
        expected = float(g[f"{name or 'filip'}_score"])
    assert value == pytest.approx(expected, abs=1e-6)
    assert float(token_scores(patches, words, mode, cap)) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


def test_of_equal_pairs_the_lower_patch_and_then_the_lower_word_comes_first() -> None:
    assert _score(torch.ones(1, 3, 2), "relaxed")[0].nonzero().tolist() == [[0, 0], [1, 1]]


sizes = st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))


@given(sizes)
def test_no_patch_serves_two_words_and_no_word_has_more_than_its_cap(of: tuple[int, int, int, int]) -> None:
    num_patches, num_words, cap, seed = of
    similarity = torch.rand(2, num_patches, num_words, generator=torch.Generator().manual_seed(seed))
    allowed = torch.ones_like(similarity, dtype=torch.bool)
    allowed[1, 0], allowed[1, :, -1] = False, False
    relaxed = match_tokens(similarity, allowed, "relaxed", cap)
    assert relaxed.sum(2).max() <= 1
    assert relaxed.sum(1).max() <= cap
    assert not (relaxed & ~allowed).any()
    assert relaxed.sum((1, 2)).tolist() == [
        min(num_patches, cap * num_words),
        min(num_patches - 1, cap * (num_words - 1)),
    ]
    exact = match_tokens(similarity, allowed, "hungarian")
    assert exact.sum((1, 2)).tolist() == [min(num_patches, num_words), min(num_patches - 1, num_words - 1)]
    if num_patches >= num_words:
        first = similarity[:1]
        filip, hungarian, greedy = (_score(first, mode)[1] for mode in ("filip", "hungarian", "relaxed"))
        assert filip >= hungarian - 1e-6
        assert hungarian >= greedy - 1e-6


@given(st.integers(0, 10**6), st.sampled_from(["relaxed", "hungarian", "filip"]))
def test_the_order_of_patches_does_not_matter(seed: int, mode: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity, order = torch.rand(1, 6, 3, generator=generator), torch.randperm(6, generator=generator)
    matched, score = _score(similarity, mode, 2)
    turned, again = _score(similarity[:, order], mode, 2)
    assert torch.equal(turned, matched[order])
    assert again == pytest.approx(score, abs=1e-6)


def test_the_gradient_reaches_matched_entries_alone() -> None:
    patches = unit(5, 4, 1).float()[None].requires_grad_()
    words = unit(2, 4, 2).float()[None]
    matched = match_tokens((patches @ words.mT).detach(), torch.ones(1, 5, 2, dtype=torch.bool), "relaxed", 1)
    (slope,) = torch.autograd.grad(token_scores(patches, words, "relaxed", 1).sum(), patches)
    assert torch.equal(slope[0].ne(0).any(1), matched[0].any(1))


def _batch(size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return unit(size * 5, 6, 3).float().view(size, 5, 6), unit(size * 3, 6, 4).float().view(size, 3, 6)


def test_the_loss_is_infonce_of_the_scores_and_padding_is_nothing() -> None:
    patches, words = _batch()
    scores = torch.stack([token_scores(one, words) for one in patches[:, None]])
    own = torch.arange(4)
    expected = (cross_entropy(9 * scores, own) + cross_entropy(9 * scores.T, own)) / 2
    padded = torch.cat([words, torch.zeros(4, 2, 6)], 1)
    torch.testing.assert_close(token_alignment_loss(patches, padded, 9.0), expected)


def test_the_hardest_are_all_where_there_are_no_more_and_few_are_the_most_alike() -> None:
    patches, words = _batch()
    image, text = unit(4, 3, 5).float(), unit(4, 3, 6).float()
    every = token_alignment_loss(patches, words, 9.0)
    torch.testing.assert_close(
        token_alignment_loss(patches, words, 9.0, hardest=3, image_BD=image, text_BD=text), every
    )
    scores = torch.stack([token_scores(one, words) for one in patches[:, None]])
    eye = torch.eye(4, dtype=torch.bool)
    expected = torch.zeros(())
    for s, alike in ((scores, image @ text.T), (scores.T, text @ image.T)):
        hard = s.gather(1, alike.masked_fill(eye, -9).argmax(1, keepdim=True))
        expected = expected + cross_entropy(9 * torch.cat([s.diagonal()[:, None], hard], 1), torch.zeros(4).long()) / 2
    torch.testing.assert_close(
        token_alignment_loss(patches, words, 9.0, hardest=1, image_BD=image, text_BD=text), expected
    )


def test_another_positive_takes_the_place_of_none_of_the_hardest() -> None:
    patches, words = _batch()
    image, text = unit(4, 3, 5).float(), unit(4, 3, 6).float()
    text[1], text[0] = image[0], image[1]  # of one study: each is the most alike to the other's image
    pairs = Pairs(positive_BK=torch.tensor([[7], [7], [-1], [-1]]))
    scores = torch.stack([token_scores(one, words) for one in patches[:, None]])
    positive = torch.eye(4, dtype=torch.bool)
    positive[0, 1] = positive[1, 0] = True
    expected = torch.zeros(())
    for s, alike in ((scores, image @ text.T), (scores.T, text @ image.T)):
        hard = s.gather(1, alike.masked_fill(positive, -9).argmax(1, keepdim=True))
        expected = expected + cross_entropy(9 * torch.cat([s.diagonal()[:, None], hard], 1), torch.zeros(4).long()) / 2
    found = token_alignment_loss(patches, words, 9.0, hardest=1, image_BD=image, text_BD=text, pairs=pairs)
    torch.testing.assert_close(found, expected)


def test_a_text_without_words_takes_no_part() -> None:
    patches, words = _batch()
    words[2] = 0
    some = [0, 1, 3]
    torch.testing.assert_close(
        token_alignment_loss(patches, words, 9.0), token_alignment_loss(patches[some], words[some], 9.0)
    )
    assert float(token_alignment_loss(patches, torch.zeros_like(words), 9.0)) == 0


def test_a_cap_of_nothing_and_hardest_without_features_are_refused() -> None:
    with pytest.raises(MedclipError, match="at least 1"):
        token_alignment_loss(*_batch(), 9.0, cap=0)
    with pytest.raises(MedclipError, match="chosen by features"):
        token_alignment_loss(*_batch(), 9.0, hardest=2)
