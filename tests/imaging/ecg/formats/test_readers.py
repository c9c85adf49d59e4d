"""ECG files of every format become millivolts, or a reason."""

from __future__ import annotations

import csv
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import inspect_file
from medclip.files.recognise.sniff import Format
from medclip.imaging.ecg.formats.readers import read_ecg
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import check_size
from medclip.settings import Settings
from tests.kits.ecg import (
    PATIENT,
    aecg,
    heart,
    muse,
    read,
    read_as,
    sierra,
    write_dicom,
    write_edf,
    write_wfdb,
)

SMALL = Settings(max_volume_bytes=10_000)


def _refusal(path: Path, settings: Settings | None = None, fmt: Format | None = None) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        read(path, settings) if fmt is None else read_as(path, fmt, settings)
    assert PATIENT not in str(caught.value)
    return caught.value


def _counts(samples: int = 1000) -> dict[str, np.ndarray]:
    return {lead: np.round(line * 200).astype(np.int16) for lead, line in heart(samples).items()}


# WFDB


@pytest.mark.parametrize("fmt", ["16", "212", "24", "32", "80", "508", "516", "524"])
def test_wfdb_formats_give_what_was_written(tmp_path: Path, fmt: str) -> None:
    leads = heart(601)
    found = read(write_wfdb(tmp_path, leads, fmt=fmt))
    assert found.leads == TWELVE
    coarse = 0.03 if fmt in ("80", "508") else 0.002
    np.testing.assert_allclose(found.values_mv, np.stack(list(leads.values())), atol=coarse)


@pytest.mark.parametrize(("fmt", "dtype", "offset"), [("61", ">i2", 0), ("160", "<u2", 32768)])
def test_wfdb_formats_that_nobody_writes_any_more_are_read(tmp_path: Path, fmt: str, dtype: str, offset: int) -> None:
    counts = np.arange(-50, 50)
    (tmp_path / "rec.dat").write_bytes((counts + offset).astype(dtype).tobytes())
    (tmp_path / "rec.hea").write_text(f"rec 1 500 100\nrec.dat {fmt} 100/mV 16 0 0 0 0 II\n")
    np.testing.assert_allclose(read(tmp_path / "rec.hea").values_mv[0], counts / 100, atol=1e-6)


def test_wfdb_units_are_converted(tmp_path: Path) -> None:
    leads = {"II": heart()["II"] * 1000, "V1": heart()["V1"] / 1000}
    found = read(write_wfdb(tmp_path, leads, units=["uV", "V"]))
    assert found.units == ("uV", "V")
    np.testing.assert_allclose(found.values_mv, [heart()["II"], heart()["V1"]], atol=1e-3)


def test_wfdb_gaps_are_nan(tmp_path: Path) -> None:
    leads = heart()
    leads["V1"][100:200] = np.nan
    found = read(write_wfdb(tmp_path, leads))
    assert np.isnan(found.values_mv[6]).sum() == 100
    assert np.isfinite(found.values_mv[[0, 1, 7]]).all()


@pytest.mark.parametrize("gain", ["", " 0", " 0(5)/mV"])
def test_wfdb_without_a_gain_is_refused(tmp_path: Path, gain: str) -> None:
    (tmp_path / "rec.dat").write_bytes(np.zeros(100, "<i2").tobytes())
    extra = " 16 0 0 0 0 II" if gain else ""
    (tmp_path / "rec.hea").write_text(f"rec 1 500 100\nrec.dat 16{gain}{extra}\n# {PATIENT}\n")
    if not gain:  # nothing names the lead: no lead of the twelve, but no scale either
        assert _refusal(tmp_path / "rec.hea").reason is Reason.NOT_AN_IMAGE
    else:
        assert _refusal(tmp_path / "rec.hea").reason is Reason.NO_SCALE


def test_wfdb_lead_in_another_unit_is_refused_and_other_channels_left_out(tmp_path: Path) -> None:
    leads = {"II": heart()["II"], "ABP": heart()["V1"] * 50}
    found = read(write_wfdb(tmp_path, leads, units=["mV", "mmHg"]))
    assert found.leads == ("II",)
    assert found.stored_leads == ("II", "ABP")
    assert "no ECG: ABP" in found.notes[0]
    assert _refusal(write_wfdb(tmp_path, leads, name="bad", units=["NU", "mmHg"])).reason is Reason.NO_SCALE


