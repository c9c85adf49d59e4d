"""The contrastive attacker: its batches, what it learns of planted patients, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.auditing.checks.embeddings.patient_retrieval import Images
from medclip.auditing.checks.embeddings.trained_attacker import Training, attack_head, plan_batches
from medclip.auditing.checks.embeddings.vectors import unit_vectors
from medclip.errors import MedclipError
from tests.kits.audit_embeddings import named, noise, people

LONG = Training(epochs=100, batch_size=64, rate=1e-2)
FROZEN, TRAINED = "anybody (held out, before trained linear head)", "anybody (held out, trained linear head)"


@given(st.integers(1, 30), st.integers(2, 9), st.integers(0, 3))
def test_no_batch_holds_a_patient_twice_and_partners_are_other_images(num: int, size: int, seed: int) -> None:
    patients = people(num, most=5, seed=seed)
    rows = np.arange(len(patients))
    partners = [rows[(patients == patients[i]) & (rows != i)] for i in rows]
    epochs = plan_batches(partners, patients, Training(3, size, 1e-3), seed=seed)
    assert len(epochs) == 3
    for batch in (b for epoch in epochs for b in epoch):
        assert 2 <= len(batch.first_B) <= size
        assert len(set(patients[batch.first_B])) == len(batch.first_B)
        assert (batch.first_B != batch.second_B).all()
        assert (patients[batch.first_B] == patients[batch.second_B]).all()
    for epoch in epochs:
        asked = [int(i) for b in epoch for i in b.first_B]
        assert len(asked) == len(set(asked))


def hidden(patients: np.ndarray) -> np.ndarray:
    """The patient stands in few, faint dimensions, beside strong ones that change from image to image."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(patients.max() + 1, 6))[patients]
    return unit_vectors(np.concatenate([own, 3 * rng.normal(size=(len(patients), 10))], axis=1))


def test_a_head_finds_patients_that_cosine_does_not_on_patients_it_has_not_seen() -> None:
    patients = np.repeat(np.arange(120), 3)
    vectors, images = hidden(patients), Images(patients, np.arange(len(patients)))
    vectors[5] = np.nan
    rows = attack_head(vectors, images, training=LONG, num_replicates=20)
    before, after = (named(rows, "verification AUROC", of)["value"] for of in (FROZEN, TRAINED))
    assert before < 0.75
    assert after > before + 0.1
    assert named(rows, "linkage at FPR 0.001", TRAINED)["value"] > named(rows, "linkage at FPR 0.001", FROZEN)["value"]
    assert repr(attack_head(vectors, images, training=LONG, num_replicates=20)) == repr(rows)


def test_a_head_on_noise_stays_not_shown() -> None:
    patients = np.repeat(np.arange(200), 3)
    rows = attack_head(noise(600), Images(patients, np.arange(600)), num_replicates=50)
    assert named(rows, "verdict", TRAINED)["note"].startswith("not shown")
    area = named(rows, "verification AUROC", TRAINED)
    assert area["low"] < 0.5 < area["high"]


def test_few_patients_are_not_attacked() -> None:
    patients = np.repeat(np.arange(19), 2)
    rows = attack_head(noise(38), Images(patients, np.arange(38)))
    assert len(rows) == 1
    assert rows[0]["note"].startswith("cannot tell: fewer than 20 patients")


def test_other_lengths_are_refused() -> None:
    with pytest.raises(MedclipError, match="different lengths"):
        attack_head(noise(4), Images(np.arange(3)))
