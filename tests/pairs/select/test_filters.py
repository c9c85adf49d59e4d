"""A filter of pairs is one row of a table: it drops rows, which are written with its name, or weights them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

import medclip
from medclip.cli.main import main
from medclip.files.tables.read_table import read_table
from medclip.pairs.select.filters import FILTERS, Filter

TABLE = """file,patient,modality,label:brain_mri_tumour,score
a.jpg,P1,mri,glioma,2
b.jpg,P2,mri,glioma,4
c.jpg,P3,mri,,1
d.jpg,P4,mri,meningioma,8
"""


def with_captions(pairs: pa.Table, folder: Path) -> NDArray[np.bool_]:
    return np.array([bool(texts) for texts in pairs.column("captions").to_pylist()])


def by_score(pairs: pa.Table, folder: Path) -> NDArray[np.float64]:
    scores = np.array([float(cell) for cell in pairs.column("score").to_pylist()])
    return scores / scores.max()


def large(pairs: pa.Table, folder: Path) -> NDArray[np.bool_]:
    return np.array([(folder / file).stat().st_size > 1 for file in pairs.column("file").to_pylist()], bool)


def two_values(pairs: pa.Table, folder: Path) -> NDArray[np.float64]:
    return np.array([1.0, -1.0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = {
        "with-captions": Filter("rows with a caption", f"{__name__}:with_captions", columns=("captions",)),
        "by-score": Filter("their score, of the best", f"{__name__}:by_score", columns=("score",)),
        "large": Filter("files of two bytes or more", f"{__name__}:large", opens_files=True),
        "wrong": Filter("nothing", f"{__name__}:two_values"),
    }
    for name, row in rows.items():
        monkeypatch.setitem(FILTERS, name, row)  # type: ignore[arg-type]
    (tmp_path / "t.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    return [dict(row) for row in read_table(path).rows()]


def test_a_filter_drops_rows_that_are_counted_and_written_with_its_name(folder: Path, capsys: Any) -> None:
    command = ["pairs", "captions", "t.csv", "--from", "labels", "--out", "o.csv", "--filter", "with-captions"]
    assert main(command) == 0
    assert "1 dropped by with-captions, in o_dropped.csv" in capsys.readouterr().out
    assert [row["file"] for row in rows_of(folder / "o.csv")] == ["a.jpg", "b.jpg", "d.jpg"]
    dropped = rows_of(folder / "o_dropped.csv")
    assert [(row["file"], row["patient"], row["dropped_by"]) for row in dropped] == [("c.jpg", "P3", "with-captions")]
    assert main(command) == 2, "neither table is replaced unless that is asked for"
    assert main([*command, "--overwrite", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["dropped"], values["dropped_by_filter"]) == ("o_dropped.csv", {"with-captions": 1})


def test_filters_are_asked_one_after_the_other_and_weights_are_a_column(folder: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (folder / f"{name}.jpg").write_text("xx" if name != "d" else "x")
    report = medclip.pairs.captions("t.csv", "o.csv", from_="labels", filter=["large", "by-score", "with-captions"])
    assert report.dropped_by_filter == {"large": 1, "by-score": 0, "with-captions": 1}
    # The best of those that `large` kept has 4, so that the one with 2 weighs half.
    assert [(row["file"], row["pair_weight"]) for row in rows_of(folder / "o.csv")] == [
        ("a.jpg", "0.5"),
        ("b.jpg", "1"),
    ]
    assert [row["dropped_by"] for row in rows_of(folder / "o_dropped.csv")] == ["with-captions", "large"]
    assert "dropped" in repr(report)


def test_what_a_filter_needs_and_is_not_there_is_refused_and_nothing_is_written(folder: Path) -> None:
    with pytest.raises(medclip.MedclipError, match="opens the files, and this one is not there"):
        medclip.pairs.captions("t.csv", "o.csv", from_="labels", filter="large")
    (folder / "u.csv").write_text(TABLE.replace(",score", ",points"))
    with pytest.raises(medclip.MedclipError, match="'by-score' needs a column 'score'"):
        medclip.pairs.captions("u.csv", "o.csv", from_="labels", filter="by-score")
    with pytest.raises(medclip.MedclipError, match="filter is one of"):
        medclip.pairs.captions("t.csv", "o.csv", from_="labels", filter="by-scores")
    with pytest.raises(ValueError, match="'wrong' must return a bool, or a finite weight"):
        medclip.pairs.captions("t.csv", "o.csv", from_="labels", filter="wrong")
    assert not [path.name for path in folder.iterdir() if path.name.startswith("o")]


def test_weights_that_a_table_has_are_not_written_over(folder: Path) -> None:
    lines = TABLE.splitlines()
    (folder / "w.csv").write_text("\n".join([f"{lines[0]},pair_weight", *(f"{line},1" for line in lines[1:])]))
    with pytest.raises(medclip.MedclipError, match="'pair_weight' already"):
        medclip.pairs.captions("w.csv", "o.csv", from_="labels", filter="by-score")


def test_medclip_has_no_filter_yet_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    assert not FILTERS
    with pytest.raises(medclip.MedclipError, match=r"no filter named 'clip-score'\. This version has none"):
        medclip.pairs.captions(tmp_path / "t.csv", tmp_path / "o.csv", from_="labels", filter="clip-score")