@pytest.mark.parametrize(
    "name", ["../rec.dat", "/etc/passwd", "http://example.org/rec.dat", "a/b.dat", "-", "~", "x::y"]
)
def test_wfdb_header_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "rec.dat").write_bytes(bytes(2000))
    header = tmp_path / "sub" / "rec.hea"
    header.write_text(f"rec 1 500 100\n{name} 16 200/mV 16 0 0 0 0 II\n")
    assert _refusal(header, fmt=Format.WFDB).reason is Reason.CORRUPT
    header.write_text(f"rec/2 1 500 100\n{name}x/../rec 50\nrec 50\n")
    assert _refusal(header, fmt=Format.WFDB).reason is Reason.CORRUPT


def test_wfdb_missing_and_short_signal_files_have_their_reasons(tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, heart())
    data = (tmp_path / "rec.dat").read_bytes()
    (tmp_path / "rec.dat").write_bytes(data[:-2])
    assert _refusal(header).reason is Reason.TRUNCATED
    (tmp_path / "rec.dat").unlink()
    assert _refusal(header).reason is Reason.MISSING_FILE


def test_wfdb_size_is_checked_before_reading(tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, heart())
    assert _refusal(header, SMALL).reason is Reason.TOO_LARGE
    read(header, Settings(reader_memory_bytes=240_000))  # 1,000 samples of 12 leads, five times
    refused = _refusal(header, Settings(reader_memory_bytes=239_999))
    assert refused.reason is Reason.TOO_LARGE
    assert "takes about 240,000 bytes, and a reading process may take 239,999" in str(refused)
    (tmp_path / "rec.hea").write_text("rec 1 500 99999999999999\nrec.dat 16 200/mV 16 0 0 0 0 II\n")
    assert _refusal(tmp_path / "rec.hea").reason is Reason.TRUNCATED


def test_a_day_of_twelve_leads_at_500_hz_is_refused_before_it_is_read_and_one_of_250_hz_is_not() -> None:
    with pytest.raises(MedclipError, match="measuring and filtering takes about 10,368,000,000 bytes"):
        check_size(12, 24 * 3600 * 500, Settings())
    check_size(12, 24 * 3600 * 250, Settings())


def test_wfdb_segments_are_joined_and_a_gap_stays_one(tmp_path: Path) -> None:
    first, second = heart(300), heart(200, seed=1)
    write_wfdb(tmp_path, {lead: first[lead] for lead in ("I", "II")}, name="s1")
    write_wfdb(tmp_path, {lead: second[lead] for lead in ("II", "V1")}, name="s2")
    (tmp_path / "all.hea").write_text("all/3 3 500 600\ns1 300\n~ 100\ns2 200\n")
    found = read(tmp_path / "all.hea")
    assert found.leads == ("I", "II", "V1")
    assert found.values_mv.shape == (3, 600)
    np.testing.assert_allclose(found.values_mv[1, :300], first["II"], atol=1e-3)
    np.testing.assert_allclose(found.values_mv[1, 400:], second["II"], atol=1e-3)
    assert np.isnan(found.values_mv[1, 300:400]).all()
    assert np.isnan(found.values_mv[2, :400]).all()


def test_wfdb_leads_of_several_samples_per_frame_keep_their_rate(tmp_path: Path) -> None:
    fast, slow = np.arange(400, dtype="<i2"), np.arange(100, dtype="<i2") * 4
    frames = np.concatenate([np.concatenate([fast[4 * i : 4 * i + 4], slow[i : i + 1]]) for i in range(100)])
    (tmp_path / "rec.dat").write_bytes(frames.tobytes())
    (tmp_path / "rec.hea").write_text(
        "rec 2 125 100\nrec.dat 16x4 1000/mV 16 0 0 0 0 I\nrec.dat 16 1000/mV 16 0 0 0 0 II\n"
    )
    found = read(tmp_path / "rec.hea")
    assert (found.sampling_hz, found.stored_hz, found.stored_samples) == (500, 125, 100)
    np.testing.assert_allclose(found.values_mv[0] * 1000, fast, atol=1e-3)
    np.testing.assert_allclose(found.values_mv[1, :397] * 1000, fast[:397], atol=1e-3)


# DICOM


def test_dicom_sensitivity_correction_and_baseline_give_millivolts(tmp_path: Path) -> None:
    counts = _counts()
    group = {"leads": counts, "sensitivity": 4.0, "correction": 1.25, "baseline": 100.0}
    for big in (False, True):
        found = read_as(write_dicom(tmp_path / "a.dcm", [group], big=big), Format.DICOM)
        assert found.leads == TWELVE
        expected = np.stack(list(counts.values())) * 0.005 + 0.1
        np.testing.assert_allclose(found.values_mv, expected, atol=1e-5)
    found = read_as(write_dicom(tmp_path / "a.dcm", [{**group, "unit": "mV", "sensitivity": 0.004}]), Format.DICOM)
    np.testing.assert_allclose(found.values_mv, np.stack(list(counts.values())) * 0.005 + 100, atol=1e-4)


