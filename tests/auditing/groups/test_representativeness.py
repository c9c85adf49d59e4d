"""Audited patients beside a reference: shares, distances, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError
from medclip.reports.audit.report import render
from medclip.reports.audit.sections.representation import answers
from tests.kits.audit_tables import audit_table


def reference(**shares: dict[str, float]) -> pd.DataFrame:
    rows = [(attribute, group, share) for attribute, own in shares.items() for group, share in own.items()]
    return pd.DataFrame(rows, columns=["attribute", "group", "share"])


def audited(table: Any, shares: Any):
    return medclip.audit(table, by=["sex"], num_resamples=100, num_permutations=100, threshold=0.5, reference=shares)


def rows(result, **wanted: object) -> list[dict]:
    return [r for r in result.representation if all(r.get(k) == v for k, v in wanted.items())]


def test_patients_are_counted_and_the_distance_is_that_of_scipy():
    table = audit_table(200)
    result = audited(table, reference(sex={"female": 0.7, "male": 0.3}))
    women = table.drop_duplicates("patient").sex.eq("F").mean()
    (row,) = rows(result, group="F")
    assert row["value"] == pytest.approx(women)
    assert row["low"] < women < row["high"]
    spread = np.sqrt((women * (1 - women) + 0.7 * 0.3) / 2)
    assert row["standardised"] == pytest.approx((women - 0.7) / spread)
    (whole,) = rows(result, group="all")
    assert whole["distance"] == pytest.approx(jensenshannon([women, 1 - women], [0.7, 0.3], base=2))
    assert whole["distance"] > whole["distance_by_chance"] > 0
    assert "more than chance would give" in answers(result)[0]
    assert "beside the reference" in render(result)


def test_a_sample_of_the_reference_is_no_farther_from_it_than_chance():
    table = audit_table(400)
    result = audited(table, reference(sex={"F": 50, "M": 50}))
    (whole,) = rows(result, group="all")
    assert whole["distance"] < whole["distance_by_chance"]
    assert "no more than chance" in answers(result)[0]


def test_a_group_of_the_reference_that_is_not_audited_has_a_share_of_nothing_and_small_ones_have_none():
    table = audit_table(200)
    table.loc[table.patient.isin(["P0", "P1"]), "sex"] = "O"
    shares = {"F": 0.5, "M": 0.4, "O": 0.05, "intersex": 0.05}
    result = audited(table, reference(sex=shares))
    assert rows(result, group="intersex")[0]["value"] == 0
    small = rows(result, group="O")[0]
    assert small["flag"] == "suppressed"
    assert small.get("value") is None
    assert small.get("standardised") is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (reference(sex={"F": 0.5, "M": 0.2}), "add up to 0.7"),
        (reference(sex={"x": 0.5, "y": 0.5}), "has none of the groups"),
        (reference(race={"x": 0.5, "y": 0.5}), "none of it is audited"),
        (reference(sex={"F": 0.5, "M": 0.5}).rename(columns={"share": "part"}), "a column share or count"),
        (pd.concat([reference(sex={"F": 1.0})] * 2), "is there twice"),
    ],
)
def test_what_is_no_reference_is_refused(table: pd.DataFrame, words: str):
    with pytest.raises(MedclipError) as caught:
        audited(audit_table(60), table)
    assert words in str(caught.value)


def test_the_command_takes_a_table_of_counts(tmp_path: Path, capsys):
    audit_table(100).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "city.csv").write_text("attribute,group,count\nsex,F,5100\nsex,M,4900\n")
    command = ["audit", str(tmp_path / "t.csv"), "--by", "sex", "--out", str(tmp_path / "out"), "--threshold", "0.5"]
    more = ["--num-resamples", "100", "--num-permutations", "100"]
    assert main([*command, *more, "--reference", str(tmp_path / "city.csv")]) == 0
    assert "Jensen–Shannon distance" in capsys.readouterr().out


def test_a_reference_is_refused_before_anything_is_measured(tmp_path: Path, capsys):
    audit_table(60).to_csv(tmp_path / "t.csv", index=False)
    reference(sex={"F": 0.5, "M": 0.2}).to_csv(tmp_path / "city.csv", index=False)
    command = ["audit", str(tmp_path / "t.csv"), "--by", "sex", "--out", str(tmp_path / "out"), "--threshold", "0.5"]
    assert main([*command, "--reference", str(tmp_path / "city.csv")]) == 2
    said = capsys.readouterr().err
    assert "add up to 0.7" in said
    assert "Measuring" not in said
