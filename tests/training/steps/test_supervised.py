"""The head of fine-tuning is that of medical MAE, and folds into one layer over the features that packs have."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from medclip.adaptation.data.heads import HazardHead, LinearHead
from medclip.models.towers.timm_tower import ImageOnly, ImageTower
from medclip.text.vocabulary.load import load_task
from medclip.training.recipe.schema import Recipe
from medclip.training.steps.optimizer import learning_rate, make_optimizer, names_of_parameters
from medclip.training.steps.supervised import (
    RiskHead,
    SupervisedHead,
    folded,
    move_norm,
    supervised_figures,
    supervised_loss,
    targets_of,
)
from medclip.training.steps.towers import Towers
from tests.kits.objectives import check_golden

NAN = float("nan")
FINDINGS, VIEW = load_task("chest_xray_findings"), load_task("chest_xray_view")


@pytest.fixture
def published(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "medical_mae_finetune_llrd.npz") as file:
        return dict(file)


def tower() -> ImageTower:
    trunk = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=4,
        num_classes=0,
        global_pool="avg",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    return ImageTower(trunk, "avg")


def towers_of(published: dict[str, np.ndarray]) -> Towers:
    state = {name.removeprefix("vit_sd/"): torch.tensor(v) for name, v in published.items() if name.startswith("vit_")}
    visual = tower()
    visual.trunk.load_state_dict({name: v for name, v in state.items() if not name.startswith("head.")})
    head = SupervisedHead(32, 14)
    move_norm(visual, [head])
    head.linear.load_state_dict({"weight": state["head.weight"], "bias": state["head.bias"]})
    return Towers(ImageOnly(visual), None, heads={"films": head}).eval()


@pytest.mark.golden
def test_pooled_feature_logits_and_loss_are_those_of_medical_mae(published: dict[str, np.ndarray]) -> None:
    towers = towers_of(published)
    assert towers.supervised is not None
    head = towers.supervised["films"]
    assert isinstance(head, SupervisedHead)
    with torch.no_grad():
        outputs = towers(torch.tensor(published["x"]), torch.zeros(2, 0, dtype=torch.long))
        pooled_BD = outputs.image_BD * 32**0.5 * head.scale + head.shift
        loss = supervised_loss(outputs.logits_BC, torch.tensor(published["targets"]), "multilabel")
    check_golden(pooled_BD, published["pooled_feature"])
    check_golden(outputs.logits_BC, published["logits"])
    check_golden(loss, published["bce"])


@pytest.mark.golden
@pytest.mark.parametrize("decay", [0.55, 0.75])
def test_every_layer_learns_at_the_rate_of_medical_mae(published: dict[str, np.ndarray], decay: float) -> None:
    towers = towers_of(published)
    recipe = Recipe.model_validate(
        {
            "name": "a",
            "data": {"shards": "s"},
            "objective": {"contrastive": 0, "supervised": {"task": "chest_xray_findings"}},
            "train": {"layer_decay": decay, "weight_decay": 0.05, "image_lr_factor": 1},
        }
    )
    names = names_of_parameters(towers)
    of_names = {
        _upstream(names[id(p)]): (group["factor"], group["weight_decay"])
        for group in make_optimizer(towers, recipe).param_groups
        for p in group["params"]
    }
    rows = np.flatnonzero(published["llrd_layer_decay"] == decay)
    expected = {str(published["llrd_name"][i]): (published["llrd_lr_scale"][i], published["llrd_wd"][i]) for i in rows}
    assert of_names.keys() == expected.keys()
    for name, values in expected.items():
        assert of_names[name] == pytest.approx(values), name


def _upstream(name: str) -> str:
    """Return upstream's name of a parameter: scale and shift of the head are those of its fc_norm."""
    own = {
        "scale": "fc_norm.weight",
        "shift": "fc_norm.bias",
        "linear.weight": "head.weight",
        "linear.bias": "head.bias",
    }
    return own.get(name.removeprefix("supervised.films."), name.removeprefix("visual.trunk."))


