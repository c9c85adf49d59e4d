"""WFDB headers as they are found in the wild, against the wfdb package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format, sniff
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.twelve_leads import canonical
from tests.kits.ecg import heart, read, write_wfdb


def _wfdb(path: Path) -> np.ndarray:
    with quiet("wfdb"):
        import wfdb

        found = wfdb.rdrecord(str(path.with_suffix(""))).p_signal
    assert found is not None
    return found.T


def _write(folder: Path, lines: str, counts: np.ndarray, encoding: str = "utf-8") -> Path:
    (folder / "rec.dat").write_bytes(counts.T.astype("<i2").tobytes())
    (folder / "rec.hea").write_bytes(lines.encode(encoding))
    return folder / "rec.hea"


def test_a_header_with_tabs_is_read_as_one_with_spaces(tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, heart())
    wanted = read(header)
    header.write_text(header.read_text().replace(" ", "\t"))
    assert sniff(header) is Format.WFDB
    found = read(header)
    assert found.leads == TWELVE
    np.testing.assert_array_equal(found.values_mv, wanted.values_mv)
    np.testing.assert_allclose(found.values_mv, _wfdb(header), atol=1e-6)


def test_a_negative_gain_turns_the_lead_over_as_the_wfdb_package_does(tmp_path: Path) -> None:
    counts = np.stack([np.arange(-50, 50), np.arange(100)])
    lines = "rec 2 500 100\nrec.dat 16 -100(5)/mV 16 0 0 0 0 I\nrec.dat 16 200/mV 16 0 0 0 0 II\n"
    header = _write(tmp_path, lines, counts)
    found = read(header)
    np.testing.assert_allclose(found.values_mv, _wfdb(header), atol=1e-6)
    np.testing.assert_allclose(found.values_mv[0], (counts[0] - 5) / -100, atol=1e-6)
    assert found.notes == ("negative gain, so stored upside down: I",)


@pytest.mark.parametrize(
    ("encoding", "sign"), [("utf-8", "\u00b5"), ("latin-1", "\u00b5"), ("utf-8", "\u03bc")], ids=str
)
def test_microvolts_are_read_with_the_micro_sign_in_either_encoding(tmp_path: Path, encoding: str, sign: str) -> None:
    counts = np.arange(-50, 50)[None]
    lines = f"rec 1 500 100\nrec.dat 16 0.5/{sign}V 16 0 0 0 0 II\n"
    found = read(_write(tmp_path, lines, counts, encoding))
    np.testing.assert_allclose(found.values_mv[0], counts[0] * 2 / 1000, atol=1e-6)


def test_a_segment_without_an_ecg_is_a_gap(tmp_path: Path) -> None:
    first, second = heart(300), heart(200, seed=1)
    write_wfdb(tmp_path, {lead: first[lead] for lead in ("I", "II")}, name="s1")
    write_wfdb(tmp_path, {"PLETH": heart(100)["I"], "RESP": heart(100)["II"]}, name="s2", units=["NU", "pm"])
    write_wfdb(tmp_path, {"II": second["II"]}, name="s3")
    header = tmp_path / "all.hea"
    header.write_text("all/3 4 500 600\ns1 300\ns2 100\ns3 200\n")
    found = read(header)
    assert found.leads == ("I", "II")
    assert set(found.stored_leads) == {"I", "II", "PLETH", "RESP"}
    np.testing.assert_allclose(found.values_mv[1, 400:], second["II"], atol=1e-3)
    assert np.isnan(found.values_mv[:, 300:400]).all()
    assert "segments without an ECG are gaps" in found.notes
    header.write_text("all/1 2 500 100\ns2 100\n")
    with pytest.raises(MedclipError) as caught:
        read(header)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_a_long_record_of_segments_with_gaps_keeps_the_leads_of_its_middle(tmp_path: Path) -> None:
    """As in MIMIC: hours, with pauses between the segments, and other leads in each."""
    middle, end = heart(8000, 125.0), heart(2000, 125.0, seed=1)
    write_wfdb(tmp_path, {lead: middle[lead] for lead in ("II", "V1", "I")}, 125.0, name="s1")
    write_wfdb(tmp_path, {lead: end[lead] for lead in ("III", "V5")}, 125.0, name="s2")
    header = tmp_path / "all.hea"
    header.write_text("all/4 5 125 30000\n~ 11000\ns1 8000\n~ 9000\ns2 2000\n")
    found = canonical(read(header), seconds=10)
    assert [lead for lead, there in zip(TWELVE, found.mask, strict=True) if there] == [*TWELVE[:6], "V1"]
    np.testing.assert_allclose(found.values_mv[6, 11_000:19_000], middle["V1"], atol=1e-3)
    np.testing.assert_allclose(found.values_mv[2, 11_000:19_000], (middle["II"] - middle["I"]), atol=2e-3)
    assert not canonical(read(header)).mask.any()


@pytest.mark.parametrize("gain", ["1000/mV 16 0", "200(12)/mV 16 3", "-4.88(-7)/uV 12 5", "200/mV 11 1024"])
def test_samples_of_16_bits_are_decoded_to_the_bits_of_the_wfdb_package(tmp_path: Path, gain: str) -> None:
    counts = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 250))
    counts[:, :3] = -(2**15)  # no sample was taken
    names = "".join(f"rec.dat 16+24 {gain} 0 0 0 {name}\n" for name in ("I", "V1"))
    header = _write(tmp_path, f"rec 2 500 250\n{names}", counts)
    data = tmp_path / "rec.dat"
    data.write_bytes(bytes(24) + data.read_bytes())
    wanted = _wfdb(header) * (1e-3 if "uV" in gain else 1.0)
    np.testing.assert_array_equal(read(header).values_mv, wanted.astype(np.float32))
