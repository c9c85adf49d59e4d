"""A form is a row: of tables, of studies or of audits, and the verbs that write for others know it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow
import pytest

import medclip
from medclip.auditing.result import AuditResult
from medclip.errors import MedclipError
from medclip.export.formats import FORMATS, Format
from medclip.export.source_headers import Headers
from medclip.export.study_result import Algorithm, StudyResult
from tests.kits.scoring import make_pack, write_dicom


def plain_study(result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime) -> bytes:
    """Name the number of answers."""
    return f"{len(result.answers)} answers by {algorithm.name}\n".encode()


def plain_tables(folder: Path) -> None:
    """Name the tables of a run."""
    (folder / "tables.txt").write_text(" ".join(sorted(path.name for path in folder.glob("*.parquet"))))


def plain_audit(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> str:
    """Name what the summary has sentences of."""
    return ", ".join(sentences)


def _added(monkeypatch: pytest.MonkeyPatch, name: str, form: Format) -> None:
    monkeypatch.setitem(FORMATS, name, form)  # type: ignore[arg-type]


def test_rows_that_are_added_write_the_studies_and_tables_of_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", 1)
    run = tmp_path / "out"
    medclip.score(tmp_path / "in", run, model=make_pack(tmp_path / "pack"), settings=medclip.Settings(workers=1))
    with pytest.raises(MedclipError, match="results have no format 'plain'"):
        medclip.runs.export(run, as_="plain")
    _added(monkeypatch, "plain", Format("plain text", "study", f"{__name__}:plain_study", ".txt"))
    _added(monkeypatch, "names", Format("names", "tables", f"{__name__}:plain_tables"))
    exported = medclip.runs.export(run, as_=["plain", "names"])
    assert dict(exported.written) == {"plain": 1}
    assert exported.sentences() == ["plain text: 1 study"]
    (path,) = (run / "results" / "plain").glob("*.txt")
    assert path.read_text().endswith(" answers by tiny\n")
    assert (run / "tables.txt").read_text() == "files.parquet scores.parquet"
    with pytest.raises(MedclipError, match="a PACS takes DICOM"):
        medclip.runs.export(run, as_="plain", to="dicomwebs://pacs/dicom-web")


def test_a_row_that_is_added_writes_an_audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "patient": [str(n // 2) for n in range(200)],
            "sex": ["FM"[n // 2 % 2] for n in range(200)],
            "flu": [n // 4 % 2 for n in range(200)],
            "flu_score": [(n * 37 % 100) / 100 for n in range(200)],
        }
    )
    how = {"by": ["sex"], "num_resamples": 100, "num_permutations": 100, "as_": "plain"}
    with pytest.raises(MedclipError, match="an audit has no format 'plain'"):
        medclip.audit(table, **how)  # type: ignore[arg-type]
    _added(monkeypatch, "plain", Format("plain text", "audit", f"{__name__}:plain_audit", "plain.txt"))
    medclip.audit(table, out=tmp_path / "audit", **how)  # type: ignore[arg-type]
    assert (tmp_path / "audit" / "plain.txt").read_text().endswith("Limits")
