from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from medclip.adaptation.budget import RATES
from medclip.adaptation.data.heads import LinearHead
from medclip.adaptation.data.shot_features import unit_logits
from medclip.adaptation.frozen.zero_shot import fit_zero_shot
from medclip.adaptation.methods import find_method
from medclip.adaptation.prompts.coop import PUBLISHED, fit_coop
from medclip.adaptation.prompts.prompted_text_tower import encode_embedded, place
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import log_loss
from tests.kits.adapt_golden_text import golden_clip, golden_words, load
from tests.kits.adaptation import made_up, real_features, tiny_model, words


@pytest.mark.golden
@pytest.mark.parametrize("part", ["end", "middle", "front", "csc_end", "init_words"])
def test_prompts_and_logits_equal_the_reference(golden: Path, part: str) -> None:
    z = load(golden / "coop.npz")
    clip = golden_clip(z)
    placed, embedded = golden_words(z, f"{part}/")
    position = part if part in ("middle", "front") else "end"
    prompts = place(embedded, torch.tensor(z[f"{part}/ctx"]), placed, position)  # type: ignore[arg-type]
    used = z[f"{part}/prompts_used"]
    np.testing.assert_array_equal(prompts[:, : used.shape[1]].numpy(), used)
    with torch.no_grad():
        text = encode_embedded(clip, placed.tokens_CL, prompts, 0)
        expected = normalize(torch.tensor(z[f"{part}/text_features"]), dim=-1)
        torch.testing.assert_close(text, expected, atol=1e-5, rtol=0)
        images = normalize(torch.tensor(z["image_features"]), dim=-1)
        logits = float(z["logit_scale_exp"]) * images @ text.T
    np.testing.assert_allclose(logits.numpy(), z[f"{part}/logits"], atol=1e-3)


def test_without_a_step_it_is_zero_shot_with_that_template() -> None:
    text = words(3)
    base = tiny_model(text)
    train = real_features(base, made_up(6))
    fitted = fit_coop(base, text, train, None, seed=0, words="a photo of a", lr=0.0, epochs=1)
    expected = base.logit_scale * base.encode_text([f"a photo of a {p}." for p in text.phrases]).T
    # The warm-up epoch runs at 1e-5 whatever the rate; on random towers that is nothing.
    np.testing.assert_allclose(fitted.head.logits(np.eye(16, dtype=np.float32), None), expected, atol=2e-2)


@pytest.mark.parametrize("multilabel", [False, True])
def test_it_learns_and_leaves_the_base_as_it_was(multilabel: bool) -> None:
    text = words(3, multilabel=multilabel)
    base = tiny_model(text)
    train = real_features(base, made_up(18, multilabel=multilabel, unknown=0.1 if multilabel else 0.0))
    before = {k: v.clone() for k, v in base.clip.state_dict().items()}
    chance = torch.random.get_rng_state()
    fitted = find_method("coop").fit(base, text, train, None, seed=1, epochs=30, lr=0.05)
    assert torch.equal(torch.random.get_rng_state(), chance)
    assert all(torch.equal(v, before[k]) for k, v in base.clip.state_dict().items())
    assert isinstance(fitted.head, LinearHead)
    assert fitted.head.weight_DC.shape == (16, 3)
    zero = fit_zero_shot(base, text, train, None, seed=1)
    known = ~np.isnan(train.targets.astype(float))

    def wrong(head: LinearHead) -> float:
        logits = torch.tensor(head.logits(train.pooled(), None))
        if multilabel:
            goal = torch.tensor(train.targets)
            return float(torch.nn.functional.binary_cross_entropy_with_logits(logits[known], goal[known]))
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(train.targets)))

    assert wrong(fitted.head) < wrong(zero.head)  # type: ignore[arg-type]
    again = fit_coop(base, text, train, None, seed=1, epochs=30, lr=0.05)
    assert again.head.weight_DC.tobytes() == fitted.head.weight_DC.tobytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_counts_of_what_learns(position: str) -> None:
    text = words(3)
    base = tiny_model(text)
    train = real_features(base, made_up(6))
    common = {"seed": 0, "epochs": 1, "words": None, "num_vectors": 4, "position": position}
    assert fit_coop(base, text, train, None, **common).num_trainable == 4 * 32  # type: ignore[arg-type]
    own = fit_coop(base, text, train, None, class_specific=True, **common)  # type: ignore[arg-type]
    assert own.num_trainable == 3 * 4 * 32
    assert own.settings["position"] == position
    assert own.settings["num_vectors"] == 4


