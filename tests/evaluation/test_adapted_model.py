"""Figures of an adapted model beside zero-shot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medclip.adaptation.run import ScoredTest
from medclip.evaluation.adapted_model import measure
from medclip.statistics.resampling.simple_bootstrap import auroc, balanced_accuracy
from tests.kits.adapt_tables import findings, views


def run_of(targets, logits, zero_shot, *, patients=None, text=None) -> Any:
    text = text or views()
    whose = patients or [f"p{n}" for n in range(len(targets))]
    test = ScoredTest(
        tuple(range(1, len(targets) + 1)),
        tuple(f"{n:064x}" for n in range(len(targets))),
        tuple(whose),
        np.asarray(targets),
        np.asarray(logits, np.float32),
        np.asarray(zero_shot, np.float32),
        text.kind,
    )
    card = SimpleNamespace(train_hashes_file=None)
    return SimpleNamespace(
        text=text, test=test, notes=(), adapted=SimpleNamespace(model=SimpleNamespace(path=None, card=card))
    )


def made_up(seed: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(60) % 2
    return targets, rng.normal(size=(60, 2)) + strength * np.eye(2)[targets]


def test_figures_are_those_of_their_definitions_and_lie_in_their_intervals():
    targets, logits = made_up(0, 1.0)
    found = measure(run_of(targets, logits, made_up(1, 0.2)[1]))
    value = found.figures["balanced_accuracy"].adapted
    assert value.value == pytest.approx(balanced_accuracy(targets, logits))
    assert value.low < value.value < value.high
    assert found.figures["macro_auroc"].adapted.value == pytest.approx(auroc(targets == 1, logits[:, 1] - logits[:, 0]))
    assert found.metrics["balanced_accuracy"]["adapted"]["chance"] == 0.5


def test_the_difference_is_paired():
    targets, logits = made_up(0, 0.5)
    same = measure(run_of(targets, logits, logits)).figures["accuracy"].gain
    assert (same.value, same.low) == (0.0, None)


def test_a_model_without_an_error_has_the_exact_lower_end():
    targets = np.arange(20) % 2
    right = np.eye(2)[targets] * 5
    figure = measure(run_of(targets, right, right)).figures["accuracy"].adapted
    assert (figure.value, figure.high) == (1.0, 1.0)
    assert figure.low == pytest.approx(0.025 ** (1 / 20))


def test_findings_have_an_area_each_over_what_is_known():
    rng = np.random.default_rng(0)
    targets = (rng.random((80, 2)) > 0.5).astype(np.float32)
    targets[:30, 1] = np.nan
    logits = rng.normal(size=(80, 2)) + np.nan_to_num(targets)
    found = measure(run_of(targets, logits, logits, text=findings()))
    known = ~np.isnan(targets[:, 1])
    assert found.by_class["effusion"].adapted.value == pytest.approx(auroc(targets[known, 1], logits[known, 1]))
    assert next(iter(found.figures)) == "macro_auroc"
    assert "AUROC of effusion" in "\n".join(found.lines())


def test_intervals_are_wider_when_images_share_patients():
    targets, logits = made_up(3, 0.8)
    alone, shared = (
        measure(run_of(targets, logits, logits, patients=whose)).figures["accuracy"].adapted
        for whose in (None, [f"p{n // 6}" for n in range(60)])
    )
    assert alone.value == shared.value
    assert (alone.low, alone.high) != (shared.low, shared.high)


def test_one_patient_a_class_has_figures_without_intervals_and_nobody_has_none():
    few = measure(run_of([0, 1], np.eye(2), np.eye(2)))
    assert few.figures["accuracy"].adapted.value == 1.0
    assert not few.has_intervals
    assert few.notes == ("There are too few test patients for intervals (a class with fewer than 5).",)
    none = measure(run_of(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 2))))
    assert (none.figures, none.metrics, none.lines(), none.notes) == ({}, {}, (), ())


def test_a_class_with_four_patients_allows_no_interval_and_one_with_five_does():
    for few, allowed in ((4, False), (5, True)):
        targets = np.array([0] * 20 + [1] * few)
        logits = np.random.default_rng(0).normal(size=(len(targets), 2))
        found = measure(run_of(targets, logits, -logits))
        assert found.has_intervals is allowed
        assert any("too few test patients for intervals" in n for n in found.notes) is not allowed
        assert ("low" in found.metrics["accuracy"]["adapted"]) is allowed


def test_an_accuracy_of_nothing_has_the_exact_upper_end_and_it_is_said():
    targets = np.arange(20) % 2
    wrong = np.eye(2)[1 - targets] * 5
    found = measure(run_of(targets, wrong, wrong))
    figure = found.figures["accuracy"].adapted
    assert (figure.value, figure.low) == (0.0, 0.0)
    assert figure.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert any("Clopper" in note for note in found.notes)


def test_figures_over_some_of_the_classes_say_so_and_chance_is_among_them():
    logits = np.random.default_rng(0).normal(size=(9, 2))
    found = measure(run_of([1] * 9, logits, logits))
    assert found.chance == 1.0
    assert "The figures are over 1 of 2 classes, those of test patients: pa." in found.notes


def test_findings_with_few_patients_have_no_interval_of_the_mean():
    targets = np.zeros((40, 2), np.float32)
    targets[:20, 0] = targets[:4, 1] = 1
    logits = np.random.default_rng(0).normal(size=(40, 2))
    found = measure(run_of(targets, logits, -logits, text=findings()))
    assert found.figures["macro_auroc"].adapted.low is None
    assert found.by_class["pneumonia"].adapted.low is not None
    assert found.by_class["effusion"].adapted.low is None
    assert any("intervals of the means (a finding with fewer than 5 with or without it)" in n for n in found.notes)
