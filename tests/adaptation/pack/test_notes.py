"""What is said of a finished adaptation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from medclip.adaptation.pack.adapted_model import below_chance, learned_nothing, run_notes
from medclip.errors import MedclipError, Reason
from tests.kits.adapt_tables import findings, views

TARGETS = np.array([0, 0, 1, 1])


def test_a_model_that_tells_its_shots_apart_is_not_noted():
    assert learned_nothing(views(), np.eye(2, dtype=np.float32)[TARGETS], TARGETS, {}) == []


def test_one_class_for_every_shot_is_nothing_learned():
    (note,) = learned_nothing(views(), np.eye(2, dtype=np.float32)[[1, 1, 1, 1]], TARGETS, {})
    assert note.startswith("It learned nothing: it says pa for every one of its own shots.")


def test_right_as_often_as_a_guess_is_nothing_learned():
    (note,) = learned_nothing(views(), np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], TARGETS, {})
    assert "right about 50%" in note


def test_findings_are_looked_at_by_their_order():
    targets = np.array([[1, np.nan], [0, 1], [1, 0]], np.float32)
    assert learned_nothing(findings(), np.nan_to_num(targets), targets, {}) == []
    (note,) = learned_nothing(findings(), np.zeros((3, 2), np.float32), targets, {})
    assert "AUROC 0.50" in note


def test_answers_that_are_no_numbers_are_refused():
    with pytest.raises(MedclipError, match="not finite") as refused:
        learned_nothing(views(), np.full((4, 2), np.nan, np.float32), TARGETS, {})
    assert refused.value.reason is Reason.NON_FINITE


def test_nobody_to_test_on_is_said():
    base = SimpleNamespace(preprocess=SimpleNamespace(adapters={"xray": "1"}))
    assert run_notes(views(), base, ["xray"], TARGETS[:0], {}) == ["Nobody is tested on: the pack has no figures."]
    assert run_notes(views(), base, ["xray"], TARGETS, {}) == []
    (note,) = run_notes(views(), base, ["xray"], TARGETS[:2], {})
    assert "No test patient has: pa" in note


def test_advice_is_about_settings_that_the_method_has():
    everyone = np.eye(2, dtype=np.float32)[[1, 1, 1, 1]]
    (of_probe,) = learned_nothing(views(), everyone, TARGETS, {"c": 1.0, "start": "text"})
    assert not any(word in of_probe for word in ("rate", "steps", "epochs"))
    (of_svd,) = learned_nothing(views(), everyone, TARGETS, {"lr": 0.01, "steps": 100})
    assert "(lr 0.01)" in of_svd
    assert "100 steps" in of_svd
    (of_lp,) = learned_nothing(views(), everyone, TARGETS, {"epochs": 300})
    assert of_lp.endswith("Are 300 epochs too few?")


def test_prompts_that_order_the_shots_worse_than_chance_are_said():
    right = np.eye(2, dtype=np.float32)[TARGETS]
    assert below_chance(views(), right, TARGETS) == []
    assert below_chance(views(), np.zeros((4, 2), np.float32), TARGETS) == []
    (note,) = below_chance(views(), -right, TARGETS)
    assert note.startswith("Zero-shot is below chance on these 4 files (AUROC 0.00)")
    targets = np.array([[1, np.nan], [0, 1], [1, 0]], np.float32)
    assert below_chance(findings(), np.nan_to_num(targets), targets) == []
    (note,) = below_chance(findings(), -np.nan_to_num(targets), targets)
    assert "AUROC 0.00" in note
