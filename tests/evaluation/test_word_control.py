"""Models that answer by the word asked, by the word "no", and by nothing: the control tells them apart."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from medclip.evaluation.word_control import (
    UNRELATED,
    compare_words,
    measure_task_words,
    measure_word_control,
    other_wordings,
)
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.word_control import OtherWords, WordControl
from medclip.models.prototypes.class_vectors import encode_prompts
from medclip.sample import Modality
from medclip.statistics.estimate import Change, Figure
from tests.kits.adapt_tables import findings, views

DIM = 64
NO, PNEUMONIA = 0, 1
"""Places of the two directions that mean something."""
FINDING = [("no pneumonia", "X-ray image: no pneumonia"), ("pneumonia", "X-ray image: pneumonia")]


class Encoder:
    """Encodes a text as the sum of a fixed direction for each of its words; two words have directions of their own."""

    has_text = True

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors [N, D]."""
        vectors = np.stack([sum(map(self._word, re.findall(r"[a-z]+", text.lower()))) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word: str) -> NDArray[np.float64]:
        for name, place in (("no", NO), ("pneumonia", PNEUMONIA)):
            if word == name:
                return 2 * np.eye(DIM)[place]
        noise = np.random.default_rng(sum(map(ord, word))).normal(size=DIM)
        noise[[NO, PNEUMONIA]] = 0
        return noise / np.linalg.norm(noise)


def images(direction: int | None, sign: float = 1.0, num: int = 300) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw images of which the sick ones lie further along a direction, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, num)
    features = rng.normal(size=(num, DIM)) * 0.15
    if direction is not None:
        features[:, direction] += sign * labels
    return features, labels


def control(direction: int | None, sign: float = 1.0) -> WordControl:
    features, labels = images(direction, sign)
    patients = np.arange(len(labels)) // 2
    found = measure_word_control(
        Encoder(), FINDING, features, labels, patients.tolist(), Modality.XRAY, num_resamples=300
    )
    assert found is not None
    return found


def test_a_model_that_hears_the_finding_does_better_with_its_word_than_with_any_other():
    found = control(PNEUMONIA)
    assert found.own_words.value > 0.9
    assert abs(found.unrelated.figure.value - 0.5) < 0.1
    assert (found.unrelated.difference.low or 0) > 0.2
    assert found.other_findings is not None
    assert (found.other_findings.difference.low or 0) > 0.2
    assert found.caution == ""


def test_a_model_that_hears_no_alone_is_said_to_rank_as_well_with_a_happy_dog():
    found = control(NO, sign=-1.0)
    assert found.own_words.value > 0.9
    assert found.unrelated.figure.value > 0.9
    assert found.unrelated.num == len(UNRELATED)
    assert found.unrelated.do_as_well
    assert found.caution.startswith("Unrelated words rank these images as well")
    assert "WARNING" in "\n".join(found.lines())


def test_where_nothing_is_heard_the_words_are_not_said_to_matter():
    found = control(None)
    assert found.caution
    assert found.unrelated.may_do_as_well


def test_few_images_show_nothing_and_are_not_said_to_show_that_words_do_not_matter():
    features, labels = images(PNEUMONIA)
    few = measure_word_control(
        Encoder(), FINDING, features[:8], labels[:8], list(range(8)), Modality.XRAY, num_resamples=300
    )
    assert few is not None
    assert few.num_images == 8
    assert not few.unrelated.do_as_well


def _others(value: float, low: float | None, high: float | None) -> OtherWords:
    return OtherWords(24, Figure(0.8), 0.8, "a red car", Change(value, low, high))


@pytest.mark.parametrize(
    ("unrelated", "caution"),
    [
        (_others(0.01, 0.002, 0.02), "Unrelated words rank these images as well"),  # sure, and of no use
        (_others(0.0, -0.01, 0.01), "Unrelated words rank these images as well"),
        (_others(0.1, -0.05, 0.25), "On these images it is not shown that the words asked do better than unrelated"),
        (_others(0.1, None, None), "On these images it is not shown that the words asked do better than unrelated"),
        (_others(0.2, 0.1, 0.3), ""),
    ],
)
def test_the_warning_goes_by_the_whole_interval(unrelated: OtherWords, caution: str):
    written = WordControl("auroc", 100, Figure(0.8), unrelated, None).caution
    assert written.startswith(caution)
    assert bool(written) == bool(caution)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_of_classes_that_deny_nothing_each_gets_a_phrase(num_classes: int):
    prompts = [("pneumonia",), ("a fracture",), ("a mass",)][:num_classes]
    rng = np.random.default_rng(0)
    labels = np.arange(90) % num_classes
    vectors = Encoder().encode_text([one[0] for one in prompts])
    features = vectors[labels] + rng.normal(size=(90, DIM)) * 0.05
    found = measure_word_control(Encoder(), prompts, features, labels, range(90), Modality.XRAY, num_resamples=200)
    assert found is not None
    assert found.metric == ("auroc" if num_classes == 2 else "balanced_accuracy")
    assert found.own_words.value > 0.95
    assert found.unrelated.most_words.count(" | ") == num_classes - 1
    assert found.unrelated.figure.value < 0.9
    assert found.caution == ""


