"""Results go to a PACS once each: what is stored is written down, and only what says something new is sent again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from medclip.errors import MedclipError, Reason
from medclip.export.results_folder import Stored
from medclip.export.running_results import JOURNAL, NOTE, store_results
from medclip.export.structured_report import structured_report
from medclip.progress import Silent
from tests.kits.progress import Recorded
from tests.kits.results import ALGORITHM, CREATED, drawn_study
from tests.kits.scoring import STUDY_UID

pytest.importorskip("highdicom")


@dataclass
class Pacs:
    """Keeps what it is sent; refuses some studies; goes away after so many files."""

    place: str = "http://127.0.0.1/dicom-web"
    refuses: set[str] = field(default_factory=set)
    most: int = 99
    kept: list[str] = field(default_factory=list)

    def store(self, content: bytes) -> bool:
        if len(self.kept) >= self.most:
            raise MedclipError(Reason.UNREACHABLE, "it could not be read in 8 attempts.")
        header = pydicom.dcmread(BytesIO(content))
        if header.StudyInstanceUID in self.refuses:
            return False
        self.kept.append(str(header.StudyInstanceUID))
        return True


def write_reports(folder: Path, *, later_s: int = 0, changed: int | None = None) -> Path:
    """Write reports of three studies; of one of them with another probability."""
    for number in range(3):
        uid = f"{STUDY_UID}.{number}"
        result, headers = drawn_study(folder / "in" / f"{number}", 2 if number == changed else 1, study_uid=uid)
        content = structured_report(result, headers, ALGORITHM, CREATED + timedelta(seconds=later_s))
        (folder / "results" / "sr").mkdir(parents=True, exist_ok=True)
        (folder / "results" / "sr" / f"{number:016x}.dcm").write_bytes(content)
    return folder / "results"


def test_each_report_is_sent_once_also_if_it_is_written_anew_at_another_time(tmp_path: Path) -> None:
    pacs = Pacs()
    assert store_results(write_reports(tmp_path), pacs, Silent()) == Stored(3, 0)
    assert store_results(write_reports(tmp_path, later_s=3600), pacs, Silent()) == Stored(3, 0)
    assert len(pacs.kept) == 3


def test_what_was_sent_is_read_once_more_only_where_its_file_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, pacs, shown = write_reports(tmp_path), Pacs(most=2), Recorded()
    read: list[str] = []
    honest = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path.stem)
        return honest(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    with pytest.raises(MedclipError):
        store_results(results, pacs, shown)
    assert len(read) == 3
    pacs.most = 99
    read.clear()
    assert store_results(results, pacs, shown) == Stored(3, 0)
    assert read == [f"{2:016x}"], "two were sent"
    assert shown.stages[-1] == ("Sending results to the PACS", 3, 2)
    read.clear()
    store_results(results, pacs, shown)
    assert not read
    write_reports(tmp_path, later_s=60)
    read.clear()
    store_results(results, pacs, shown)
    assert len(read) == 3, "the files are others, and say the same"
    assert len(pacs.kept) == 3
    (results / JOURNAL).unlink()  # as versions before left it
    read.clear()
    store_results(results, pacs, shown)
    assert len(read) == 3
    assert len(pacs.kept) == 3


def test_the_note_of_what_was_sent_has_no_times_so_that_it_is_the_same_after_a_kill(tmp_path: Path) -> None:
    notes = []
    for name in ("one", "two"):
        results, pacs = write_reports(tmp_path / name), Pacs(most=99)
        store_results(results, pacs, Recorded())
        notes.append((results / NOTE).read_bytes())
        assert (results / JOURNAL).is_file()
    assert notes[0] == notes[1]


def test_a_study_whose_results_changed_is_sent_anew_and_no_other(tmp_path: Path) -> None:
    pacs = Pacs()
    store_results(write_reports(tmp_path), pacs, Silent())
    store_results(write_reports(tmp_path, later_s=60, changed=1), pacs, Silent())
    assert pacs.kept[3:] == [f"{STUDY_UID}.1"]


def test_a_server_that_goes_away_is_gone_on_with_where_it_stopped(tmp_path: Path) -> None:
    results, pacs = write_reports(tmp_path), Pacs(most=2)
    with pytest.raises(MedclipError) as away:
        store_results(results, pacs, Silent())
    assert away.value.reason is Reason.UNREACHABLE
    pacs.most = 99
    assert store_results(results, pacs, Silent()) == Stored(3, 0)
    assert len(pacs.kept) == 3


def test_what_is_refused_is_counted_and_sent_by_the_next_call(tmp_path: Path) -> None:
    results, pacs = write_reports(tmp_path), Pacs(refuses={f"{STUDY_UID}.2"})
    refused = store_results(results, pacs, Silent())
    assert refused == Stored(2, 1)
    assert "1 study refused" in refused.sentence()
    pacs.refuses = set()
    assert store_results(results, pacs, Silent()) == Stored(3, 0)
    assert len(pacs.kept) == 3


def test_another_server_gets_all_of_them_and_the_note_names_no_patient(tmp_path: Path) -> None:
    results = write_reports(tmp_path)
    store_results(results, Pacs(), Silent())
    other = Pacs(place="https://other.example/dicom-web")
    assert store_results(results, other, Silent()) == Stored(3, 0)
    assert len(other.kept) == 3
    assert STUDY_UID not in (results / NOTE).read_text()
