"""Prompts in the context of an image, as the audit asks them: which sentences, and what the temperature moves."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.auditing.checks.stress.rescore import Question, prompt_scores
from medclip.models.prototypes.class_vectors import in_context
from medclip.sample import Modality
from medclip.scoring.tasks import AskedTask
from medclip.statistics.cohort import Cohort
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import CONTEXTS
from tests.kits.audit_embeddings import noise


class Encoder:
    """A vector of each sentence, drawn once."""

    logit_scale = 20.0

    def __init__(self) -> None:
        self.vectors: dict[str, np.ndarray] = {}

    def encode_text(self, texts: list[str]) -> np.ndarray:
        for text in texts:
            self.vectors.setdefault(text, noise(1, seed=len(self.vectors))[0])
        return np.stack([self.vectors[text] for text in texts])


def answers(temperature: float, encoder: Encoder) -> dict[tuple[str, str], np.ndarray]:
    task = load_task("chest_xray_findings")
    question = Question(AskedTask(task, ("pneumonia",), None, listed=False), 0)
    cohort = Cohort.__new__(Cohort)
    object.__setattr__(cohort, "attributes", ())
    scores = prompt_scores(encoder, question, noise(9, seed=99), Modality.XRAY, cohort, temperature)  # type: ignore[arg-type]
    return {(condition.name, condition.strength): score_N for condition, score_N in scores}


def test_the_context_is_inferred_with_and_without_the_classes() -> None:
    encoder = Encoder()
    scores = answers(1, encoder)
    ways = {"inferred", "inferred without classes"}
    assert set(scores) == {(name, how) for name in CONTEXTS[Modality.XRAY] for how in ways}
    assert {f"{noun}, lateral view." for noun in load_task("chest_xray_findings").image_names} <= set(encoder.vectors)


def test_a_temperature_moves_the_answer_to_the_mean_over_all_contexts() -> None:
    encoder = Encoder()
    cold, warm, hot = (answers(t, encoder)["view", "inferred without classes"] for t in (1, 10, 1e9))
    assert not np.allclose(cold, hot, atol=1e-3)
    assert (np.abs(warm - hot) < np.abs(cold - hot)).mean() > 0.6
    others = answers(1e9, encoder)["view", "inferred"]
    np.testing.assert_allclose(hot, others, atol=1e-6)  # all contexts alike: it does not matter how they were inferred
    logits = np.random.default_rng(0).normal(size=(2, 2, 4))
    assert in_context(logits, temperature=1e9).contexts_NZ == pytest.approx(0.25, abs=1e-6)
