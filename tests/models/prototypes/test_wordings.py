from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from medclip.models.prototypes.class_vectors import encode_phrasings, spread_over_wordings, vectors_of, wordings_of
from medclip.sample import Modality
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.own_words import read_prompts, templates_of
from medclip.text.vocabulary.prompts import expand


class WordHash:
    """A text encoder that points every sentence in a fixed random direction."""

    def encode_text(self, texts: list[str]) -> np.ndarray:
        rows = [np.random.default_rng(list(t.encode())).normal(size=16) for t in texts]
        return np.stack([r / np.linalg.norm(r) for r in rows]).astype(np.float32)


def test_several_ways_to_say_it_are_the_normalised_mean_of_normalised_vectors() -> None:
    texts = ["pneumonia", "a film with pneumonia", "consolidation of the lung"]
    said = encode_phrasings(WordHash(), texts)
    mean = WordHash().encode_text(texts).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(said.mean, mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(said.single, WordHash().encode_text(texts))
    np.testing.assert_allclose(encode_phrasings(WordHash(), texts * 2).mean, said.mean, atol=1e-6)
    alone = encode_phrasings(WordHash(), texts[:1])
    np.testing.assert_allclose(alone.mean, alone.single[0], atol=1e-7)


def test_the_spread_is_that_of_every_sentence_with_every_opposite_of_its_template() -> None:
    (prompt,) = read_prompts("pneumonia | consolidation")
    said = prompt.sentences(templates_of(Modality.XRAY))
    vectors, ways = vectors_of(WordHash(), [said], "multilabel"), wordings_of(WordHash(), [said])
    feature = WordHash().encode_text(["an image"])[0]
    cosine = {s: float(WordHash().encode_text([s])[0] @ feature) for s in (*said.positive, *said.negative)}
    logits = [
        5.0 * (cosine[yes] - cosine[no]) for plus, minus in said.by_template for yes in plus for no in minus
    ]  # 3 templates with 2 x 2 each
    (((of_logit,), (of_probability,)),) = spread_over_wordings(feature[None], vectors, ways, "multilabel", 5.0)  # type: ignore[misc]
    assert len(logits) == len(ways.ways[0][0]) == 12
    assert of_logit == pytest.approx(np.std(logits, ddof=1), rel=1e-5)
    assert of_probability == pytest.approx(np.std(expit(logits), ddof=1), rel=1e-4)
    calibration = {"scale": 2.0, "bias": {"pneumonia": -3.0}}
    (((twice,), _),) = spread_over_wordings(feature[None], vectors, ways, "multilabel", 5.0, calibration)  # type: ignore[misc]
    assert twice == pytest.approx(2 * of_logit, rel=1e-6)


def test_one_class_of_several_is_reworded_while_the_others_stay() -> None:
    said = expand(load_task("brain_mri_tumour"))
    vectors, ways = vectors_of(WordHash(), said, "multiclass"), wordings_of(WordHash(), said)
    feature = WordHash().encode_text(["an image"])[0]
    means = 3.0 * vectors.positive.astype(np.float64) @ feature
    singles = 3.0 * WordHash().encode_text(list(said[1].positive)).astype(np.float64) @ feature
    logits = np.stack([[*means[:1], single, *means[2:]] for single in singles])
    spreads = spread_over_wordings(feature[None], vectors, ways, "multiclass", 3.0)
    assert np.ravel(spreads[1]) == pytest.approx(  # pyright: ignore[reportArgumentType, reportCallIssue]
        (np.std(singles, ddof=1), np.std(softmax(logits, axis=1)[:, 1], ddof=1)), rel=1e-4
    )


def test_what_is_said_in_one_way_has_no_spread() -> None:
    (prompt,) = read_prompts("a chest film with pneumonia")
    said = prompt.sentences(templates_of(Modality.XRAY))
    vectors, ways = vectors_of(WordHash(), [said], "multilabel"), wordings_of(WordHash(), [said])
    assert spread_over_wordings(np.ones((1, 16)), vectors, ways, "multilabel", 5.0) == [None]


def test_a_study_has_the_same_spread_alone_and_among_others() -> None:
    for name in ("brain_mri_tumour", "chest_xray_findings"):
        task = load_task(name)
        vectors, ways = vectors_of(WordHash(), expand(task), task.kind), wordings_of(WordHash(), expand(task))
        features = np.random.default_rng(0).normal(size=(70, 16))
        together = spread_over_wordings(features, vectors, ways, task.kind, 20.0)
        for n, feature in enumerate(features):
            alone = spread_over_wordings(feature[None], vectors, ways, task.kind, 20.0)
            for one, all_ in zip(alone, together, strict=True):
                assert (one is None) == (all_ is None)
                if one is not None and all_ is not None:
                    assert (one[0][0], one[1][0]) == (all_[0][n], all_[1][n])
