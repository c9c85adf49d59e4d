"""Slide heads learn: what is planted is told apart and looked at, by the same bytes each time, and faults are named."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.slides.learning.labels import Bags, bags_in_memory
from medclip.slides.learning.train import SlideRecipe, held_back, slide_logits, train_slides
from tests.kits.slide_bags import DIM, planted

QUICK = SlideRecipe(pooling="abmil", epochs=20, lr=3e-3, val_share=0.0)
SHORT = SlideRecipe(pooling="abmil", epochs=4, lr=3e-3, val_share=0.0)


@pytest.mark.parametrize("pooling", ["mean", "abmil", "acmil"])
def test_a_planted_difference_is_learned_and_holds_on_other_slides(pooling: str):
    train, _ = planted(seed=1, rate=0.5)
    test, _ = planted(seed=2, rate=0.5)
    learned = train_slides(train, SlideRecipe(pooling=pooling, epochs=20, lr=3e-3), seed=0)
    right = slide_logits(learned.model, test).argmax(axis=1) == test.targets
    assert right.mean() > 0.8


def test_attention_looks_at_the_witnesses():
    train, _ = planted(seed=1, rate=0.1)
    test, witnesses = planted(seed=2, rate=0.1)
    model = train_slides(train, QUICK, seed=0).model
    for slide in np.flatnonzero(test.targets):
        with torch.no_grad():
            shares = model.attention_of(torch.from_numpy(test.read(int(slide)))).numpy()
        assert shares[witnesses[slide]].mean() > 1.5 / len(shares)


def test_equal_seeds_learn_equal_heads_and_leave_the_global_chance_alone():
    bags, _ = planted()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two = (train_slides(bags, SlideRecipe(epochs=2), seed=3).model.state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = train_slides(bags, SlideRecipe(epochs=2), seed=4).model.state_dict()
    assert not torch.equal(one["reduce.weight"], other["reduce.weight"])


def test_the_best_epoch_of_held_back_patients_is_kept():
    bags, _ = planted(num_patients=40)
    learn, back = held_back(bags, 0.25, seed=0)
    assert not {bags.patients[i] for i in learn} & {bags.patients[i] for i in back}
    assert np.bincount(bags.targets[back]).tolist() == [5, 5]
    val = bags.select(back)
    learned = train_slides(bags.select(learn), SHORT, seed=0, val=val)
    assert learned.epoch == 1 + int(np.argmax(learned.scores))
    again = train_slides(bags.select(learn), SHORT, seed=0, val=val)
    assert np.array_equal(slide_logits(learned.model, val), slide_logits(again.model, val))
    assert len(learned.scores) == SHORT.epochs


def test_who_is_held_back_does_not_depend_on_how_patients_are_named():
    bags, _ = planted(num_patients=40)
    renamed = replace(bags, patients=tuple(f"{hash_of:08x}" for hash_of in np.random.default_rng(0).permutation(40)))
    assert len(set(bags.patients)) == 40
    for one, other in zip(held_back(bags, 0.25, seed=0), held_back(renamed, 0.25, seed=0), strict=True):
        assert one.tolist() == other.tolist()


def test_nobody_is_held_back_where_a_class_has_too_few_patients():
    bags, _ = planted(num_patients=6)
    learn, back = held_back(bags, 0.25, seed=0)
    assert (len(learn), len(back)) == (6, 0)


def test_findings_that_nobody_knows_teach_nothing():
    bags, _ = planted(num_patients=8)
    targets = np.stack([bags.targets, np.full(8, np.nan)], axis=1).astype(np.float32)
    multilabel = Bags(bags.read, targets, bags.patients, ("planted", "unknown"), "multilabel")
    learned = train_slides(multilabel, QUICK, seed=0)
    torch.manual_seed(0)
    logits = slide_logits(learned.model, multilabel)
    assert np.isfinite(logits).all()
    assert (logits[bags.targets == 1, 0].mean()) > logits[bags.targets == 0, 0].mean()


def test_a_risk_rises_for_slides_with_witnesses():
    bags, _ = planted(num_patients=16)
    months = np.where(bags.targets == 1, 10.0, np.nan)
    times = np.stack([months, np.full(16, 60.0)], axis=1)
    risk = Bags(bags.read, times, bags.patients, ("1", "2", "3"), "risk")
    logits = slide_logits(train_slides(risk, QUICK, seed=0).model, risk)
    assert (np.diff(logits, axis=1) >= 0).all()
    assert logits[bags.targets == 1, 0].mean() > logits[bags.targets == 0, 0].mean()


def test_some_patches_are_drawn_for_a_step_where_asked():
    bags, _ = planted(num_patients=8)
    few = train_slides(bags, SlideRecipe(pooling="abmil", epochs=2, max_patches=5), seed=0).model.state_dict()
    every = train_slides(bags, SlideRecipe(pooling="abmil", epochs=2), seed=0).model.state_dict()
    assert not torch.equal(few["slide.weight"], every["slide.weight"])


def test_vectors_that_are_no_numbers_are_refused_by_the_slides_number():
    bag = np.full((3, DIM), np.nan, np.float32)
    bags = bags_in_memory([np.zeros((3, DIM), np.float32), bag], np.array([0, 1]), ["a", "b"], ["x", "y"])
    with pytest.raises(MedclipError, match="slide 2 hold values") as refused:
        train_slides(bags, QUICK, seed=0)
    assert refused.value.reason is Reason.NON_FINITE


@pytest.mark.parametrize("targets", [np.array([0, 2]), np.array([0.0, 1.0]), np.array([0, 1, 1])])
def test_targets_that_do_not_fit_the_task_are_refused(targets: np.ndarray):
    with pytest.raises(MedclipError, match="do not fit 2 slides"):
        bags_in_memory([np.zeros((3, DIM), np.float32)] * 2, targets, ["a", "b"], ["x", "y"])


def test_a_slide_without_a_patch_is_refused():
    with pytest.raises(MedclipError, match="each \\[patches, dimensions\\]"):
        bags_in_memory([np.zeros((0, DIM), np.float32)], np.array([0]), ["a"], ["x", "y"])


@pytest.mark.parametrize("changes", [{"masked_share": 0.0}, {"diversity": 0.0}])
def test_what_acmil_hides_and_how_alike_it_looks_are_settings_that_change_no_other_pooling(changes: dict):
    bags, _ = planted(num_patients=8)
    for pooling, alike in (("acmil", False), ("abmil", True)):
        usual = SlideRecipe(pooling=pooling, epochs=2, val_share=0.0)
        one, other = (
            train_slides(bags, recipe, seed=0).model.state_dict() for recipe in (usual, replace(usual, **changes))
        )
        assert torch.equal(one["slide.weight"], other["slide.weight"]) == alike


def test_acmil_with_one_branch_that_hides_nothing_learns_what_abmil_learns():
    bags, _ = planted(num_patients=8)
    one = SlideRecipe(pooling="acmil", epochs=2, val_share=0.0, num_branches=1, masked_share=0.0)
    weights = train_slides(bags, one, seed=0).model.state_dict()
    of_abmil = train_slides(bags, SlideRecipe(epochs=2, val_share=0.0), seed=0).model.state_dict()
    assert weights.keys() == of_abmil.keys()
    assert all(torch.equal(weights[name], of_abmil[name]) for name in weights)


@pytest.mark.parametrize(
    "values",
    [{"epochs": 0}, {"lr": 0.0}, {"val_share": 1.0}, {"masked_share": 1.0}, {"diversity": -1.0}, {"pooling": "max"}],
)
def test_a_recipe_that_cannot_be_is_refused(values: dict):
    with pytest.raises(MedclipError):
        SlideRecipe(**values)


def test_another_seed_begins_with_other_weights():
    bags, _ = planted()
    still = replace(SHORT, epochs=1, lr=1e-9)
    first, second, again = (train_slides(bags, still, seed=seed).model.state_dict() for seed in (3, 4, 3))
    assert not torch.allclose(first["reduce.weight"], second["reduce.weight"], atol=1e-3)
    assert torch.equal(first["reduce.weight"], again["reduce.weight"])
