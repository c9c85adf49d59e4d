from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import medclip.files.scan
from medclip.cli.scan import scan as command
from medclip.errors import MedclipError, Reason
from medclip.files.scan import scan
from medclip.sample import Modality
from medclip.settings import Settings
from tests.files.kit import ramp, write_dicom, write_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dicom(tmp_path / "in/a.dcm", ramp())
    write_dicom(tmp_path / "in/ct.dcm", ramp(), Modality="CT")
    write_picture(tmp_path / "in/b.png", ramp())
    (tmp_path / "in/empty").write_bytes(b"")
    return tmp_path / "in"


def test_a_scan_has_one_entry_per_file_and_its_counts(folder: Path) -> None:
    found = scan(folder)
    assert [(file.ref.name, file.status, file.modality) for file in found.files] == [
        ("a.dcm", "readable", Modality.XRAY),
        ("b.png", "readable", None),
        ("ct.dcm", "skipped", Modality.CT),
        ("empty", "failed", None),
    ]
    assert found.counts("status") == {"readable": 2, "failed": 1, "skipped": 1}
    assert found.counts("modality") == {"to be inferred": 1, "xray": 1}
    assert len(found.studies) == 2


def test_an_option_names_the_modality(folder: Path) -> None:
    assert scan(folder / "b.png", modality="mri").files[0].modality is Modality.MRI
    with pytest.raises(MedclipError) as caught:
        scan(folder, modality="moon")
    assert caught.value.reason is Reason.WRONG_USE


def test_processes_find_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = scan(folder)
    monkeypatch.setattr(medclip.files.scan, "_POOL_FROM", 1)
    assert scan(folder, settings=Settings(workers=2)).files == alone.files


def test_a_plain_script_without_a_main_guard_scans_many_files(tmp_path: Path) -> None:
    for number in range(70):
        (tmp_path / f"{number}.txt").write_text("hello")
    script = tmp_path / "script.py"
    script.write_text(
        "import medclip\nfrom medclip.settings import Settings\n"
        f"print(len(medclip.scan({str(tmp_path)!r}, settings=Settings(workers=2)).files))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("71", "")


def test_names_cannot_speak_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\x1b[31m\nb.txt").write_text("hello")
    assert command(tmp_path) == 0
    text = capsys.readouterr().out
    assert "1 file, 0 studies" in text
    assert r"a\x1b[31m\nb.txt" in text
    assert "\x1b" not in text


def test_one_study_is_said_in_the_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "a.png", ramp())
    assert command(tmp_path, modality="XRay") == 0
    assert "1 file, 1 study" in capsys.readouterr().out


def test_an_empty_folder_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        command(tmp_path)
    assert caught.value.reason is Reason.NOTHING_TO_DO


def test_the_json_holds_no_identifier(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, as_json=True) == 3
    text = capsys.readouterr().out
    assert json.loads(text)["num_files"] == 4
    assert "SECRET" not in text
    assert "1.2.826" not in text


def test_the_text_names_what_is_not_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").unlink()
    assert command(folder) == 0
    text = capsys.readouterr().out
    assert "3 files, 2 studies" in text
    assert "ct.dcm" in text


def test_reading_never_imports_torch() -> None:
    code = (
        "import sys, medclip.files.scan, medclip.adapters.registry as r;"
        "[r.get_adapter(n) for n in r.ADAPTERS]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