def test_vectors_of_its_own_go_another_way_for_each_class() -> None:
    text = words(3)
    base = tiny_model(text)
    train = real_features(base, made_up(9))
    common: dict[str, Any] = {"seed": 0, "epochs": 5, "lr": 0.05}
    own = fit_coop(base, text, train, None, class_specific=True, **common)
    shared = fit_coop(base, text, train, None, **common)
    assert own.prompt is not None
    assert shared.prompt is not None
    assert own.prompt.shape == (3, *shared.prompt.shape)
    assert all(float((own.prompt[a] - own.prompt[b]).abs().max()) > 1e-6 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert not np.allclose(own.head.arrays()["weight"], shared.head.arrays()["weight"], atol=1e-5)


def test_a_class_without_positives_keeps_its_zero_shot_logit() -> None:
    text = words(3, multilabel=True)
    base = tiny_model(text)
    train = real_features(base, made_up(9, multilabel=True))
    train.targets[:, 1] = 0.0
    fitted = fit_coop(base, text, train, None, seed=0, epochs=3)
    zero = fit_zero_shot(base, text, train, None, seed=0)
    np.testing.assert_array_equal(fitted.head.weight_DC[:, 1], zero.head.weight_DC[:, 1])  # type: ignore[union-attr]
    assert fitted.settings["no_examples"] == [text.names[1]]


def test_the_rate_is_chosen_by_log_loss_on_validation_examples_where_none_is_given() -> None:
    text = words(3)
    base = tiny_model(text)
    train, val = (real_features(base, made_up(9, seed=s)) for s in (0, 1))
    chosen = fit_coop(base, text, train, val, seed=0, epochs=8)
    each = [fit_coop(base, text, train, None, seed=0, epochs=8, lr=rate) for rate in RATES["coop"]]
    best = min(each, key=lambda f: log_loss(unit_logits(f.head, val), val.targets))
    assert chosen.settings["lr"] == best.settings["lr"]
    assert chosen.head.arrays()["weight"].tobytes() == best.head.arrays()["weight"].tobytes()
    assert fit_coop(base, text, train, None, seed=0, epochs=2).settings["chosen_on"] == "folds"


@pytest.mark.parametrize("method", PUBLISHED)
def test_upstream_learns_as_long_and_as_fast_as_the_published_code(method: str, monkeypatch: Any) -> None:
    asked: list[dict[str, Any]] = []
    for module in ("coop", "cocoop"):
        monkeypatch.setattr(f"medclip.adaptation.prompts.{module}.learn", lambda *_, **schedule: asked.append(schedule))
    text = words(3)
    base = tiny_model(text)
    train = real_features(base, made_up(9))
    fitted = find_method(method).fit(base, text, train, train, seed=0, compat="upstream")
    assert [(s["lr"], s["epochs"], s["batch_size"]) for s in asked] == [PUBLISHED[method]]
    assert (fitted.settings["compat"], fitted.settings["chosen_on"]) == ("upstream", "given")
    asked.clear()
    find_method(method).fit(base, text, train, train, seed=0)
    assert [(s["lr"], s["epochs"], s["batch_size"]) for s in asked] == [(r, 100, 32) for r in RATES[method]]


def test_bad_input_gives_clear_sentences() -> None:
    text = words(3)
    base = tiny_model(text)
    train = real_features(base, made_up(6))
    with pytest.raises(MedclipError, match=r"'apple'.*context of 16"):
        fit_coop(base, text, train, None, seed=0, words=None, num_vectors=15)
    with pytest.raises(MedclipError, match="it takes at least 1"):
        fit_coop(base, text, train, None, seed=0, epochs=0, lr=0.1)
    with pytest.raises(MedclipError, match="words to begin with are empty"):
        fit_coop(base, text, train, None, seed=0, words="")
    with pytest.raises(MedclipError, match="loss of CoOp became") as e:
        fit_coop(base, text, train, None, seed=0, lr=float("inf"), epochs=4)
    assert e.value.problem().reason is Reason.NON_FINITE
