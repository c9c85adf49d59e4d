from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.text.free_text import draw_native, sentences
from medclip.text.mentions import asserted, contradicts


def test_text_is_split_at_sentence_ends_and_not_inside_numbers_or_initials():
    assert sentences("It was 38.5 C today. Seen by Dr. Who here; lungs are clear now!\nNew line here too") == (
        "It was 38.5 C today.",
        "Seen by Dr. Who here;",
        "lungs are clear now!",
        "New line here too.",
    )
    assert sentences("Fever. Cough.") == ()


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Right lower lobe pneumonia.", {"pneumonia": True}),
        ("No pneumonia.", {"pneumonia": False}),
        ("Lungs are clear without effusion or pneumothorax.", {"effusion": False, "pneumothorax": False}),
        ("Pneumothorax is absent.", {"pneumothorax": False}),
        ("No effusion; there is a nodule.", {"effusion": False, "nodule": True}),
        ("No effusion but cardiomegaly is present.", {"effusion": False, "cardiomegaly": True}),
        ("The margins are not sharp, suggesting edema.", {"edema": True}),
        ("The image is of poor quality.", {}),
        ("This chest X-ray lacks pneumonia.", {"pneumonia": False}),
        ("Pneumonia is unlikely.", {"pneumonia": False}),
        ("There is hardly any pneumonia.", {"pneumonia": False}),
        ("Effusion is doubtful, no nodule.", {"effusion": False, "nodule": False}),
        ("No doubt an effusion.", {"effusion": True}),
        ("Not only an effusion.", {"effusion": True}),
        ("An effusion cannot be excluded.", {"effusion": True}),
    ],
)
def test_mentions_are_told_from_denials(sentence, expected):
    assert asserted("chest_xray_findings", sentence) == expected


def test_a_sentence_that_speaks_of_unlabelled_classes_contradicts_nothing():
    labels = {"chest_xray_findings": {"pneumonia": 1}}
    assert not contradicts("No pleural effusion.", labels)
    assert contradicts("No pneumonia.", labels)
    assert not contradicts("A glioma is seen.", {"brain_mri_tumour": "glioma"})
    assert contradicts("A meningioma is seen.", {"brain_mri_tumour": "glioma"})


@given(st.lists(st.text(max_size=400), max_size=3), st.integers(0, 2**32))
def test_quotes_are_short_whatever_the_text(texts, seed):
    quote = draw_native(tuple(texts), {}, np.random.default_rng(seed))
    assert quote is None or 1 <= len(quote.split()) <= 60


def test_text_that_contradicts_the_labels_is_never_quoted():
    labels = {"fundus_cataract": {"cataract": 0}}
    assert draw_native(("There is a mild cataract.",), labels, np.random.default_rng(0)) is None
