"""The ECG adapter: any record becomes twelve leads, with everything said and no free text."""

from __future__ import annotations

import csv
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.adapters.base import Source
from medclip.adapters.ecg import EcgAdapter, raw_signal
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import FileFacts, inspect_file
from medclip.files.recognise.sniff import Format, sniff
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.sample import Kind, Modality
from medclip.settings import EcgOptions, Settings
from tests.kits.ecg import PATIENT, aecg, beats, heart, muse, sierra, write_edf, write_wfdb

SETTINGS = Settings()


def _source(path: Path) -> Source:
    return Source(Kind.SIGNAL, (path,), (FileFacts("0" * 64, sniff(path)),))


def test_a_record_becomes_ten_seconds_at_500_hz_in_millivolts(tmp_path: Path) -> None:
    leads = beats(3000, 250)
    sample = EcgAdapter().read(
        _source(write_wfdb(tmp_path, {lead: leads[lead] for lead in ("V1", "II", "I")}, 250)), SETTINGS
    )
    assert (sample.modality, sample.kind, sample.views) == (Modality.ECG, Kind.SIGNAL, ())
    assert sample.signal is not None
    assert sample.signal.values_mv.shape == (12, 5000)
    assert sample.signal.values_mv.dtype == np.float32
    assert sample.signal.sampling_hz == 500
    assert sample.headers == {
        "stored_leads": ["V1", "II", "I"],
        "stored_lead_count": 3,
        "stored_hz": 250,
        "stored_samples": 3000,
        "duration_s": 12.0,
        "derived_leads": ["III", "aVR", "aVL", "aVF"],
        "missing_leads": ["V2", "V3", "V4", "V5", "V6"],
        "gaps": [],
        "ecg_flags": ["lead_missing:V2,V3,V4,V5,V6"],
        "heart_rate_bpm": 60,
    }
    names = [step.name for step in sample.provenance.steps]
    assert names == ["read", "reorder", "derive", "mask", "baseline", "resample", "crop"]
    assert sample.provenance.decoder == "wfdb"
    assert sample.provenance.preprocessing == EcgAdapter().preprocessing_of(Kind.SIGNAL)


def test_the_raw_signal_is_the_stored_one(tmp_path: Path) -> None:
    leads = heart(700)
    source = _source(write_wfdb(tmp_path, leads))
    raw = raw_signal(source)
    np.testing.assert_allclose(raw.values_mv, np.stack(list(leads.values())), atol=1e-3)
    sample = EcgAdapter(EcgOptions.raw()).read(source, SETTINGS)
    assert sample.signal is not None
    np.testing.assert_array_equal(sample.signal.values_mv, raw.values_mv)


def test_leads_are_judged_over_the_ten_seconds_that_are_kept(tmp_path: Path) -> None:
    leads = heart(30_000)
    leads["V1"][12_000:18_000] = np.nan
    leads["V2"][:10_000] = np.nan
    leads["II"][12_500:13_400] = np.nan
    source = _source(write_wfdb(tmp_path, leads))
    sample = EcgAdapter().read(source, SETTINGS)
    assert sample.signal is not None
    assert sample.headers["missing_leads"] == ["V1"]
    assert sample.headers["derived_leads"] == ["II"]
    assert not sample.signal.values_mv[6].any()
    # The raw record is all of it, and is judged over all of it unless the caller names the part.
    assert [lead for lead, there in zip(TWELVE, raw_signal(source).mask, strict=True) if not there] == ["V1", "V2"]
    raw = raw_signal(source, seconds=10)
    np.testing.assert_array_equal(raw.mask, sample.signal.mask)
    assert raw.values_mv.shape == (12, 30_000)


