from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from medclip.evaluation.zero_shot.sensitivity import Sensitivity, measure_negation, measure_sensitivity
from medclip.sample import Modality
from medclip.text.vocabulary.load import load_task, spoken_names

_SENTENCES = {
    "no fluid": [1.0, 0.0, 0.0],
    "clear": [0.6, 0.8, 0.0],
    "fluid": [0.0, 1.0, 0.0],
    "water": [0.0, 0.6, 0.8],
    "deaf": [0.9999, 0.0141, 0.0],
}


class Told:
    """A text encoder whose sentences have the vectors they are listed with, or all the same one."""

    def encode_text(self, texts: list[str]) -> np.ndarray:
        rows = np.array([_SENTENCES.get(text, [1.0, 0.0, 0.0]) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _images(num: int = 60) -> tuple[np.ndarray, np.ndarray, list[int]]:
    rng = np.random.default_rng(5)
    labels = np.arange(num) % 2
    features = rng.normal(size=(num, 3))
    features[:, 1] += 0.9 * labels
    features[:, 2] -= 0.5 * labels
    return features / np.linalg.norm(features, axis=1, keepdims=True), labels, [n // 3 for n in range(num)]


def _measure(prompts: list[list[str]], **changes: object) -> Sensitivity:
    features, labels, patients = _images()
    return measure_sensitivity(
        Told(), ["none", "fluid"], prompts, features, labels, patients, "auroc", num_resamples=200
    )


def test_each_wording_is_measured_alone_and_a_class_with_fewer_sentences_begins_again() -> None:
    result = _measure([["no fluid"], ["fluid", "water"]])
    features, labels, _ = _images()
    scores = [features @ (Told().encode_text([t])[0] - Told().encode_text(["no fluid"])[0]) for t in ("fluid", "water")]
    areas = [roc_auc_score(labels, s) for s in scores]
    over = result.figures["auroc"]
    assert result.num_wordings == 2
    assert (over.least.value, over.most.value) == pytest.approx((min(areas), max(areas)), abs=1e-4)
    assert (over.least_wording, over.most_wording) == (2, 1)
    assert over.mean.value == pytest.approx(np.mean(areas), abs=1e-4)
    assert over.sd == pytest.approx(np.std(areas, ddof=1), abs=1e-4)
    both = Told().encode_text(["fluid", "water"]).mean(axis=0)
    together = features @ (both / np.linalg.norm(both) - Told().encode_text(["no fluid"])[0])
    assert over.ensemble.value == pytest.approx(roc_auc_score(labels, together), abs=1e-4)
    assert over.gain.value == pytest.approx(over.ensemble.value - over.mean.value, abs=2e-4)
    assert over.gain.low is not None
    assert over.gain.low < over.gain.value < over.gain.high  # type: ignore[operator]
    rhos = [float(spearmanr(s, together)[0]) for s in scores]
    assert result.rank_correlation == pytest.approx(np.mean(rhos), abs=1e-4)
    assert result.least_rank_correlation == pytest.approx(min(rhos), abs=1e-4)
    assert {"auroc", "accuracy"} == set(result.figures)
    assert any("auroc" in line and "2 single wordings" in line for line in result.lines())


def test_separation_is_the_mean_margin_of_one_class_less_that_of_the_other() -> None:
    result = _measure([["no fluid"], ["fluid"]])
    features, labels, _ = _images()
    margin = features[:, 1] - features[:, 0]
    assert result.separation is not None
    assert result.separation.value == pytest.approx(margin[labels == 1].mean() - margin[labels == 0].mean(), abs=1e-4)
    assert result.separation.low > 0  # type: ignore[operator]
    assert result.figures == {}
    assert result.rank_correlation is None
    assert any("nothing to vary" in line for line in result.lines())


@pytest.mark.parametrize(
    ("prompts", "warning"),
    [
        ([["no fluid"], ["deaf"]], "ignores “no”"),
        ([["a film"], ["deaf"]], "hardly tells the sentences apart"),
        ([["no fluid"], ["fluid"]], ""),
    ],
)
def test_a_text_tower_that_ignores_no_is_called_that(prompts: list[list[str]], warning: str) -> None:
    lines = "\n".join(_measure(prompts).lines())
    assert (warning in lines) if warning else ("WARNING" not in lines)


def test_what_was_measured_comes_back_from_json() -> None:
    from dataclasses import asdict
    from json import dumps, loads

    result = _measure([["no fluid", "clear"], ["fluid", "water"]])
    assert Sensitivity.from_json(loads(dumps(asdict(result)))) == result


def test_findings_and_their_denials_are_compared_without_any_image() -> None:
    deaf = measure_negation(Told(), [Modality.XRAY])
    assert deaf is not None
    assert deaf.ignores_no
    assert "ignores “no”" in deaf.line()
    of_films = [load_task(name) for name in spoken_names() if Modality.XRAY in load_task(name).modalities]
    assert deaf.num_findings == sum(len(task.classes) for task in of_films if task.rules.independent)

    class Hearing:
        def encode_text(self, texts: list[str]) -> np.ndarray:
            return np.array([[1.0, 0.0] if " no " in f" {t}" else [0.0, 1.0] for t in texts], np.float32)

    hearing = measure_negation(Hearing(), [Modality.XRAY])
    assert hearing is not None
    assert (hearing.mean_cosine, hearing.ignores_no) == (0.0, False)
    assert measure_negation(Told(), [Modality.ENDOSCOPY]) is None
