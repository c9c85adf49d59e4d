"""Two audits held against each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medclip.auditing.compare_audits import compare_audits
from medclip.auditing.result import AuditResult, write_json
from medclip.errors import MedclipError
from tests.kits.audit_report import full, without_findings


def test_an_audit_is_equal_to_itself(tmp_path: Path):
    write_json(full(), tmp_path)
    compared = compare_audits(full(), tmp_path)
    assert compared.changes == ()
    assert compared.num_values > 100
    assert list(compared.lines()) == [f"No change, of {compared.num_values:,} values that both have."]


@pytest.mark.parametrize(
    ("value", "low", "high", "moved"),
    [
        (0.70, 0.66, 0.74, True),
        (0.88, 0.70, 0.92, False),  # within the interval of the first
        (0.70, 0.50, 0.91, False),  # far off, but so uncertain that it holds the first
    ],
)
def test_a_value_has_moved_where_each_lies_outside_the_interval_of_the_other(
    value: float, low: float, high: float, moved: bool
):
    row = {"model": "net", "label": "flu", "attribute": "sex", "group": "F", "metric": "tpr"}
    one = AuditResult(metrics=({**row, "value": 0.9, "low": 0.85, "high": 0.93},))
    other = AuditResult(metrics=({**row, "value": value, "low": low, "high": high},))
    changes = compare_audits(one, other).of("value")
    assert [c.what for c in changes] == ["net, flu, sex F, tpr"] * moved
    if moved:
        assert (changes[0].before, changes[0].after) == ("0.900 (0.850 to 0.930)", "0.700 (0.660 to 0.740)")


def test_groups_that_come_go_and_are_hidden_are_named():
    made = full()
    without = replace(made, metrics=tuple(r for r in made.metrics if r["group"] != "site B"), labels=made.labels[1:])
    shown = tuple({**r, "flag": "" if r["group"] == "site C" else r["flag"]} for r in without.metrics)
    changes = {c.what: (c.before, c.after) for c in compare_audits(made, replace(without, metrics=shown)).of("group")}
    assert changes["site site B"] == ("shown", "")
    assert changes["site site C"] == ("too small to show", "shown")
    assert changes["label Pleural Effusion"] == ("there", "")


def test_inputs_options_versions_thresholds_and_findings_that_changed_are_named():
    made = without_findings()
    about = {"recipe": {"where": ["split=test"], "seed": 0}, "software": {"numpy": "2.0"}, "date": "2026-01-01"}
    file = {"for": "labels", "name": "l.csv", "sha256": "aa"}
    old = replace(made, provenance={**about, "inputs": [file]})
    sure = tuple({**row, "p_holm": 0.01} if n == 0 else row for n, row in enumerate(made.differences))
    later = {"recipe": {"where": ["split=all"], "uncertain": "one", "seed": 0}, "software": {"numpy": "2.1"}}
    new = replace(
        made,
        differences=sure,
        thresholds=tuple({**row, "value": 0.9} for row in made.thresholds[:1]),
        provenance={**about, **later, "inputs": [{**file, "sha256": "bb"}]},
    )
    compared = compare_audits(old, new)
    changes = {(c.kind, c.what): (c.before, c.after) for c in compared.changes}
    assert changes["input", "labels (l.csv)"] == ("aa", "bb")
    assert changes["option", "where"] == ("split=test", "split=all")
    assert changes["option", "uncertain"] == ("ignore (default)", "one")
    assert changes["software", "numpy"] == ("2.0", "2.1")
    assert len(compared.of("threshold")) == len(made.thresholds)
    (finding,) = compared.of("finding")
    assert "adjusted p 1.00" in finding.before
    assert "adjusted p 0.010" in finding.after
    assert json.loads(compared.to_json())["changes"][0]["kind"] == "input"
    assert "Findings:" in list(compared.lines())


def test_what_is_no_audit_is_refused(tmp_path: Path):
    with pytest.raises(MedclipError, match="there is no audit here"):
        compare_audits(full(), tmp_path / "nothing")
