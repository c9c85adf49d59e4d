from __future__ import annotations

import copy
import json
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medclip.adapt.heads import LinearHead, text_head
from medclip.adapt.methods import METHODS, Fitted, find_method
from medclip.adapt.quality import quality
from medclip.adapt.tower_delta import apply_delta
from medclip.adapt.tower_methods import NORMS, fit_norm, fit_svd
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from tests.adapt.kit import made_up, real_features, words
from tests.adapt.tower_kit import Kind, model_of

TOWER_METHODS = [m.name for m in METHODS.values() if m.trains_towers]
QUICK: dict[str, Any] = {"steps": 3, "batch_size": 6, "pool": 2}


def fitted_on(
    kind: Kind, method: str, *, multilabel: bool = False, seed: int = 0, **options: Any
) -> tuple[Model, Fitted]:
    text = words(3, multilabel=multilabel)
    base = model_of(kind, text)
    train = real_features(base, made_up(9, multilabel=multilabel, views=(1, 2)))
    return base, find_method(method).fit(base, text, train, None, seed=seed, **{**QUICK, **options})


def changed(base: Model, fitted: Fitted) -> set[str]:
    assert fitted.clip is not None
    before = base.clip.state_dict()
    return {k for k, v in fitted.clip.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize("method", TOWER_METHODS)
@pytest.mark.parametrize("kind", ["vit", "effnet", "bert"])
def test_towers_and_change_and_head_belong_together(kind: Kind, method: str) -> None:
    pristine = {k: v.clone() for k, v in model_of(kind, words(3)).clip.state_dict().items()}
    chance = torch.random.get_rng_state()
    base, fitted = fitted_on(kind, method)
    assert torch.equal(torch.random.get_rng_state(), chance)
    assert all(torch.equal(v, pristine[k]) for k, v in base.clip.state_dict().items())
    assert fitted.clip is not None
    assert list(fitted.clip.state_dict()) == list(pristine)
    assert type(fitted.clip) is type(base.clip)
    assert not any(p.requires_grad for p in fitted.clip.parameters())
    names = changed(base, fitted)
    assert any(n.startswith("visual.") for n in names)
    assert any(not n.startswith("visual.") for n in names)
    assert not any("running" in n or n == "logit_scale" for n in names)
    # Base and change make the same towers, bit for bit, after a trip through JSON and memory.
    again = apply_delta(method, base.clip, fitted.delta, json.loads(json.dumps(fitted.settings)))
    assert all(torch.equal(v, fitted.clip.state_dict()[k]) for k, v in again.state_dict().items())
    merged = Model(again, base.tokenizer, base.preprocess, base.card, name="again", path=base.path)
    expected = text_head(words(3).vectors(merged), base.logit_scale)
    assert isinstance(fitted.head, LinearHead)
    assert fitted.head.weight_DC.tobytes() == expected.weight_DC.tobytes()
    if method != "full":  # there, what happens not to change is left out
        assert fitted.num_trainable == sum(v.numel() for v in fitted.delta.values())


@pytest.mark.parametrize("method", TOWER_METHODS)
def test_the_same_seed_gives_the_same_bytes(method: str) -> None:
    first, again, other = (fitted_on("vit", method, seed=s)[1].delta for s in (3, 3, 4))
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert not all(torch.equal(v, other[k]) for k, v in first.items() if k in other)


@pytest.mark.parametrize("method", TOWER_METHODS)
def test_multilabel_tasks_are_scored_against_denials(method: str) -> None:
    _, fitted = fitted_on("vit", method, multilabel=True)
    assert fitted.head.logits(np.eye(16, dtype=np.float32), None).shape == (16, 3)


def test_svd_keeps_singular_values_only_and_trains_the_layers_asked_for() -> None:
    base, fitted = fitted_on("vit", "svd", layers="top", text_layers=None, roles=["q", "mlp"])
    assert {n.rpartition(".")[2] for n in fitted.delta} == {"q_proj", "c_fc", "c_proj"}
    assert all(n.startswith("visual.transformer.resblocks.2.") and v.ndim == 1 for n, v in fitted.delta.items())
    assert fitted.num_trainable == 3 * 32
    # Decomposed layers are rounded anew; biases, norms and embeddings are not touched.
    assert {n.rpartition(".")[2] for n in changed(base, fitted)} <= {"weight", "in_proj_weight"}


@pytest.mark.parametrize("method", ["svd", "lora"])
def test_the_last_blocks_of_convolutional_towers_and_all_of_transformers_learn(method: str) -> None:
    base, fitted = fitted_on("effnet", method)
    last = {n.split(".")[3] for n in fitted.delta if n.startswith("visual.trunk.blocks.")}
    stages = len(base.clip.visual.trunk.blocks)  # type: ignore[union-attr, arg-type]
    assert last == {str(stages - 2), str(stages - 1)}
    assert any(n.startswith("text.transformer.resblocks.0.") for n in fitted.delta)
    _, fitted = fitted_on("vit", method)
    assert {n.split(".")[3] for n in fitted.delta if n.startswith("visual.")} == {"0", "1", "2"}


def test_svd_without_a_step_worth_the_name_gives_the_base() -> None:
    base, fitted = fitted_on("vit", "svd", lr=0.0, steps=1)
    assert fitted.clip is not None
    for name, value in fitted.clip.state_dict().items():
        torch.testing.assert_close(value, base.clip.state_dict()[name], atol=1e-5, rtol=0)


def test_the_rate_is_chosen_on_validation_examples_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    text = words(3)
    base = model_of("vit", text)
    train, val = (real_features(base, made_up(9, seed=s)) for s in (0, 1))
    monkeypatch.setattr("medclip.adapt.tower_methods.SVD_RATES", (1e-4, 0.05, float("inf")))
    assert fit_svd(base, text, train, None, seed=0, **QUICK).settings["lr"] == 1e-4
    chosen = fit_svd(base, text, train, val, seed=0, **QUICK)  # the last of them fails, which is no reason to stop
    each = [fit_svd(base, text, train, None, seed=0, lr=lr, **QUICK) for lr in (1e-4, 0.05)]
    found = []
    for fitted in each:
        assert fitted.clip is not None
        model = Model(fitted.clip, base.tokenizer, base.preprocess, base.card, name="it", path=base.path)
        logits = fitted.head.logits(model.encode_image(np.concatenate(val.pixels)), None)
        found.append(quality(logits, val.targets))
    best = each[int(found[1] > found[0])]
    assert chosen.settings["lr"] == best.settings["lr"]
    assert all(torch.equal(v, best.delta[k]) for k, v in chosen.delta.items())


def test_norm_tuning_changes_scales_and_shifts_of_every_norm_and_nothing_else() -> None:
    base, fitted = fitted_on("effnet", "norm")
    norms = {n for n, m in base.clip.named_modules() if isinstance(m, NORMS)}
    expected = {f"{n}.{p}" for n in norms for p in ("weight", "bias")}
    assert set(fitted.delta) == expected
    assert changed(base, fitted) <= expected


def test_the_further_terms_of_norm_tuning_count() -> None:
    plain = fitted_on("vit", "norm")[1].delta
    for more in ({"w_align": 1.0}, {"w_uniform": 1.0}, {"slerp": (0.0, 1.0)}):
        _, other = fitted_on("vit", "norm", **more)
        assert not all(torch.equal(v, other.delta[k]) for k, v in plain.items())
        assert json.loads(json.dumps(other.settings)) == dict(other.settings)


def test_full_fine_tuning_keeps_what_changed() -> None:
    base, fitted = fitted_on("effnet", "full")
    assert set(fitted.delta) == changed(base, fitted)
    assert fitted.num_trainable == sum(p.numel() for n, p in base.clip.named_parameters() if n != "logit_scale")


def test_lora_begins_as_the_base_and_adds_what_its_factors_say() -> None:
    base, fitted = fitted_on("effnet", "lora", rank=2, alpha=6.0)
    assert fitted.clip is not None
    name = next(n.removesuffix(".A") for n in fitted.delta if n.startswith("visual.") and n.endswith(".A"))
    low, high = fitted.delta[f"{name}.A"], fitted.delta[f"{name}.B"]
    assert low.shape[0] == high.shape[1] == 2
    before, after = (c.get_submodule(name).weight for c in (base.clip, fitted.clip))
    torch.testing.assert_close((after - before).flatten(1), 3.0 * high @ low, atol=1e-6, rtol=0)  # type: ignore[operator]


def test_lora_without_peft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MedclipError, match=r'pip install "medclip-imaging\[peft\]"'):
        fitted_on("vit", "lora")


