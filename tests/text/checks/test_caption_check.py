from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.pairs.sources.labels import distinct_sentences
from medclip.sample import Modality
from medclip.text.captions.draw import CaptionRecord, draw_caption
from medclip.text.checks.caption_check import check_caption, claims
from medclip.text.vocabulary.load import load_task, task_names
from tests.kits.size import sized

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
        ("This chest X-ray lacks pneumonia.", "hedge"),
        ("Pneumonia is unlikely.", "hedge"),
        ("There is hardly any pneumonia here.", "hedge"),
        ("Possible pneumonia.", "hedge"),
        ("Pneumonia was dismissed.", "hedge"),
        ("Pneumonia? No effusion.", "hedge"),
        ("Pneumonia or no pneumonia.", "unclear"),
        ("Pneumonia is not made out on this chest X-ray.", "unclear"),
        ("Pneumonia: no.", "unclear"),
        ("This is not a chest X-ray with pneumonia.", "unclear"),
        ("Pneumonia, absent on this chest X-ray.", "unclear"),
        ("No effusion and pneumonia.", "unclear"),
        ("There is no doubt an effusion.", "hedge"),
        ("Pneumonia and not only an effusion.", "hedge"),
        ("Pneumonia with no shortage of pleural fluid.", "unclear"),
        ("Pneumonia with blunting of the costophrenic angle.", "unknown word"),
        ("Pneumonia and a collapsed lung.", "unknown word"),
        ("Pneumonia with a broken rib.", "unknown word"),
        ("Pneumonia and a big heart.", "unknown word"),
        ("Pneumonia with free gas under the diaphragm.", "unknown word"),
        ("Pneumonia with a PICC.", "unknown word"),
        ("Viral pneumonia.", "unknown word"),
        ("Bacterial pneumonia.", "unknown word"),
        ("Aspiration pneumonia.", "unknown word"),
        ("Pneumonia in an intubated patient.", "unknown word"),
        ("Knee X-ray with pneumonia.", "unknown word"),
        ("Abdominal X-ray with pneumonia.", "unknown word"),
        ("Pneumonia in John Smith.", "unknown word"),
        ("One pneumonia.", "unknown word"),
        ("It is seen here.", "unclear"),
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


@pytest.mark.parametrize("labels", [{"breast_cancer": {"malignancy": 0}}, {"mammography_subtype": "none"}])
def test_a_breast_without_cancer_or_mass_is_not_said_to_be_normal(labels):
    assert check_caption("A normal mammogram.", CaptionRecord(Modality.MAMMOGRAPHY, labels=labels))


def test_a_wording_of_the_record_may_hold_the_words_of_another_task():
    both = CaptionRecord(Modality.MAMMOGRAPHY, labels={"mammography_subtype": "both"})
    assert check_caption("Mammogram: a mass and calcifications.", both) == ()
    assert check_caption("Mammogram: a mass and calcifications, skin thickening.", both)


def test_where_no_modality_is_known_none_may_be_named():
    assert check_caption("Radiograph with pneumonia.", CaptionRecord(None, labels=RECORD.labels))


def test_an_answer_of_one_task_is_checked_against_its_others():
    glioma = CaptionRecord(Modality.MRI, labels={"brain_mri_tumour": "glioma"})
    assert check_caption("Brain MRI with a glioma.", glioma) == ()
    assert check_caption("Brain MRI with a meningioma.", glioma)
    assert check_caption("Brain MRI with a cerebral infarct.", glioma)


OTHER_RECORDS = {
    "glioma": CaptionRecord(Modality.MRI, labels={"brain_mri_tumour": "glioma"}),
    "no tumour": CaptionRecord(Modality.MRI, labels={"brain_mri_tumour": "no_tumour"}),
    "fatty": CaptionRecord(Modality.MAMMOGRAPHY, laterality="L", labels={"breast_density": "fatty"}),
    "ap": CaptionRecord(Modality.XRAY, view="AP", labels={"chest_xray_view": "ap"}),
    "small heart": CaptionRecord(Modality.XRAY, labels={"chest_xray_findings": {"cardiomegaly": 0}}),
    "cataract": CaptionRecord(Modality.FUNDUS, labels={"fundus_cataract": {"cataract": 1}}),
}


@pytest.mark.parametrize(
    ("record", "caption"),
    [
        ("glioma", "Brain MRI lacks a glioma."),
        ("glioma", "Knee MRI with a glioma."),
        ("glioma", "Brain MRI without a glioma."),
        ("no tumour", "A tumour of the brain."),
        ("fatty", "A dense glandular breast."),
        ("fatty", "The breast is composed mostly of dense glandular tissue."),
        ("fatty", "Scattered fibroglandular densities in a fatty breast."),
        ("fatty", "The breast is composed mostly of glandular tissue."),
        ("fatty", "This is not a fatty breast."),
        ("fatty", "Right fatty breast."),
        ("ap", "Side view of the chest."),
        ("ap", "Lateral radiograph."),
        ("ap", "PA chest X-ray."),
        ("small heart", "Chest X-ray with a cardiothoracic ratio above one half."),
        ("small heart", "The heart on this chest X-ray is wide."),
        ("small heart", "Cardiomegaly on this chest X-ray."),
        ("cataract", "Fundus photograph with a clear lens."),
        ("cataract", "Fundus photograph with cataract and drusen."),
    ],
)
def test_wordings_of_other_classes_and_lies_of_other_images_are_refused(record, caption):
    assert check_caption(caption, OTHER_RECORDS[record])


@pytest.mark.parametrize(
    ("record", "caption"),
    [
        ("glioma", "A primary glial neoplasm is seen on this cranial MRI."),
        ("no tumour", "Normal brain on MRI, no brain tumor."),
        ("fatty", "Left mammogram of a fatty breast."),
        ("ap", "AP chest X-ray."),
        ("small heart", "Chest X-ray without an enlarged heart."),
        ("small heart", "Cardiomegaly is absent on this chest radiograph."),
        ("cataract", "Cataract can be seen on this retinal photograph."),
    ],
)
def test_plain_true_sentences_of_other_images_pass(record, caption):
    assert check_caption(caption, OTHER_RECORDS[record]) == ()


def _records():
    """Every class of every task, with each modality that the task is about."""
    for name in task_names():
        task = load_task(name)
        for c in task.classes:
            modality = (task.modalities or (Modality(c.name),))[0]
            if task.kind == "multiclass":
                yield CaptionRecord(modality, laterality="L", age_years=50.0, labels={name: c.name})
            for label in ({c.name: 0}, {c.name: 1}, {x.name: int(x is c) for x in task.classes}):
                if task.kind == "multilabel":
                    yield CaptionRecord(modality, laterality="R", sex="M", labels={name: label})


@pytest.mark.parametrize("record", list(_records()), ids=lambda r: str(dict(r.labels))[:60])
def test_captions_of_our_own_pass_for_every_class_of_every_task(record):
    rng = np.random.default_rng(0)
    drawn = (draw_caption(record, rng) for _ in range(sized(25, least=5)))
    for caption in [*drawn, *distinct_sentences(record, sized(10, least=3), rng)]:
        assert check_caption(caption, record) == (), caption


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