def test_dicom_rhythm_is_chosen_before_median_and_shorter_groups(tmp_path: Path) -> None:
    short, long, median = _counts(500), _counts(1500), _counts(3000)
    groups = [
        {"leads": median, "originality": "DERIVED", "label": "MEDIAN BEAT"},
        {"leads": {"II": _counts(4000)["II"]}},
        {"leads": short},
        {"leads": long},
    ]
    found = read_as(write_dicom(tmp_path / "a.dcm", groups), Format.DICOM)
    assert found.stored_samples == 1500
    assert found.notes[0] == "multiplex group 4 of 4"


def test_dicom_padding_is_a_gap(tmp_path: Path) -> None:
    counts = _counts()
    counts["V1"][10:20] = -32768
    found = read_as(write_dicom(tmp_path / "a.dcm", [{"leads": counts, "padding": -32768}]), Format.DICOM)
    assert np.isnan(found.values_mv).sum() == 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sensitivity": None}, Reason.NO_SCALE),
        ({"unit": "1"}, Reason.NO_SCALE),
        ({"samples": 5000}, Reason.TRUNCATED),
        ({"samples": 10**9}, Reason.TOO_LARGE),
        ({"hz": 0}, Reason.CORRUPT),
    ],
)
def test_dicom_that_cannot_be_trusted_is_refused(tmp_path: Path, change: dict[str, object], reason: Reason) -> None:
    path = write_dicom(tmp_path / "a.dcm", [{"leads": _counts(), **change}])
    assert _refusal(path, fmt=Format.DICOM).reason is reason


# EDF


@pytest.mark.parametrize("bdf", [False, True])
def test_edf_and_bdf_give_millivolts(tmp_path: Path, bdf: bool) -> None:
    counts = {f"ECG {lead}": line.astype(np.int64) * (100 if bdf else 1) for lead, line in _counts().items()}
    microvolts = 1.0 if bdf else 2.0
    found = read(write_edf(tmp_path / "a.edf", counts, bdf=bdf, microvolts=microvolts))
    np.testing.assert_allclose(
        found.values_mv, np.stack(list(counts.values())) * microvolts / 1000, rtol=1e-6, atol=1e-6
    )
    assert (found.sampling_hz, found.stored_samples) == (500, 1000)


def test_edf_in_parts_has_gaps_between_them(tmp_path: Path) -> None:
    counts = {"II": _counts(1000)["II"]}
    found = read(write_edf(tmp_path / "a.edf", counts, onsets=[0, 2.5]))
    assert found.values_mv.shape == (1, 1750)
    assert np.isnan(found.values_mv[0, 500:1250]).all()
    np.testing.assert_allclose(found.values_mv[0, 1250:], counts["II"][500:] * 0.002, atol=1e-4)


def test_edf_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    counts = _counts()
    path = tmp_path / "a.edf"
    assert _refusal(write_edf(path, counts, unit="")).reason is Reason.NO_SCALE
    assert _refusal(write_edf(path, counts, records=3)).reason is Reason.TRUNCATED
    assert _refusal(write_edf(path, {"EEG": counts["II"]})).reason is Reason.NOT_AN_IMAGE
    assert _refusal(write_edf(path, counts), SMALL).reason is Reason.TOO_LARGE
    assert _refusal(write_edf(path, {"II": counts["II"]}, onsets=[0, 1e8])).reason is Reason.TOO_LARGE
    assert read(write_edf(path, counts, records=-1)).stored_samples == 1000


# XML


def test_aecg_muse_and_sierra_give_millivolts(tmp_path: Path) -> None:
    counts = _counts(100)
    expected = np.stack(list(counts.values()))
    path = tmp_path / "a.xml"
    for text, scale in (
        (aecg(counts), 0.005),
        (muse(counts), 0.00488),
        (sierra(counts), 0.005),
        (sierra(counts, kind="PhilipsECG"), 0.005),
    ):
        for encoding in ("utf-8", "utf-16"):
            path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
            found = read(path)
            assert found.leads == TWELVE
            assert (found.sampling_hz, found.stored_samples) == (500, 100)
            np.testing.assert_allclose(found.values_mv, expected * scale, atol=1e-5)


def test_xml_without_a_scale_is_refused(tmp_path: Path) -> None:
    counts = _counts(100)
    path = tmp_path / "a.xml"
    for text in (
        aecg(counts, scale=""),
        aecg(counts, scale='<scale value="5"/>'),
        aecg(counts, scale='<scale value="0" unit="uV"/>'),
        muse(counts, unit=""),
        muse(counts, unit="COUNTS"),
        sierra(counts, resolution=""),
    ):
        path.write_text(text)
        assert _refusal(path).reason is Reason.NO_SCALE


