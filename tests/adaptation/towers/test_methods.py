from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from medclip.adaptation.budget import RATES
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import LinearHead, text_head
from medclip.adaptation.methods import METHODS, Fitted, find_method
from medclip.adaptation.towers.clip_svd import decompose, decomposed
from medclip.adaptation.towers.methods import NORMS, apply_delta, fit_norm, fit_svd
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from medclip.models.towers.build import build_clip
from medclip.statistics.metrics.selection_score import log_loss
from tests.kits.adapt_towers import Kind, model_of
from tests.kits.adaptation import made_up, real_features, words

TOWER_METHODS = [m.name for m in METHODS.values() if m.trains_towers and not m.of_maps]
QUICK: dict[str, Any] = {"steps": 3, "batch_size": 6, "pool": 2}


def fitted_on(
    kind: Kind, method: str, *, multilabel: bool = False, seed: int = 0, **options: Any
) -> tuple[Model, Fitted]:
    text = words(3, multilabel=multilabel)
    base = model_of(kind, text)
    train = real_features(base, made_up(9, multilabel=multilabel, views=(1, 2)))
    return base, find_method(method).fit(
        base, text, train, None, seed=seed, **{"lr": RATES[method][0], **QUICK, **options}
    )


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


@pytest.mark.parametrize("method", TOWER_METHODS)
def test_rates_of_all_lie_around_one_and_those_of_clip_svd_in_the_published_range(method: str) -> None:
    first, *others = RATES[method]
    assert [first / 4 < rate < 4 * first for rate in others] == [True, True]
    if method == "svd":
        assert all(0.0005 <= rate <= 0.01 for rate in RATES[method])


def test_a_rate_that_ends_in_no_numbers_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    text = words(3)
    base = model_of("vit", text)
    train, val = (real_features(base, made_up(9, seed=s)) for s in (0, 1))
    monkeypatch.setitem(RATES, "svd", (1e-4, 0.05, float("inf")))
    chosen = fit_svd(base, text, train, val, seed=0, **QUICK)
    assert set(chosen.settings["log_loss_by_rate"]) == {"0.0001", "0.05"}
    each = {lr: fit_svd(base, text, train, None, seed=0, lr=lr, **QUICK) for lr in (1e-4, 0.05)}
    losses = {lr: log_loss(fitted.logits(base, val), val.targets) for lr, fitted in each.items()}
    best = min(losses, key=losses.__getitem__)
    assert chosen.settings["lr"] == best
    assert chosen.settings["log_loss"] == pytest.approx(losses[best], abs=1e-4)
    assert all(torch.equal(v, each[best].delta[k]) for k, v in chosen.delta.items())
    monkeypatch.setitem(RATES, "svd", (float("inf"), float("inf")))
    with pytest.raises(MedclipError, match="the loss of svd became"):
        fit_svd(base, text, train, val, seed=0, **QUICK)


