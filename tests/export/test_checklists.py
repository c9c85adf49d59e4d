"""TRIPOD+AI and CLAIM, filled: every published number is there, and what is not known is said to be so."""

from __future__ import annotations

import re

import pytest

from medclip.auditing.result import AuditResult
from medclip.export.checklists import CLAIM, NOT_KNOWN, TRIPOD_AI, facts
from medclip.export.formats import FORMATS
from medclip.lazy import import_name
from medclip.reports.audit.summary import summary
from tests.kits.audit_report import full


def filled(name: str, result: AuditResult) -> dict[str, str]:
    text = import_name(FORMATS[name].target)(result, {matter.head: matter.all for matter in summary(result)})
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("| ")]
    assert all(len(row) == 5 for row in rows)
    return {row[1].strip(): row[3].strip() for row in rows[2:]}


def test_every_published_number_is_there_once():
    numbers = [item.number for item in TRIPOD_AI]
    assert sorted({int(re.sub(r"[a-z]", "", n)) for n in numbers}) == list(range(1, 28))
    assert len(set(numbers)) == len(numbers) == 52
    assert [item.number for item in CLAIM] == [str(n) for n in range(1, 43)]


def test_what_items_ask_for_is_something_that_a_run_may_know():
    known = facts(full(), dict.fromkeys(("Limits",), ("None.",)))
    asked = {fact for item in (*TRIPOD_AI, *CLAIM) for fact in item.facts}
    never = {
        "representative",
        "selected",
        "question",
        "found",
        "abstract",
        "size",
        "flow",
        "overall",
        "unseen",
        "thresholds",
        "leakage",
    }
    assert asked - set(known) <= never | {"shortcuts", "models", "missing"}


@pytest.mark.parametrize(("name", "item"), [("tripod", "23a"), ("claim", "36")])
def test_performance_is_filled_in_and_funding_is_not_known(name: str, item: str):
    rows = filled(name, full())
    assert "AUROC of medclip-mini" in rows[item]
    assert rows["18a" if name == "tripod" else "42"] == NOT_KNOWN


def test_an_audit_without_anything_knows_nothing_and_says_so():
    rows = filled("tripod", AuditResult())
    assert rows["1"] == rows["23b"] == NOT_KNOWN


def test_text_of_tables_cannot_break_the_table():
    rows = filled("claim", full(labels=("a | b", "c")))
    assert "a \\| b" in rows["11"]
