from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from medclip.adaptation.methods import find_method
from medclip.adaptation.prompts.biomedcoop import biomedcoop_parts, fit_biomedcoop, keep_sentences, teacher_sentences
from medclip.adaptation.prompts.coop import fit_coop
from tests.kits.adapt_golden_text import load
from tests.kits.adaptation import made_up, real_features, tiny_model, words


@pytest.mark.golden
def test_terms_equal_the_reference(golden: Path) -> None:
    z = load(golden / "biomedcoop_loss.npz")
    scale, tau = float(z["logit_scale_exp"]), float(z["tau"])
    images, frozen, text, teacher = (
        normalize(torch.tensor(z[k]), dim=-1)
        for k in ("image_features", "zs_image_features", "text_features", "fixed_embeddings")
    )
    scores, kept = keep_sentences(images, teacher, scale, tau)
    np.testing.assert_allclose(scores.numpy(), z["scores"], atol=1e-3)
    np.testing.assert_array_equal(kept.numpy(), z["mask"])
    parts = biomedcoop_parts(images, frozen, text, teacher, scale=scale, tau=tau)
    np.testing.assert_allclose(float(z["sccm_lambda"]) * float(parts.consistency), z["loss_sccm"], atol=1e-4)
    np.testing.assert_allclose(float(z["kdsp_lambda"]) * float(parts.distillation), z["loss_kdsp"], atol=1e-4)
    logits = scale * images @ text.T
    np.testing.assert_allclose(logits.numpy(), z["logits"], atol=1e-3)
    loss = cross_entropy(logits, torch.tensor(z["labels"]))
    np.testing.assert_allclose(float(loss), z["loss_ce"], atol=1e-4)


def test_sentences_that_all_score_alike_all_stay() -> None:
    images = normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    teacher = normalize(torch.ones(3, 5, 8), dim=-1)
    scores, kept = keep_sentences(images, teacher, 10.0, 1.5)
    assert torch.isfinite(scores).all()
    assert kept.all()
    one = keep_sentences(images, teacher[:, :1], 10.0, 1.5)[1]
    assert one.tolist() == [True]


def test_an_odd_sentence_is_left_out() -> None:
    images = torch.eye(4)[:2]
    teacher = normalize(torch.ones(2, 8, 4) + 0.01 * torch.arange(8)[:, None], dim=-1)
    teacher[:, 3] = -images[0]
    _, kept = keep_sentences(images, teacher, 10.0, 1.5)
    assert kept.tolist() == [p != 3 for p in range(8)]


def test_text_that_says_what_the_teacher_says_costs_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    images = normalize(torch.randn(4, 8, generator=generator), dim=-1)
    teacher = normalize(torch.randn(6, 1, 8, generator=generator), dim=-1)
    for pairs in (False, True):
        parts = biomedcoop_parts(images, images, teacher[:, 0], teacher, scale=20.0, tau=1.5, pairs=pairs)
        assert float(parts.consistency) < 1e-12
        assert abs(float(parts.distillation)) < 1e-6


def test_the_teacher_says_all_prompts_and_repeats_short_lists() -> None:
    text = words(3)
    base = tiny_model(text)
    teacher = teacher_sentences(base, text)
    assert teacher.shape == (3, 4, 16)
    np.testing.assert_array_equal(teacher[1].numpy(), base.encode_text(list(text.positive()[1])))
    assert teacher_sentences(base, words(3, multilabel=True)).shape == (6, 4, 16)


def test_it_stays_nearer_to_the_sentences_than_coop() -> None:
    text = words(3)
    base = tiny_model(text)
    train = real_features(base, made_up(12))
    common: dict[str, Any] = {"seed": 0, "epochs": 20, "batch_size": 4, "lr": 0.01}
    near = find_method("biomedcoop").fit(base, text, train, None, consistency=50.0, **common)
    free = fit_coop(base, text, train, None, **common)
    said = text.vectors(base).positive

    def far(head: Any) -> float:
        return float(np.linalg.norm(head.weight_DC.T / base.logit_scale - said))

    assert far(near.head) < far(free.head)
    assert near.settings["num_sentences"] == 4


def test_each_term_counts_by_its_weight_and_without_both_it_is_coop() -> None:
    text = words(3)
    base = tiny_model(text)
    train = real_features(base, made_up(12))
    common: dict[str, Any] = {"seed": 0, "epochs": 5, "batch_size": 4, "lr": 0.01}

    def learned(consistency: float, distillation: float) -> np.ndarray:
        fitted = fit_biomedcoop(base, text, train, None, consistency=consistency, distillation=distillation, **common)
        assert fitted.settings["consistency"] == consistency
        assert fitted.settings["distillation"] == distillation
        return fitted.head.arrays()["weight"]

    none, first, second, both = learned(0, 0), learned(20, 0), learned(0, 20), learned(20, 20)
    np.testing.assert_array_equal(none, fit_coop(base, text, train, None, **common).head.arrays()["weight"])
    found = (none, first, second, both)
    assert all(abs(a - b).max() > 1e-4 for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_same_seed_gives_the_same_bytes(multilabel: bool) -> None:
    text = words(3, multilabel=multilabel)
    base = tiny_model(text)
    train = real_features(base, made_up(12, multilabel=multilabel))
    first, again = (fit_biomedcoop(base, text, train, None, seed=0, epochs=3).head for _ in range(2))
    assert first.arrays()["weight"].tobytes() == again.arrays()["weight"].tobytes()
