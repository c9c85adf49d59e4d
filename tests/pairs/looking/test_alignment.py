"""Own texts are held against those of other patients of the modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from medclip.pairs.looking.alignment import Alignment, measure_alignment
from medclip.pairs.selection.pack_vectors import PackVectors
from medclip.progress import Silent

NUM, DIM = 60, 8


class Words:
    """A pack whose texts are names of vectors."""

    def __init__(self, vectors: dict[str, Any]) -> None:
        self.vectors, self.name = vectors, "made up"

    def without_sentences(self) -> Words:
        return self

    def encode_text(self, texts: Sequence[str]) -> Any:
        return np.array([self.vectors[text] for text in texts])


def measured(noise: Any, patients: Any = None, modalities: Sequence[str] = ("xray",) * NUM, lost: int = 0) -> Alignment:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(NUM, DIM)).astype(np.float32)
    texts = vectors + noise * rng.normal(size=vectors.shape)
    vectors, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (vectors, texts))
    names = [f"text {n}" for n in range(NUM)]
    vectors[:lost] = np.nan
    patients_N = np.arange(NUM) if patients is None else patients
    pack: Any = Words(dict(zip(names, texts, strict=True)))
    why = np.array(["unreadable"] * lost + [""] * (NUM - lost), object)
    seen = PackVectors(vectors, why)
    rng = np.random.default_rng(1)
    return measure_alignment(pack, {}, seen, names, modalities, patients_N, np.arange(NUM), Silent(), rng)


def test_texts_that_fit_are_above_chance_and_those_of_nothing_are_at_it() -> None:
    (fit,) = measured(0.3).modalities
    assert fit.auroc is not None
    assert fit.low is not None
    assert fit.high is not None
    assert 0.95 < fit.low < fit.auroc <= fit.high
    (chance,) = measured(1000.0).modalities
    assert chance.low is not None
    assert chance.high is not None
    assert chance.low < 0.5 < chance.high


def test_no_image_is_held_against_a_text_of_its_patient_or_of_another_modality() -> None:
    result = measured(0.0, modalities=["xray"] * 2 + ["ct"] * (NUM - 2))
    assert [one.modality for one in result.modalities] == ["ct", "xray"]
    assert np.isfinite(result.shuffled_N).all()
    assert result.shuffled_N[0] == pytest.approx(result.shuffled_N[1])  # two films, held against each other
    (alone,) = measured(0.0, patients=np.zeros(NUM, np.int64)).modalities
    assert alone.auroc is None
    assert alone.shuffled is None


def test_few_patients_make_the_interval_wide() -> None:
    patients = np.arange(NUM) // 6  # of every other patient no text fits
    noise = np.where(patients % 2, 0.2, 1000.0)[:, None]
    (many,), (few,) = measured(noise).modalities, measured(noise, patients).modalities
    assert many.low is not None
    assert few.low is not None
    assert few.patients == 10
    assert few.low < many.low - 0.03


def test_an_image_that_cannot_be_read_has_no_cosine() -> None:
    result = measured(0.3, lost=7)
    assert np.isnan(result.cosine_N[:7]).all()
    assert result.modalities[0].pairs == NUM - 7
    assert sum(result.modalities[0].matched_counts) == NUM - 7
