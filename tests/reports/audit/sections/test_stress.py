"""What the page says of a stress test."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from medclip.reports.audit.findings import Harm
from medclip.reports.audit.report import render
from medclip.reports.audit.sections.stress import describe_stress, findings
from medclip.reports.audit.summary import collect_findings
from tests.kits.audit_report import GROUPS, HIDDEN, LABELS, full, six_attributes
from tests.kits.audit_stress import CORRUPTIONS, stress_rows

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def harmed():
    """An audit in which the later groups lose more, beyond chance."""
    made = full()
    rows = [row for label in LABELS for row in stress_rows("medclip-mini", label, GROUPS, HIDDEN, p_holm=0.001)]
    return replace(made, stress=tuple(rows)).tidied()


def test_an_audit_without_stress_says_nothing_of_it():
    made = replace(full(), stress=(), stress_ood=())
    assert describe_stress(made) is None
    assert 'id="stress"' not in render(made)
    assert "The stress test" not in render(made)
    assert "The stress test" in render(full())


def test_where_nothing_may_be_shown_no_corruption_is_named_as_if_it_were(harmed):
    others = tuple(row for row in harmed.stress if row["kind"] != "corruption")
    hidden = replace(harmed, stress=others or ({**harmed.stress[0], "kind": "prompt", "name": "plain"},))
    view = describe_stress(hidden)
    assert view is not None
    assert "too few patients had the finding" in view["what"]
    assert "with ," not in view["what"]


def test_each_corruption_has_a_plot_and_each_group_a_line(harmed):
    view = describe_stress(harmed)
    assert view is not None
    svg = str(view["labels"][0]["drawings"][0])
    assert svg.count('class="axis"') == len(CORRUPTIONS)
    assert "Sensitivity (TPR) by" in svg
    assert svg.count("<polyline") == svg.count('class="band') == len(CORRUPTIONS) * 4  # four groups of an age are shown


def test_the_worst_corruption_of_everybody_and_the_worst_group_are_named(harmed):
    view = describe_stress(harmed)
    assert view is not None
    worst = view["labels"][0]["worst"]
    assert worst.startswith("TPR of everybody falls most under severe ")
    assert re.search(r"(80\+|65-80|50-65) \(age\) falls most of all groups", worst)


def test_the_attribute_that_stands_out_is_drawn_first(harmed):
    view = describe_stress(harmed)
    assert view is not None
    assert "by age" in str(view["labels"][0]["drawings"][0])
    assert view["labels"][0]["more"]


def test_a_group_that_loses_more_is_a_finding_and_gains_are_none(harmed):
    found = findings(harmed)
    assert {f.harm for f in found} == {Harm.FRAGILE}
    assert any(f.sentence.startswith("Pneumonia loses more in male (sex)") for f in found)
    gained = [row | {"more": abs(row["more"])} if row["more"] else row for row in harmed.stress]
    assert not findings(replace(harmed, stress=tuple(gained)))
    assert not findings(full().tidied())
    assert set(found) <= set(collect_findings(harmed))


def test_everybody_who_loses_is_a_finding_that_names_the_worst_corruption(harmed):
    rows = [
        row | {"p": 1e-5, "p_holm": 1e-4} if row["kind"] == "mean" and row["group"] == "all" else row
        for row in harmed.stress
    ]
    found = findings(replace(harmed, stress=tuple(rows)))
    (sentence,) = [f.sentence for f in found if f.sentence.startswith("Pneumonia is fragile") and "TPR" in f.sentence]
    assert "severe" in sentence
    assert "150 positives of 400 images" in sentence


def test_what_costs_answers_and_is_not_seen_is_named(harmed):
    view = describe_stress(harmed)
    assert view is not None
    assert view["silent"].startswith("In silence: ")
    blind = [row | {"value": 0.99} for row in harmed.stress_ood]
    seen = describe_stress(replace(harmed, stress_ood=tuple(blind)))
    assert seen is not None
    assert seen["silent"].startswith("Whatever costs sensitivity here is seen")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_the_section_adds_two_printed_pages_at_most(tmp_path: Path):
    made = six_attributes(full(labels=tuple(f"finding {n}" for n in range(5))))
    pages = []
    for name, result in (("with", made), ("without", replace(made, stress=(), stress_ood=()))):
        (tmp_path / f"{name}.html").write_text(render(result))
        command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += [f"--print-to-pdf={tmp_path}/{name}.pdf", (tmp_path / f"{name}.html").as_uri()]
        subprocess.run(command, capture_output=True, timeout=120, check=True)
        pages.append(len(re.findall(rb"/Type\s*/Page\b(?!s)", (tmp_path / f"{name}.pdf").read_bytes())))
    assert 0 < pages[0] - pages[1] <= 2
