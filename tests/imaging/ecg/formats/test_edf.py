"""EDF records of many signals: which channels are ECG leads, and at what rate they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.twelve_leads import canonical
from tests.kits.ecg import heart, read, write_edf

SLEEP = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal", "Resp oro-nasal", "EMG submental", "Temp rectal", "Event marker")


def _wave(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 500, samples)


def _refusal(path: Path) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        read(path)
    return caught.value


@pytest.mark.parametrize("names", [SLEEP, ("Fp1", "C3", "C4", "O1-A2"), ("C3-M2", "LOC", "SaO2", "Aux")])
def test_a_sleep_record_without_an_ecg_is_refused_as_none(tmp_path: Path, names: tuple[str, ...]) -> None:
    error = _refusal(write_edf(tmp_path / "a.edf", {name: _wave(300) for name in names}, hz=100))
    assert error.reason is Reason.NOT_AN_IMAGE
    assert "no channel is an ECG; found " in error.message
    assert "EEG" in error.message
    assert not any(name in error.message for name in names)


def test_the_rate_of_other_signals_does_not_matter(tmp_path: Path) -> None:
    counts = {lead: np.round(heart(1000)[lead] * 500).astype(int) for lead in ("I", "II")}
    channels = {"EEG Fpz-Cz": _wave(200), **counts, "Resp": _wave(2), "SaO2": _wave(2)}
    path = write_edf(tmp_path / "a.edf", channels, rates_hz={"EEG Fpz-Cz": 100, "Resp": 1, "SaO2": 1})
    found = read(path)
    assert (found.leads, found.sampling_hz, found.stored_samples) == (("I", "II"), 500, 1000)
    np.testing.assert_allclose(found.values_mv, np.stack(list(counts.values())) * 0.002, atol=1e-5)
    assert found.notes == ("not read, no ECG: EEG, RESP, SPO2",)


def test_an_unknown_channel_of_another_rate_does_not_set_that_of_the_leads(tmp_path: Path) -> None:
    counts = {lead: np.round(heart(1000)[lead] * 500).astype(int) for lead in ("I", "II")}
    path = write_edf(tmp_path / "a.edf", {**counts, "Doe": _wave(4000)}, rates_hz={"Doe": 2000})
    found = read(path)
    assert (found.leads, found.sampling_hz) == (("I", "II"), 500)
    assert found.notes == ("not read, of another sampling rate: other",)


def test_leads_of_two_rates_are_read_at_the_higher(tmp_path: Path) -> None:
    slow = np.round(heart(500, 250.0)["V1"] * 500).astype(int)
    counts = {"I": np.round(heart(1000)["I"] * 500).astype(int), "V1": slow}
    found = read(write_edf(tmp_path / "a.edf", counts, rates_hz={"V1": 250}))
    assert (found.leads, found.sampling_hz, found.values_mv.shape) == (("I", "V1"), 500, (2, 1000))
    np.testing.assert_allclose(found.values_mv[0], counts["I"] * 0.002, atol=1e-5)
    np.testing.assert_allclose(found.values_mv[1, ::2], slow * 0.002, atol=1e-5)
    np.testing.assert_allclose(found.values_mv[1, 1:-1:2], (slow[:-1] + slow[1:]) * 0.001, atol=1e-5)
    steps = " ".join(step.detail for step in canonical(found).steps)
    assert "lower sampling rate interpolated" in steps


def test_nothing_is_interpolated_across_the_parts_of_a_discontinuous_record(tmp_path: Path) -> None:
    counts = {"I": np.zeros(1000, int), "V1": np.repeat([100, -100], 250)}
    found = read(write_edf(tmp_path / "a.edf", counts, rates_hz={"V1": 250}, onsets=[0, 3]))
    assert found.values_mv.shape == (2, 2000)
    np.testing.assert_allclose(found.values_mv[1, :500], 0.2, atol=1e-5)
    np.testing.assert_allclose(found.values_mv[1, 1500:], -0.2, atol=1e-5)
    assert np.isnan(found.values_mv[:, 500:1500]).all()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_the_micro_sign_is_read_in_either_encoding(tmp_path: Path, encoding: str) -> None:
    path = write_edf(tmp_path / "a.edf", {"II": _wave(1000)}, unit="uV")
    data = path.read_bytes()
    sign = "\u00b5V".encode(encoding)
    assert data.count(b"uV      ") == 1
    path.write_bytes(data.replace(b"uV      ", sign.ljust(8)))
    np.testing.assert_allclose(read(path).values_mv[0], _wave(1000) * 0.002, atol=1e-5)


def test_a_lead_without_samples_is_refused(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", {"II": _wave(1000), "V1": _wave(1000)})
    data = bytearray(path.read_bytes())
    at = 256 + 2 * (16 + 80 + 8 + 8 + 8 + 8 + 8 + 80) + 8
    assert data[at : at + 8].strip() == b"500"
    data[at : at + 8] = b"0".ljust(8)
    path.write_bytes(data)
    error = _refusal(path)
    assert error.reason is Reason.CORRUPT
    assert "no samples" in error.message
