"""How the answers of two breasts become that of the examination."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import TaskCard, read_card
from medclip.models.packs.pack import update_pack
from medclip.scoring.pooling import LEARNED, MEAN, POOLINGS, fit_sharpness, is_pooled, pool_breasts, pooled_logits
from medclip.text.vocabulary.load import load_task
from tests.kits.mammograms import write_exams

MALIGNANCY = load_task("mammography_malignancy")
RULES = [rule for rule in POOLINGS if rule != MEAN]


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=2, max_size=2), st.sampled_from(RULES))
def test_what_is_pooled_is_a_distribution_that_lies_no_lower_than_the_mean_of_the_worst(
    weights: list[list[float]], rule: str
) -> None:
    breasts_BC = np.array(weights) / np.sum(weights, axis=1, keepdims=True)
    pooled_C = pool_breasts(breasts_BC, MALIGNANCY, rule, 2.0)
    assert pooled_C.sum() == pytest.approx(1)
    assert (pooled_C >= -1e-12).all()
    least = breasts_BC[:, -1].min()
    assert least - 1e-9 <= pooled_C[-1] <= 1 - np.prod(1 - breasts_BC[:, -1]) + 1e-9
    assert pool_breasts(breasts_BC[::-1], MALIGNANCY, rule, 2.0) == pytest.approx(pooled_C, abs=1e-9)


def test_a_learned_pooling_lies_between_the_mean_and_the_maximum() -> None:
    breasts_BC = np.array([[0.9, 0.05, 0.05], [0.1, 0.2, 0.7]])
    malignant = [pool_breasts(breasts_BC, MALIGNANCY, LEARNED, sharp)[-1] for sharp in (0.01, 1.0, 100.0)]
    assert malignant == sorted(malignant)
    assert malignant[-1] == pytest.approx(0.7, abs=0.01)


def test_sharpness_is_fitted_to_what_examinations_are() -> None:
    rng = np.random.default_rng(0)
    p_XB = rng.uniform(0.02, 0.98, (200, 2))
    exams = [np.stack([1 - p_B, 0 * p_B, p_B], axis=1) for p_B in p_XB]
    by_worse = rng.uniform(size=200) < p_XB.max(axis=1)
    by_mean = rng.uniform(size=200) < p_XB.mean(axis=1)
    assert fit_sharpness(exams, by_worse, MALIGNANCY) > 4 * fit_sharpness(exams, by_mean, MALIGNANCY)


def test_logits_of_a_pooled_answer_are_those_of_its_probabilities() -> None:
    pooled_C = np.array([0.2, 0.3, 0.5])
    assert MALIGNANCY.rules.probabilities_of(pooled_logits(pooled_C, MALIGNANCY)[None])[0] == pytest.approx(pooled_C)


def test_a_task_that_names_no_worst_class_is_not_pooled() -> None:
    assert is_pooled(MALIGNANCY)
    assert not is_pooled(load_task("breast_cancer_risk"))
    assert not is_pooled(load_task("modality"))


def test_a_rule_that_nobody_learned_is_refused() -> None:
    with pytest.raises(MedclipError, match="learned no pooling") as refused:
        pool_breasts(np.full((2, 3), 1 / 3), MALIGNANCY, LEARNED)
    assert refused.value.reason is Reason.WRONG_USE


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> tuple[Path, Path]:
    """Examinations, and a pack whose card chose the worse breast for a task."""
    base = tmp_path_factory.mktemp("pooled")
    copy = copytree(pack, base / "pack")
    card = read_card(copy)
    entry = {"classes": ("normal", "benign", "malignant"), "pooling": {"rule": "max", "chosen_on": "40 women"}}
    update_pack(copy, card=card.model_copy(update={"tasks": {MALIGNANCY.name: TaskCard.model_validate(entry)}}))
    return write_exams(base / "in"), copy


@pytest.mark.parametrize(("pool", "rule"), [(None, "max"), ("mean", "mean"), ("noisy_or", "noisy_or")])
def test_the_card_says_how_breasts_are_pooled_and_the_caller_may_say_otherwise(
    chosen: tuple[Path, Path], tmp_path: Path, pool: str | None, rule: str
) -> None:
    root, pack = chosen
    run = score(root, tmp_path / "out", model=pack, exam=True, pool=pool, workers=1, memory="8GB")
    assert run.exam_scores is not None
    (study,) = {row["study"] for row in run.files.to_pylist() if row["path"].startswith("whole")}
    rows = [r for r in run.exam_scores.to_pylist() if r["study"] == study and r["class"] == "malignant"]
    exam, right, left = rows[:3]
    expected = {
        "max": max(right["probability"], left["probability"]),
        "noisy_or": 1 - (1 - right["probability"]) * (1 - left["probability"]),
        "mean": exam["probability_by_mean"],
    }[rule]
    assert (exam["pooling"], exam["probability"]) == (rule, pytest.approx(expected, abs=2e-6))
    assert (right["pooling"], right["probability_by_mean"]) == (None, None)
    (of_study,) = [r for r in run.scores.to_pylist() if r["study"] == study and r["class"] == "malignant"]
    assert of_study["probability"] == exam["probability"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ("Exam by the mean of its images" in page) == (rule != "mean")
