"""Whole microvolts: what a model is shown of a record, and how shards store one."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.imaging.ecg.recording import (
    MAX_UV,
    MISSING,
    exceeds_range,
    from_microvolts,
    recording_of,
    signal_of,
    stored_values,
    to_microvolts,
    whole_microvolts,
)
from medclip.imaging.ecg.twelve_leads import canonical, ordered
from tests.kits.ecg import heart, recording


def test_what_is_shown_comes_back_to_half_a_microvolt_and_missing_leads_are_told() -> None:
    leads = {lead: line for lead, line in heart(600).items() if lead not in ("V2", "V5")}
    signal = canonical(recording(leads))
    shown = to_microvolts(signal)
    assert (shown.dtype, shown.shape, exceeds_range(signal)) == (np.int16, (12, 600), False)
    values, mask = from_microvolts(shown)
    np.testing.assert_array_equal(mask, signal.mask)
    np.testing.assert_allclose(values, signal.values_mv, atol=0.00051)
    assert (shown[~mask] == MISSING).all()
    assert not values[~mask].any()


def test_zeros_of_all_leads_at_the_ends_are_padding_and_those_of_one_lead_are_not() -> None:
    record = np.zeros((12, 10), np.int16)
    record[:, 3:7], record[0, 3], record[5] = 400, 0, MISSING
    signal = signal_of(record, 250.0)
    assert signal.padded == (3, 3)
    assert signal.mask.tolist() == [lead != 5 for lead in range(12)]
    np.testing.assert_array_equal(to_microvolts(signal), record)


def test_values_beyond_the_range_are_its_ends_and_never_stand_for_missing() -> None:
    leads = heart(600)
    leads["V1"] = leads["V1"] * 0 - 40 + np.linspace(0, 80, 600)
    signal = canonical(recording(leads))
    shown = to_microvolts(signal)
    assert exceeds_range(signal)
    assert (shown.min(), shown.max()) == (-MAX_UV, MAX_UV)
    assert from_microvolts(shown)[1].all()


def test_a_record_in_any_order_with_gaps_and_a_negated_lead_gives_the_same_twelve_leads_when_it_was_stored() -> None:
    leads = heart(3000)
    leads["V1"][100:140] = np.nan
    leads["V3"][:] = np.nan
    negated = {"V6": leads["V6"], "-aVR": -leads["aVR"], **{k: leads[k] for k in ("II", "I", "V1", "V3")}}
    record = recording(negated)
    few = ordered(record)
    assert few.leads == ("I", "II", "aVR", "V1", "V3", "V6")
    stored = stored_values(few)
    assert stored.dtype == np.int16
    again = canonical(recording_of(stored, few.leads, 500.0), seconds=2)
    direct = canonical(whole_microvolts(record), seconds=2)
    np.testing.assert_array_equal(again.values_mv, direct.values_mv)
    np.testing.assert_array_equal(again.mask, direct.mask)
    assert again.derived == direct.derived == ("III", "aVL", "aVF")
    assert not again.mask[8]


@pytest.mark.parametrize("offset_mv", [-200.0, 40.0])
def test_electrode_offsets_are_stored_whole(offset_mv: float) -> None:
    leads = {lead: line + offset_mv for lead, line in heart(300).items()}
    few = ordered(recording(leads))
    stored = stored_values(few)
    assert stored.dtype == np.int32
    again = recording_of(stored, few.leads, 500.0)
    np.testing.assert_array_equal(again.values_mv, whole_microvolts(few).values_mv)