@pytest.mark.parametrize("method", TOWER_METHODS)
def test_the_rate_is_judged_by_log_loss_on_validation_examples_and_not_on_the_shots(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the shots teach is wrong of the validation examples: the rate that learns nothing is the better one."""
    text = words(3)
    base = model_of("vit", text)
    train = real_features(base, made_up(9))
    fast = 0.003 if method == "full" else 0.02
    monkeypatch.setitem(RATES, method, (1e-7, fast))
    for targets, best in (((train.targets + 1) % 3, 1e-7), (train.targets, fast)):
        judges = replace(train, targets=targets, patients=tuple(f"val {p}" for p in train.patients))
        fitted = find_method(method).fit(base, text, train, judges, seed=0, steps=25, pool=0)
        assert fitted.settings["lr"] == best
        assert fitted.settings["chosen_on"] == "val"
        assert bool(fitted.notes) == (fitted.settings["log_loss"] >= fitted.settings["log_loss_zero_shot"])


def test_without_validation_the_rate_is_chosen_on_folds_of_the_shots_and_learned_again_on_all() -> None:
    text = words(3)
    base = model_of("vit", text)
    train = real_features(base, made_up(9))
    chosen = fit_svd(base, text, train, None, seed=0, **QUICK)
    assert chosen.settings["chosen_on"] == "folds"
    again = fit_svd(base, text, train, None, seed=0, lr=chosen.settings["lr"], **QUICK)
    assert again.settings["chosen_on"] == "given"
    assert all(torch.equal(v, again.delta[k]) for k, v in chosen.delta.items())
    alone = real_features(base, made_up(3, patients=3))
    assert fit_svd(base, text, alone, None, seed=0, **QUICK).settings["chosen_on"] == "default"


@pytest.mark.parametrize("method", TOWER_METHODS)
def test_the_text_tower_learns_at_its_share_of_the_rate(method: str) -> None:
    if method == "svd":  # layers that are decomposed are rounded anew
        _, fitted = fitted_on("vit", method, text_lr=0.0)
        base, start = fitted_on("vit", method, lr=0.0, steps=1)
        names = [n for n in fitted.delta if not n.startswith("visual.")]
        assert names
        assert all(torch.equal(fitted.delta[n], start.delta[n]) for n in names)
        return
    base, fitted = fitted_on("vit", method, text_lr=0.0)
    assert all(n.startswith("visual.") for n in changed(base, fitted))


def test_svd_may_make_the_gradients_products_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spy(clip: nn.Module, *args: Any) -> None:
        decompose(clip, *args)
        seen.append({m.side for m in decomposed(clip).values()})

    monkeypatch.setattr("medclip.adaptation.towers.methods.decompose", spy)
    for side in ("float32", "bfloat16"):
        _, fitted = fitted_on("vit", "svd", side=side)
        assert seen[0] == {getattr(torch, side)}  # of the copy that learns; what is merged afterwards has no gradient
        seen.clear()
        assert fitted.settings["side"] == side
    text = words(3)
    base = model_of("vit", text)
    with pytest.raises(MedclipError, match="side is 'int8'"):
        fit_svd(base, text, made_up(6), None, seed=0, side="int8")  # type: ignore[arg-type]


def test_a_detector_of_a_faint_pattern_is_learned_by_norms_alone() -> None:
    """The overfit test of ln_tuning.md: a checkerboard of 2 px and amplitude 0.02 in half of 32 images."""
    text = words(2)
    base = model_of("vit", text)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:32, 0:32]
    board = np.where((rows + columns) % 2, 0.02, -0.02)[..., None]
    shown = np.arange(32) % 2
    smooth = rng.uniform(0.3, 0.7, (32, 1, 1, 3)) + rng.normal(0, 0.01, (32, 32, 32, 3))
    images = np.round(255 * (smooth + shown[:, None, None, None] * board)).astype(np.uint8)
    patients = tuple(map(str, range(32)))
    train = Examples(tuple(i[None] for i in images), tuple(f[None] for f in base.encode_image(images)), shown, patients)
    fitted = fit_norm(base, text, train, None, seed=0, steps=200, lr=0.01, pool=0, w_align=0.1, w_uniform=0.5)
    assert fitted.clip is not None
    model = Model(fitted.clip, base.tokenizer, base.preprocess, base.card, name="it", path=base.path)
    logits = fitted.head.logits(model.encode_image(images), None)
    assert roc_auc_score(shown, logits[:, 1] - logits[:, 0]) == 1.0


def test_the_length_of_image_features_does_not_matter() -> None:
    """The head sees features of unit norm, in training and after it."""
    text = words(3)
    base = model_of("vit", text)
    train = real_features(base, made_up(9))
    longer = copy.deepcopy(base)
    with torch.no_grad():
        longer.clip.visual.proj.mul_(10)  # type: ignore[union-attr, operator]
    more: dict[str, Any] = {**QUICK, "w_align": 0.1, "w_uniform": 0.5, "slerp": (0.0, 1.0)}
    one, other = (fit_norm(b, text, train, None, seed=0, **more) for b in (base, longer))
    for name, value in one.delta.items():
        torch.testing.assert_close(other.delta[name], value, atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(other.head.arrays()["weight"], one.head.arrays()["weight"], atol=1e-2)
    assert one.clip is not None
    logits = []
    for factor in (1.0, 10.0):
        clip = copy.deepcopy(one.clip)
        clip.visual.proj.data.mul_(factor)  # type: ignore[union-attr, operator]
        model = Model(clip, base.tokenizer, base.preprocess, base.card, name="it", path=base.path)
        logits.append(one.head.logits(model.encode_image(np.concatenate(train.pixels)), None))
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)


def test_norm_tuning_of_vit_l_14_has_as_many_numbers_as_the_paper_says() -> None:
    config = open_clip.get_model_config("ViT-L-14")
    assert config is not None
    with torch.device("meta"):
        visual: Any = build_clip(config).visual
    assert sum(p.numel() for m in visual.modules() if isinstance(m, NORMS) for p in m.parameters()) == 102_400


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
    with pytest.raises(MedclipError, match=r"pip install 'medclip-imaging\[peft\]'"):
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
