"""False captions of labels: false by them, in the form of the true one, and with its polarity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.sample import Modality
from medclip.text.captions.draw import draw_stated
from medclip.text.captions.false_captions import draw_false
from medclip.text.captions.record import CaptionRecord
from medclip.text.mentions import asserted, contradicts
from medclip.text.vocabulary.load import load_task

TASK = "chest_xray_findings"
CHEST = [c.name for c in load_task(TASK).classes]
FILM = CaptionRecord(Modality.XRAY, labels={TASK: {"pneumonia": 1, "effusion": 0, "mass": 0}})


def pair(record: CaptionRecord, seed: int) -> tuple[str, str]:
    """Draw a true caption and a false one."""
    true, _ = draw_stated(record, np.random.default_rng(seed))
    return true, draw_false(record, true, np.random.default_rng(seed + 1), np.random.default_rng(seed))


@given(st.dictionaries(st.sampled_from(CHEST), st.integers(0, 1), min_size=1), st.integers(0, 2**32))
def test_a_false_caption_contradicts_the_labels_and_a_film_without_findings_has_none(labels, seed) -> None:
    record = CaptionRecord(Modality.XRAY, labels={TASK: labels})
    true, false = pair(record, seed)
    assert not contradicts(true, record.labels)
    assert false == "" or contradicts(false, record.labels)
    if set(labels.values()) != {0, 1}:
        assert false == ""


def test_most_captions_of_a_film_with_a_finding_have_a_false_one_and_it_affirms_and_denies_as_much() -> None:
    pairs = [pair(FILM, seed) for seed in range(300)]
    with_false = [of for of in pairs if of[1]]
    assert len(with_false) > 240
    same = [
        sorted(asserted(TASK, true).values()) == sorted(asserted(TASK, false).values()) for true, false in with_false
    ]
    assert np.mean(same) > 0.9
    assert {name for _, false in with_false for name, affirmed in asserted(TASK, false).items() if affirmed} == {
        "effusion",
        "mass",
    }


def test_of_a_task_with_one_true_class_another_one_is_said_but_never_that_nothing_is_there() -> None:
    classes = load_task("brain_mri_tumour").classes
    of = {c.name: set(c.prompts) for c in classes}
    pairs = [pair(CaptionRecord(Modality.MRI, labels={"brain_mri_tumour": "glioma"}), seed) for seed in range(100)]
    said = {name for _, false in pairs if false for name, prompts in of.items() if any(p in false for p in prompts)}
    assert said == {"meningioma", "pituitary"}
    normal = CaptionRecord(Modality.MRI, labels={"brain_mri_tumour": "no_tumour"})
    assert {pair(normal, seed)[1] for seed in range(50)} == {""}


@pytest.mark.parametrize("record", [CaptionRecord(Modality.XRAY), CaptionRecord(Modality.XRAY, generic=True)])
def test_an_image_of_which_nothing_is_labelled_has_no_false_caption(record: CaptionRecord) -> None:
    assert {pair(record, seed)[1] for seed in range(20)} == {""}


def test_equal_states_of_chance_give_equal_captions() -> None:
    assert [pair(FILM, seed) for seed in range(20)] == [pair(FILM, seed) for seed in range(20)]
