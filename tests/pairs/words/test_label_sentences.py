from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.pairs.sources.labels import MAX_FINDINGS, distinct_sentences
from medclip.sample import Modality
from medclip.text.captions.record import CaptionRecord
from medclip.text.checks.caption_check import check_caption
from medclip.text.free_text import sentences
from medclip.text.mentions import asserted
from medclip.text.vocabulary.load import load_task, spoken_names
from medclip.text.vocabulary.prompts import without_article

CHEST = [c.name for c in load_task("chest_xray_findings").classes]
RECORDS = [
    CaptionRecord(load_task(t).modalities[0], labels={t: c.name if load_task(t).kind == "multiclass" else {c.name: v}})
    for t in spoken_names()
    if t != "modality"
    for c in load_task(t).classes
    for v in (0, 1)
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: str(dict(r.labels)))
def test_every_label_has_ten_wordings_that_are_true_sentences(record):
    said = distinct_sentences(record, 10, np.random.default_rng(0))
    assert len(set(said)) == 10
    for s in said:
        assert sentences(s) == (s,), "one sentence, long enough to be quoted"
        assert not s[0].islower()
        assert 4 <= len(s.split()) <= 40
        assert check_caption(s, record) == ()


@given(st.dictionaries(st.sampled_from(CHEST), st.integers(0, 1)), st.booleans(), st.integers(0, 2**32))
def test_sentences_combine_what_is_there_and_claim_nothing_else(label, every, seed):
    if every:
        label = dict.fromkeys(CHEST, 0) | label
    record = CaptionRecord(Modality.XRAY, view="PA", labels={"chest_xray_findings": label})
    said = distinct_sentences(record, 8, np.random.default_rng(seed))
    num_present = sum(label.values())
    for s in said:
        found = asserted("chest_xray_findings", s)
        assert all(name in label and affirmed == bool(label[name]) for name, affirmed in found.items()), s
        if num_present:
            assert sum(found.values()) >= min(num_present, MAX_FINDINGS, 1)
    if 1 < num_present <= MAX_FINDINGS:
        assert any(sum(asserted("chest_xray_findings", s).values()) >= num_present for s in said)


def test_no_finding_has_wordings_of_its_own():
    every = dict.fromkeys(CHEST, 0)
    for label in (every, {n: 0 for n in CHEST if n != "covid_19"}):  # the second as ChestX-ray14 has them
        record = CaptionRecord(Modality.XRAY, labels={"chest_xray_findings": label})
        said = distinct_sentences(record, 30, np.random.default_rng(0))
        assert sum(any(p in s for p in load_task("chest_xray_findings").none_prompts) for s in said) >= 8
        assert check_caption("Normal chest X-ray.", record) == ()


def test_without_labels_there_is_nothing_to_say():
    assert distinct_sentences(CaptionRecord(Modality.CT), 5, np.random.default_rng(0)) == ()
    only_modality = CaptionRecord(Modality.CT, labels={"modality": "ct"})
    assert distinct_sentences(only_modality, 5, np.random.default_rng(0)) == ()


def test_what_a_present_class_may_be_a_case_of_is_not_denied():
    labels = {"imi": 0, "ilmi": 1, "afib": 0}
    record = CaptionRecord(Modality.ECG, labels={"ecg_all": labels})
    texts = " ".join(distinct_sentences(record, 60, np.random.default_rng(0))).lower()
    assert "inferolateral" in texts
    assert "fibrillation" in texts, "others are denied"
    words = load_task("ecg_all").class_named("imi").nouns
    assert not [w for w in words if without_article(w) in texts.replace("inferolateral", "")]
