"""Sentences planted in real reports: what contradicts a label and what speaks of earlier studies is found, no more."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from medclip.pairs.words.reports.caption_weights import polarity_fault
from medclip.pairs.words.reports.report_cleaning import clean_report, entities
from medclip.text.checks.matching import match_texts
from medclip.text.checks.metadata import medical_metadata
from medclip.text.free_text import KINDS, sentences
from medclip.wording import capital

NOUNS = {
    "effusion": "pleural effusion",
    "pneumothorax": "pneumothorax",
    "consolidation": "consolidation",
    "nodule": "nodule",
    "cardiomegaly": "cardiomegaly",
}
DENIALS = (
    "no {}.",
    "there is no evidence of {}.",
    "the lungs are without {}.",
    "{} is not seen.",
    "negative for {}.",
    "previously seen {} has resolved.",
    "no large {} is identified.",
)
COMPARISONS = (
    "the {} is unchanged since the last examination.",
    "compared with the prior study, the {} is larger.",
    "previously seen {} is again noted.",
    "{} is stable in comparison to the previous radiograph.",
    "there has been interval increase in the {}.",
    "no significant change in the {} since the earlier film.",
    "persistent {} as on the old study.",
    "interval development of {} since yesterday.",
    "the {} has improved from prior.",
    "there is new {} when compared to 2010.",
)


def planted(shared: Path, templates: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield 100 reports that do not speak of a finding, the finding, and a sentence that does."""
    with (shared / "data" / "text_openi" / "openi_reports.csv").open(encoding="utf-8") as file:
        reports = [row["findings"] for row in csv.DictReader(file) if row["findings"] and "XXXX" not in row["findings"]]
    num = 0
    for report in reports:
        name = list(NOUNS)[num % len(NOUNS)]
        if name not in entities(report, "xray") and clean_report(report, "xray").text:
            yield report, name, capital(templates[num % len(templates)].format(NOUNS[name]))
            num += 1
        if num == 100:
            return
    raise AssertionError("there are too few reports")


@pytest.mark.shared
def test_100_captions_that_deny_what_a_label_affirms_are_all_refused_and_those_that_agree_are_not(shared: Path) -> None:
    missed, refused, lost, affirmed = 0, 0, 0, 0
    metadata = medical_metadata([(name, [noun]) for name, noun in NOUNS.items()], "planted")
    for report, name, sentence in planted(shared, DENIALS):
        text = clean_report(report, "xray").text
        caption = f"{text} {sentence}"
        missed += not polarity_fault(caption, caption, "xray", {name: True})
        refused += bool(polarity_fault(caption, caption, "xray", {name: False}))
        lost += sum(bool(polarity_fault(s, "", "xray", {name: True})) for s in sentences(text, 1))
        affirmed += not match_texts([sentence], metadata, polarity=True).denied_M.all()
    assert (missed, refused, lost, affirmed) == (0, 0, 0, 0)


@pytest.mark.shared
def test_of_100_sentences_about_earlier_studies_the_words_go_the_findings_stay_and_so_do_other_sentences(
    shared: Path,
) -> None:
    missed, lost_findings, lost_sentences = 0, 0, []
    for report, name, sentence in planted(shared, COMPARISONS):
        text = clean_report(f"{report} {sentence}", "xray").text
        missed += any(KINDS["comparison"].search(s.lower()) is not None for s in sentences(text, 1))
        lost_findings += entities(text, "xray").get(name) is not True
        lost_sentences += sorted({*sentences(clean_report(report, "xray").text, 1)} - {*sentences(text, 1)})
    assert (missed, lost_findings) == (0, 0)
    assert len(lost_sentences) <= 1, lost_sentences
