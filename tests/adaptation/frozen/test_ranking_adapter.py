"""The ranking adapter: its attention is the published one, only it learns, and what it learns is an order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import load_head
from medclip.adaptation.frozen.ranking_adapter import RankingAdapter, RankingAttention, fit_ranking, instruction
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from tests.kits.adaptation import SIZE_PX, tiny_model, words
from tests.kits.objectives import check_golden

STEPS = words(4, ordered=True)


def bright(num: int, seed: int = 0) -> Examples:
    """Grey images with noise: the higher the step, the brighter."""
    rng = np.random.default_rng(seed)
    steps = np.arange(num) % 4
    images = rng.integers(0, 60, (num, 1, SIZE_PX, SIZE_PX, 3)) + 45 * steps[:, None, None, None, None]
    pixels = tuple(images.astype(np.uint8))
    return Examples(pixels, tuple(np.ones((1, 16), np.float32) / 4 for _ in pixels), steps, tuple(map(str, range(num))))


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(STEPS, context_length=24)


def test_the_attention_is_that_of_the_published_code(golden: Path) -> None:
    with np.load(golden / "ranking_adapter.npz") as g:
        attention = RankingAttention(16, num_heads=4, num_queries=3)
        weights = {name[3:]: torch.tensor(g[name]) for name in g.files if name.startswith("w__")}
        attention.load_state_dict({**weights, "query_1QD": torch.tensor(g["attn_query"])})
        values = attention(torch.tensor(g["attn_kv"]))
        check_golden(values.flatten(0, 1), g["attn_values"])


def test_what_is_said_of_a_pair_is_the_opposite_of_what_is_said_of_it_the_other_way_round() -> None:
    torch.manual_seed(0)
    attention, x_NPD = RankingAttention(16, 4, 3), torch.randn(4, 5, 16)
    values = attention(x_NPD) - attention.out_proj.bias
    torch.testing.assert_close(values, -values.transpose(0, 1), atol=1e-6, rtol=0)
    network, empty_NP = RankingAdapter(6, 7, 16).eval(), torch.zeros(4, 5, dtype=torch.bool)
    pair_NN = network.pairs_of(x_NPD, empty_NP)
    torch.testing.assert_close(pair_NN, -pair_NN.T)
    order = torch.tensor([2, 0, 3, 1])
    raw_NN = network.pairs_of(x_NPD, empty_NP, antisymmetric=False)
    again_NN = network.pairs_of(x_NPD[order], empty_NP, antisymmetric=False)
    torch.testing.assert_close(again_NN, raw_NN[order][:, order])
    assert not torch.allclose(raw_NN, -raw_NN.T)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    network, tokens, sentence = RankingAdapter(6, 7, 16).eval(), torch.randn(2, 5, 6), torch.randn(3, 7)
    padded = torch.cat([tokens, 100 * torch.randn(2, 2, 6)], dim=1)
    answers = []
    for tokens_NPE in (tokens, padded):
        empty_NP = (torch.arange(tokens_NPE.shape[1]) >= 5).expand(2, -1)
        x_NPD = network.encode(tokens_NPE, empty_NP, sentence)
        answers.append((network.score_of(x_NPD, empty_NP), network.pairs_of(x_NPD, empty_NP)))
    torch.testing.assert_close(answers[0], answers[1])


def test_it_learns_an_order_of_images_and_nothing_of_the_towers(model: Model) -> None:
    before = {name: value.clone() for name, value in model.clip.state_dict().items()}
    fitted = fit_ranking(model, STEPS, bright(16), None, seed=0, width=32, lr=0.002, epochs=40)
    test = bright(40, seed=1)
    places = [float(fitted.head.place(model.encode_tokens(pixels))[0]) for pixels in test.pixels]  # pyright: ignore
    assert spearmanr(places, test.targets).statistic > 0.9
    shares = np.exp(fitted.logits(model, test))
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert (shares.argmax(axis=1) == test.targets).mean() > 0.7
    assert all(torch.equal(before[name], value) for name, value in model.clip.state_dict().items())
    head, tokens = fitted.head, model.encode_tokens(test.pixels[3])
    again = load_head(head.kind, head.arrays())
    np.testing.assert_array_equal(again.logits(tokens, model), head.logits(tokens, model))  # pyright: ignore
    assert not any("pair" in name for name in head.arrays())  # what compared pairs is left out
    assert fitted.settings["instruction"] == "rank by fruit, from apple to quince"


def test_the_same_seed_learns_the_same(model: Model) -> None:
    once, again, other = (
        fit_ranking(model, STEPS, bright(8), None, seed=seed, width=8, lr=0.001, epochs=2).head.arrays()
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert any(not np.array_equal(once[name], other[name]) for name in once)


def test_a_head_that_lacks_an_array_is_refused(model: Model) -> None:
    arrays = fit_ranking(model, STEPS, bright(8), None, seed=0, width=8, lr=0.001, epochs=1).head.arrays()
    without = {name: value for name, value in arrays.items() if name != "network.prompt_M"}
    with pytest.raises(MedclipError, match="its head lacks the array 'prompt_M'"):
        load_head("ranking", without)
    with pytest.raises(MedclipError, match="the weights of its ranking adapter do not fit") as e:
        load_head("ranking", {**arrays, "network.prompt_M": np.zeros(3, np.float32)})
    assert e.value.reason is Reason.PACK_INVALID


def test_what_is_no_scale_or_no_width_is_refused(model: Model) -> None:
    with pytest.raises(MedclipError, match="nothing says in which order"):
        fit_ranking(model, words(4), bright(8), None, seed=0)
    with pytest.raises(MedclipError, match="width of ranking is 12; it takes a multiple of 8"):
        fit_ranking(model, STEPS, bright(8), None, seed=0, width=12)


def test_the_instruction_names_both_ends() -> None:
    assert instruction(STEPS) == "rank by fruit, from apple to quince"
