from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.sample import Modality
from medclip.text.captions.draw import CaptionRecord, draw_caption
from medclip.text.free_text import aside, draw_report, split_report
from medclip.text.mentions import contradicts

WARD = """                          FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___-year-old woman with cough  // eval pneumonia

 COMPARISON:  ___.

 There is a moderate right pleural effusion with overlying atelectasis. The cardiac
 silhouette is enlarged. The ___ is in place. Findings were discussed with Dr. ___ by phone.

 IMPRESSION:

 1.  Right pleural effusion, larger than in ___.
 2.  No pneumothorax. This was not seen by chance.
"""


def drawn(report, labels=None, n=60, **options):
    rng = np.random.default_rng(0)
    return [draw_report(report, labels or {}, rng, **options) for _ in range(n)]


@pytest.mark.parametrize(
    ("report", "sections"),
    [
        ("Clinical History: Cough.\nFindings: Clear.\nConclusion: Normal.", ["indication", "findings", "impression"]),
        (
            "HISTORY: A. TECHNIQUE: B. COMPARISON: C. FINDINGS: D. IMPRESSION: E.",
            ["indication", "technique", "comparison", "findings", "impression"],
        ),
        (
            "Reason for exam\nfever\nFindings\nNo effusion.\nImpression\nNormal.",
            ["indication", "findings", "impression"],
        ),
        ("FINDINGS The lungs are clear.\nIMPRESSION No disease.", ["findings", "impression"]),
        ("**Findings:** Clear.\n## Impression\nNormal.", ["findings", "impression"]),
        ("CHEST FINDINGS: Clear.\nIMPRESSION - Normal.", ["findings", "impression"]),
        ("Findings/Impression: Clear lungs.", ["impression"]),
        (
            "GROSS DESCRIPTION: A core.\nMICROSCOPIC: Glands.\nFINAL DIAGNOSIS: Carcinoma.",
            ["specimen", "findings", "impression"],
        ),
        ("The lungs are clear.", ["body"]),
        ("Impression: One.\nADDENDUM: Two.\nImpression: Three.", ["impression", "addendum"]),
        ("", []),
    ],
)
def test_headings_are_known_in_many_spellings(report, sections):
    assert list(split_report(report)) == sections


def test_a_word_inside_a_sentence_is_no_heading():
    report = "There are no findings: the lungs are clear. The impression is of a normal chest."
    assert list(split_report(report)) == ["body"]


def test_hard_line_breaks_are_undone_and_paragraphs_end_short_sections():
    sections = split_report(WARD)
    assert sections["comparison"] == "___."
    assert "The cardiac silhouette is enlarged." in sections["body"]
    assert sections["impression"].split("\n")[1].startswith("2. No pneumothorax.")


def test_only_sentences_that_describe_the_image_are_drawn():
    said = " ".join(drawn(WARD))
    assert "moderate right pleural effusion" in said
    assert "No pneumothorax. This was not seen by chance." in said, "a leaning sentence stays with the one before"
    for gone in ("cough", "discussed", "___", "larger", "FINAL", "is in place", "1."):
        assert gone not in said
    assert set(drawn("IMPRESSION: Normal chest x-XXXX.")) == {"Normal chest x-ray."}
    assert set(drawn("IMPRESSION: The heart is XXXX in size.")) == {None}


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("Unchanged from the prior study.", "comparison"),
        ("PA and lateral views were obtained.", "technique"),
        ("Follow up in two weeks is recommended.", "comparison"),
        ("CT is recommended.", "talk"),
        ("A 54-year-old patient.", "person"),
        ("Called at 10:15.", "date"),
        ("Seen in [** Location **].", "placeholder"),
        ("Scarring from old granulomatous disease.", None),
        ("Evidence of prior granulomatous disease.", None),
    ],
)
def test_what_no_image_shows_is_told_apart(sentence, kind):
    assert aside(sentence) == kind


