"""The tables as CSV where they are asked for: the same rows, defused for spreadsheets, never older than their run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from medclip.api.score import score
from medclip.cli.main import main
from medclip.errors import MedclipError
from medclip.files.tables import write as write_module
from tests.kits.mammograms import write_exams
from tests.kits.scoring import digests, write_png

CALL: dict[str, Any] = {"modality": "xray", "workers": 1}
"""Of these tests."""


def cells(path: Path) -> list[list[str]]:
    """Return all cells as texts, the names of the columns first."""
    if path.suffix == ".csv":
        strings = csv.ConvertOptions(strings_can_be_null=False)
        table = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=strings)
    else:
        table = pq.read_table(path)
    columns = [
        "" if v is None else f"{v:.12g}" if isinstance(v, float) else str(v) for c in table for v in c.to_pylist()
    ]
    return [table.column_names, columns]


def test_csv_tables_hold_what_the_parquet_tables_hold(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_module, "_ROWS_PER_GROUP", 3)  # several batches
    root, out = write_exams(tmp_path / "in"), tmp_path / "out"
    score(root, out, model=pack, exam=True, workers=1, export="csv")
    for name in ("files", "scores", "exam_scores"):
        assert cells(out / f"{name}.csv") == cells(out / f"{name}.parquet")
        assert (out / f"{name}.csv").stat().st_mode & 0o777 == 0o600


def test_a_later_call_writes_csv_without_computing_and_a_call_without_leaves_everything_else_as_it_is(
    pack: Path, studies: Path, tmp_path: Path
) -> None:
    score(studies, tmp_path / "plain", model=pack, **CALL)
    before = digests(tmp_path / "plain")
    later = score(studies, tmp_path / "plain", model=pack, **CALL, export="csv")
    assert later.already_finished
    assert {n: d for n, d in digests(tmp_path / "plain").items() if not n.endswith(".csv")} == before
    score(studies, tmp_path / "at_once", model=pack, **CALL, export="csv")
    assert digests(tmp_path / "at_once") == digests(tmp_path / "plain")
    again = score(studies, tmp_path / "plain", model=pack, **CALL, export="csv")
    assert again.already_finished
    assert digests(tmp_path / "at_once") == digests(tmp_path / "plain")


def test_csv_of_an_earlier_state_goes_when_files_are_added(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "1.png", 1)
    score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export="csv")
    write_png(tmp_path / "in" / "2.png", 2)
    score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, add=True)
    assert not list((tmp_path / "out").glob("*.csv"))
    score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export="csv")
    assert "2.png" in (tmp_path / "out" / "files.csv").read_text()


def test_a_file_name_that_is_a_formula_is_none_in_a_spreadsheet(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "=1+1.png", 1)
    score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export="csv")
    assert '"\'=1+1.png"' in (tmp_path / "out" / "files.csv").read_text()
    assert pq.read_table(tmp_path / "out" / "files.parquet")["path"].to_pylist() == ["=1+1.png"]


def test_the_command_writes_csv_too(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "1.png", 1)
    arguments = ["score", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", str(pack), "--export", "csv"]
    assert main([*arguments, "--modality", "xray", "--workers", "1"]) == 0
    assert (tmp_path / "out" / "scores.csv").read_text().startswith('"study"')


def test_csv_without_a_folder_is_refused(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "1.png", 1)
    with pytest.raises(MedclipError, match="no output folder"):
        score(tmp_path / "1.png", model=pack, **CALL, export="csv")
