from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.text.captions.candidates import RAW, WeighedCaption, draw_candidate, draw_probabilities

KINDS = ("findings", "impression", "cleaned", "agent")
weights = st.one_of(st.just(0.0), st.floats(1e-6, 1))
shares = st.floats(0, 1)


@st.composite
def captions(draw):
    texts = [WeighedCaption(kind, kind, draw(weights)) for kind in draw(st.lists(st.sampled_from(KINDS), unique=True))]
    raw = [WeighedCaption(RAW, "r", float(not any(c.weight for c in texts)))] * draw(st.integers(0, 1))
    return [*raw, *texts]


@given(captions(), shares, shares)
def test_shares_are_what_a_recipe_says_wherever_they_can_be(candidates, p_raw, p_syn):
    p_K = draw_probabilities(candidates, p_raw, p_syn)
    by_kind = dict(zip([c.kind for c in candidates], p_K, strict=True))
    synthetic = by_kind.get("agent", 0)
    rewritten = [c for c in candidates if c.weight and not c.is_raw]
    others = [c for c in rewritten if c.kind != "agent"]
    assert (p_K >= 0).all()
    assert p_K.sum() == pytest.approx(1 if rewritten or RAW in by_kind else 0)
    if RAW in by_kind and not rewritten:
        assert by_kind[RAW] == 1
    elif RAW in by_kind and (others or synthetic <= p_syn - 1e-9 or p_raw == 0):
        assert by_kind[RAW] == pytest.approx(p_raw)
    if others and (p_raw < 1 or RAW not in by_kind):
        assert synthetic <= p_syn + 1e-9
        of_others = np.array([by_kind[c.kind] for c in others])
        np.testing.assert_allclose(of_others * others[0].weight, [c.weight * of_others[0] for c in others], atol=1e-9)
    assert all(by_kind[c.kind] == 0 for c in candidates if not c.weight and not c.is_raw)


def test_a_text_of_a_model_beside_a_raw_one_leaves_it_the_excess():
    both = [WeighedCaption(RAW, "r", 0), WeighedCaption("agent", "a", 1)]
    assert draw_probabilities(both, 0.25, 0.5).tolist() == [0.5, 0.5]
    assert draw_probabilities(both, 0, 0.5).tolist() == [0, 1], "a recipe that wants no raw text gets none"


@given(captions(), shares, shares, st.integers(0, 2**32))
def test_a_caption_without_a_chance_is_never_drawn(candidates, p_raw, p_syn, seed):
    p_K = draw_probabilities(candidates, p_raw, p_syn)
    drawn = draw_candidate(candidates, np.random.default_rng(seed), p_raw=p_raw, p_syn=p_syn)
    assert drawn is None if not p_K.any() else p_K[candidates.index(drawn)] > 0


def test_draws_follow_the_weights():
    candidates = [
        WeighedCaption(RAW, "r", 0),
        WeighedCaption("findings", "f", 0.2),
        WeighedCaption("cleaned", "c", 0.8),
    ]
    rng, num = np.random.default_rng(0), 4_000
    drawn = [draw_candidate(candidates, rng, p_raw=0.25, p_syn=0.5) for _ in range(num)]
    for candidate, p in zip(candidates, (0.25, 0.15, 0.6), strict=True):
        assert abs(drawn.count(candidate) / num - p) < 4 * np.sqrt(p * (1 - p) / num)
