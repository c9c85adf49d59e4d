"""Figures of an adapted model beside zero-shot."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from medclip.adaptation.run import ScoredTest
from medclip.evaluation.adapted_figures import measure
from medclip.sample import Modality
from medclip.statistics.metrics.classification import METRICS
from medclip.statistics.metrics.ranks import auroc
from medclip.text.vocabulary.task_kinds import TASK_KINDS
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
    assert value.value == pytest.approx(
        np.mean([(logits.argmax(axis=1) == targets)[targets == c].mean() for c in (0, 1)])
    )
    assert value.low < value.value < value.high
    assert found.figures["macro_auroc"].adapted.value == pytest.approx(
        float(auroc(logits[:, 1] - logits[:, 0], targets == 1))
    )
    assert found.metrics["balanced_accuracy"]["adapted"]["chance"] == 0.5


def test_the_metrics_of_a_kind_are_measured_beside_those_of_every_adaptation(monkeypatch: pytest.MonkeyPatch):
    targets, logits = made_up(0, 1.0)
    usual = measure(run_of(targets, logits, logits)).figures
    assert set(usual) == set(METRICS)
    monkeypatch.setitem(TASK_KINDS, "multiclass", replace(TASK_KINDS["multiclass"], metrics=("accuracy", "macro_f1")))
    found = measure(run_of(targets, logits, logits))
    assert {name: found.figures[name] for name in usual} == usual
    assert found.figures["macro_f1"].adapted.value == pytest.approx(
        f1_score(targets, logits.argmax(axis=1), average="macro")
    )
    assert any(line.startswith("macro f1") for line in found.lines())
    assert "macro_f1" in found.metrics


def test_zero_shot_is_measured_with_other_words_where_the_base_has_vectors_of_its_images():
    targets, logits = made_up(0, 1.0)
    run = run_of(targets, logits, logits)
    assert measure(run).word_control == {}
    run.adapted.model.encode_text = lambda texts: np.array([[len(t), t.count("e"), 1.0] for t in texts], np.float32)
    features_ND = np.random.default_rng(0).normal(size=(60, 3))
    run.test = replace(run.test, features_ND=features_ND, modality=Modality.XRAY)
    measured = measure(run, num_resamples=50)
    control = measured.word_control["all"]
    assert control.num_images == 60
    assert measured.to_json()["word_control"]["all"]["own_words"]["value"] == control.own_words.value
    lines = list(measured.lines())
    assert lines[lines.index("Zero-shot by its words and by others:") + 1].startswith("  words: AUROC")


def test_the_difference_is_paired():
    targets, logits = made_up(0, 0.5)
    same = measure(run_of(targets, logits, logits)).figures["accuracy"].gain
    other = measure(run_of(targets, logits, made_up(1, 0.5)[1])).figures["accuracy"].gain
    assert (same.value, same.p) == (0.0, 1.0)
    assert same.standard_error < 0.1 * other.standard_error


def test_a_model_without_an_error_is_not_certain_to_make_none():
    targets = np.arange(20) % 2
    right = np.eye(2)[targets] * 5
    for compared in measure(run_of(targets, right, right)).figures.values():
        assert (compared.adapted.value, compared.adapted.high) == (1.0, 1.0)
        assert 0.65 < compared.adapted.low < 0.95
        assert compared.gain.low < 0 < compared.gain.high


def test_findings_have_an_area_each_over_what_is_known():
    rng = np.random.default_rng(0)
    targets = (rng.random((80, 2)) > 0.5).astype(np.float32)
    targets[:30, 1] = np.nan
    logits = rng.normal(size=(80, 2)) + np.nan_to_num(targets)
    found = measure(run_of(targets, logits, logits, text=findings()))
    known = ~np.isnan(targets[:, 1])
    assert found.by_class["effusion"].adapted.value == pytest.approx(
        float(auroc(logits[known, 1], targets[known, 1] == 1))
    )
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
    assert few.figures["balanced_accuracy"].adapted.value == 1.0
    assert not few.figures["balanced_accuracy"].adapted.has_interval
    assert few.notes == (
        "There are too few test patients for an interval of: balanced accuracy, AUROC, mean over classes.",
    )
    none = measure(run_of(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 2))))
    assert (none.figures, none.metrics, none.lines(), none.notes) == ({}, {}, (), ())


def test_a_class_that_a_tenth_of_the_resamples_lack_allows_no_interval():
    for few, allowed in ((2, False), (3, True)):
        targets = np.array([0] * 20 + [1] * few)
        logits = np.random.default_rng(0).normal(size=(len(targets), 2))
        found = measure(run_of(targets, logits, -logits))
        assert found.figures["balanced_accuracy"].adapted.has_interval is allowed
        assert any("too few test patients for an interval" in n for n in found.notes) is not allowed
        assert ("low" in found.metrics["balanced_accuracy"]["adapted"]) is allowed


def test_figures_over_some_of_the_classes_say_so_and_chance_is_among_them():
    logits = np.random.default_rng(0).normal(size=(9, 2))
    found = measure(run_of([1] * 9, logits, logits))
    assert found.chance == 1.0
    assert "The figures are over 1 of 2 classes, those of test patients: pa." in found.notes
