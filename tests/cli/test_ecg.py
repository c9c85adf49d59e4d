"""`medclip ecg`: what it prints, and exit codes that a script can trust."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medclip.cli.main import main
from tests.kits.ecg import heart, write_wfdb

HEART = {lead: np.roll(line, 100) for lead, line in heart(5000).items()}  # no spike on the seam of two columns


def _drawn(tmp_path: Path, *options: str) -> int:
    record = write_wfdb(tmp_path, HEART)
    return main(["ecg", "render", str(record), "--out", str(tmp_path / "x.png"), "--dpi", "150", *options])


def test_drawing_prints_the_layout_and_where_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _drawn(tmp_path, "--layout", "6x2") == 0
    text = capsys.readouterr().out
    assert text.startswith("Layout 6x2, 1650 x 1275 px, 5.91 px/mm\n")
    assert text.endswith(f"Written: {tmp_path / 'x.png'}\n")
    assert _drawn(tmp_path, "--json", "--overwrite") == 0
    drawn = json.loads(capsys.readouterr().out)
    assert (drawn["map"]["layout"], len(drawn["map"]["boxes"]), drawn["missing_leads"]) == ("3x4+1", 13, [])


def test_a_clean_sheet_ends_with_0_and_one_in_doubt_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _drawn(tmp_path) == 0
    assert main(["ecg", "digitise", str(tmp_path / "x.png"), "--out", str(tmp_path / "a.csv")]) == 0
    assert "  V6    2.50 s" in capsys.readouterr().out
    flat = {**HEART, "V2": np.zeros(5000)}
    write_wfdb(tmp_path, flat, name="flat")
    assert main(["ecg", "render", str(tmp_path / "flat.hea"), "--out", str(tmp_path / "y.png"), "--dpi", "150"]) == 0
    assert "No usable signal: V2" in capsys.readouterr().out
    assert main(["ecg", "digitise", str(tmp_path / "y.png"), "--out", str(tmp_path / "b.csv"), "--json"]) == 3
    read = json.loads(capsys.readouterr().out)
    assert not read["all_sure"]
    assert [lead["lead"] for lead in read["leads"] if not lead["seconds"]] == ["V2"]
    assert "No trace of V2." in read["notes"]


def test_what_cannot_be_read_ends_with_2_and_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    assert main(["ecg", "digitise", str(tmp_path / "x.png"), "--out", str(tmp_path / "a.csv")]) == 2
    assert "x.png" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()