@pytest.mark.golden
def test_the_learning_rate_follows_that_of_medical_mae_over_the_epochs(published: dict[str, np.ndarray]) -> None:
    """Ours counts the step that is taken, so that the first one has a rate above 0: one step of 1000 an epoch."""
    each = 1000
    base, floor = float(published["lr_base"]), float(published["lr_min"])
    for epoch, expected in zip(published["lr_epochs"], published["lr_values"], strict=True):
        warming = epoch < published["lr_warmup"]
        rate = learning_rate(
            round(epoch * each) - warming, base=base, warmup_steps=5 * each, total_steps=75 * each, floor=floor
        )
        assert rate == pytest.approx(expected, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_the_folded_head_gives_the_same_logits_over_unit_features(pooling: str) -> None:
    torch.manual_seed(0)
    head = SupervisedHead(24, 3)
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(torch.randn_like(p))
    features_ND = normalize(torch.randn(5, 24), dim=-1)
    folded = LinearHead.from_arrays(SupervisedHead.folded(head.state_dict()))
    with torch.no_grad():
        check_golden(head(features_ND), folded.logits(features_ND.numpy(), None))


def test_the_head_begins_at_one_answer_for_all_and_takes_the_norm_of_the_tower() -> None:
    visual = tower()
    with torch.no_grad():
        visual.trunk.fc_norm.weight.uniform_(0.5, 2)
        visual.trunk.fc_norm.bias.uniform_(-1, 1)
        pooled_BD = visual(images_BCHW := torch.rand(3, 3, 32, 32))
        head = SupervisedHead(32, 4)
        move_norm(visual, [head])
        again_BD = normalize(visual(images_BCHW), dim=-1) * 32**0.5 * head.scale + head.shift
    torch.testing.assert_close(again_BD, pooled_BD, atol=1e-4, rtol=1e-4)
    assert not any(p.requires_grad for p in visual.trunk.fc_norm.parameters())
    assert float(head.linear.weight.detach().abs().max()) < 1e-3
    assert float(head.linear.bias.detach().abs().max()) == 0


def key(labels: dict[str, Any]) -> str:
    return json.dumps([False, "xray", None, labels])


def test_targets_are_read_from_the_labels_and_unknown_where_nothing_is_said() -> None:
    keys = [
        key({"chest_xray_findings": {"pneumonia": 1, "effusion": 0}}),
        key({"chest_xray_view": "pa"}),
        "",
    ]
    found = targets_of(FINDINGS, ["effusion", "pneumonia"], keys).numpy()
    np.testing.assert_array_equal(found, [[0, 1], [np.nan] * 2, [np.nan] * 2])
    names = [c.name for c in VIEW.classes]
    keys = [key({VIEW.name: name}) for name in names] + [""]
    np.testing.assert_array_equal(targets_of(VIEW, names[1:], keys)[:, 0], [np.nan, *range(len(names) - 1), np.nan])


def test_a_class_that_validation_lacks_is_left_out_of_the_mean() -> None:
    logits_NC = torch.tensor([[2.0, 0, 5], [1, 0, 4], [0, 3, 2], [3, 0, 2]])
    several = torch.tensor([[1, 0, 0.0], [0, 0, 0], [0, 1, 0], [1, torch.nan, 0]])
    assert supervised_figures(logits_NC, several, "multilabel") == {"auroc": 1.0}
    number = torch.tensor([[0], [0], [1], [0.0]])
    figures = supervised_figures(logits_NC, number, "multiclass")
    assert set(figures) == {"auroc", "balanced_accuracy"}
    assert 0 <= figures["auroc"] <= 1
    assert figures["balanced_accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert supervised_figures(logits_NC, several[:, 2:].expand(4, 3), "multilabel") == {}


def test_an_interval_of_validation_is_by_patient_and_of_the_same_mean() -> None:
    rng = np.random.default_rng(0)
    truth_NC = (rng.random((120, 2)) < 0.4).astype(np.float32)
    logits_NC = torch.from_numpy(truth_NC + rng.normal(size=(120, 2)).astype(np.float32))
    truth_NC[:6] = np.nan
    of_images, of_patients = (
        supervised_figures(logits_NC, torch.from_numpy(truth_NC), "multilabel", patients)
        for patients in (list(range(120)), [n // 6 for n in range(120)])
    )
    assert (of_images["num_images"], of_images["num_patients"], of_patients["num_patients"]) == (114, 114, 19)
    for figures in (of_images, of_patients):
        assert figures["auroc_low"] < figures["auroc"] < figures["auroc_high"]
    assert supervised_figures(logits_NC, torch.from_numpy(truth_NC), "multilabel") == {"auroc": of_images["auroc"]}
    number = torch.from_numpy(truth_NC[6:, :1])
    both = supervised_figures(logits_NC[6:], number, "multiclass", list(range(114)))
    assert both["auroc_low"] < both["auroc"] < both["auroc_high"]


def test_the_loss_is_the_mean_over_what_is_known() -> None:
    torch.manual_seed(0)
    logits_BC = torch.randn(4, 3, requires_grad=True)
    several = torch.tensor([[1, 0, torch.nan], [torch.nan] * 3, [0, 0, 1], [1, torch.nan, 0.0]])
    known = ~several.isnan()
    expected = binary_cross_entropy_with_logits(logits_BC[known], several[known])
    torch.testing.assert_close(supervised_loss(logits_BC, several, "multilabel"), expected)
    smoothed = binary_cross_entropy_with_logits(logits_BC[known], several[known] * 0.9 + 0.05)
    torch.testing.assert_close(supervised_loss(logits_BC, several, "multilabel", smoothing=0.1), smoothed)
    number = torch.tensor([[2], [torch.nan], [0], [1.0]])
    rows = torch.tensor([0, 2, 3])
    expected = cross_entropy(logits_BC[rows], torch.tensor([2, 0, 1]), label_smoothing=0.1)
    torch.testing.assert_close(supervised_loss(logits_BC, number, "multiclass", smoothing=0.1), expected)
    nothing = supervised_loss(logits_BC, torch.full((4, 1), torch.nan), "multiclass")
    (gradient_BC,) = torch.autograd.grad(nothing, logits_BC)
    assert float(nothing.detach()) == 0
    assert float(gradient_BC.abs().max()) == 0


def test_some_years_of_a_risk_have_their_own_truth_and_logits_and_unknown_years_none() -> None:
    risk, years = load_task("breast_cancer_risk"), ("year_1", "year_3")
    outcomes = ({"event_months": 20, "followup_months": 20}, {"followup_months": 24}, {})
    keys = [json.dumps(["", "", "", {risk.name: outcome} if outcome else {}]) for outcome in outcomes]
    target = targets_of(risk, years, keys)
    torch.testing.assert_close(target, torch.tensor([[0.0, 1], [0, NAN], [NAN, NAN]]), equal_nan=True)
    torch.manual_seed(0)
    every, head = RiskHead(8, (1, 2, 3)), RiskHead(8, (1, 3))
    features = normalize(torch.randn(5, 8), dim=-1)
    with torch.no_grad():
        nn.init.constant_(every.additive.hazard.bias, 0.3)
        head.load_state_dict(every.state_dict())
        wanted = every(features)[:, [0, 2]]
        torch.testing.assert_close(head(features), wanted)
    stored = HazardHead.from_arrays(folded(risk, years, head.state_dict()))
    np.testing.assert_allclose(stored.logits(features.numpy(), None), wanted.numpy(), atol=1e-5)
    loss = supervised_loss(wanted, target[[0, 1, 2, 2, 2]], "risk")
    known = wanted[[0, 0, 1], [0, 1, 0]]
    assert float(loss) == pytest.approx(float(binary_cross_entropy_with_logits(known, torch.tensor([0.0, 1, 0]))))
