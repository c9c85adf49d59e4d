"""A source of captions is one row of a table; options that it does not take are refused by what the rows say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import medclip
from medclip.cli.main import main
from medclip.files.tables.read_table import read_table
from medclip.pairs.sources.caption_sources import CAPTION_SOURCES, CaptionSource
from medclip.pairs.sources.captioned_table import CaptionsForm, CaptionsReport
from medclip.progress import Progress


def captions_of_names(
    source: Path, form: CaptionsForm, progress: Progress, *, file: str | None = None
) -> tuple[pa.Table, CaptionsReport]:
    """Caption each image with the name of its file: the source of this test."""
    table = read_table(source).arrow
    names = [Path(one).stem.replace("_", " ") for one in table.column("file").to_pylist()]
    captions = [[f"{file or 'image of'} {name}"] * form.num_captions for name in names]
    report = CaptionsReport(form.out, len(names), len(names), 0, sum(map(len, captions)), 0)
    return table.append_column("captions", pa.array(captions, pa.list_(pa.string()))), report


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    row = CaptionSource("a table with files", f"{__name__}:captions_of_names", options=("file",), num_captions=1)
    monkeypatch.setitem(CAPTION_SOURCES, "names", row)  # type: ignore[arg-type]
    path = tmp_path / "t.csv"
    path.write_text("file\nleft_hand.png\nright_hand.png\n")
    return path


def test_a_source_of_ones_own_is_a_row_and_reached_by_the_verb_and_the_command(table: Path, capsys: Any) -> None:
    report = medclip.pairs.captions(table, table.with_name("a.csv"), from_="names")
    assert (report.num_captions, report.num_rows) == (2, 2)
    assert table.with_name("a.csv").read_text() == (
        "file,captions\nleft_hand.png,image of left hand\nright_hand.png,image of right hand\n"
    )
    out = str(table.with_name("b.csv"))
    assert main(["pairs", "captions", str(table), "--from", "names", "--out", out, "--file", "photograph of"]) == 0
    assert "b.csv: 2 captions for 2 of 2 rows." in capsys.readouterr().out
    assert "photograph of left hand" in Path(out).read_text()


@pytest.mark.parametrize(
    ("source", "option", "value"),
    [
        ("names", "writer", "a:b"),
        ("labels", "dataset", "vindr"),
        ("labels", "file", "{file}"),
        ("ecg", "findings", "f.csv"),
        ("ecg", "writer", "a:b"),
        ("mammography", "language", "de"),
        ("labels", "min_likelihood", 5.0),
    ],
)
def test_an_option_of_another_source_is_refused(table: Path, source: str, option: str, value: Any) -> None:
    out = table.with_name("o.csv")
    with pytest.raises(medclip.MedclipError, match=f"--{option.replace('_', '-')} is an option of --from") as refusal:
        medclip.pairs.captions(table, out, from_=source, **{option: value})
    named = [name for name, row in CAPTION_SOURCES.items() if option in row.options and name != "names"]
    assert all(name in refusal.value.message for name in named)
    assert not out.exists()


def test_a_source_that_there_is_not_is_refused_with_the_names_of_all(table: Path, capsys: Any) -> None:
    assert main(["pairs", "captions", str(table), "--from", "name", "--out", str(table.with_name("o.csv"))]) == 2
    printed = capsys.readouterr().err
    assert "labels, mammography, ecg and names" in printed
    assert "Did you mean 'names'?" in printed
    assert main(["pairs", "captions", str(table), "--out", str(table.with_name("o.csv"))]) == 2
    assert "--from" in capsys.readouterr().err


def test_every_option_that_not_all_sources_take_is_refused_by_some_row() -> None:
    options = {name for row in CAPTION_SOURCES.values() for name in row.options}
    assert options == {"dataset", "file", "findings", "writer", "language", "min_likelihood"}
    assert not [name for name in options if all(name in row.options for row in CAPTION_SOURCES.values())]
