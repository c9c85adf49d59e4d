from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from medclip.adaptation.data.heads import load_head
from medclip.adaptation.methods import find_method
from medclip.adaptation.prompts.biomedcoop import fit_biomedcoop
from medclip.adaptation.prompts.cocoop import CoCoOpHead, fit_cocoop
from medclip.adaptation.prompts.coop import fit_coop
from medclip.adaptation.prompts.prompted_text_tower import token_embedding
from tests.kits.adapt_golden_text import golden_clip, golden_words, load
from tests.kits.adaptation import made_up, real_features, tiny_model, words


@pytest.mark.golden
def test_logits_and_loss_equal_the_reference(golden: Path) -> None:
    z = load(golden / "cocoop.npz")
    clip = golden_clip(z)
    placed, embedded = golden_words(z)
    meta = tuple(z[f"meta_net/linear{n}.{p}"] for n in (1, 2) for p in ("weight", "bias"))
    head = CoCoOpHead(z["ctx"], meta, placed.tokens_CL.numpy(), 1, float(z["logit_scale_exp"]), len(embedded))
    # The golden file holds embeddings, not the table they come from: have the table give them.
    table = token_embedding(clip)
    handle = table.register_forward_hook(lambda _m, ids, out: embedded if len(ids[0]) == len(embedded) else out)
    model = SimpleNamespace(clip=clip, tokenizer=SimpleNamespace(pad_id=0), device=torch.device("cpu"))
    images = normalize(torch.tensor(z["image_features"]), dim=-1)
    logits = head.logits(images.numpy(), model)
    handle.remove()
    np.testing.assert_allclose(logits, z["logits"], atol=1e-3)
    loss = cross_entropy(torch.tensor(logits), torch.tensor(z["labels"]))
    np.testing.assert_allclose(float(loss), z["loss"], atol=1e-4)


@pytest.mark.parametrize("multilabel", [False, True])
def test_it_learns_saves_and_answers_each_image_alone(multilabel: bool) -> None:
    text = words(3, multilabel=multilabel)
    base = tiny_model(text)
    train = real_features(base, made_up(9, multilabel=multilabel))
    chance = torch.random.get_rng_state()
    fitted = find_method("cocoop").fit(base, text, train, None, seed=2, epochs=2, batch_size=3)
    assert torch.equal(torch.random.get_rng_state(), chance)
    head = fitted.head
    assert isinstance(head, CoCoOpHead)
    assert head.tokens_RL.shape == (6 if multilabel else 3, 16)
    together = head.logits(train.pooled(), base)
    assert together.shape == (9, 3)
    assert together.dtype == np.float32
    alone = np.concatenate([head.logits(f[None], base) for f in train.pooled()])
    np.testing.assert_allclose(alone, together, atol=1e-4)
    again = load_head("cocoop", head.arrays())
    assert again.logits(train.pooled(), base).tobytes() == together.tobytes()
    same = fit_cocoop(base, text, train, None, seed=2, epochs=2, batch_size=3)
    assert all(np.array_equal(same.head.arrays()[k], v) for k, v in head.arrays().items())
    assert head.logits(np.zeros((0, 16), np.float32), base).shape == (0, 3)


def test_what_learns_is_the_vectors_and_the_small_net() -> None:
    text = words(2)
    base = tiny_model(text)
    train = real_features(base, made_up(4, 2))
    fitted = fit_cocoop(base, text, train, None, seed=0, epochs=1, words=None, num_vectors=4)
    dim, width = 16, 32
    assert fitted.num_trainable == 4 * width + (dim * 1 + 1) + (1 * width + width)


def test_prompt_methods_learn_as_many_numbers_as_their_papers_say_at_those_widths() -> None:
    text = words(2)
    clip, bert = (tiny_model(text, dim=512, text_width=width, context_length=32) for width in (512, 768))
    train = real_features(clip, made_up(2, 2))
    once: dict[str, Any] = {"seed": 0, "epochs": 1}
    coop = fit_coop(clip, text, train, None, words=None, num_vectors=16, **once)
    assert coop.num_trainable == 16 * 512 == 8_192
    assert fit_cocoop(clip, text, train, None, words=None, num_vectors=4, **once).num_trainable == 35_360
    biomedcoop = fit_biomedcoop(bert, text, real_features(bert, train), None, words=None, num_vectors=4, **once)
    assert biomedcoop.num_trainable == 4 * 768 == 3_072
