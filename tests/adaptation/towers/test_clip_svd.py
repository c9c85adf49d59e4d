"""Only singular values learn; every form of the products gives the same; merging gives the dense model back."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from medclip.adaptation.towers import svd_linear
from medclip.adaptation.towers.clip_svd import (
    decompose,
    decomposed,
    load_singular_values,
    merge,
    rank_of,
    singular_values,
    trainable_report,
)
from medclip.adaptation.towers.layers import choose_layers, list_layers
from medclip.adaptation.towers.split_attention import read_all_tokens, read_class_token_only, split_attention
from medclip.adaptation.towers.svd_linear import Form, SVDConv, SVDLinear, cheapest, multiplications
from medclip.errors import MedclipError, Reason
from medclip.models.towers.bert import bert_text_cfg
from medclip.models.towers.build import build_clip
from tests.kits.layouts import bert_folder
from tests.kits.svd import KINDS, TinyClip, batch, check_gradient, decomposed_whole, features, tower_pair

FORMS: tuple[Form, ...] = ("factored", "weights", "inputs", "outputs")


@pytest.fixture(params=[None, *FORMS])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Form | None:
    """Every way to compute, and the one that is chosen."""
    if request.param:
        monkeypatch.setattr(svd_linear, "cheapest", lambda *sizes, **facts: request.param)
    return request.param


@pytest.mark.golden
def test_linear_layers_give_the_golden_outputs_gradients_and_weights(golden: Path, form: Form | None) -> None:
    stored = np.load(golden / "clip_svd_linear.npz", allow_pickle=False)
    for shape, ratio in product(("square", "tall", "wide", "odd"), (1.0, 0.5)):
        at = f"{shape}/r{ratio}"
        x, target = torch.tensor(stored[f"{shape}/x"]), torch.tensor(stored[f"{shape}/target"])
        weight, bias = torch.tensor(stored[f"{shape}/weight"]), torch.tensor(stored[f"{shape}/bias"])
        dense = nn.Linear(weight.shape[1], weight.shape[0])
        dense.load_state_dict({"weight": weight, "bias": bias})
        np.testing.assert_allclose(dense(x).detach(), stored[f"{shape}/y_dense"], atol=1e-5, rtol=1e-4)
        layer = SVDLinear(dense, rank_of(*weight.shape, ratio, compat=True))
        assert len(layer.S) == int(stored[f"{at}/rank"])
        if len(layer.S) == min(weight.shape):
            np.testing.assert_allclose(layer(x).detach(), stored[f"{shape}/y_dense"], atol=1e-5, rtol=1e-4)
        moved = torch.tensor(stored[f"{at}/delta_S"])
        for name in ("", "_perturbed"):
            y = layer(x)
            loss = 0.5 * (y - target).square().sum()
            layer.S.grad = None
            loss.backward()
            np.testing.assert_allclose(y.detach(), stored[f"{at}/y{name}"], atol=1e-5, rtol=1e-4)
            np.testing.assert_allclose(loss.detach(), stored[f"{at}/loss{name}"], rtol=1e-4)
            check_gradient(layer.S.grad, stored[f"{at}/grad_S{name}"])
            effective = stored[f"{at}/W_merged" if name else f"{at}/W_eff"]
            np.testing.assert_allclose(layer.weight.detach(), effective, atol=1e-5, rtol=1e-4)
            if not name:
                np.testing.assert_allclose(layer.U @ layer.U.T, stored[f"{at}/proj_left"], atol=1e-5)
                np.testing.assert_allclose(layer.V.T @ layer.V, stored[f"{at}/proj_right"], atol=1e-5)
                with torch.no_grad():
                    layer.S += moved
        # the file holds S as it is after delta_S was added
        np.testing.assert_allclose(layer.S.detach(), stored[f"{at}/S"][0], atol=1e-5, rtol=1e-4)
        merged = layer.merge()
        assert merged is dense
        assert torch.equal(merged.bias, bias)  # type: ignore[arg-type]
        np.testing.assert_allclose(merged.weight.detach(), stored[f"{at}/W_merged"], atol=1e-5, rtol=1e-4)


@pytest.mark.golden
def test_a_small_clip_gives_the_golden_outputs_gradients_and_perturbed_ones(golden: Path, form: Form | None) -> None:
    tiny = TinyClip(golden)
    tiny.check("dense")
    decomposed_whole(tiny.clip, compat=True)
    report = trainable_report(tiny.clip)
    assert report.num_trainable == tiny.stored["n_trainable"]
    assert (report.num_dense, report.num_total) == (tiny.stored["n_params_before"], tiny.stored["n_params_after"])
    layers = decomposed(tiny.clip)
    names = {str(n).removesuffix(".vector_S") for n in tiny.stored["names_S"]}
    assert {n.replace("out_proj", "proj") for n in layers} == names
    tiny.check("svd").backward()
    for name, layer in layers.items():
        np.testing.assert_allclose(layer.S.detach(), tiny.vector("S0", name), atol=1e-5, rtol=1e-4)
        check_gradient(layer.S.grad, tiny.vector("gradS0", name))
        with torch.no_grad():
            layer.S.mul_(torch.tensor(tiny.vector("mult", name)))
        layer.S.grad = None
    tiny.check("pert").backward()
    for name, layer in layers.items():
        check_gradient(layer.S.grad, tiny.vector("gradSpert", name))


@pytest.mark.golden
def test_three_steps_of_adamw_end_at_the_golden_singular_values(golden: Path) -> None:
    tiny = TinyClip(golden)
    layers = decomposed(decomposed_whole(tiny.clip, compat=True))
    # README_core.md: lr 7e-3, wd 0, betas .9/.999
    optimizer = torch.optim.AdamW([m.S for m in layers.values()], lr=7e-3, betas=(0.9, 0.999), weight_decay=0)
    losses = []
    for _ in tiny.stored["adamw/losses"]:
        optimizer.zero_grad()
        loss = tiny.outputs()[3]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    np.testing.assert_allclose(losses, tiny.stored["adamw/losses"], rtol=1e-4)
    _, _, logits, loss = tiny.outputs()
    np.testing.assert_allclose(logits.detach(), tiny.stored["adamw/final_logits"], atol=5e-4)
    np.testing.assert_allclose(loss.detach(), tiny.stored["adamw/final_loss"], rtol=1e-4)
    for name, layer in layers.items():
        np.testing.assert_allclose(layer.S.detach(), tiny.vector("S3", name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_right_away_gives_the_same_names_and_outputs(kind: str, tmp_path: Path) -> None:
    model, inputs = tower_pair(kind, tmp_path), batch()
    before, names, text = features(model, *inputs), list(model.state_dict()), str(model)
    decomposed_whole(model)
    torch.testing.assert_close(features(model, *inputs), before, atol=1e-5, rtol=1e-4)
    merge(model)
    assert list(model.state_dict()) == names
    assert str(model) == text
    torch.testing.assert_close(features(model, *inputs), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_after_training_merged_and_unmerged_agree_and_singular_values_restore_exactly(
    kind: str, tmp_path: Path
) -> None:
    model, inputs = tower_pair(kind, tmp_path), batch()
    fresh = decomposed_whole(copy.deepcopy(model))
    decomposed_whole(model)
    learning = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in learning} == {id(m.S) for m in decomposed(model).values()}
    biases = {n: m.bias.clone() for n, m in decomposed(model).items() if m.bias is not None}
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        found = features(model, *inputs)
        F.cross_entropy(10 * found[:3] @ found[3:].T, torch.tensor([0, 1, 0])).backward()
        assert all(p.grad is not None for p in learning)
        optimizer.step()
    after = features(model, *inputs).detach()
    assert not torch.allclose(after, features(fresh, *inputs), atol=1e-4)
    load_singular_values(fresh, singular_values(model))
    assert torch.equal(features(fresh, *inputs), after)
    with torch.no_grad():
        torch.testing.assert_close(features(model, *inputs), after, atol=1e-5, rtol=1e-4)
    merge(model)
    torch.testing.assert_close(features(model, *inputs), after, atol=1e-5, rtol=1e-4)
    state = model.state_dict()
    assert all(torch.equal(state[f"{n}.bias"], b) for n, b in biases.items() if f"{n}.bias" in state)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
    st.sampled_from(FORMS),
    st.integers(0, 3),
)
def test_gradients_are_those_of_autograd_in_every_form_even_where_singular_values_vanish(
    m: int, n: int, tokens: int, bias: bool, needs_input: bool, form: Form, zeros: int
) -> None:
    torch.manual_seed(m + 10 * n)
    layer = SVDLinear(nn.Linear(n, m, bias=bias).double(), min(m, n))
    with torch.no_grad():
        layer.S[: min(zeros, len(layer.S))] = 0
    x = torch.randn(1, tokens, n, dtype=torch.float64, requires_grad=needs_input)
    g = torch.randn(1, tokens, m, dtype=torch.float64)
    S = layer.S.detach().clone().requires_grad_()
    plain = F.linear(x, (layer.U * S) @ layer.V, layer.bias)
    wanted = torch.autograd.grad(plain, (S, x) if needs_input else (S,), g)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svd_linear, "cheapest", lambda *sizes, **facts: form)
        y = layer(x)
    found = torch.autograd.grad(y, (layer.S, x) if needs_input else (layer.S,), g)
    torch.testing.assert_close(y, plain)
    for ours, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_finite_differences(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svd_linear, "cheapest", lambda *sizes, **facts: form)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 4)).double()
    for i in (0, 2):
        layers[i] = SVDLinear(layers[i], 4)  # type: ignore[arg-type]
    x = torch.randn(7, 6, dtype=torch.float64)
    layers(x).square().sum().backward()
    for i in (0, 2):
        S: Any = layers[i].S
        for k in range(4):
            found = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    S[k] += step
                    found.append(float(layers(x).square().sum()))
                    S[k] -= step
            assert (found[0] - found[1]) / 2e-5 == pytest.approx(float(S.grad[k]), rel=1e-3)


def test_scaling_all_singular_values_scales_the_output_without_its_bias() -> None:
    torch.manual_seed(0)
    layer, x = SVDLinear(nn.Linear(12, 20), 12), torch.randn(5, 12)
    assert layer.bias is not None
    before, bias = layer(x) - layer.bias, layer.bias.clone()
    with torch.no_grad():
        layer.S *= 1.7
    torch.testing.assert_close(layer(x) - layer.bias, 1.7 * before)
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize(("stride", "bias"), [(1, True), (2, False)])
def test_a_pointwise_convolution_gives_what_torchs_does_in_either_memory_format(stride: int, bias: bool) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(6, 10, 1, stride=stride, bias=bias)
    x = torch.randn(2, 6, 5, 4)
    expected, shape = dense(x), dense.weight.shape
    layer = SVDConv(dense, 6)
    for given_x in (x, x.to(memory_format=torch.channels_last)):
        y = layer(given_x)
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
        assert y.is_contiguous(memory_format=torch.channels_last)
    assert layer.merge().weight.shape == shape


def test_recomposed_weights_are_within_rounding_of_the_dense_ones() -> None:
    torch.manual_seed(0)
    for m, n in ((24, 24), (64, 16), (16, 64), (11, 27)):
        dense = nn.Linear(n, m)
        weight = dense.weight.detach().clone()
        error = (SVDLinear(dense, min(m, n)).weight - weight).abs().max()
        assert error < 1e-5 * weight.abs().max() * min(m, n) ** 0.5


def test_a_new_value_is_seen_at_the_next_call_however_it_was_set() -> None:
    torch.manual_seed(0)
    layer, x = SVDLinear(nn.Linear(8, 8), 8), torch.randn(500, 8)
    for change in (
        lambda: layer.S.mul_(2),
        lambda: layer.S.copy_(torch.rand(8)),
        lambda: setattr(layer.S, "data", torch.rand(8)),
        lambda: layer.S.data.mul_(2),
        lambda: layer.U.mul_(2),
        lambda: layer.V.copy_(torch.rand(8, 8)),
        lambda: layer.bias.add_(1),  # type: ignore[union-attr]
    ):
        with torch.no_grad():
            layer(x)
            change()
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_layers_that_are_computed_together_see_a_new_value_of_any(form: Form | None) -> None:
    torch.manual_seed(0)
    layers = [SVDLinear(nn.Linear(8, 8), 8) for _ in range(3)]
    x = torch.randn(500, 8)
    for layer in (None, *layers):
        if layer is not None:
            layer.S.data.mul_(2)
        expected = torch.cat([F.linear(x, m.weight, m.bias) for m in layers], dim=-1)
        torch.testing.assert_close(svd_linear.project_together(layers, x), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", ["S", "U", "V"])
def test_values_that_change_between_forward_and_backward_are_an_error_and_no_wrong_gradient(
    form: Form, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svd_linear, "cheapest", lambda *sizes, **facts: form)
    torch.manual_seed(0)
    layer = SVDLinear(nn.Linear(6, 6), 6)
    y = layer(torch.randn(5, 6, requires_grad=True))
    with torch.no_grad():
        getattr(layer, part).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_products_in_bfloat16_keep_the_gradient_to_a_hundredth() -> None:
    torch.manual_seed(0)
    for m, n in ((64, 64), (128, 32), (32, 128)):
        layer = SVDLinear(nn.Linear(n, m), min(m, n))
        x, target = torch.randn(4000, n, requires_grad=True), torch.randn(4000, m)
        grads = []
        for side in (torch.float32, torch.bfloat16):
            layer.side, layer.S.grad = side, None
            assert layer.form(x) != "factored"
            (layer(x) - target).square().sum().backward()
            assert layer.S.grad is not None
            grads.append(layer.S.grad.clone())
        assert float((grads[0] - grads[1]).norm() / grads[0].norm()) < 1e-2


def test_the_form_with_the_fewest_multiplications_is_taken() -> None:
    assert cheapest(32, 768, 768, 768) == "factored"  # four prompts of eight tokens: merging would cost more
    assert cheapest(6304, 768, 768, 768) == "weights"
    assert cheapest(6304, 3072, 768, 768) == "inputs"
    assert cheapest(6304, 768, 3072, 768) == "outputs"
    assert cheapest(6304, 768, 768, 96) == "factored"  # low rank
    assert cheapest(6304, 3072, 768, 768, weak=700) == "factored"
    dense = 2 * 6304 * 3072 * 768
    assert multiplications("inputs", 6304, 3072, 768, 768) == dense + 3072 * 768**2 + 768**2 * (6304 + 768)


@pytest.mark.parametrize("kind", ["open_clip", "timm_vit", "bert"])
def test_a_last_block_of_the_class_token_alone_gives_the_same_features_and_gradients(kind: str, tmp_path: Path) -> None:
    model, (images, _) = tower_pair(kind, tmp_path), batch()
    split_attention(model)
    found = []
    for trimmed in (False, True):
        assert not trimmed or read_class_token_only(model)
        model.zero_grad()
        out = model.encode_image(images)
        out.square().sum().backward()
        found.append((out.detach(), [p.grad.clone() for p in model.visual.parameters() if p.grad is not None]))
    read_all_tokens(model)
    assert torch.equal(model.encode_image(images), found[0][0])
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-3)


def test_towers_that_are_not_read_at_the_class_token_keep_every_token(tmp_path: Path) -> None:
    model = tower_pair("timm_vit", tmp_path)
    model.visual.trunk.reset_classifier(0, global_pool="avg")
    split_attention(model)
    assert not read_class_token_only(model)
    assert not read_class_token_only(tower_pair("efficientnet", tmp_path))


def test_counts_are_those_of_the_paper_for_vit_b_16_by_shapes_alone() -> None:
    config = open_clip.get_model_config("ViT-B-16")
    assert config is not None
    with torch.device("meta"):
        report = trainable_report(decomposed_whole(build_clip(config)))
    assert report.num_trainable == 92_160
    assert (report.num_dense, report.num_total) == (149_620_737, 211_054_593)
    assert f"{report.share_of_dense:.4%}" == "0.0616%"


def test_counts_are_those_of_the_paper_for_biomedclip_by_shapes_alone(tmp_path: Path) -> None:
    folder = bert_folder(
        tmp_path, hidden=768, layers=12, num_attention_heads=12, intermediate_size=3072, vocab_size=30522
    )
    vision = {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    with torch.device("meta"):
        model = build_clip({"embed_dim": 512, "vision_cfg": vision, "text_cfg": bert_text_cfg()}, folder)
        report = trainable_report(decomposed_whole(model))
    assert report.num_trainable == 110_592
    assert report.num_dense == pytest.approx(195.9e6, rel=1e-3)


def test_rank_is_full_unless_a_share_or_the_reference_is_asked_for() -> None:
    assert rank_of(11, 27) == 11
    assert rank_of(11, 27, compat=True) == 8
    assert rank_of(11, 27, 0.5) == 4
    assert rank_of(5, 3, 0.5) == 1
    assert rank_of(768, 3072, compat=True) == 768


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(ratio: float, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="rank_ratio"):
        decomposed_whole(tower_pair("open_clip", tmp_path), rank_ratio=ratio)


def test_singular_values_of_other_layers_or_ranks_are_refused(tmp_path: Path) -> None:
    model = decomposed_whole(tower_pair("open_clip", tmp_path))
    values = singular_values(model)
    name = next(iter(values))
    for wrong in ({n: v for n, v in values.items() if n != name}, values | {name: torch.ones(2)}):
        with pytest.raises(MedclipError, match=name) as e:
            load_singular_values(model, wrong)
        assert e.value.reason is Reason.PACK_INVALID


def test_chosen_layers_alone_are_decomposed_and_everything_else_is_frozen(tmp_path: Path) -> None:
    model = tower_pair("open_clip", tmp_path)
    split_attention(model)
    chosen = choose_layers(list_layers(model), "top", roles=("v", "out"))
    decompose(model, chosen)
    assert set(decomposed(model)) == {x.name for x in chosen}
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {f"{x.name}.S" for x in chosen}
