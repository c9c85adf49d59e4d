"""Reports that are written of SCP-ECG codes."""

from __future__ import annotations

import numpy as np

from medclip.pairs.sources.ecg import distinct_statement_reports
from medclip.text.ecg_statements import statements


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_report_says_each_statement_once_and_the_rhythm_first():
    codes = ["IMI", "QWAVE", "1AVB", "SR"]
    reports = distinct_statement_reports(codes, 6, rng())
    assert len(set(reports)) == 6
    for report in reports:
        parts = report.split(". ")
        assert len(parts) == 4
        for part, code in zip(parts, ["SR", "IMI", "1AVB", "QWAVE"], strict=True):
            assert any(w.lower().endswith(part) for w in statements()[code].english), (part, code)


def test_there_are_no_more_reports_than_wordings_and_none_without_a_statement():
    assert len(distinct_statement_reports(["AFIB"], 10, rng())) == 3
    assert distinct_statement_reports([], 3, rng()) == distinct_statement_reports(["XYZ"], 3, rng()) == ()


def test_german_reports_have_german_words():
    assert set(distinct_statement_reports(["CLBBB"], 5, rng(), "de")) == {
        "kompletter linksschenkelblock",
        "vollständiger linksschenkelblock",
    }
