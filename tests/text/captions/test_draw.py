from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.sample import Modality
from medclip.text.captions.draw import CaptionRecord, all_wordings, draw_caption
from medclip.text.mentions import asserted
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand

CHEST = [c.name for c in load_task("chest_xray_findings").classes]
VIEW_WORDS = {
    "ap": {"ap", "anteroposterior", "portable", "bedside"},
    "pa": {"pa", "posteroanterior", "upright", "standing"},
    "lateral": {"lateral", "side", "profile"},
}


@st.composite
def chest_records(draw):
    labels: dict = {}
    if draw(st.booleans()):
        labels["chest_xray_view"] = draw(st.sampled_from(["ap", "pa", "lateral"]))
    findings = draw(st.dictionaries(st.sampled_from(CHEST), st.integers(0, 1), max_size=15))
    if draw(st.booleans()):
        findings = dict.fromkeys(CHEST, 0) | {k: v for k, v in findings.items() if v}
    labels["chest_xray_findings"] = findings
    return CaptionRecord(
        Modality.XRAY,
        age_years=draw(st.none() | st.integers(0, 110)),
        sex=draw(st.sampled_from([None, "M", "F"])),
        labels=labels,
        texts=tuple(draw(st.lists(st.sampled_from(TEXTS), max_size=2))),
    )


TEXTS = [
    "Pneumonia in the left lower lobe. No pleural effusion. The heart is enlarged.",
    "No evidence of pneumothorax or consolidation, but a nodule is seen.",
    "Fever for three days. Lungs free of infiltrates. Atelectasis is absent.",
]


def draws(record, n=40, seed=0, **options):
    rng = np.random.default_rng(seed)
    return [draw_caption(record, rng, **options) for _ in range(n)]


@given(chest_records(), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 1.0]))
def test_no_caption_claims_an_absent_class_or_denies_a_present_one(record, seed, native_share):
    label = record.labels["chest_xray_findings"]
    for caption in draws(record, 12, seed, native_share=native_share):
        for name, affirmed in asserted("chest_xray_findings", caption).items():
            if name in label:
                assert affirmed == bool(label[name]), (caption, name)


@given(chest_records(), st.integers(0, 2**32))
def test_no_composed_caption_speaks_of_a_class_nobody_labelled(record, seed):
    for caption in draws(record, 12, seed, native_share=0.0):
        assert set(asserted("chest_xray_findings", caption)) <= set(record.labels["chest_xray_findings"]), caption


@given(chest_records(), st.integers(0, 2**32))
def test_no_caption_names_another_view(record, seed):
    view = record.labels.get("chest_xray_view")
    for caption in draws(record, 12, seed, native_share=0.0):
        words = set(re.findall(r"[a-z]+", caption.lower()))
        for other, said in VIEW_WORDS.items():
            if other != view:
                assert not words & said, caption


@given(chest_records(), st.integers(0, 2**32))
def test_captions_are_short_sentences_without_gaps(record, seed):
    for caption in draws(record, 12, seed):
        assert 1 <= len(caption.split()) <= 60
        assert caption == " ".join(caption.split())
        assert "{" not in caption
        assert ",," not in caption


@given(chest_records(), st.integers(0, 2**32))
def test_captions_never_tell_the_exact_age(record, seed):
    for caption in draws(record, 12, seed, native_share=0.0):
        assert not re.search(r"(?<!COVID-)(?<!COVID-1)(?<!CoV-)\d", caption), caption


@pytest.mark.parametrize(
    ("task", "modality"), [("brain_mri_tumour", Modality.MRI), ("breast_density", Modality.MAMMOGRAPHY)]
)
def test_a_multiclass_caption_uses_no_wording_of_another_class(task, modality):
    for right in load_task(task).classes:
        captions = draws(CaptionRecord(modality, labels={task: right.name}), 150)
        assert any(p in c for c in captions for p in right.prompts)
        for wrong in load_task(task).classes:
            foreign = [p for p in wrong.prompts if not any(p in own for own in right.prompts)]
            assert wrong is right or not [c for c in captions if any(re.search(rf"(^|[ :]){p}\b", c) for p in foreign)]


def test_a_cataract_is_claimed_only_where_it_is_labelled():
    for value in (0, 1):
        record = CaptionRecord(
            Modality.FUNDUS,
            labels={"fundus_cataract": {"cataract": value}},
            texts=("The retina is dim. Mild cataract is seen. No cataract at all.",),
        )
        said = [asserted("fundus_cataract", c) for c in draws(record, 200)]
        assert any("cataract" in s for s in said)
        assert all(s.get("cataract", bool(value)) == bool(value) for s in said)


def test_covid_pneumonia_is_said_only_when_both_are_labelled():
    both = CaptionRecord(Modality.XRAY, labels={"chest_xray_findings": {"covid_19": 1, "pneumonia": 1}})
    one = CaptionRecord(Modality.XRAY, labels={"chest_xray_findings": {"covid_19": 1}})
    assert any("COVID-19 pneumonia" in c for c in draws(both, 300))
    assert not any("pneumonia" in c for c in draws(one, 300))


