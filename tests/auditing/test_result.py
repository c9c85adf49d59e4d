"""The tables of an audit: typed, complete, equal as Parquet, CSV and JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from medclip.auditing.result import COLUMNS, JSON, LEAKED_ROWS, AuditResult, read_result, write_json, write_tables
from medclip.errors import MedclipError
from medclip.reports.audit.report import write_audit_report
from tests.kits.audit_report import full


def test_every_table_has_a_field_and_its_columns_and_types():
    names = {field.name for field in fields(AuditResult)}
    tables = AuditResult().tables()
    assert set(tables) == set(COLUMNS)
    assert set(COLUMNS) <= names
    for name, table in tables.items():
        assert table.num_rows == 0
        assert table.schema.names == list(COLUMNS[name])
        assert [str(kind) for kind in table.schema.types] == [
            str(pa.type_for_alias(kind)) for kind in COLUMNS[name].values()
        ]


def test_the_examples_have_no_column_that_a_table_lacks():
    made = full(models=("a", "b"))
    for name, columns in COLUMNS.items():
        assert made.rows(name), name
        assert all(set(row) <= set(columns) for row in made.rows(name)), name


def test_what_is_no_number_is_blank_and_numpy_is_welcome():
    row = {"value": np.float32("nan"), "low": math.inf, "high": np.float64(0.5), "n": np.int32(7), "label": 3}
    table = AuditResult(metrics=(row,)).tables()["metrics"].to_pylist()[0]
    assert (table["value"], table["low"], table["high"], table["n"], table["label"]) == (None, None, 0.5, 7, "3")
    assert table["model"] is None


def test_files_say_the_same_and_equal_audits_give_equal_bytes(tmp_path: Path):
    made = full()
    write_tables(made, tmp_path / "a")
    write_json(made, tmp_path / "a")
    files = list((tmp_path / "a").iterdir())
    assert {file.name for file in files} == {JSON, *(f"{n}.{end}" for n in COLUMNS for end in ("csv", "parquet"))}
    write_tables(full(), tmp_path / "b")
    write_json(full(), tmp_path / "b")
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    read = json.loads((tmp_path / "a" / JSON).read_text())
    for name in COLUMNS:
        rows = pq.read_table(tmp_path / "a" / f"{name}.parquet").to_pylist()
        assert rows == read["tables"][name]
        assert pyarrow.csv.read_csv(tmp_path / "a" / f"{name}.csv").num_rows == len(rows)
    assert read["models"] == list(made.model_names)


def test_images_that_leak_are_named_in_one_file_and_nowhere_else(tmp_path: Path):
    row = {"check": "copies", "key": "MRN-1", "file": "doe.png", "other": "MRN-2", "how": "the same bytes"}
    made = replace(full(), leaked_rows=(row,))
    write_tables(made, tmp_path)
    write_audit_report(made, tmp_path)
    assert pyarrow.csv.read_csv(tmp_path / LEAKED_ROWS).to_pylist() == [row]
    assert (tmp_path / LEAKED_ROWS).stat().st_mode & 0o077 == 0
    for file in tmp_path.iterdir():
        assert file.name == LEAKED_ROWS or b"MRN-" not in file.read_bytes(), file.name
    assert "MRN-" not in repr(made) + made.to_json() + made._repr_html_()
    write_tables(full(), tmp_path)
    assert not (tmp_path / LEAKED_ROWS).exists()


def test_a_red_check_is_told():
    assert full().leaks
    assert not AuditResult(leakage=({"check": "x", "severity": "note"},)).leaks


def test_the_short_form_tells_differences_and_calls_no_check_clean_that_was_not_made():
    row = {"model": "net", "label": "flu", "attribute": "race", "group": "B", "metric": "tpr", "value": -0.4, "p": 1e-9}
    made = AuditResult(
        differences=({**row, "p_holm": 1e-6},),
        gaps=({**row, "gap": "tpr_max_min", "p_holm": 0.18},),
        leakage=({"check": "files", "tested": 60, "severity": "note"}, {"check": "patients", "severity": "note"}),
    )
    assert "larger than chance: flu by race" in repr(made)
    assert "leakage: none in 1 of 2 checks" in repr(made)
    assert "leakage: not looked for" in repr(AuditResult(leakage=({"check": "patients", "tested": 0},)))


def test_json_takes_what_settings_hold():
    text = AuditResult(settings={"bins": np.arange(3), "path": Path("x"), "n": np.int64(2)}).to_json()
    assert json.loads(text)["settings"] == {"bins": [0, 1, 2], "path": "x", "n": 2}


def test_an_audit_is_read_back_as_it_was_written(tmp_path: Path):
    made = full(models=("a", "b"))
    write_json(made, tmp_path)
    for path in (tmp_path, tmp_path / JSON):
        assert read_result(path).to_json() == made.to_json()
    (tmp_path / JSON).write_text('{"finished": false}')
    with pytest.raises(MedclipError, match="wrote to its end"):
        read_result(tmp_path)
    with pytest.raises(MedclipError, match="there is no audit here"):
        read_result(tmp_path / "elsewhere")
