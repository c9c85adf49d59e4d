"""Sheets become records again: tables with confidence, WFDB for models, and refusals in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

import medclip
from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from tests.kits.ecg import heart, write_wfdb

LEADS = {lead: np.roll(line, 100) for lead, line in heart(5000).items()}  # no spike on the seam of two columns


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sheet")
    medclip.ecg.render(write_wfdb(folder, LEADS), folder / "sheet.png", dpi=150)
    return folder / "sheet.png"


def test_a_table_has_seconds_millivolts_and_confidence(sheet: Path, tmp_path: Path) -> None:
    record = medclip.ecg.digitise(sheet, tmp_path / "x.csv")
    table = pyarrow.csv.read_csv(tmp_path / "x.csv")
    assert table.column_names == ["time_s", *(f"{n}_mv" for n in TWELVE), *(f"{n}_confidence" for n in TWELVE)]
    assert table.num_rows == 5000
    values = table["V3_mv"].to_numpy(zero_copy_only=False)
    shown = np.isfinite(values)
    assert table["time_s"].to_numpy()[shown][[0, -1]] == pytest.approx([5.0, 7.5], abs=0.03)
    assert np.corrcoef(values[shown], LEADS["V3"][shown])[0, 1] > 0.99
    np.testing.assert_array_equal(shown, table["V3_confidence"].to_numpy() > 0)
    assert record.all_sure
    assert record.notes == ()
    medclip.ecg.digitise(sheet, tmp_path / "x.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet").column_names == table.column_names


def test_a_wfdb_record_is_read_by_others_and_by_medclip(sheet: Path, tmp_path: Path) -> None:
    record = medclip.ecg.digitise(sheet, tmp_path / "x.hea")
    with quiet("wfdb"):
        import wfdb

        read = wfdb.rdrecord(str(tmp_path / "x"))
        stored = wfdb.rdrecord(str(tmp_path / "x"), physical=False)
    assert (read.fs, read.sig_name, read.units[0]) == (500, list(TWELVE), "mV")
    np.testing.assert_allclose(read.p_signal.T, record.values_mv, atol=0.00051)
    assert [sum_ % 65536 for sum_ in stored.checksum] == stored.calc_checksum()
    signal = medclip.open_study(tmp_path / "x.hea").samples()[0].signal
    assert signal is not None
    assert [lead for lead, there in zip(TWELVE, signal.mask, strict=True) if there] == ["II"]  # of ten seconds


def test_columns_are_written_together_for_models_of_signals(sheet: Path, tmp_path: Path) -> None:
    record = medclip.ecg.digitise(sheet, tmp_path / "x.hea", together=True)
    assert record.values_mv.shape == (12, 1250)
    v6 = record.values_mv[TWELVE.index("V6")]
    seen = np.isfinite(v6)
    assert np.corrcoef(v6[seen], LEADS["V6"][3750:][seen])[0, 1] > 0.99
    signal = medclip.open_study(tmp_path / "x.hea").samples()[0].signal
    assert signal is not None
    assert signal.mask.all()


def test_what_is_less_sure_than_asked_for_is_left_out(sheet: Path, tmp_path: Path) -> None:
    all_of_it, sure = (
        medclip.ecg.digitise(sheet, tmp_path / f"{least}.csv", min_lead_confidence=least) for least in (0.0, 0.8)
    )
    assert np.nanmin(np.where(sure.confidence > 0, sure.confidence, np.nan)) >= 0.8
    assert np.isfinite(sure.values_mv).sum() < np.isfinite(all_of_it.values_mv).sum()


def test_a_lead_that_was_read_whole_may_be_one_that_is_not_sure(tmp_path: Path) -> None:
    mixed = LEADS | {"I": -2 * LEADS["II"], "III": 1.5 * LEADS["II"]}
    medclip.ecg.render(write_wfdb(tmp_path, mixed), tmp_path / "mixed.png", dpi=150)
    record = medclip.ecg.digitise(tmp_path / "mixed.png", tmp_path / "x.csv")
    one = record.leads[0]
    assert (one.sure, record.all_sure) == (False, False)
    assert one.seconds > 2
    assert one.confidence > 0.8


def test_a_transparent_sheet_lies_on_white_paper(sheet: Path, tmp_path: Path) -> None:
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    clear = np.where(pixels.min(2) > 245, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([np.where(clear[..., None] > 0, pixels, 0), clear])).save(tmp_path / "clear.png")
    record = medclip.ecg.digitise(tmp_path / "clear.png", tmp_path / "x.csv")
    assert record.all_sure


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photograph_is_turned_as_its_exif_says(sheet: Path, tmp_path: Path, orientation: int) -> None:
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(sheet) as image:
        image.transpose(turned[orientation]).save(tmp_path / "photo.jpg", quality=95, exif=exif)
    record = medclip.ecg.digitise(tmp_path / "photo.jpg", tmp_path / "x.csv")
    assert not any("turned back" in note for note in record.notes)
    assert record.layout == "3x4+1"


def test_a_grey_sheet_of_sixteen_bits_is_read(sheet: Path, tmp_path: Path) -> None:
    with Image.open(sheet) as image:
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert medclip.ecg.digitise(tmp_path / "deep.png", tmp_path / "x.csv").layout == "3x4+1"


def test_a_record_is_no_sheet_and_its_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="ecg render") as refused:
        medclip.ecg.digitise(write_wfdb(tmp_path, LEADS), tmp_path / "x.csv")
    assert refused.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("x.txt", {}, r"\.csv, \.parquet, \.hea"),
        ("a b.hea", {}, "letters, digits"),
        ("x.csv", {"layout": "2x6"}, "no layout"),
        ("x.csv", {"min_lead_confidence": 2.0}, "is 0 to 1, not 2"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(
    sheet: Path, tmp_path: Path, name: str, fields: dict[str, object], words: str
) -> None:
    with pytest.raises(MedclipError, match=words):
        medclip.ecg.digitise(sheet, tmp_path / name, **fields)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_no_sheet_is_refused_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 500, 3)).astype(np.uint8)).save(path)
    with pytest.raises(MedclipError) as refused:
        medclip.ecg.digitise(path, tmp_path / "x.hea")
    assert str(refused.value.where) == str(path)
    assert refused.value.reason is Reason.NO_SCALE
    assert not list(tmp_path.glob("x.*"))


def test_the_signals_of_a_record_are_not_replaced_without_overwrite(sheet: Path, tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(b"kept")
    with pytest.raises(MedclipError) as refused:
        medclip.ecg.digitise(sheet, tmp_path / "x.hea")
    assert refused.value.reason is Reason.OUTPUT_IN_USE
    assert (tmp_path / "x.dat").read_bytes() == b"kept"
