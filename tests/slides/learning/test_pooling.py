"""Mean, ABMIL and ACMIL: PathGen's own values, and what holds of any bag."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.slides.learning.pooling import Shape, SlidePooling, hide_top
from medclip.slides.learning.train import slide_loss

NAMES = {
    "reduce.weight": "dimreduction.fc1.weight",
    "attention.content": "attention.attention_V.0",
    "attention.gate": "attention.attention_U.0",
    "attention.weights": "attention.attention_weights",
    "slide": "Slide_classifier.fc",
}


def pooling(name: str, kind: str = "multiclass", outputs: int = 3, seed: int = 0) -> SlidePooling:
    torch.manual_seed(seed)
    return SlidePooling(Shape(name, 16, outputs, kind)).eval()  # pyright: ignore[reportArgumentType]


def bag(rows: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(seed))


def published(stored, prefix: str) -> SlidePooling:
    part = {k.removeprefix(f"{prefix}/sd/"): torch.from_numpy(stored[k]) for k in stored if f"{prefix}/sd/" in k}
    branches = len(part["attention.attention_weights.bias"])
    model = SlidePooling(Shape(prefix, 16, 3, num_branches=branches, reduced=8, hidden=6))
    weights = {}
    for name in model.state_dict():
        if name.startswith("branches."):
            _, t, kind = name.split(".")
            weights[name] = part[f"classifier.{t}.fc.{kind}"]
        else:
            stem, _, kind = name.rpartition(".")
            weights[name] = part[NAMES[name] if name in NAMES else f"{NAMES[stem]}.{kind}"]
    model.load_state_dict(weights)
    return model.eval()


@pytest.mark.golden
@pytest.mark.parametrize("prefix", ["abmil", "acmil"])
def test_golden_logits_attention_and_losses(golden: Path, prefix: str):
    with np.load(golden / "pathgen_acmil.npz") as g:
        stored = {name: g[name] for name in g}
    model = published(stored, prefix)
    with torch.no_grad():
        pooled = model(torch.from_numpy(stored[f"{prefix}/x"])[0])
        loss = slide_loss(pooled, torch.from_numpy(stored[f"{prefix}/label"]), "multiclass")
    np.testing.assert_allclose(pooled.slide_C[None], stored[f"{prefix}/slide_preds"], atol=1e-6)
    np.testing.assert_allclose(pooled.attention_TN[None], stored[f"{prefix}/attn_raw"], atol=1e-6)
    if prefix == "acmil":  # one branch has no answer of its own here: its head is not in the loss
        np.testing.assert_allclose(pooled.branch_TC, stored[f"{prefix}/sub_preds"], atol=1e-6)
    for term, name in ((loss.branches, "sub"), (loss.slide, "slide"), (loss.diversity, "diff")):
        assert term.item() == pytest.approx(float(stored[f"{prefix}/loss_{name}"]), abs=1e-5)
    assert loss.total.item() == pytest.approx(float(stored[f"{prefix}/loss"]), abs=1e-5)


@pytest.mark.parametrize("name", ["mean", "abmil", "acmil"])
def test_identical_patches_share_attention_evenly_and_their_number_does_not_matter(name: str):
    model = pooling(name)
    with torch.no_grad():
        few, many = model(bag(1).expand(7, -1)), model(bag(1).expand(300, -1))
        assert torch.allclose(few.attention_TN.softmax(-1), torch.full((len(few.attention_TN), 7), 1 / 7), atol=1e-6)
    assert torch.allclose(few.slide_C, many.slide_C, atol=1e-6)


@pytest.mark.parametrize("name", ["mean", "abmil", "acmil"])
def test_the_order_of_patches_does_not_matter(name: str):
    model, patches = pooling(name), bag()
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(model(patches).slide_C, model(patches[order]).slide_C, atol=1e-6)


@pytest.mark.parametrize("name", ["mean", "abmil", "acmil"])
def test_what_patches_add_sums_to_the_logits_less_their_bias(name: str):
    model, patches = pooling(name), bag()
    with torch.no_grad():
        logits, evidence = model(patches).slide_C, model.evidence_of(patches)
        assert torch.allclose(evidence.sum(dim=0) + model.slide.bias, logits, atol=1e-5)
        assert model.attention_of(patches).sum().item() == pytest.approx(1, abs=1e-5)


def test_a_risk_never_falls_from_year_to_year_and_has_no_sum_over_patches():
    model = pooling("acmil", "risk", outputs=5)
    with torch.no_grad():
        assert (model(bag()).slide_C.diff() >= 0).all()
    with pytest.raises(MedclipError) as refused:
        model.evidence_of(bag())
    assert refused.value.reason is Reason.WRONG_USE


def test_training_hides_six_of_the_ten_highest_and_nothing_else():
    attention = bag(16).T[:5]
    hidden = hide_top(bag(50).T[:5], torch.Generator().manual_seed(0)) == -1e9
    top = torch.zeros(5, 50, dtype=torch.bool).scatter_(1, bag(50).T[:5].topk(10, dim=-1).indices, True)
    assert hidden.sum(dim=1).tolist() == [6] * 5
    assert not (hidden & ~top).any()
    few = hide_top(attention[:, :3], torch.Generator().manual_seed(0)) == -1e9
    assert few.sum(dim=1).tolist() == [1] * 5
    assert not (hide_top(attention[:, :1], torch.Generator()) == -1e9).any()


def test_only_acmil_in_training_hides_patches():
    patches, model = bag(), pooling("acmil")
    with torch.no_grad():
        assert (model(patches, torch.Generator().manual_seed(0)).attention_TN > -1e8).all()
        assert (model.train()(patches, torch.Generator().manual_seed(0)).attention_TN < -1e8).sum() == 30
        assert (pooling("abmil").train()(patches, torch.Generator()).attention_TN > -1e8).all()


def test_a_pooling_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(MedclipError, match="there is no pooling 'abmill'"):
        Shape("abmill", 16, 2)
    with pytest.raises(MedclipError, match="cannot be"):
        Shape("abmil", 0, 2)
