"""From stored leads to the twelve: order by name, algebra, gaps, filters, length, scale (spec ecg_vit, section 7)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.filters import middle, prepare
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.twelve_leads import canonical
from medclip.settings import EcgOptions
from tests.kits.ecg import heart, recording, signal

LIMB = TWELVE[:6]
RAW = EcgOptions.raw()


def _steps(found, name: str) -> str:
    return "; ".join(step.detail for step in found.steps if step.name == name)


# Order and algebra


@given(st.permutations(TWELVE))
@hypothesis_settings(max_examples=30)
def test_shuffling_leads_with_their_names_changes_nothing(order: list[str]) -> None:
    leads = heart(300)
    shuffled = recording({lead: leads[lead] for lead in order})
    np.testing.assert_array_equal(canonical(shuffled).values_mv, canonical(recording(leads)).values_mv)


def test_the_mimic_order_is_put_right_by_name() -> None:
    leads = heart()
    mimic = ("I", "II", "III", "aVR", "aVF", "aVL", *TWELVE[6:])
    found = canonical(recording({lead: leads[lead] for lead in mimic}))
    np.testing.assert_allclose(found.values_mv[4], leads["aVL"], atol=1e-6)
    np.testing.assert_allclose(found.values_mv[5], leads["aVF"], atol=1e-6)
    assert "canonical order" in _steps(found, "reorder")


@pytest.mark.parametrize("pair", list(combinations(LIMB, 2)))
def test_any_two_limb_leads_give_the_others(pair: tuple[str, str]) -> None:
    leads = heart()
    found = canonical(recording({lead: leads[lead] for lead in pair}))
    assert set(found.derived) == set(LIMB) - set(pair)
    assert found.mask.tolist() == [True] * 6 + [False] * 6
    np.testing.assert_allclose(found.values_mv[:6], [leads[lead] for lead in LIMB], atol=2e-6)


def test_einthoven_and_goldberger_hold_for_derived_leads() -> None:
    found = canonical(recording({lead: heart()[lead] for lead in ("I", "II")})).values_mv.astype(np.float64)
    one, two, three, right, left, foot = found[:6]
    np.testing.assert_allclose(one + three, two, atol=1e-6)
    np.testing.assert_allclose(right + left + foot, 0, atol=1e-6)
    np.testing.assert_allclose(right, -(one + two) / 2, atol=1e-6)
    np.testing.assert_allclose(left, (one - three) / 2, atol=1e-6)
    np.testing.assert_allclose(foot, (two + three) / 2, atol=1e-6)


def test_nothing_is_derived_from_one_limb_lead_or_for_the_chest() -> None:
    found = canonical(recording({lead: heart()[lead] for lead in ("II", "V1", "V5")}))
    assert found.derived == ()
    assert [lead for lead, there in zip(TWELVE, found.mask, strict=True) if there] == ["II", "V1", "V5"]
    assert not found.values_mv[~found.mask].any()


def test_the_cabrera_lead_is_negated() -> None:
    leads = heart()
    found = canonical(recording({"-aVR": -leads["aVR"], "I": leads["I"], "II": leads["II"]}))
    np.testing.assert_allclose(found.values_mv[3], leads["aVR"], atol=1e-6)
    assert "aVR" not in found.derived
    assert _steps(found, "invert") == "-aVR negated"


def test_mlii_is_lead_ii_only_when_asked_for() -> None:
    stored = recording({"MLII": heart()["II"], "V1": heart()["V1"]})
    assert not canonical(stored).mask[1]
    assert "MLII" in _steps(canonical(stored), "note")
    assert canonical(stored, mlii_as_ii=True).mask[1]
    assert "MLII taken for II" in _steps(canonical(stored, mlii_as_ii=True), "rename")


def test_stored_limb_leads_that_contradict_each_other_are_noted() -> None:
    leads = heart()
    assert "differs" not in _steps(canonical(recording(leads)), "note")
    swapped = {**leads, "III": leads["I"]}
    assert "stored III differs" in _steps(canonical(recording(swapped)), "note")


def test_other_channels_and_second_copies_are_noted_without_their_free_text() -> None:
    leads = heart()
    stored = recording({"I": leads["I"], "Lead I": leads["II"], "Doe, Jane": leads["V1"], "vx": leads["V2"]})
    found = canonical(stored)
    np.testing.assert_allclose(found.values_mv[0], leads["I"], atol=1e-6)
    notes = _steps(found, "note")
    assert "stored more than once" in notes
    assert "other, VX" in notes
    assert "Doe" not in repr(found.steps)
    assert found.stored_leads == ("I", "I", "other", "VX")


# Gaps


def test_small_gaps_are_interpolated_and_large_ones_mask_the_lead() -> None:
    leads = heart()
    leads["V1"] = np.linspace(0, 1, 1000)
    leads["V1"][300:400] = np.nan
    leads["V2"][300:401] = np.nan
    leads["V3"][:10] = np.inf
    found = canonical(recording(leads))
    np.testing.assert_allclose(found.values_mv[6], np.linspace(0, 1, 1000), atol=1e-6)
    assert not found.mask[7]
    assert not found.values_mv[7].any()
    np.testing.assert_allclose(found.values_mv[8, :10], leads["V3"][10], atol=1e-6)
    assert np.isfinite(found.values_mv).all()
    assert "V1: 100 samples" in _steps(found, "gaps")


def test_a_limb_lead_with_a_large_gap_or_flat_is_computed_instead() -> None:
    leads = heart()
    wanted = leads["III"].copy()
    leads["III"][:500] = np.nan
    leads["aVF"][:] = 0.0
    leads["V6"][:] = 0.25
    found = canonical(recording(leads))
    assert found.derived == ("III", "aVF")
    np.testing.assert_allclose(found.values_mv[2], wanted, atol=2e-6)
    assert not found.mask[11]


# The part that is judged


def test_a_lead_that_is_missing_in_the_part_that_is_kept_is_masked() -> None:
    leads = heart(60_000)
    leads["V1"][27_000:33_000] = np.nan
    leads["V2"][:20_000] = np.nan
    leads["V3"][27_500:28_000] = np.nan
    leads["V4"][27_500:28_001] = np.nan
    stored = recording(leads)
    found = canonical(stored, seconds=10)
    assert [lead for lead, there in zip(TWELVE, found.mask, strict=True) if not there] == ["V1", "V4"]
    assert "V1: 5,000 of 5,000 samples missing of the middle 10 s" in _steps(found, "mask")
    assert _steps(found, "gaps") == "V3: 500 samples interpolated"
    assert found.values_mv.shape == (12, 60_000)
    assert np.isfinite(found.values_mv).all()
    # Over the whole record it is the other way round.
    whole = canonical(stored)
    assert [lead for lead, there in zip(TWELVE, whole.mask, strict=True) if not there] == ["V2"]


def test_a_gap_elsewhere_changes_nothing_of_what_is_kept() -> None:
    leads = heart(60_000)
    wanted = prepare(canonical(recording(leads), seconds=10)).values_mv
    for line in leads.values():
        line[:10_000] = np.nan
    found = prepare(canonical(recording(leads), seconds=10))
    assert found.mask.all()
    np.testing.assert_allclose(found.values_mv, wanted, atol=1e-4)
    assert not canonical(recording(leads)).mask.any()


def test_a_lead_that_is_flat_in_the_part_that_is_kept_is_masked_and_one_flat_elsewhere_is_not() -> None:
    leads = heart(20_000)
    leads["V5"][7_500:12_500] = 0.25
    leads["V6"][:7_500] = leads["V6"][12_500:] = 0.25
    found = canonical(recording(leads), seconds=10)
    assert not found.mask[10]
    assert found.mask[11]
    assert "V5: flat" in _steps(found, "mask")
    assert canonical(recording(leads)).mask.all()


def test_a_limb_lead_that_is_missing_in_the_part_that_is_kept_is_computed() -> None:
    leads = heart(20_000)
    wanted = leads["II"].copy()
    leads["II"][8_000:12_000] = np.nan
    found = canonical(recording(leads), seconds=10)
    assert found.derived == ("II",)
    np.testing.assert_allclose(found.values_mv[1], wanted, atol=2e-6)


@pytest.mark.parametrize(
    ("samples", "hz"), [(6001, 500.0), (3001, 250.0), (12_345, 360.0), (5000, 500.0), (100, 500.0)]
)
def test_the_part_that_is_judged_is_the_part_that_is_kept(samples: int, hz: float) -> None:
    ramp = np.arange(samples, dtype=float)
    part = middle(samples, hz, 10)
    kept = prepare(signal(ramp, hz), EcgOptions(baseline="none", sampling_hz=None)).values_mv[0]
    kept = kept[-(part.stop - part.start) :] if samples >= 10 * hz else ramp
    np.testing.assert_array_equal(kept, ramp[part])


# Filters


def _gain_db(options: EcgOptions, frequency: float, hz: float = 500.0) -> float:
    t = np.arange(int(60 * hz)) / hz
    wave = np.sin(2 * np.pi * frequency * t)
    found = prepare(signal(wave, hz), options).values_mv[0].astype(np.float64)
    middle = slice(int(20 * hz), int(40 * hz))
    unit = np.exp(2j * np.pi * frequency * t[middle])
    return float(20 * np.log10(max(2 * abs(np.mean(found[middle] / unit)), 1e-12)))


def test_the_elliptic_high_pass_has_the_gains_of_the_specification() -> None:
    options = EcgOptions(sampling_hz=None, seconds=None)
    assert _gain_db(options, 0.2) <= -80
    assert _gain_db(options, 0.8) == pytest.approx(-1.0, abs=0.05)
    assert _gain_db(options, 10) == pytest.approx(-0.06, abs=0.01)
    assert "order 3" in _steps(prepare(signal(np.ones(5000)), options), "baseline")


def test_the_butterworth_band_pass_keeps_its_band() -> None:
    options = EcgOptions(baseline="butterworth", sampling_hz=None, seconds=None)
    assert _gain_db(options, 10) == pytest.approx(0, abs=0.1)
    assert _gain_db(options, 0.5) == pytest.approx(-6, abs=0.2)
    assert _gain_db(options, 45) == pytest.approx(-6, abs=0.2)
    assert _gain_db(options, 0.1) < -40


@pytest.mark.parametrize("mains", [50, 60])
def test_the_notch_takes_out_the_mains_and_little_else(mains: int) -> None:
    options = EcgOptions(baseline="none", notch_hz=mains, sampling_hz=None, seconds=None)  # type: ignore[arg-type]
    assert _gain_db(options, mains) < -40
    assert _gain_db(options, mains - 10) == pytest.approx(0, abs=0.3)
    if mains == 50:
        assert _gain_db(options, 49) == pytest.approx(-4.5, abs=0.4)
        assert _gain_db(options, 51) == pytest.approx(-4.5, abs=0.4)


@pytest.mark.parametrize("baseline", ["elliptic", "butterworth"])
def test_no_filter_moves_a_peak(baseline: str) -> None:
    t = np.arange(5000) / 500
    wave = np.exp(-((t - 5) ** 2) / (2 * 0.01**2))
    found = prepare(signal(wave), EcgOptions(baseline=baseline, notch_hz=50))  # type: ignore[arg-type]
    assert int(np.argmax(found.values_mv[0])) == 2500


def test_an_offset_leaves_no_step_at_the_ends() -> None:
    found = prepare(signal(np.full(5000, 3.0) + heart(5000)["II"]), EcgOptions())
    assert np.abs(found.values_mv[0, :50]).max() < 0.4
    assert np.abs(found.values_mv[0, -50:]).max() < 0.4


@pytest.mark.parametrize("samples", [1, 2, 13, 100])
@pytest.mark.parametrize("hz", [10.0, 100.0, 257.13, 500.0, 5000.0])
@pytest.mark.parametrize("baseline", ["elliptic", "butterworth", "none"])
def test_short_and_slow_records_are_prepared_and_say_what_was_left_undone(
    samples: int, hz: float, baseline: str
) -> None:
    options = EcgOptions(baseline=baseline, notch_hz=50)  # type: ignore[arg-type]
    found = prepare(signal(heart(samples)["II"], hz), options)
    assert found.values_mv.shape == (12, 5000)
    assert np.isfinite(found.values_mv).all()
    if hz <= 100:
        assert "no notch" in _steps(found, "note")
    if baseline != "none" and samples / hz < 1.25:
        assert "baseline left" in _steps(found, "note")


# Rate, length, scale


def test_resampling_keeps_a_wave_and_its_phase() -> None:
    for hz in (100.0, 250.0, 360.0, 1000.0):
        t = np.arange(int(10 * hz)) / hz
        found = prepare(signal(np.sin(2 * np.pi * 5 * t), hz), EcgOptions(baseline="none"))
        wanted = np.sin(2 * np.pi * 5 * np.arange(5000) / 500)
        np.testing.assert_allclose(found.values_mv[0, 500:-500], wanted[500:-500], atol=0.01)
        assert found.sampling_hz == 500


@pytest.mark.parametrize("hz", [100.0, 360.0, 1000.0])
def test_resampling_an_offset_rings_at_no_end(hz: float) -> None:
    found = prepare(signal(np.full(round(10 * hz), 2.0), hz), EcgOptions(baseline="none"))
    np.testing.assert_allclose(found.values_mv[0], 2.0, atol=0.005)


def test_long_records_are_cut_at_the_centre_and_short_ones_padded_on_both_sides() -> None:
    ramp = np.arange(6001, dtype=float)
    cut = prepare(signal(ramp), EcgOptions(baseline="none"))
    np.testing.assert_array_equal(cut.values_mv[0], ramp[500:5500])
    padded = prepare(signal(ramp[1:1001]), EcgOptions(baseline="none"))
    assert not padded.values_mv[0, :2000].any()
    assert not padded.values_mv[0, 3000:].any()
    np.testing.assert_array_equal(padded.values_mv[0, 2000:3000], ramp[1:1001])


def test_the_centre_of_a_long_record_is_as_if_all_of_it_was_filtered() -> None:
    leads = heart(100_000)
    whole = prepare(signal(leads["II"]), EcgOptions(seconds=None)).values_mv[0]
    found = prepare(signal(leads["II"]), EcgOptions()).values_mv[0]
    np.testing.assert_allclose(found, whole[47_500:52_500], atol=1e-4)


def test_normalisations_are_those_of_the_specification() -> None:
    values = np.stack(list(heart(5000).values())).astype(np.float32)
    base = signal(values)
    base.mask[3] = False
    base.values_mv[3] = 0
    plain = {"baseline": "none", "sampling_hz": None, "seconds": None}
    low, high = base.values_mv.min(), base.values_mv.max()
    found = prepare(base, EcgOptions(normalisation="minmax_record", **plain))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.values_mv, (base.values_mv - low) / (high - low + 1e-8), atol=1e-6)
    found = prepare(base, EcgOptions(normalisation="zscore_global", mean_mv=0.1, std_mv=0.2, **plain))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.values_mv[0], (base.values_mv[0] - 0.1) / 0.2, atol=1e-5)
    assert not found.values_mv[3].any()
    assert found.unit == "relative"
    found = prepare(base, EcgOptions(normalisation="zscore_lead", **plain))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.values_mv[0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(found.values_mv[0].std(), 1, atol=1e-4)
    with pytest.raises(MedclipError, match="normalised already"):
        prepare(found)


def test_raw_options_change_nothing() -> None:
    base = signal(heart(777)["II"], 333)
    found = prepare(base, RAW)
    np.testing.assert_array_equal(found.values_mv, base.values_mv)
    assert (found.sampling_hz, found.unit, found.steps) == (333, "mV", ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"normalisation": "zscore_global"},
        {"normalisation": "zscore_global", "mean_mv": 0.0, "std_mv": 0.0},
        {"normalisation": "other"},
        {"baseline": "other"},
        {"sampling_hz": 1e6},
        {"seconds": 0},
    ],
)
def test_options_that_do_not_fit_together_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(MedclipError) as caught:
        EcgOptions(**wrong)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.WRONG_USE


def test_of_a_lead_that_is_stored_both_ways_the_plain_one_is_used_wherever_it_stands() -> None:
    leads = heart()
    for order in (("-aVR", "aVR"), ("aVR", "-aVR")):
        stored = {"-aVR": leads["V1"], "aVR": leads["aVR"]}
        found = canonical(recording({name: stored[name] for name in order} | {lead: leads[lead] for lead in LIMB[:2]}))
        np.testing.assert_allclose(found.values_mv[3], leads["aVR"], atol=1e-6)
        assert "aVR is stored more than once" in _steps(found, "note")
