"""ECGs are changed by values that were drawn before; leads go on to fit each other, and nothing runs backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.recording import MISSING, to_microvolts
from medclip.imaging.ecg.twelve_leads import canonical
from medclip.models.inputs.signal_input import SignalInput
from medclip.training.batches.augment_signals import apply_signal_change, draw_signal_change, prepare_record
from medclip.training.recipe.augment import SignalAugment
from tests.kits.ecg import heart, recording

HZ, NUM = 250.0, 1000
OFF = {"lead_dropout": 0, "amplitude": 0, "wander": 0, "noise_db": None, "shift": 0}


def _record(num: int = NUM, leads: tuple[str, ...] = ()) -> np.ndarray:
    made = {lead: line for lead, line in heart(num, HZ).items() if not leads or lead in leads}
    return to_microvolts(canonical(recording(made, HZ)))


def _changed(record: np.ndarray, seed: int = 0, **settings: Any) -> np.ndarray:
    change = draw_signal_change(SignalAugment.model_validate(OFF | settings), np.random.default_rng(seed))
    assert change == draw_signal_change(SignalAugment.model_validate(OFF | settings), np.random.default_rng(seed))
    return apply_signal_change(record, change, NUM, HZ)


def test_with_all_parts_off_the_record_stays_to_the_bit() -> None:
    record = _record(leads=("I", "II", "V1"))
    np.testing.assert_array_equal(_changed(record), record)


def test_what_is_drawn_for_one_part_does_not_change_with_the_others() -> None:
    few = draw_signal_change(SignalAugment.model_validate(OFF), np.random.default_rng(3))
    many = draw_signal_change(SignalAugment(crop_seconds=(1, 2)), np.random.default_rng(3))
    assert (few.shift, few.dropped) == (many.shift, many.dropped)


@pytest.mark.parametrize("part", [{"wander": 0.5}, {"noise_db": (10, 10)}, {"wander": 0.3, "noise_db": (20, 20)}])
def test_wander_and_noise_come_from_electrodes_so_that_limb_leads_go_on_to_fit(part: dict[str, Any]) -> None:
    record = _record()
    changed = _changed(record, **part).astype(int)
    assert np.abs(changed - record).max() > 50
    one, two, three, right, left, foot = changed[:6]
    assert np.abs(one + three - two).max() <= 2  # rounding of each to a microvolt
    assert np.abs(right + left + foot).max() <= 2


def test_what_all_electrodes_have_in_common_is_in_no_lead() -> None:
    record = _record()
    change = draw_signal_change(SignalAugment.model_validate(OFF | {"wander": 1}), np.random.default_rng(0))
    alike = change._replace(wander=(change.wander[0],) * len(change.wander))
    assert np.abs(apply_signal_change(record, change, NUM, HZ)[6:].astype(int) - record[6:]).max() > 50
    assert np.abs(apply_signal_change(record, alike, NUM, HZ).astype(int) - record).max() <= 1


def test_noise_has_the_power_that_was_asked_for() -> None:
    record = _record()
    noise = (_changed(record, noise_db=(20, 20)).astype(float) - record)[:3]
    signal = np.sqrt((record.astype(float) ** 2).mean())
    assert 20 * np.log10(signal / noise.std()) == pytest.approx(20, abs=1)


def test_amplitude_is_one_factor_of_all_leads() -> None:
    record = _record().astype(float)
    factors = [
        (_changed(record.astype(np.int16), seed, amplitude=0.3) @ record.T).trace() / (record**2).sum()
        for seed in range(40)
    ]
    assert 0.7 <= min(factors) < 0.8
    assert 1.2 < max(factors) <= 1.3
    changed = _changed(record.astype(np.int16), amplitude=0.3).astype(float)
    assert np.abs(changed - record * (changed[1] @ record[1] / (record[1] @ record[1]))).max() < 1


def test_leads_are_left_out_by_their_share_and_one_always_stays() -> None:
    record = _record(leads=("I", "V1"))
    counts = [(_changed(record, seed, lead_dropout=0.5) != MISSING).any(1) for seed in range(200)]
    assert {int(kept.sum()) for kept in counts} == {1, 2}
    assert not any(kept[[1, 2, 3, 4, 5, 7, 8, 9, 10, 11]].any() for kept in counts)
    assert np.mean([kept[0] for kept in counts]) == pytest.approx(0.5 + 0.125, abs=0.1)


def test_a_shift_shows_another_part_of_what_is_there_and_never_backwards() -> None:
    record = _record(NUM + 200)
    starts = []
    for seed in range(20):
        shown = _changed(record, seed, shift=0.4)
        starts.append(next(n for n in range(201) if np.array_equal(record[:, n : n + NUM], shown)))
    assert len(set(starts)) > 10


def test_a_crop_lies_in_the_middle_of_zeros_and_zeros_stay_zeros() -> None:
    record = _record()
    shown = _changed(record, crop_seconds=(2, 2), wander=0.2, noise_db=(10, 20))
    there = shown.any(axis=0)
    assert there.sum() == pytest.approx(500, abs=3)
    assert not shown[:, :249].any()
    assert not shown[:, 751:].any()


def test_without_room_a_record_is_what_its_model_is_shown_and_with_room_more_of_it_on_both_sides() -> None:
    stored, taken = recording(heart(3000, HZ), HZ), SignalInput(sampling_hz=125, seconds=4)
    shown = prepare_record(stored, taken)
    assert shown.shape == (12, 500)
    np.testing.assert_array_equal(shown, taken.record(canonical(stored, seconds=4)))
    wide = prepare_record(stored, taken, 1.0)
    assert wide.shape == (12, 750)
    assert np.abs(wide[:, 125:625].astype(int) - shown).max() <= 1  # filtered with 2 s more around it
    short = prepare_record(recording(heart(500, HZ), HZ), taken, 1.0)
    assert not short[:, :250].any()
    assert short[:, 250:500].any()


def test_a_record_that_shows_nothing_in_the_part_that_is_shown_is_refused() -> None:
    leads = heart(3000, HZ)
    for line in leads.values():
        line[900:2100] = 0
    stored = recording(leads, HZ)
    assert prepare_record(stored, SignalInput(sampling_hz=125, seconds=10)).any()
    with pytest.raises(MedclipError) as caught:
        prepare_record(stored, SignalInput(sampling_hz=125, seconds=4))
    assert caught.value.reason is Reason.CONSTANT_IMAGE


@pytest.mark.parametrize("wrong", [{"noise_db": [30, 10]}, {"crop_seconds": [0, 1]}, {"lead_dropout": 1}, {"flip": 1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SignalAugment.model_validate(wrong)
