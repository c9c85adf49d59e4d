"""What is met is one line that opens; a bound has its own confidence in words."""

from __future__ import annotations

from typing import Any

import pytest

import medclip
from medclip.auditing.result import AuditResult
from medclip.reports.audit.report import render
from medclip.reports.audit.sections.requirements import answers, findings, grid, met, met_in_short
from tests.kits.audit_tables import audit_table

QUICK: dict[str, Any] = {"num_resamples": 200, "num_permutations": 200, "threshold": 0.5}
MET, MISSED, OPEN = "tpr>=0.2 in each sex", "auroc>=0.99", "tpr gap<=0.05 in sex"


@pytest.fixture(scope="module")
def audited() -> AuditResult:
    return medclip.audit(audit_table(300), by=["sex"], require=[MET, MISSED], margins={"tpr:sex": 0.05}, **QUICK)


def test_what_is_met_is_folded_into_one_line_and_stands_nowhere_else_on_the_first_page(audited: AuditResult):
    assert met_in_short(audited) == f"1 requirement met: “{MET}”."
    page = render(audited)
    found = page[page.index('id="found"') : page.index('id="unseen"')]
    folded = found[found.index('<details class="met">') : found.index("</details>")]
    assert met(audited)[0].split(": ")[0].replace(">", "&gt;") in folded
    assert found.count("by 2 of 2 groups") == folded.count("by 2 of 2 groups") == 1
    assert MISSED.replace(">", "&gt;") in page[: page.index('id="found"')]


def test_what_is_met_and_what_is_not_have_tables_of_their_own(audited: AuditResult):
    spans = {is_met: " ".join(str(row.head) for row in grid(audited, is_met=is_met).rows) for is_met in (True, False)}
    assert MET in spans[True]
    assert MET not in spans[False]
    assert MISSED in spans[False]
    assert OPEN in spans[False]


def test_each_bound_says_its_confidence(audited: AuditResult):
    heads = " ".join(str(row.head) for row in (*grid(audited).rows, *grid(audited, is_met=True).rows))
    assert "passes by its bound at 95 %, fails by that at 97.5 %" in heads  # two groups
    assert f"{OPEN}: ○ undecided (bounds at 95 %)" in heads  # both ends of one interval of a pair
    (failed,) = findings(audited)
    assert "95 % confidence, one-sided" in failed.sentence
    assert any(OPEN in sentence and "(bounds " in sentence for sentence in answers(audited))