def test_a_stable_finding_is_a_finding():
    assert set(drawn("IMPRESSION: Stable mild cardiomegaly.")) == {"Mild cardiomegaly."}
    assert set(drawn("IMPRESSION: 1. Unchanged cardiomegaly. 2. Comparison.")) == {"Cardiomegaly."}
    assert set(drawn("IMPRESSION: Stable mediastinal contours.")) == {None}


def test_sentences_that_contradict_the_labels_are_left_out():
    report = "FINDINGS: There is a small pleural effusion. No pneumothorax. The lungs are clear."
    labels = {"chest_xray_findings": {"effusion": 0, "pneumothorax": 1}}
    assert set(drawn(report, labels)) == {None}
    assert set(drawn(report, {"chest_xray_findings": {"effusion": 0}})) <= {
        "No pneumothorax.",
        "The lungs are clear.",
        "No pneumothorax. The lungs are clear.",
    }


def test_an_addendum_overrules_the_report():
    report = "IMPRESSION: No pneumothorax. Normal chest. Right effusion.\nADDENDUM: There is a small pneumothorax."
    assert set(drawn(report)) == {"Right effusion."}


def test_the_impression_is_kept_within_any_budget():
    report = "FINDINGS: " + "The mediastinum is wide in its upper part. " * 30 + "\nIMPRESSION: Wide mediastinum."
    for budget in (2, 8, 20, 60):
        captions = drawn(report, max_words=budget)
        assert all(len(c.split()) <= budget for c in captions)
        both = [c for c in captions if "Wide mediastinum." in c]
        assert len(both) > 30
        assert all(c.startswith("Wide mediastinum.") for c in both)


def test_the_other_breast_is_not_described():
    report = "FINDINGS: Left breast with a spiculated mass. The right breast is fatty. Both axillae are free."
    record = CaptionRecord(Modality.MAMMOGRAPHY, laterality="R", report=report)
    rng = np.random.default_rng(0)
    assert {draw_caption(record, rng, report_share=1.0) for _ in range(20)} == {"The right breast is fatty."}


@given(st.text(max_size=300), st.integers(0, 2**32), st.integers(1, 80))
def test_any_text_gives_whole_words_within_the_budget(report, seed, budget):
    split_report(report)
    said = draw_report(report, {}, np.random.default_rng(seed), max_words=budget)
    assert said is None or 1 <= len(said.split()) <= budget


@given(st.integers(0, 2**32))
def test_a_record_without_a_report_draws_as_if_reports_did_not_exist(seed):
    labels = {"chest_xray_findings": {"pneumonia": 1, "effusion": 0}}
    record = CaptionRecord(Modality.XRAY, labels=labels, texts=("Opacity in the left lung base.",))
    states = []
    for share in (0.0, 1.0):
        rng = np.random.default_rng(seed)
        captions = [draw_caption(record, rng, report_share=share) for _ in range(5)]
        states.append((captions, rng.bit_generator.state))
    assert states[0] == states[1]


def test_the_share_of_reports_is_kept():
    record = CaptionRecord(Modality.XRAY, report="IMPRESSION: Blunted costophrenic sulcus.")
    rng = np.random.default_rng(0)
    share = np.mean([draw_caption(record, rng).startswith("Blunted") for _ in range(600)])
    assert 0.42 < share < 0.58


@pytest.mark.shared
def test_real_reports_give_clean_text_that_keeps_to_their_labels(shared):
    with (shared / "data" / "text_openi" / "openi_reports.csv").open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))[::20]
    rng = np.random.default_rng(0)
    empty = 0
    for row in rows:
        parts = ("indication", "comparison", "findings", "impression")
        report = "\n".join(f"{p.upper()}: {row[p]}" for p in parts if row[p])
        labels = {"chest_xray_findings": {"effusion": int("Pleural Effusion" in row["mesh_major"])}}
        said = draw_report(report, labels, rng)
        empty += said is None
        if said:
            assert "XXXX" not in said
            assert len(said.split()) <= 60
            assert not contradicts(said, labels)
            assert row["indication"] not in said or len(row["indication"]) < 12
    assert empty < 0.05 * len(rows)