def test_a_record_of_other_signals_is_no_sample(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", {"EEG Fpz-Cz": heart()["I"].astype(int), "EOG": heart()["I"].astype(int)})
    with pytest.raises(MedclipError) as caught:
        EcgAdapter().read(_source(path), SETTINGS)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize(
    ("leads", "reason", "words"),
    [
        ({"Smith": heart()["I"], "X": heart()["V1"]}, Reason.NOT_AN_IMAGE, "found X, other, expected I, II"),
        ({"I": np.zeros(1000), "V1": np.zeros(1000)}, Reason.CONSTANT_IMAGE, "(lead_flat:I,V1)"),
    ],
)
def test_a_record_without_a_usable_lead_is_refused_and_not_read_as_zeros(
    tmp_path: Path, leads: dict[str, np.ndarray], reason: Reason, words: str
) -> None:
    with pytest.raises(MedclipError, match=re.escape(words)) as caught:
        EcgAdapter().read(_source(write_wfdb(tmp_path, leads)), SETTINGS)
    assert caught.value.reason is reason


def test_every_option_changes_the_hash() -> None:
    variants = [
        EcgOptions(),
        EcgOptions(baseline="butterworth"),
        EcgOptions(notch_hz=50),
        EcgOptions(sampling_hz=100),
        EcgOptions(seconds=5),
        EcgOptions(normalisation="minmax_record"),
        EcgOptions(mlii_as_ii=True),
        EcgOptions.raw(),
        EcgOptions(microvolts=True),
    ]
    assert len({EcgAdapter(options).preprocessing_of(Kind.SIGNAL) for options in variants}) == len(variants)
    assert "500 Hz, 10 s" in EcgAdapter().describe(Kind.SIGNAL)
    pickle.loads(pickle.dumps(EcgAdapter()))


def test_other_waveforms_and_images_with_a_header_are_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    adapter = EcgAdapter()
    assert not adapter.accepts(Source(Kind.SIGNAL, (path,), (FileFacts("0", Format.PNG),)))
    assert not adapter.accepts(Source(Kind.SIGNAL, (path,), (FileFacts("0", Format.DICOM),)))
    assert not adapter.accepts(Source(Kind.IMAGE, (path,), (FileFacts("0", Format.DICOM),)))
    with pytest.raises(MedclipError) as caught:
        adapter.read(Source(Kind.IMAGE, (path,), (FileFacts("0", Format.DICOM),)), SETTINGS)
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET


def test_the_image_of_a_sheet_is_one_view_in_colour_as_it_is(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (90, 120), np.uint8)
    for name, stored in (("grey", grey), ("colour", np.stack([grey, grey // 2, grey // 3], axis=2))):
        Image.fromarray(stored).save(path := tmp_path / f"{name}.png")
        sample = EcgAdapter().read(Source(Kind.IMAGE, (path,), (inspect_file(path, SETTINGS),)), SETTINGS)
        assert (sample.modality, sample.kind, sample.signal) == (Modality.ECG, Kind.IMAGE, None)
        (view,) = sample.views
        np.testing.assert_array_equal(view.pixels, np.atleast_3d(stored) + np.zeros(3, np.uint8))
    hashes = {EcgAdapter(options).preprocessing_of(Kind.IMAGE) for options in (None, EcgOptions.raw())}
    assert len(hashes) == 1, "options of signals change no image"


def test_nothing_of_the_patient_leaves_the_file(tmp_path: Path) -> None:
    counts = {lead: np.round(line * 200).astype(np.int16) for lead, line in heart(1000).items()}
    counts[PATIENT] = counts["V1"]
    named = {lead: line / 200 for lead, line in counts.items()}
    paths = [write_wfdb(tmp_path, named), write_edf(tmp_path / "a.edf", counts)]
    for name, text in (("a.xml", muse(counts)), ("b.xml", sierra(counts)), ("c.xml", aecg(counts))):
        (tmp_path / name).write_text(text)
        paths.append(tmp_path / name)
    refused: list[str] = []
    for path in paths:
        sample = EcgAdapter().read(_source(path), SETTINGS)
        assert sample.signal is not None
        said = repr((sample.headers, sample.provenance, sample.signal.stored_leads, sample.signal.steps))
        assert "doe" not in said.lower()
        for cut in (0.5, 0.9):
            broken = path.with_stem("broken")
            broken.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
            try:  # a header without the end of its comments is still one
                EcgAdapter().read(Source(Kind.SIGNAL, (broken,), (FileFacts("0" * 64, sniff(path)),)), SETTINGS)
            except MedclipError as error:
                refused.append(str(error).lower())
    assert len(refused) >= 8
    assert not any("doe" in message for message in refused)


@pytest.mark.shared
def test_every_real_record_gives_a_sample(shared: Path) -> None:
    root = Path(os.environ.get("MEDCLIP_FIELD_DIR") or shared / "data/field_dev")
    with (root / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == "ecg" and row["status"] == "signal"]
    assert rows
    for row in rows:
        path = root / row["path"]
        facts = replace(inspect_file(path, SETTINGS), problem=None)
        source = Source(Kind.SIGNAL, (path,), (facts,))
        if not raw_signal(source, SETTINGS, seconds=10).mask.any():
            with pytest.raises(MedclipError) as caught:
                EcgAdapter().read(source, SETTINGS)
            assert caught.value.reason is Reason.NOT_AN_IMAGE
            continue
        sample = EcgAdapter().read(source, SETTINGS)
        signal = sample.signal
        assert signal is not None
        assert signal.values_mv.shape == (12, 5000)
        assert np.isfinite(signal.values_mv).all()
        assert np.abs(signal.values_mv).max() < 20
        assert (sample.headers["stored_lead_count"], signal.stored_samples) == (int(row["leads"]), int(row["samples"]))
        assert signal.stored_hz == float(row["hz"])
        if int(row["leads"]) == 12:
            assert set(signal.stored_leads) == set(TWELVE)
