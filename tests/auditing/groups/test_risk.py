"""Risks by year in an audit: read from tables, measured in every group, hidden where a group is small, on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import medclip
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.read import read_cohort
from medclip.errors import MedclipError
from medclip.reports.audit.summary import lead
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.yearly_risk import yearly_figures
from tests.kits.mammography_cohort import module_of

simulate = module_of("simulate")


def women(num: int = 300, *, own_names: bool = False) -> Any:
    drawn = [simulate.draw_woman(number, 0) for number in range(num)]
    risks = np.array([w.true_risks() for w in drawn])
    names = [f"breast_cancer_risk:year_{k}" if own_names else f"cancer_{k}" for k in range(1, 6)]
    return pd.DataFrame(
        {
            "exam": range(num),
            "patient": [w.patient for w in drawn],
            "site": np.where(np.arange(num) % 25 == 0, "tiny", np.where(np.arange(num) % 2, "a", "b")),
            "event_months": [w.event_months for w in drawn],
            "followup_months": [w.followup_months for w in drawn],
            **dict(zip(names, risks.T, strict=True)),
        }
    )


def test_the_table_has_the_values_of_the_statistics_for_everybody_and_each_group() -> None:
    result = medclip.audit(
        women(), risk=["cancer"], by=["site"], num_resamples=100, num_permutations=100, threshold=None, min_cell=5
    )
    cohort = read_cohort(women(), by=["site"], options=ReadOptions(risk={"cancer": []}))
    wanted = list(yearly_figures(cohort, cohort.risks[0], draw_weights(300, 100, seed=0)))
    rows = {(r["population"], r["year"], r["metric"], r["group"]): r for r in result.risk}
    assert len(rows) == len(result.risk) == 2 * (3 + 5 * 7) * 4
    for one in wanted:
        for metric, estimates in one.estimates.items():
            row = rows[one.population, one.year or None, metric, "all"]
            assert row["value"] == pytest.approx(estimates[0].value, abs=0.02, nan_ok=True)
            assert row["n_pos"] == (one.label.truth_N == 1).sum()
    assert rows["risk", None, "c_index_uno", "a"]["value"] is not None
    hidden = [r for r in result.risk if r["group"] == "tiny" and r["population"] == "risk" and r["year"] == 1]
    assert {(r["flag"], "value" in r) for r in hidden} == {("suppressed", False)}


def test_the_page_shows_concordance_and_years(tmp_path: Path) -> None:
    medclip.audit(women(), risk=["cancer"], num_resamples=100, num_permutations=100, out=tmp_path / "audit")
    page = next((tmp_path / "audit").glob("*.html")).read_text()
    assert "Risk by year" in page
    assert "Cancer, detection and risk: by year" in page
    assert (tmp_path / "audit" / "risk.parquet").is_file()
    assert "AUROC of year 5" in page
    assert '<a href="#risk">' in page
    assert "300 rows of 300 patients, for 1 risk by year, by no attribute" in page
    assert "There are no measures" not in page
    assert "<dt>Patients</dt><dd>300</dd>" in page


def test_doubled_risks_lead_the_page_and_true_ones_do_not() -> None:
    table = women(900)
    doubled = table.assign(**{f"cancer_{k}": (2 * table[f"cancer_{k}"]).clip(upper=1) for k in range(1, 6)})
    few = {"risk": ["cancer"], "num_resamples": 100, "num_permutations": 100}
    sentence = lead(medclip.audit(doubled, **few).tidied())
    assert sentence.startswith("Scores do not mean what they say. Cancer by year 5: too ")
    assert "too high (observed/expected 0.4" in sentence
    true = medclip.audit(table, **few).tidied()
    assert lead(true).startswith("Of 2 ")
    assert [row["metric"] for row in true.differences if row["p_holm"] <= 0.05] == []


def test_scores_are_found_by_year_and_named_columns_are_year_1_2_3() -> None:
    cohort = read_cohort(women(60, own_names=True), options=ReadOptions(risk={"breast_cancer_risk": []}))
    assert cohort.risks[0].years == (1, 2, 3, 4, 5)
    named = ReadOptions(risk={"cancer": ["cancer_2", "cancer_5"]})
    risk = read_cohort(women(60), options=named).risks[0]
    assert risk.years == (1, 2)
    np.testing.assert_allclose(risk.risk_NK, women(60)[["cancer_2", "cancer_5"]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"event_months": None}, "no row says when the event was"),
        ({"cancer_1": 3.0}, "are no probabilities"),
        ({"followup_months": -1}, "negative or infinite"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(MedclipError, match=words):
        read_cohort(women(40).assign(**change), options=ReadOptions(risk={"cancer": []}))


def test_a_follow_up_shorter_than_the_event_and_a_row_without_times_do_not_count() -> None:
    table = women(60)
    with_event = table.index[table.event_months > 0]
    table.loc[with_event[0], "followup_months"] = table.event_months[with_event[0]] - 1
    table.loc[with_event[1], ["event_months", "followup_months"]] = None
    table.loc[with_event[2], "cancer_5"] = 0.0  # a risk that falls
    cohort = read_cohort(table, options=ReadOptions(risk={"cancer": []}))
    assert np.flatnonzero(np.isnan(cohort.risks[0].time_N)).tolist() == with_event[:2].tolist()
    notes = " ".join(cohort.notes)
    for words in ("1 row with a follow-up that ends before", "1 row without any time", "in 1 row the risk falls"):
        assert words in notes