def test_bad_input_gives_clear_sentences() -> None:
    with pytest.raises(MedclipError, match="no layers in 'blocks 7'"):
        fitted_on("vit", "svd", layers=[7])
    with pytest.raises(MedclipError, match="no layers"):
        fitted_on("effnet", "svd", text_layers=None, roles=["q"])
    with pytest.raises(MedclipError, match="no layers were asked for"):
        fitted_on("vit", "svd", layers=None, text_layers=None)
    with pytest.raises(MedclipError, match="rank of LoRA is 0"):
        fitted_on("vit", "lora", rank=0)
    with pytest.raises(MedclipError, match="no such option"):
        fitted_on("vit", "svd", speed=3)
    with pytest.raises(MedclipError, match="loss of full became") as e:
        fitted_on("vit", "full", lr=float("inf"))
    assert e.value.problem().reason is Reason.NON_FINITE
    text = words(2)
    base = model_of("vit", text)
    train = real_features(base, made_up(4, 2)).select([0, 2])
    with pytest.raises(MedclipError, match="one class"):
        fit_svd(base, text, train, None, seed=0, **QUICK)


def test_a_model_without_norms_has_none_to_tune() -> None:
    text = words(3)
    base = model_of("vit", text)
    train = real_features(base, made_up(6))
    bare = copy.deepcopy(base)
    for name, module in list(bare.clip.named_modules()):
        if isinstance(module, nn.LayerNorm):
            parent, _, last = name.rpartition(".")
            setattr(bare.clip.get_submodule(parent), last, nn.Identity())
    with pytest.raises(MedclipError, match="no normalisation"):
        fit_norm(bare, text, train, None, seed=0, **QUICK)


def test_options_are_stated() -> None:
    _, fitted = fitted_on("vit", "svd", rank_ratio=0.5)
    stated = dict(fitted.settings)
    assert stated["steps"] == 3
    assert stated["rank_ratio"] == 0.5
    assert stated["layers"] == "auto"
    assert json.loads(json.dumps(stated)) == stated
    assert all(len(v) == 16 for v in fitted.delta.values())