def test_xml_that_is_no_readable_ecg_has_a_reason(tmp_path: Path) -> None:
    counts = _counts(100)
    path = tmp_path / "a.xml"
    cases = {
        aecg({}): Reason.CORRUPT,
        aecg(counts)[:-40]: Reason.CORRUPT,
        "<AnnotatedECG/>": Reason.CORRUPT,
        '<!DOCTYPE a [<!ENTITY e "x">]>' + aecg(counts): Reason.CORRUPT,
        sierra(counts, kind="MortaraECG"): Reason.NOT_SUPPORTED_YET,
        sierra(counts).replace('durationperchannel="200"', 'durationperchannel="900"'): Reason.CORRUPT,
        sierra(counts).replace("</parsedwaveforms>", "A" * 60_000 + "</parsedwaveforms>"): Reason.TOO_LARGE,
        sierra(counts).replace("<samplingrate>500<", "<samplingrate>500.5<"): Reason.NOT_SUPPORTED_YET,
        sierra(counts).replace('durationperchannel="200"', 'durationperchannel="9e8"'): Reason.TOO_LARGE,
        sierra(counts).replace("</parsedwaveforms>", "\xff</parsedwaveforms>"): Reason.CORRUPT,
        "<CardiologyXML/>": Reason.NOT_SUPPORTED_YET,
    }
    for text, reason in cases.items():
        path.write_text(text)
        assert _refusal(path, fmt=Format.XML_ECG).reason is reason


def test_the_calibration_pulse_of_a_sierra_document_is_left_out(tmp_path: Path) -> None:
    pulse = np.repeat(np.array([0, 200, 0], np.int16), 50)
    counts = {lead: np.concatenate([line, pulse]) for lead, line in _counts(500).items()}
    path = tmp_path / "a.xml"
    path.write_text(sierra(counts))
    found = read(path)
    assert found.values_mv.shape == (12, 500)
    assert found.stored_samples == 650
    assert "calibration pulse" in found.notes[0]


# MATLAB


def _cpsc(path: Path, data: np.ndarray, **more: object) -> Path:
    import scipy.io

    fields = {"sex": "Male", "age": 50, "data": data, **more}
    scipy.io.savemat(path, {"ECG": fields}, do_compression=True)
    return path


def test_the_cpsc_2018_struct_is_read_by_its_convention_and_nothing_else_is(tmp_path: Path) -> None:
    values = np.stack(list(heart(600).values()))
    path = tmp_path / "a.mat"
    found = read(_cpsc(path, values))
    np.testing.assert_allclose(found.values_mv, values, atol=1e-6)
    assert (found.leads, found.sampling_hz) == (TWELVE, 500)
    assert "CPSC 2018" in found.notes[0]
    for data in (values[:8], values[::-1], values * 1000, np.round(values * 200).astype(np.int16)):
        assert _refusal(_cpsc(path, data)).reason is Reason.NO_SCALE
    assert _refusal(_cpsc(path, values, gain=1)).reason is Reason.NO_SCALE


def test_a_matlab_file_that_expands_is_stopped(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(5_000_000))
    path = tmp_path / "a.mat"
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    path.write_bytes(head + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    assert _refusal(path, Settings(max_volume_bytes=1_000_000)).reason is Reason.TOO_LARGE


# All formats


@pytest.mark.parametrize("fmt", [Format.WFDB, Format.DICOM, Format.EDF, Format.XML_ECG, Format.SCP_ECG, Format.MATLAB])
@pytest.mark.parametrize("size", [0, 1, 40, 300, 3000])
def test_noise_ends_in_a_reason(tmp_path: Path, fmt: Format, size: int) -> None:
    path = tmp_path / "a.hea"
    path.write_bytes(np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes())
    _refusal(path, fmt=fmt)


@pytest.mark.shared
def test_real_records_hold_what_the_manifest_says(shared: Path) -> None:
    root = Path(os.environ.get("MEDCLIP_FIELD_DIR") or shared / "data/field_dev")
    with (root / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == "ecg"]
    assert rows
    settings, wrong = Settings(), []
    for row in rows:
        path = root / row["path"]
        if row["status"] not in ("signal", "unreadable"):
            continue
        try:
            found = read_ecg((path,), (inspect_file(path, settings),), settings)
            said = (len(found.stored_leads), found.stored_samples, found.stored_hz)
            wanted = (int(row["leads"]), int(row["samples"]), float(row["hz"])) if row["status"] == "signal" else None
            if said != wanted or not np.isfinite(found.values_mv).any():
                wrong.append((row["path"], said, wanted))
        except MedclipError as error:
            if row["status"] != "unreadable":
                wrong.append((row["path"], error.reason, error.message))
    assert not wrong
