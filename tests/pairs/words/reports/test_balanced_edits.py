from __future__ import annotations

import csv
from collections import Counter

import pytest

from medclip.pairs.words.reports.balanced_edits import Editable, balanced_negatives
from medclip.pairs.words.reports.hard_negatives import edits_of
from medclip.pairs.words.reports.report_cleaning import clean_report
from medclip.pairs.words.reports.text_only_check import check_texts_alone


def editable(*texts):
    return [Editable(text, edits_of(text, "xray"), "xray") for text in texts]


def test_two_texts_exchange_the_sentences_that_tell_them_apart():
    texts = editable("Clear apices. Small effusion.", "Clear apices. No effusion.")
    negatives, refused = balanced_negatives(texts)
    assert [n.text for (n,) in negatives] == ["Clear apices. No effusion.", "Clear apices. Small effusion."]
    assert [n.text[n.start : n.end] for (n,) in negatives] == ["No effusion.", "Small effusion."]
    assert {n.edit_type for (n,) in negatives} == {"presence"}
    assert not refused


def test_a_text_without_a_partner_has_no_negative_unless_balance_is_off():
    texts = editable(*["Mild cardiomegaly."] * 3, "Moderate cardiomegaly.")
    negatives, refused = balanced_negatives(texts)
    assert sum(map(len, negatives)) == 2
    assert refused["no_partner"] == 2
    more, _ = balanced_negatives(texts, balance=False)
    assert all(map(len, more))


def test_every_change_is_made_as_often_as_its_reverse_and_no_text_has_more_than_asked():
    sides = [f"{side} pleural effusion. {n} cm nodule." for n, side in enumerate(["Left", "Right", "Right"] * 7)]
    negatives, _ = balanced_negatives(editable(*sides), most=2)
    counts = Counter((n.edit_type, n.before) for of in negatives for n in of)
    assert counts["side", "left"] == counts["side", "right"] == 7
    assert max(map(len, negatives)) <= 2


@pytest.fixture(scope="module")
def real(shared):
    with (shared / "data" / "text_openi" / "openi_reports.csv").open(encoding="utf-8") as file:
        rows = [(r["uid"], f"FINDINGS: {r['findings']}\nIMPRESSION: {r['impression']}") for r in csv.DictReader(file)]
    texts = [(uid, clean_report(report, "xray").text) for uid, report in rows[:2000]]
    return [uid for uid, t in texts if t], editable(*[t for _, t in texts if t])


def pairs_of(real, **options):
    patients, texts = real
    negatives, _ = balanced_negatives(texts, **options)
    rows = [(t, n, p) for t, of, p in zip(texts, negatives, patients, strict=True) for n in of]
    return [t.text for t, _, _ in rows], [n.text for _, n, _ in rows], [p for _, _, p in rows]


@pytest.mark.shared
def test_words_alone_do_not_tell_balanced_negatives_of_real_reports(real):
    check = check_texts_alone(*pairs_of(real))
    assert check is not None
    assert check.num_pairs > 150
    assert check.passes


@pytest.mark.shared
def test_words_alone_tell_negatives_without_balance(real):
    check = check_texts_alone(*pairs_of(real, balance=False))
    assert check is not None
    assert not check.passes
    assert check.low > 0.55
