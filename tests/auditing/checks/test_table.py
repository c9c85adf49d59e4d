"""A check of one's own: a function and a row of CHECKS; the result, the tables, the JSON and the page follow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import medclip
from medclip.auditing.checks.evidence import Evidence
from medclip.auditing.checks.table import CHECKS, Check, CheckRows, Words
from medclip.auditing.provenance import verify_audit
from medclip.auditing.result import COLUMNS, read_result
from medclip.lazy import import_name
from medclip.reports.audit.report import render
from tests.kits.audit_tables import audit_table

QUICK = {"num_resamples": 100, "num_permutations": 100}
DAYS = ("Monday", "Sunday")
LARGE = 0.2


def mean_scores(evidence: Evidence) -> CheckRows:
    """Return the mean score of each day of the week."""
    day_N, rows = evidence.cohort.columns["weekday"], []
    for label in evidence.cohort.labels:
        for day in sorted(set(day_N)):
            score_n = label.score_N[(day_N == day) & label.valid_N]
            if len(score_n) < evidence.options.small_cells.min_n:
                continue
            error = 1.96 * float(score_n.std()) / len(score_n) ** 0.5
            mean = float(score_n.mean())
            rows.append(
                {"label": label.name, "day": day, "value": mean, "low": mean - error, "high": mean + error}
                | {"n": len(score_n)}
            )
    return CheckRows({"weekdays": rows}, ("Weekdays: days with few rows are left out.",))


def apart(rows) -> list[str]:
    """Return a sentence for each label whose mean scores lie far apart."""
    values = {label: [r["value"] for r in rows["weekdays"] if r["label"] == label] for label in {"flu"}}
    return [
        f"The mean score of {label} is {max(means) - min(means):.2f} higher on one day than on another."
        for label, means in values.items()
        if max(means) - min(means) > LARGE
    ]


WEEKDAYS = Check(
    mean_scores,
    columns=("weekday",),
    tables={
        "weekdays": {"model": "string", "label": "string", "day": "string"}
        | {"value": "double", "low": "double", "high": "double", "n": "int64"}
    },
    words=Words("Days of the week", "Does the score follow the day?", "No day stands out.", apart, harm="SHORTCUT"),
)


@pytest.fixture
def with_weekdays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the row into the table for one test."""
    monkeypatch.setitem(CHECKS, "weekdays", WEEKDAYS)


def table(*, apart: bool):
    """Return scores with a column of days; on Mondays they are higher where that is planted."""
    frame = audit_table(200)
    frame["weekday"] = np.where(np.arange(len(frame)) % 2 == 0, *DAYS)
    if apart:
        frame["flu_score"] = np.where(frame.weekday == "Monday", 0.5 + frame.flu_score / 2, frame.flu_score / 2)
    return frame


@pytest.mark.usefixtures("with_weekdays")
def test_a_check_of_ones_own_is_in_the_result_the_tables_the_json_and_the_page(tmp_path: Path):
    found = medclip.audit(table(apart=True), by=["sex"], out=tmp_path / "out", **QUICK)
    rows = found.rows("weekdays")
    assert [(r["model"], r["label"], r["day"]) for r in rows] == [("model", "flu", day) for day in DAYS]
    assert "Weekdays: days with few rows are left out." in found.notes
    assert found.tables()["weekdays"].schema.names == list(WEEKDAYS.tables["weekdays"])
    written = json.loads((tmp_path / "out" / "audit.json").read_text())["tables"]["weekdays"]
    assert written == pq.read_table(tmp_path / "out" / "weekdays.parquet").to_pylist()
    assert pyarrow.csv.read_csv(tmp_path / "out" / "weekdays.csv").num_rows == len(written) == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Days of the week</h2>" in page
    assert "Does the score follow the day?" in page
    assert "<code>weekdays.csv</code>" in page
    assert "The mean score of flu is 0.5" in page.partition('<p class="lead">')[2].partition("</p>")[0]
    assert verify_audit(tmp_path / "out").ok


@pytest.mark.usefixtures("with_weekdays")
def test_where_it_finds_nothing_its_own_sentence_stands_there():
    page = render(medclip.audit(table(apart=False), by=["sex"], **QUICK))
    assert "No day stands out." in page
    assert "The mean score of flu" not in page


@pytest.mark.usefixtures("with_weekdays")
def test_without_its_column_it_is_not_made():
    found = medclip.audit(audit_table(200), by=["sex"], **QUICK)
    assert found.rows("weekdays") == ()
    assert "Days of the week" not in render(found)


def test_an_audit_is_read_back_and_checked_without_the_package_that_brought_the_check(tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CHECKS, "weekdays", WEEKDAYS)
        medclip.audit(table(apart=True), by=["sex"], out=tmp_path / "out", **QUICK)
    assert "weekdays" not in CHECKS
    again = read_result(tmp_path / "out")
    assert [row["day"] for row in again.rows("weekdays")] == list(DAYS)
    assert again.to_json() == (tmp_path / "out" / "audit.json").read_text()
    assert verify_audit(tmp_path / "out").ok


def test_every_row_names_a_function_and_what_it_needs_and_writes_exist():
    for name, check in CHECKS.items():
        assert callable(import_name(check.run) if isinstance(check.run, str) else check.run), name
        assert all(hasattr(Evidence, need) or need in Evidence.__annotations__ for need in check.needs), name
        assert not set(check.tables) & set(COLUMNS), name


@pytest.mark.usefixtures("with_weekdays")
def test_the_table_that_thresholds_are_chosen_on_need_not_have_its_column():
    frame, others = table(apart=True), audit_table(200, seed=1)
    others["patient"] = "Q" + others["patient"]
    others["image"] = "other " + others["image"]
    found = medclip.audit(frame, by=["sex"], choose_on=others, choose_labels=others, **QUICK)
    assert len(found.rows("weekdays")) == len(DAYS)
