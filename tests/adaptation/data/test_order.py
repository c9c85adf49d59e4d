"""The order of a column's values: steps of a scale, named once, the lowest first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medclip.adaptation.data.table import AdaptTable, read_adapt_table
from medclip.errors import MedclipError, Reason
from tests.kits.adapt_tables import KEY, write_table

GRADES = ["2.0", "0", "10", "", "2.0", "0"]
ROWS = [
    {"file": f"{n}.png", "patient": f"MRN-{n}", "modality": "xray", "grade": grade, "dense": "Low" if n % 2 else "high"}
    for n, grade in enumerate(GRADES)
]


def read(tmp_path: Path, label: str, order: tuple[str, ...], **options: Any) -> AdaptTable:
    return read_adapt_table(write_table(tmp_path / "t.csv", ROWS), [label], order=order, key=KEY, **options)


def test_classes_are_steps_in_the_order_that_was_named(tmp_path: Path) -> None:
    table = read(tmp_path, "grade", ("0", "2", "10"))
    assert table.text.task.steps == table.text.names == ("grade_0", "grade_2_0", "grade_10")
    assert table.text.steps == (0, 1, 2)
    assert [unit.target for unit in table.units] == [1, 0, 2, 1, 0]
    assert read(tmp_path, "dense", ("LOW", "High")).text.names == ("low", "high")
    assert read(tmp_path, "dense", ()).text.steps == ()


def test_a_step_that_no_row_has_is_said_and_left_out(tmp_path: Path) -> None:
    table = read(tmp_path, "grade", ("0", "1", "2", "10"))
    assert table.text.names == ("grade_0", "grade_2_0", "grade_10")
    assert "No row has: grade_1; the pack does not know them." in table.notes


@pytest.mark.parametrize(
    ("label", "order", "what"),
    [
        ("grade", ("0", "2"), r"1 of 5 rows have a value of 'grade' that the order does not name"),
        ("grade", ("0", "2", "2.0", "10"), r"the order names '2.0' twice"),
        ("grade", ("0", "", "2"), "the order has an empty step"),
        ("grade", ("0",), "the order has one step"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(label: str, order: tuple[str, ...], what: str, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match=what):
        read(tmp_path, label, order)


def test_a_task_and_a_finding_have_no_order_from_outside(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "kind: ordinal\nmodality: xray\nclasses:\n- {name: low, prompts: [low]}\n- {name: high, prompts: [high]}\n"
    )
    assert read(tmp_path, "dense", (), task=tmp_path / "own.yaml").text.steps == (0, 1)
    with pytest.raises(MedclipError, match="an order of values is of one column of steps") as e:
        read(tmp_path, "dense", ("low", "high"), task=tmp_path / "own.yaml")
    assert e.value.reason is Reason.WRONG_USE
    assert "the task file says which classes are steps" in str(e.value.hint)
