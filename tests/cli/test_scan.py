"""`medclip scan`: what a person is told of views, burned-in text, other modalities and pixels that are never read."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medclip.cli.main import main
from medclip.dicom.header.read import DicomHeader
from medclip.errors import Reason
from medclip.files.recognise.inspect import dicom_problem, inspect_file
from medclip.settings import Settings
from tests.kits.files import ramp, write_dicom, write_image

MG = "1.2.840.10008.5.1.4.1.1.1.2"


def test_the_views_of_one_folder_are_pointed_out_also_where_each_has_a_patient_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = [(side, view) for side in "LR" for view in ("CC", "MLO")]
    places = [(folder, woman, *view) for folder, woman in (("one", 1), ("two", 2), ("two", 3)) for view in views]
    for number, (folder, woman, side, view) in enumerate(places):
        tags = {"PatientID": f"P{number}", "StudyInstanceUID": f"1.2.{number + 1}"}
        path = tmp_path / folder / f"{woman}{side}{view}"
        write_dicom(path, ramp(), Modality="MG", SOPClassUID=MG, ImageLaterality=side, ViewPosition=view, **tags)
    assert main(["scan", str(tmp_path)]) == 0
    (hint,) = [line for line in capsys.readouterr().out.splitlines() if "--group-by folder" in line]
    assert hint.endswith("use --group-by folder: one")  # the other folder has each view twice: two women


def test_burned_in_text_is_counted_and_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dicom(tmp_path / "a", ramp(), BurnedInAnnotation="YES")
    write_dicom(tmp_path / "b", ramp(), BurnedInAnnotation="NO")
    write_dicom(tmp_path / "c", ramp(), Modality="US", SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1")
    write_image(tmp_path / "d.png", ramp())
    unread = write_dicom(tmp_path / "e", ramp(), Modality="PT", BurnedInAnnotation="YES")
    unread.write_bytes(unread.read_bytes()[:-64])  # cut: nobody reads it, and it is shared all the same
    assert main(["scan", str(tmp_path)]) in (0, 3)
    text = capsys.readouterr().out
    assert "look before you share" in text
    assert "2 x the header says that text is burned into the pixels: a, e\n" in text
    assert "1 x ultrasound, where text is usual, and the header says nothing of it: c\n" in text
    main(["scan", str(tmp_path), "--json"])
    data = json.loads(capsys.readouterr().out)
    assert (data["num_burned_in"], [file["burned_in"] for file in data["files"]]) == (
        2,
        [True, False, None, None, True],
    )


def test_modalities_without_an_adapter_are_named_and_not_called_unstated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, code in enumerate(("PT", "NM", "XA", "RF")):
        write_dicom(tmp_path / code, ramp(), Modality=code, StudyInstanceUID=f"1.2.{number + 1}")
    assert main(["scan", str(tmp_path)]) == 0
    held = capsys.readouterr().out.split("what the studies hold")[1].split("what would be read")[0]
    assert "not stated" not in held
    for name in ("PET: 1 image", "nuclear medicine: 1 image", "angiography: 1 image", "fluoroscopy: 1 image"):
        assert f"1 x {name}" in held


@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        ("1.2.840.10008.1.2.4.100", "a film as MPEG-2"),
        ("1.2.840.10008.1.2.4.102", "a film as H.264"),
        ("1.2.840.10008.1.2.4.106", "a film as H.264"),
        ("1.2.840.10008.1.2.4.108", "a film as HEVC/H.265"),
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2"),
        ("1.2.840.10008.1.2.4.55", "JPEG Full Progression"),
    ],
)
def test_pixels_that_no_decoder_here_reads_are_told_from_the_header(tmp_path: Path, syntax: str, said: str) -> None:
    problem = dicom_problem(_stored_as(tmp_path, syntax))
    assert problem is not None
    assert problem.reason is Reason.NOT_SUPPORTED_YET
    assert said in problem.message


def test_a_slide_in_jpeg_xl_is_read(tmp_path: Path) -> None:
    slide = replace(_stored_as(tmp_path, "1.2.840.10008.1.2.4.112"), sop_class="1.2.840.10008.5.1.4.1.1.77.1.6")
    assert dicom_problem(slide) is None


def _stored_as(folder: Path, syntax: str) -> DicomHeader:
    facts = inspect_file(write_dicom(folder / "a", ramp()), Settings())
    assert facts.header is not None
    return replace(facts.header, transfer_syntax=syntax)


def test_a_film_is_skipped_in_a_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_dicom(tmp_path / "film", ramp(), Modality="ES")
    stored, film = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.102\0"
    body = path.read_bytes()
    at = body.index(b"\x02\0\x10\0UI")
    group = int.from_bytes(body[140:144], "little") + len(film) - len(stored)
    body = body[:140] + group.to_bytes(4, "little") + body[144:at] + body[at : at + 6]
    body += len(film).to_bytes(2, "little") + film + path.read_bytes()[at + 8 + len(stored) :]
    path.write_bytes(body)
    assert main(["scan", str(tmp_path)]) == 0
    assert "1 x not_supported_yet: film" in capsys.readouterr().out


def test_a_file_that_may_not_be_read_has_a_reason_and_no_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "a.png", ramp())
    opened = Path.open

    def denied(self: Path, *arguments: object, **options: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr("os.access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "open", denied)
    assert main(["scan", str(path)]) == 3
    captured = capsys.readouterr()
    assert "permission_denied" in captured.out
    assert "Usage" not in captured.err


def test_progress_is_shown_on_a_terminal_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.png", ramp())
    main(["scan", str(tmp_path), "--json"])
    assert capsys.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    main(["scan", str(tmp_path), "--json"])
    assert "Reading headers" in sys.stderr.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert json.loads(capsys.readouterr().out)["num_files"] == 1
