from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.sample import Modality
from medclip.text.captions import CaptionRecord, draw_caption
from medclip.text.checks import check_caption
from medclip.text.claims import claims
from medclip.text.vocabularies import load_task

CHEST = [c.name for c in load_task("chest_xray_findings").classes]
RECORD = CaptionRecord(
    Modality.XRAY, view="PA", age_years=70.0, sex="F", labels={"chest_xray_findings": {"pneumonia": 1, "effusion": 0}}
)


@pytest.mark.parametrize(
    "caption",
    [
        "Chest X-ray showing pneumonia.",
        "Pneumonia is seen on this PA chest radiograph of an elderly woman.",
        "This radiograph demonstrates pneumonia without pleural effusion.",
        "There is no effusion; findings of pneumonia.",
        "Lung infection on a posteroanterior view of the chest.",
    ],
)
def test_true_captions_pass(caption):
    assert check_caption(caption, RECORD) == ()


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("No pneumonia on this chest X-ray.", "finding"),
        ("Pneumonia with a pleural effusion.", "finding"),
        ("Pneumonia and cardiomegaly.", "finding"),
        ("Pneumonia without pneumothorax.", "finding"),
        ("Pneumonia and a rib fracture.", "finding"),
        ("Pneumonia in a patient with lymphoma.", "finding"),
        ("Pneumonia and a central venous catheter.", "finding"),
        ("Cough and fever, pneumonia.", "finding"),
        ("No effusion, pneumonia on this chest X-ray.", "unclear"),
        ("Pneumonia; an effusion cannot be excluded.", "unclear"),
        ("Pneumonia is not absent.", "unclear"),
        ("Pneumonia and no rash.", "unclear"),
        ("Pneumonia, the heart is normal.", "normal"),
        ("Pneumonia, otherwise clear lungs.", "normal"),
        ("Chest CT showing pneumonia.", "modality"),
        ("Ultrasound of the lung with pneumonia.", "modality"),
        ("Lateral chest X-ray with pneumonia.", "view"),
        ("Portable chest X-ray with pneumonia.", "view"),
        ("Pneumonia in a 70-year-old woman.", "number"),
        ("Pneumonia in a child.", "age"),
        ("Pneumonia in an elderly man.", "sex"),
        ("Pneumonia of the left lung.", "side"),
        ("Bilateral pneumonia.", "side"),
        ("Lower lobe pneumonia.", "place"),
        ("Severe pneumonia.", "degree"),
        ("Multiple foci of pneumonia.", "count"),
        ("Pneumonia of 3 cm.", "measurement"),
        ("Pneumonia seen in March 2019.", "date"),
        ("Pneumonia, improved since the prior study.", "history"),
        ("Pneumonia; CT is recommended.", "talk"),
        ("Pneumonia, seen by Dr. House.", "person"),
        ("", "form"),
        ("肺炎", "form"),
        ("pneumonia " * 61, "form"),
    ],
)
def test_a_lie_is_found_and_its_kind_is_named(caption, kind):
    assert kind in {p.split(":")[0] for p in check_caption(caption, RECORD)}


def test_a_normal_chest_needs_every_class_to_be_absent():
    looked_for = CaptionRecord(Modality.XRAY, labels={"chest_xray_findings": dict.fromkeys(CHEST, 0)})
    partly = CaptionRecord(Modality.XRAY, labels={"chest_xray_findings": {"effusion": 0}})
    assert check_caption("A normal chest X-ray.", looked_for) == ()
    assert check_caption("A normal chest X-ray.", partly)
    assert check_caption("Normal brain, no tumour.", CaptionRecord(Modality.MRI, labels={"brain_mri_tumour": "glioma"}))


def test_where_no_modality_is_known_none_may_be_named():
    assert check_caption("Radiograph with pneumonia.", CaptionRecord(None, labels=RECORD.labels))


def test_an_answer_of_one_task_is_checked_against_its_others():
    glioma = CaptionRecord(Modality.MRI, labels={"brain_mri_tumour": "glioma"})
    assert check_caption("Brain MRI with a glioma.", glioma) == ()
    assert check_caption("Brain MRI with a meningioma.", glioma)
    assert check_caption("Brain MRI with a cerebral infarct.", glioma)


@given(
    st.dictionaries(st.sampled_from(CHEST), st.integers(0, 1)),
    st.sampled_from([None, 4.0, 33.0, 71.0]),
    st.sampled_from([None, "M", "F"]),
    st.sampled_from([None, "AP", "LATERAL"]),
    st.integers(0, 2**32),
)
def test_captions_of_our_own_always_pass(label, age, sex, view, seed):
    labels = {"chest_xray_findings": label}
    record = CaptionRecord(Modality.XRAY, view=view, age_years=age, sex=sex, labels=labels)
    rng = np.random.default_rng(seed)
    for _ in range(6):
        caption = draw_caption(record, rng)
        assert check_caption(caption, record) == (), caption


def test_claims_are_words_for_findings_with_their_sign():
    assert claims("Fibroadenoma without a fracture.") == {("fibroadenoma", True), ("fractur", False)}
    assert claims("The diagnosis is on the next page.") == frozenset()
