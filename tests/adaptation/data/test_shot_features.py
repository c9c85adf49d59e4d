"""What every method on features refuses, and how settings are judged without looking at a patient twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import LinearHead
from medclip.adaptation.data.shot_features import Judge, folds, seen, take, unit_logits, with_unseen
from medclip.adaptation.methods import find_method
from medclip.errors import MedclipError, Reason
from tests.kits.adaptation import DIM, FakeModel, made_up, words

ON_FEATURES = ("linear-probe", "lp++", "ridge", "knn", "lda", "tip", "tip-f", "clip-adapter")


def _with(index: int, feature: np.ndarray) -> Callable[[Examples], Examples]:
    def change(examples: Examples) -> Examples:
        features = list(examples.features)
        features[index] = feature.astype(np.float32)
        return replace(examples, features=tuple(features))

    return change


@pytest.mark.parametrize("method", ON_FEATURES)
@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        (_with(1, np.full((1, DIM), np.nan)), Reason.NON_FINITE, "features of unit 1"),
        (_with(1, np.full((1, DIM), np.inf)), Reason.NON_FINITE, "features of unit 1"),
        (_with(1, np.zeros((2, DIM))), Reason.NON_FINITE, "no direction"),
        (_with(1, np.ones((1, DIM + 1))), Reason.WRONG_USE, f"{DIM} dimensions"),
        (_with(1, np.ones((0, DIM))), Reason.WRONG_USE, f"{DIM} dimensions"),
        (lambda e: replace(e, targets=np.ones(9, np.int64)), Reason.WRONG_USE, "all examples are of one class, pear"),
        (lambda e: replace(e, targets=e.targets + 1), Reason.WRONG_USE, "not those of 3 classes"),
        (lambda e: replace(e, targets=e.targets.astype(np.float64)), Reason.WRONG_USE, "not those of 3 classes"),
        (lambda e: replace(e, targets=np.eye(3, dtype=np.float32)[e.targets]), Reason.WRONG_USE, "multiclass task"),
        (lambda e: e.select([]), Reason.WRONG_USE, "no examples"),
    ],
)
def test_examples_that_teach_nothing_are_refused(
    method: str, change: Callable[[Examples], Examples], reason: Reason, said: str
) -> None:
    text = words()
    with pytest.raises(MedclipError, match=said) as caught:
        find_method(method).fit(FakeModel(text), text, change(made_up(9)), None, seed=0)
    assert caught.value.reason is reason


def test_validation_examples_are_checked_too_and_may_be_of_one_class() -> None:
    text = words()
    model, train, val = FakeModel(text), made_up(9), made_up(9, seed=1)
    with pytest.raises(MedclipError, match="unit 0 of the validation examples"):
        take(model, text, train, _with(0, np.full((1, DIM), np.nan))(val))
    assert take(model, text, train, replace(val, targets=np.zeros(9, np.int64))).val is not None
    assert take(model, text, train, val.select([])).val is None


def test_multilabel_targets_are_checked() -> None:
    text = words(multilabel=True)
    model, train = FakeModel(text), made_up(9, multilabel=True)
    for targets in (train.targets + 1, train.targets[:, :2], np.zeros((9, 3), np.float32)):
        with pytest.raises(MedclipError) as caught:
            take(model, text, replace(train, targets=targets), None)
        assert caught.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="views"):
        take(model, text, train, None, "all")


@pytest.mark.parametrize("method", ON_FEATURES)
@pytest.mark.parametrize("num_units", [3, 7])
@pytest.mark.parametrize("validated", [False, True])
def test_one_example_a_class_is_enough_and_so_are_fewer_examples_than_dimensions(
    method: str, num_units: int, validated: bool
) -> None:
    text = words()
    val = made_up(3, seed=1, noise=0.3) if validated else None
    fitted = find_method(method).fit(FakeModel(text), text, made_up(num_units, noise=0.3), val, seed=0)
    test = made_up(30, seed=2, noise=0.3)
    logits = unit_logits(fitted.head, test)
    assert np.isfinite(logits).all()
    assert (logits.argmax(axis=1) == test.targets).mean() > 0.9


@pytest.mark.parametrize("method", ON_FEATURES)
@pytest.mark.parametrize("multilabel", [False, True])
def test_constant_features_give_numbers(method: str, multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    train = made_up(9, multilabel=multilabel)
    same = replace(train, features=tuple(train.features[0] for _ in range(9)))
    for val in (None, same):
        fitted = find_method(method).fit(FakeModel(text), text, same, val, seed=0)
        assert np.isfinite(unit_logits(fitted.head, made_up(5, seed=1))).all()


@pytest.mark.parametrize("method", ON_FEATURES)
def test_a_class_without_examples_is_named_and_still_gets_a_logit(method: str) -> None:
    text = words(4)
    train = made_up(12, 3, noise=0.5)
    fitted = find_method(method).fit(FakeModel(text), text, train, None, seed=0)
    assert fitted.settings["no_examples"] == ["quince"]
    test = made_up(40, 4, seed=1, noise=0.5)
    logits = unit_logits(fitted.head, test)
    assert logits.shape == (40, 4)
    assert np.isfinite(logits).all()
    known = test.targets < 3
    assert (logits.argmax(axis=1) == test.targets)[known].mean() > 0.9


@pytest.mark.parametrize("method", ON_FEATURES)
def test_a_multilabel_class_without_both_sides_keeps_the_zero_shot_logit(method: str) -> None:
    text = words(multilabel=True)
    model, train = FakeModel(text), made_up(12, multilabel=True)
    targets = train.targets.copy()
    targets[:, 1] = 1
    targets[:3, 1] = np.nan
    train = replace(train, targets=targets)
    val = made_up(8, seed=1, multilabel=True)
    val.targets[:, 1] = 1  # the linear probe learns from these, too
    fitted = find_method(method).fit(model, text, train, val, seed=0)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0)
    features = made_up(5, seed=2).pooled()
    if method in ("tip", "tip-f"):
        assert fitted.head.values_NC[:, 1].tolist() == [0] * 12
    np.testing.assert_allclose(
        fitted.head.logits(features, None)[:, 1], zero.head.logits(features, None)[:, 1], rtol=1e-5, atol=1e-5
    )
    assert fitted.settings["no_examples"] == ["pear"]


@pytest.mark.parametrize("method", ON_FEATURES)
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("views", ["pooled", "each"])
def test_units_of_several_views_learn_validate_and_come_out_the_same_twice(
    method: str, multilabel: bool, views: str
) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text)
    train, val, test = (made_up(18, seed=s, multilabel=multilabel, unknown=0.1, views=(1, 4)) for s in range(3))
    before = np.random.get_state()[1].copy()
    first, second = (find_method(method).fit(model, text, train, val, seed=5, views=views) for _ in range(2))
    assert np.array_equal(before, np.random.get_state()[1])
    arrays = second.head.arrays()
    assert all(np.array_equal(a, arrays[n], equal_nan=True) for n, a in first.head.arrays().items())
    assert all(a.dtype != object for a in arrays.values())
    logits = unit_logits(first.head, test)
    assert first.head.logits(test.features[0], None).dtype == np.float32
    assert logits.shape == (18, 3)
    assert dict(first.settings) == dict(second.settings)
    assert first.settings["views"] == views


@pytest.mark.parametrize("method", ON_FEATURES)
def test_no_library_draws_from_the_global_generator_of_torch(method: str) -> None:
    import torch

    text = words()
    before = torch.random.get_rng_state()
    find_method(method).fit(FakeModel(text), text, made_up(9), None, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


@given(st.integers(4, 40), st.integers(2, 6), st.integers(2, 12), st.booleans(), st.integers(0, 99))
def test_folds_keep_patients_whole_and_leave_every_class_to_learn_from(
    num_units: int, num_classes: int, patients: int, multilabel: bool, seed: int
) -> None:
    train = made_up(num_units, num_classes, patients=patients, multilabel=multilabel, seed=seed)
    divided = folds(train, num_classes, seed)
    if not divided:
        return
    assert len(divided) >= 2
    assert sorted(np.concatenate(divided).tolist()) == list(range(num_units))
    of = [{train.patients[i] for i in rows} for rows in divided]
    assert sum(map(len, of)) == len(set().union(*of))
    if not multilabel:
        there = seen(train.targets, num_classes)
        for rows in divided:
            rest = np.setdiff1d(np.arange(num_units), rows)
            assert np.array_equal(seen(train.targets[rest], num_classes), there)


@given(st.permutations(range(8)), st.booleans())
def test_folds_do_not_depend_on_how_patients_are_named(names: list[int], multilabel: bool) -> None:
    """Their names are hashes with a key of each machine."""
    train = made_up(24, patients=8, multilabel=multilabel)
    others = dict(zip(sorted(set(train.patients)), (f"patient {n}" for n in names), strict=False))
    renamed = replace(train, patients=tuple(others[patient] for patient in train.patients))
    assert len(folds(train, 3, 0)) > 1
    for one, other in zip(folds(train, 3, 0), folds(renamed, 3, 0), strict=True):
        assert one.tolist() == other.tolist()


def test_one_patient_a_class_leaves_nothing_to_judge_by() -> None:
    text = words()
    one = take(FakeModel(text), text, made_up(3), None)
    assert Judge(one, 0).how == "default"
    assert Judge(one, 0).best([1, 2], lambda examples, setting: one.zero, default=2) == 2
    two = take(FakeModel(text), text, made_up(6), None)
    judge = Judge(two, 0)
    assert judge.how == "folds"
    assert len(judge.parts) == 2
    for part in judge.parts:
        assert not set(part.learn.patients) & set(part.judge.patients)


def test_a_class_that_a_fold_cannot_learn_is_not_judged_in_it() -> None:
    """The one positive of the first class: nothing says how well it is found."""
    text = words(multilabel=True)
    targets = np.tile(np.array([[0, 1, 0], [0, 0, 1]], np.float32), (4, 1))
    targets[0, 0] = 1
    train = replace(made_up(8, multilabel=True), targets=targets)
    judge = Judge(take(FakeModel(text), text, train, None), 0)
    assert judge.how == "folds"
    for part in judge.parts:
        there = seen(part.learn.targets, 3)
        assert np.isnan(part.judge.targets[:, ~there]).all()
        assert not np.isnan(part.judge.targets[:, there]).any()
    two = replace(made_up(2, multilabel=True), targets=np.array([[0, 1, 0], [1, 0, 1]], np.float32))
    assert Judge(take(FakeModel(text), text, two, None), 0).how == "default"


def test_validation_examples_that_show_one_side_only_are_no_validation() -> None:
    text = words(multilabel=True)
    train, val = made_up(12, multilabel=True), made_up(4, seed=1, multilabel=True)
    one_sided = replace(val, targets=np.ones((4, 3), np.float32))
    assert take(FakeModel(text), text, train, one_sided).val is None


def test_a_judge_with_a_validation_set_never_scores_on_the_shots() -> None:
    text = words()
    train, val = made_up(6), made_up(6, seed=1)
    judge = Judge(take(FakeModel(text), text, train, val), 0)
    assert judge.how == "val"
    assert [(p.learn, p.judge) for p in judge.parts] == [(train, val)]
    weight = take(FakeModel(text), text, train, val).zero.weight_DC
    right, wrong = (LinearHead(s * weight, np.zeros(3, np.float32)) for s in (1, -1))
    assert judge.best(["wrong", "right"], lambda _, s: right if s == "right" else wrong, "none") == "right"


def test_unit_logits_are_the_mean_over_views_whatever_their_number() -> None:
    examples = made_up(5, views=(1, 4))
    head = LinearHead(np.random.default_rng(0).normal(size=(DIM, 3)).astype(np.float32), np.zeros(3, np.float32))
    expected = [head.logits(f, None).mean(axis=0) for f in examples.features]
    np.testing.assert_allclose(unit_logits(head, examples), expected, atol=1e-6)


def test_classes_without_examples_lead_the_others_by_as_much_as_zero_shot_says() -> None:
    rng = np.random.default_rng(0)
    zero, head = (LinearHead(rng.normal(size=(DIM, 4)).astype(np.float32), np.zeros(4, np.float32)) for _ in range(2))
    there = np.array([True, False, True, False])
    features = made_up(6).pooled()
    mixed = with_unseen(head, zero, there, multilabel=False).logits(features, None)
    by_text = zero.logits(features, None)
    np.testing.assert_allclose(mixed[:, there], head.logits(features, None)[:, there], atol=1e-6)
    np.testing.assert_allclose(mixed[:, 1] - mixed[:, 3], by_text[:, 1] - by_text[:, 3], atol=1e-5)
    lead = by_text[:, 1] - by_text[:, there].mean(axis=1)
    np.testing.assert_allclose(mixed[:, 1] - mixed[:, there].mean(axis=1), lead, atol=1e-5)
