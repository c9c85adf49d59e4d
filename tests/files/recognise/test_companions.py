from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import Reason
from medclip.files.recognise.companions import first_variable
from medclip.files.recognise.inspect import FileFacts, inspect_file
from medclip.files.recognise.sniff import Format
from medclip.settings import Settings
from tests.kits.volumes import write_nifti

SIGNALS = bytes(range(1, 256)) * 4
MATRIX = struct.pack("<5I", 30, 12, 5000, 0, 4) + b"val\0" + b"\1\2" * 50


def _facts(path: Path) -> FileFacts:
    return inspect_file(path, Settings())


def _reason(path: Path) -> Reason | None:
    problem = _facts(path).problem
    return problem.reason if problem else None


def _record(folder: Path, name: str = "a", signal: str = "a.dat") -> Path:
    path = folder / f"{name}.hea"
    path.write_text(f"{name} 2 500 1000\n{signal} 16 200 16 0 0 0 0 I\n{signal} 16 200 16 0 0 0 0 II\n")
    return path


def test_a_record_names_its_signals_and_they_are_known_by_it(tmp_path: Path) -> None:
    header = _record(tmp_path)
    (tmp_path / "a.dat").write_bytes(SIGNALS)
    facts = _facts(header)
    assert (facts.format, facts.parts, facts.problem) == (Format.WFDB, ("a.dat",), None)
    assert (_facts(tmp_path / "a.dat").format, _reason(tmp_path / "a.dat")) == (Format.WFDB_SIGNAL, None)


@pytest.mark.parametrize("name", ["a.mat", "a.d0", "a.xyz"])
def test_signals_are_known_in_any_container(tmp_path: Path, name: str) -> None:
    _record(tmp_path, signal=name)
    (tmp_path / name).write_bytes(MATRIX if name == "a.mat" else b"fLaC" + SIGNALS)
    assert _facts(tmp_path / name).format is Format.WFDB_SIGNAL


@pytest.mark.parametrize("first", [-2, -257])
def test_signals_that_begin_like_text_in_utf_16_are_signals_and_text_beside_a_record_is_text(
    tmp_path: Path, first: int
) -> None:
    _record(tmp_path)
    (tmp_path / "a.dat").write_bytes(np.array([first, 15, 16, -7, 65, 93], "<i2").tobytes() * 200)
    (tmp_path / "a.txt").write_text("a note about this record")
    assert (_facts(tmp_path / "a.dat").format, _reason(tmp_path / "a.dat")) == (Format.WFDB_SIGNAL, None)
    assert _facts(tmp_path / "a.txt").format is Format.TEXT


def test_capitals_in_suffixes_do_not_matter(tmp_path: Path) -> None:
    header = _record(tmp_path).rename(tmp_path / "a.HEA")
    (tmp_path / "a.DAT").write_bytes(SIGNALS)
    assert _facts(header).parts == ("a.DAT",)
    assert _facts(tmp_path / "a.DAT").format is Format.WFDB_SIGNAL


def test_a_record_without_its_signals_fails_with_what_to_do(tmp_path: Path) -> None:
    problem = _facts(_record(tmp_path)).problem
    assert problem is not None
    assert problem.reason is Reason.MISSING_FILE
    assert "same folder" in problem.message
    assert "a.dat" not in problem.message


def test_a_header_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(SIGNALS)
    (tmp_path / "in").mkdir()
    assert _reason(_record(tmp_path / "in", signal="../a.dat")) is Reason.MISSING_FILE


def test_marks_beside_a_record_are_companions(tmp_path: Path) -> None:
    _record(tmp_path)
    (tmp_path / "a.atr").write_bytes(SIGNALS)
    assert _reason(tmp_path / "a.atr") is Reason.COMPANION


def test_bytes_beside_a_text_that_is_no_header_stay_unknown(tmp_path: Path) -> None:
    (tmp_path / "b.hea").write_text("a table of something")
    (tmp_path / "b.dat").write_bytes(SIGNALS)
    assert _reason(tmp_path / "b.dat") is Reason.UNKNOWN_FORMAT


def test_a_record_of_segments_names_their_headers(tmp_path: Path) -> None:
    header = tmp_path / "s.hea"
    header.write_text("s/3 1 500 2000\ns1 1000\n~ 500\ns2 500\n")
    assert _reason(header) is Reason.MISSING_FILE
    for name in ("s1", "s2"):
        _record(tmp_path, name, f"{name}.dat")
        (tmp_path / f"{name}.dat").write_bytes(SIGNALS)
    assert _facts(header).parts == ("s1.hea", "s2.hea")


def test_a_layout_is_no_record(tmp_path: Path) -> None:
    header = tmp_path / "s_layout.hea"
    header.write_text("s_layout 2 500 0\n~ 0 200 16 0 0 0 0 I\n~ 0 200 16 0 0 0 0 II\n")
    assert _reason(header) is Reason.COMPANION


def _pair_header(magic: bytes = b"ni1\0") -> bytes:
    return struct.pack("<i", 348) + b"\0" * 34 + b"r" + b"\0" * 305 + magic + b"\0" * 4


