"""How a model takes ECGs: from a file to whole microvolts, and from there to the tower's scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medclip.adapters.base import source_of
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import MISSING, from_microvolts, to_microvolts
from medclip.models.inputs.normalise import normalise_records
from medclip.models.inputs.preprocess import Preprocess, from_config
from medclip.models.inputs.read_pixels import pixels_of
from medclip.models.inputs.signal_input import SignalInput, signal_input
from medclip.sample import Modality, Sample
from medclip.settings import Settings
from tests.kits.ecg import heart, signal, write_wfdb

SLOW = SignalInput(sampling_hz=100, seconds=4)


def _read(path: Path, preprocess: Preprocess) -> Sample:
    settings = Settings()
    return read_unit(source_of(path, settings), Modality.ECG, preprocess.reading(settings))


def test_a_file_becomes_one_record_of_the_models_rate_and_length(tmp_path: Path) -> None:
    leads = heart(5000)
    leads.pop("V6")
    path = write_wfdb(tmp_path, leads)
    preprocess = Preprocess(signal=SLOW, adapters={})
    sample = _read(path, preprocess)
    record = pixels_of(sample, preprocess)
    assert record.shape == (1, *preprocess.image_shape) == (1, 12, 400)
    assert record.dtype == np.dtype(preprocess.image_dtype) == np.int16
    assert (record[0, 11] == MISSING).all()
    assert not (record[0, :11] == MISSING).any()
    assert sample.signal is not None
    np.testing.assert_allclose(record[0, 1] / 1000, sample.signal.values_mv[1], atol=0.0006)


def test_a_signal_as_stored_is_filtered_as_the_model_has_it() -> None:
    stored = signal(np.stack(list(heart(5000).values())))
    record = SLOW.record(stored)
    assert record.shape == (12, 400)
    assert abs(record[1].mean()) < 20


def test_an_ecg_that_was_read_for_another_rate_is_refused_with_both(tmp_path: Path) -> None:
    sample = _read(write_wfdb(tmp_path, heart(5000)), Preprocess())
    with pytest.raises(MedclipError, match=r"10 s at 500 Hz.*4 s at 100 Hz") as refused:
        pixels_of(sample, Preprocess(signal=SLOW))
    assert refused.value.reason is Reason.WRONG_USE
    assert pixels_of(sample, Preprocess(signal=SignalInput())).shape == (1, 12, 5000)


def test_a_short_record_says_how_much_of_it_is_padding(tmp_path: Path) -> None:
    sample = _read(write_wfdb(tmp_path, heart(1500)), Preprocess(signal=SLOW))
    assert sample.signal is not None
    assert sample.signal.padded == (50, 50)
    record = pixels_of(sample, Preprocess(signal=SLOW))[0]
    assert not record[:, :50].any()
    assert not record[:, 350:].any()


def test_an_image_is_refused_by_a_model_of_ecgs(tmp_path: Path) -> None:
    sample = _read(write_wfdb(tmp_path, heart(5000)), Preprocess())
    with pytest.raises(MedclipError, match="no ECG record"):
        pixels_of(replace(sample, signal=None), Preprocess(signal=SLOW))


def test_values_that_would_not_fit_are_cut_off_and_a_step_says_so(tmp_path: Path) -> None:
    preprocess = Preprocess(signal=SignalInput(baseline="none"))
    leads = heart(5000)
    leads["V1"] = leads["V1"] + 25 * (np.arange(5000) % 500 == 0)
    leads["V2"] = leads["V2"] + 40 * (np.arange(5000) % 500 == 0)
    sample = _read(write_wfdb(tmp_path, leads), preprocess)
    assert any("32.767 mV" in step.detail for step in sample.provenance.steps)
    record = pixels_of(sample, preprocess)[0]
    assert record[TWELVE.index("V2")].max() == 32767
    assert 24_000 < record[TWELVE.index("V1")].max() < 27_000


def test_microvolts_come_back_as_they_were() -> None:
    leads = signal(np.stack(list(heart(500).values())))
    leads = replace(leads, mask=np.arange(12) != 3)
    values_mv, mask = from_microvolts(to_microvolts(leads))
    assert mask.tolist() == leads.mask.tolist()
    np.testing.assert_allclose(values_mv[mask], leads.values_mv[mask], atol=0.0005 + 1e-6)
    assert not values_mv[3].any()


@pytest.mark.parametrize("kind", ["zscore_global", "minmax_record", "zscore_lead", "mv"])
def test_missing_leads_are_zero_in_every_scale_and_change_nothing_else(kind: str) -> None:
    taken = replace(SLOW, normalise=kind, mean_mv=0.1, std_mv=0.5)
    full = SLOW.record(signal(np.stack(list(heart(2000).values()))))
    lacking = full.copy()
    lacking[9] = MISSING
    both = normalise_records(torch.from_numpy(np.stack([full, lacking])), taken)
    assert both.shape == (2, 1, 12, 400)
    assert not both[1, 0, 9].any()
    millivolts = full / 1000.0
    if kind == "zscore_global":
        np.testing.assert_allclose(both[0, 0], (millivolts - 0.1) / 0.5, rtol=1e-4, atol=1e-5)
    if kind == "zscore_lead":
        np.testing.assert_allclose(both[0, 0].std(1, correction=0), 1, rtol=1e-4)
    if kind == "minmax_record":
        rest = np.delete(millivolts, 9, axis=0)
        np.testing.assert_allclose(
            np.delete(both[1, 0].numpy(), 9, axis=0), (rest - rest.min()) / np.ptp(rest), atol=1e-5
        )
    if kind != "minmax_record":
        assert torch.equal(both[0, 0, :9], both[1, 0, :9])


def test_settings_come_back_from_a_config_and_wrong_ones_say_what() -> None:
    taken = replace(SLOW, normalise="zscore_lead", notch_hz=50)
    config = {
        "model_cfg": {
            "vision_cfg": {"image_size": 224, "signal": {"tower": "resnet1d", "size": "test", "samples": 400}}
        },
        "preprocess_cfg": Preprocess(signal=taken).to_config(),
    }
    assert from_config(config, {}).signal == taken
    assert "4 s at 100 Hz" in from_config(config, {}).describe()
    for wrong, message in (
        ({"normalise": "z"}, "normalise is 'z'"),
        ({"seconds": 0}, "seconds is '0'"),
        ({"rate": 3}, "'rate' is not known"),
        ({"notch_hz": 55}, "notch_hz is '55'"),
        ({"sampling_hz": 3}, "10 to 5,000"),
    ):
        with pytest.raises(ValueError, match=message):
            signal_input(wrong)
    del config["preprocess_cfg"]["signal"]
    with pytest.raises(MedclipError, match="does not"):
        from_config(config, {})