def test_of_several_sources_the_area_is_that_of_all_pairs_within_a_source():
    """The second source lies further along "no" and has more sick: across sources "no" alone would tell them."""
    features, labels = images(PNEUMONIA, num=120)
    rng = np.random.default_rng(1)
    sources = np.where(rng.random(120) < 0.2 + 0.6 * labels, "south", "north")
    features[sources == "south", NO] -= 3
    wordings = other_wordings(FINDING, Modality.XRAY)
    assert wordings is not None
    own_NC = features @ encode_prompts(Encoder(), FINDING).T
    others_NKC, patients = wordings.scores(Encoder(), features), range(120)
    within = compare_words(own_NC, others_NKC, wordings, labels, patients, sources=sources.tolist(), num_resamples=50)
    pooled = compare_words(own_NC, others_NKC, wordings, labels, patients, num_resamples=50)
    assert within is not None
    assert pooled is not None

    def area(scores_NC: NDArray[np.floating]) -> float:
        gap = scores_NC[:, 1] - scores_NC[:, 0]
        pairs = [
            (gap[i] > gap[j]) + 0.5 * (gap[i] == gap[j])
            for i in np.flatnonzero(labels == 1)
            for j in np.flatnonzero(labels == 0)
            if sources[i] == sources[j]
        ]
        return float(np.mean(pairs))

    assert within.own_words.value == pytest.approx(area(own_NC), abs=1e-4)
    unrelated = np.mean([area(others_NKC[:, k]) for k in range(wordings.num_unrelated)])
    assert within.unrelated.figure.value == pytest.approx(unrelated, abs=1e-4)
    assert within.unrelated.difference.value == pytest.approx(area(own_NC) - unrelated, abs=2e-4)
    assert pooled.unrelated.figure.value > within.unrelated.figure.value + 0.1, "the source is no answer"


def test_sources_of_one_answer_each_have_no_control():
    features, labels = images(PNEUMONIA, num=40)
    wordings = other_wordings(FINDING, Modality.XRAY)
    assert wordings is not None
    own_NC, others_NKC = np.zeros((40, 2)), wordings.scores(Encoder(), features)
    sources = ["south" if label else "north" for label in labels]
    assert compare_words(own_NC, others_NKC, wordings, labels, range(40), sources=sources, num_resamples=20) is None


def test_each_finding_of_a_task_is_measured_over_the_images_where_it_is_known():
    features, labels = images(PNEUMONIA, num=200)
    targets = np.stack([labels, np.full(200, np.nan)], axis=1).astype(np.float64)
    targets[:50, 0] = np.nan
    controls = measure_task_words(Encoder(), findings(), features, targets, range(200), Modality.XRAY, num_resamples=50)
    assert list(controls) == ["pneumonia"], "of the other nothing is known"
    assert controls["pneumonia"].num_images == 150


def test_a_task_with_one_answer_is_measured_as_a_whole():
    features, labels = images(PNEUMONIA, num=60)
    controls = measure_task_words(Encoder(), views(), features, labels, range(60), Modality.XRAY, num_resamples=50)
    assert list(controls) == [ALL]


def test_it_is_read_back_as_it_was_and_is_the_same_twice():
    found = control(PNEUMONIA)
    assert WordControl.from_json(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert control(PNEUMONIA) == found


def test_one_class_alone_has_no_control():
    features, labels = images(None)
    assert (
        measure_word_control(Encoder(), FINDING, features, 0 * labels, range(300), Modality.XRAY, num_resamples=50)
        is None
    )


def test_no_unrelated_phrase_is_of_medicine_or_stands_twice():
    assert len(set(UNRELATED)) == len(UNRELATED)
    medical = re.compile(r"heart|lung|bone|blood|scan|x-ray|patient|doctor|disease|image|tissue|cell|eye|skin|breast")
    assert not [phrase for phrase in UNRELATED if medical.search(phrase)]