@pytest.mark.parametrize("magic", [b"ni1\0", b"\0\0\0\0"])
@pytest.mark.parametrize("packed", [False, True])
def test_header_and_voxels_of_a_pair_find_each_other(tmp_path: Path, magic: bytes, packed: bool) -> None:
    wrap = gzip.compress if packed else bytes
    end = ".gz" if packed else ""
    header, voxels = tmp_path / f"a.hdr{end}", tmp_path / f"a.img{end}"
    header.write_bytes(wrap(_pair_header(magic)))
    assert _reason(header) is Reason.MISSING_FILE
    voxels.write_bytes(wrap(SIGNALS))
    assert (_facts(header).format, _facts(header).parts) == (Format.NIFTI, (voxels.name,))
    assert (_facts(voxels).format, _reason(voxels)) == (Format.VOLUME_DATA, None)


def test_voxels_without_their_header_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(SIGNALS)
    assert _reason(tmp_path / "a.img") is Reason.UNKNOWN_FORMAT


def test_a_volume_in_one_file_needs_no_neighbour(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(_pair_header(b"n+1\0"))
    assert (_reason(tmp_path / "a.nii"), _facts(tmp_path / "a.nii").parts) == (None, ())


def _matlab5(name: bytes, kind: int, compressed: bool) -> bytes:
    tag = (
        struct.pack("<I4s", len(name) << 16 | 1, name.ljust(4, b"\0"))
        if len(name) < 5
        else struct.pack("<II", 1, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
    )
    body = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<IIii", 5, 8, 1, 1) + tag
    element = struct.pack("<II", 14, len(body)) + body
    if compressed:
        packed = zlib.compress(element)
        element = struct.pack("<II", 15, len(packed)) + packed
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + element


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [(b"ECG", 2, None), (b"ECG", 6, Reason.NOT_SUPPORTED_YET), (b"cjdata_1", 2, Reason.NOT_SUPPORTED_YET)],
)
def test_only_an_ecg_struct_is_read_from_matlab(
    tmp_path: Path, name: bytes, kind: int, reason: Reason | None, compressed: bool
) -> None:
    data = _matlab5(name, kind, compressed)
    assert first_variable(data) == (kind, name.decode())
    (tmp_path / "a.mat").write_bytes(data)
    assert _reason(tmp_path / "a.mat") is reason


def test_a_matrix_without_its_header_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(MATRIX)
    assert _reason(tmp_path / "a.mat") is Reason.MISSING_FILE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<AnnotatedECG xmlns='urn:hl7-org:v3'/>", None),
        ("<RestingECG><MuseInfo/></RestingECG>", None),
        ("<restingecgdata><documentinfo><documenttype>SierraECG</documenttype></documentinfo></restingecgdata>", None),
        ("<restingecgdata><documentinfo><documenttype>PhilipsECG</documenttype></documentinfo></restingecgdata>", None),
        (
            "<restingecgdata><documentinfo><documenttype>OtherECG</documenttype></documentinfo></restingecgdata>",
            Reason.NOT_SUPPORTED_YET,
        ),
        ("<CardiologyXML/>", Reason.NOT_SUPPORTED_YET),
        ("<note/>", Reason.NOT_AN_IMAGE),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_ecgs_in_xml_are_told_by_their_root(tmp_path: Path, text: str, reason: Reason | None, encoding: str) -> None:
    (tmp_path / "a.xml").write_bytes(f"<?xml version='1.0'?>{text}".encode(encoding))
    assert _reason(tmp_path / "a.xml") is reason


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr"])
def test_a_volume_whose_magic_is_wrong_is_corrupt_and_misses_no_file(tmp_path: Path, name: str) -> None:
    path = write_nifti(tmp_path / "whole.nii", np.ones((8, 9, 10), np.int16), np.eye(4))
    body = bytearray(path.read_bytes())
    body[344:348] = b"ni1\0"
    (tmp_path / name).write_bytes(gzip.compress(bytes(body), mtime=0) if name.endswith("gz") else bytes(body))
    assert _reason(tmp_path / name) is Reason.CORRUPT


def test_a_pair_header_alone_misses_its_voxels(tmp_path: Path) -> None:
    whole = write_nifti(tmp_path / "whole.nii", np.ones((8, 9, 10), np.int16), np.eye(4)).read_bytes()
    (tmp_path / "a.hdr").write_bytes(whole[:344] + b"ni1\0" + bytes(4))
    assert _reason(tmp_path / "a.hdr") is Reason.MISSING_FILE


@pytest.mark.parametrize("kind", ["pipe", "dangling link", "folder"])
def test_a_neighbour_that_is_no_file_counts_as_none(tmp_path: Path, kind: str) -> None:
    def place(name: str) -> None:
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(tmp_path / "gone")

    for name in ("a.hea", "a.hdr", "b.IMG", "c.vms", "r.dat"):
        place(name)
    (tmp_path / "a.dat").write_bytes(bytes(range(256)))
    (tmp_path / "a.img").write_bytes(bytes(range(256)))
    whole = write_nifti(tmp_path / "whole.nii", np.ones((8, 9, 10), np.int16), np.eye(4)).read_bytes()
    (tmp_path / "b.hdr").write_bytes(whole[:344] + b"ni1\0" + bytes(4))
    (tmp_path / "c.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "r.hea").write_text("r 1 500 1000\nr.dat 16 200/mV 16 0 0 0 0 II\n")
    assert _reason(tmp_path / "a.dat") is Reason.UNKNOWN_FORMAT
    assert _reason(tmp_path / "a.img") is Reason.UNKNOWN_FORMAT
    assert _reason(tmp_path / "b.hdr") is Reason.MISSING_FILE
    assert _reason(tmp_path / "c.jpg") is None
    assert _reason(tmp_path / "r.hea") is Reason.MISSING_FILE