def test_the_generic_rendering_is_named_by_its_modality_only():
    record = CaptionRecord(
        Modality.XRAY,
        view="PA",
        age_years=50,
        sex="M",
        labels={"chest_xray_findings": {"pneumonia": 1}},
        texts=("Left lower lobe pneumonia.",),
        generic=True,
    )
    (xray,) = expand(load_task("modality"), ["xray"])
    assert set(draws(record, 200)) <= set(xray.positive)


@pytest.mark.parametrize("modality", [*Modality, None])
def test_an_image_without_labels_still_gets_a_caption(modality):
    assert len(set(draws(CaptionRecord(modality), 30))) > 1 or modality is Modality.ECG


def test_captions_vary_and_the_same_state_gives_the_same_caption():
    record = CaptionRecord(
        Modality.XRAY, age_years=60, sex="F", labels={"chest_xray_view": "pa", "chest_xray_findings": {"pneumonia": 1}}
    )
    assert len(set(draws(record, 200))) > 100
    assert draws(record, seed=3) == draws(record, seed=3)


def test_a_share_of_draws_has_the_form_of_a_zero_shot_prompt():
    label = dict.fromkeys(CHEST, 0) | {"pneumonia": 1}
    record = CaptionRecord(Modality.XRAY, labels={"chest_xray_findings": label})
    prompts = {p.name: p for p in expand(load_task("chest_xray_findings"))}
    captions = draws(record, 400)
    affirming = sum(c in prompts["pneumonia"].positive for c in captions)
    denying = sum(any(c in prompts[n].negative for n in CHEST if n != "pneumonia") for c in captions)
    assert affirming > 40
    assert denying > 20


def test_the_share_of_quoted_text_is_kept():
    record = CaptionRecord(Modality.XRAY, texts=("Bilateral patchy opacities in both lungs.",))
    quoted = [c.startswith("Bilateral") for c in draws(record, 600, native_share=0.3)]
    assert 0.22 < np.mean(quoted) < 0.38
    assert not any(c.startswith("Bilateral") for c in draws(record, 100, native_share=0.0))


def test_whole_texts_are_quoted_unchanged_each_as_often_whatever_the_labels():
    texts = ("No pneumonia", "Mr. X. said so.", "x " * 90)
    record = CaptionRecord(Modality.XRAY, labels={"chest_xray_findings": {"pneumonia": 1}}, texts=("  ", *texts))
    said = draws(record, 900, native_share=1.0, native="whole")
    assert set(said) == set(texts)
    assert all(250 < said.count(t) < 350 for t in texts)
    report = CaptionRecord(Modality.XRAY, texts=texts, report="COMPARISON: None.\nFINDINGS: No change.")
    quoted = draws(report, 400, native_share=1.0, report_share=0.5, native="whole")
    assert 160 < quoted.count(report.report) < 240
    assert set(quoted) == {*texts, report.report}
    assert draws(CaptionRecord(Modality.XRAY, texts=(" ",), report=" "), 5, native="whole")


def test_no_finding_does_not_wait_for_a_class_that_it_says_nothing_of():
    task = load_task("chest_xray_findings")
    looked_for = {n: 0 for n in CHEST if n != "covid_19"}
    assert task.not_part_of_none == ("covid_19",)
    for label, expected in (
        (looked_for, True),
        (looked_for | {"covid_19": 0}, True),
        (looked_for | {"covid_19": 1}, False),
        (looked_for | {"mass": 1}, False),
        (dict.fromkeys(CHEST[:5], 0), False),
        ({}, False),
    ):
        record = CaptionRecord(Modality.XRAY, labels={task.name: label})
        assert task.denies_all(label) == expected
        assert any(p in c for c in draws(record, 200) for p in task.none_prompts) == expected


def test_the_side_is_told_for_paired_organs_only():
    assert any("left breast" in c for c in draws(CaptionRecord(Modality.MAMMOGRAPHY, laterality="L"), 200))
    assert not any("left" in c for c in draws(CaptionRecord(Modality.XRAY, laterality="L"), 200))


def test_an_unknown_class_or_task_is_an_error():
    for labels in ({"chest_xray_view": "oblique"}, {"weather": "rain"}, {"chest_xray_findings": {"rain": 1}}):
        with pytest.raises(MedclipError):
            draws(CaptionRecord(Modality.XRAY, labels=labels), 100)


def test_all_wordings_hold_every_prompt():
    wordings = set(all_wordings())
    for p in expand(load_task("chest_xray_findings")):
        assert set(p.positive) | set(p.negative) <= wordings


def test_shuffled_texts_keep_their_sentences_and_change_their_order():
    text = "A mass in the left breast. No skin thickening. Benign. BI-RADS 2."
    record = CaptionRecord(Modality.MAMMOGRAPHY, texts=(text,))
    orders = set(draws(record, 200, native_share=1.0, native="shuffled"))
    assert len(orders) == 24, "every order of four sentences"
    assert all(
        sorted(order.replace(". ", ".|").split("|")) == sorted(text.replace(". ", ".|").split("|")) for order in orders
    )
    report = CaptionRecord(Modality.MAMMOGRAPHY, report=text)
    assert len(set(draws(report, 200, report_share=1.0, native="shuffled"))) == 24
