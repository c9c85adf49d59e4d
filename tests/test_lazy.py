"""Rows that other packages add to tables."""

from __future__ import annotations

import pytest

from medclip import lazy

ROW: object = None


@pytest.mark.parametrize(
    ("group", "place"),
    [
        ("medclip.losses", "medclip.training.losses:LOSSES"),
        ("medclip.methods", "medclip.adaptation.methods:METHODS"),
        ("medclip.towers", "medclip.models.towers.table:TOWERS"),
        ("medclip.metrics", "medclip.statistics.metrics.catalogue:METRICS"),
        ("medclip.task_kinds", "medclip.text.vocabulary.task_kinds:TASK_KINDS"),
        ("medclip.checks", "medclip.auditing.checks.table:CHECKS"),
        ("medclip.formats", "medclip.export.formats:FORMATS"),
    ],
)
def test_a_table_has_the_rows_of_other_packages_behind_its_own(
    group: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lazy.import_name(place)
    names, row = list(table), next(iter(table.values()))
    brought = {"mine": "tests.test_lazy:ROW", names[0]: "tests.test_lazy:ROW"}
    monkeypatch.setattr(lazy, "_entries", lambda asked: brought if asked == group else {})
    monkeypatch.setattr("tests.test_lazy.ROW", row)
    assert list(table) == [*names, "mine"]
    assert (table["mine"], table[names[0]], table.get("none")) == (row, row, None)
    assert "mine" in table
    monkeypatch.undo()
    assert "mine" not in table
