"""Flags of an ECG record: what is wrong with a lead, mixed-up electrodes, and a rate that stands out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medclip.imaging.ecg.filters import prepare
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.quality import LEAD_FLAGS
from medclip.imaging.ecg.twelve_leads import canonical
from medclip.sample import Signal
from medclip.settings import EcgOptions
from tests.kits.ecg import beats, recording

Leads = dict[str, NDArray[np.float64]]


def _record(change: Callable[[Leads], object] = lambda leads: None, samples: int = 5000, hz: float = 500.0) -> Signal:
    leads = beats(samples, hz)
    change(leads)
    return canonical(recording(leads, hz), seconds=10)


def _lead_off(leads: Leads) -> None:
    leads["V3"] = np.random.default_rng(0).normal(0, 0.003, 5000)


def _saturated(leads: Leads) -> None:
    leads["V5"] = np.minimum(leads["V5"] * 2, 0.8)


def _noisy(leads: Leads) -> None:
    leads["V2"] = leads["V2"] + np.random.default_rng(0).normal(0, 1.0, 5000)


def _stops(leads: Leads) -> None:
    leads["V6"][2000:2700] = leads["V6"][2000]


def _gaps(leads: Leads) -> None:
    leads["V1"][1000:2000] = np.nan


def _flat(leads: Leads) -> None:
    leads["V1"][:] = 0.2


def _swap_arms(leads: Leads) -> None:
    swapped = {"I": -leads["I"], "II": leads["III"], "III": leads["II"], "aVR": leads["aVL"], "aVL": leads["aVR"]}
    leads.update(swapped)


OTHER_SCALES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "standardised by lead": lambda values: values / values.std(1, keepdims=True),
    "standardised": lambda values: values / values.std(),
    "from -1 to 1 by lead": lambda values: values / np.abs(values).max(1, keepdims=True),
    "range of 1 by lead": lambda values: (values - values.min(1, keepdims=True)) / np.ptp(values, axis=1)[:, None],
    "microvolts": lambda values: values * 1000,
    "counts of 5 microvolts": lambda values: np.round(values * 200),
    "volts": lambda values: values / 1000,
    "microvolts without a beat": lambda values: np.random.default_rng(0).normal(0, 100, values.shape),
}


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        (_lead_off, "lead_off:V3"),
        (_saturated, "saturated:V5"),
        (_noisy, "noisy:V2"),
        (_stops, "lead_flat:V6"),
        (_gaps, "lead_gaps:V1"),
        (_flat, "lead_flat:V1"),
        (lambda leads: leads.pop("V4"), "lead_missing:V4"),
        (lambda leads: leads.update(aVL=leads["aVL"] + 0.2), "limb_leads_disagree"),
        (_swap_arms, "arms_swapped"),
    ],
)
def test_a_fault_is_flagged_by_its_word_and_its_lead(change: Callable[[Leads], object], flag: str) -> None:
    assert _record(change).flags == (flag,)


@pytest.mark.parametrize("name", list(OTHER_SCALES))
def test_numbers_that_are_no_millivolts_are_flagged(name: str) -> None:
    leads = beats()
    values = np.stack([*leads.values()])
    changed = OTHER_SCALES[name](values - values.mean())
    flags = canonical(recording(dict(zip(leads, changed, strict=True)), 500.0), seconds=10).flags
    assert "other_scale" in flags


@given(gain=st.floats(0.5, 2.0), seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_a_heart_that_is_weaker_or_stronger_is_at_no_other_scale(gain: float, seed: int) -> None:
    areas = np.random.default_rng(seed).uniform(0.6, 1.4, 12)[:, None]
    leads = beats()
    values = np.stack([*leads.values()]) * areas * gain
    flags = canonical(recording(dict(zip(leads, values, strict=True)), 500.0), seconds=10).flags
    assert "other_scale" not in flags


def test_electrodes_that_are_off_are_at_no_other_scale() -> None:
    noise = np.random.default_rng(0).normal(0, 0.003, (12, 5000))
    flags = canonical(recording(dict(zip(TWELVE, noise, strict=True)), 500.0), seconds=10).flags
    assert [flag.partition(":")[0] for flag in flags if "limb" not in flag] == ["lead_off", "no_beats"]


@pytest.mark.parametrize("hz", [100.0, 250.0, 500.0, 1000.0])
def test_a_good_record_has_no_flag_and_its_rate_at_any_sampling_rate(hz: float) -> None:
    signal = _record(samples=round(10 * hz), hz=hz)
    assert signal.flags == ()
    assert signal.heart_rate_bpm == pytest.approx(60, abs=1)


def test_eight_stored_leads_are_complete_and_six_are_not() -> None:
    eight = {lead: line for lead, line in beats(5000).items() if lead in ("I", "II") or lead.startswith("V")}
    assert canonical(recording(eight)).flags == ()
    limb = {lead: line for lead, line in beats(5000).items() if not lead.startswith("V")}
    assert canonical(recording(limb)).flags == ("lead_missing:V1,V2,V3,V4,V5,V6",)


def test_a_fault_of_a_computed_lead_is_that_of_the_leads_it_comes_from() -> None:
    leads = {lead: line for lead, line in beats(5000).items() if lead in ("I", "II") or lead.startswith("V")}
    leads["II"] = leads["II"] + np.random.default_rng(0).normal(0, 1.0, 5000)
    assert canonical(recording(leads)).flags == ("noisy:II",)


def test_a_record_that_is_padded_is_short_and_one_that_is_cut_is_not() -> None:
    assert prepare(_record(samples=1250)).flags == ("short_record",)
    assert prepare(_record(samples=9000)).flags == ()
    assert prepare(_record(samples=1250), EcgOptions.raw()).flags == ()


@pytest.mark.parametrize(
    ("every_s", "flag", "bpm"),
    [(1.5, "rate_slow", 40), (1.25, "rate_slow", 48), (0.5, "rate_fast", 120), (0.58, "rate_fast", 103)],
)
def test_a_slow_and_a_fast_rate_stand_out(every_s: float, flag: str, bpm: float) -> None:
    t = np.arange(5000) / 500
    spikes = np.exp(-(((t % every_s) - every_s / 2) ** 2) / (2 * 0.012**2))
    signal = canonical(recording({lead: spikes * (n + 1) / 6 for n, lead in enumerate(("V1", "V2", "V3"))}))
    assert signal.flags[-1] == flag
    assert signal.heart_rate_bpm == pytest.approx(bpm, abs=1)


@pytest.mark.parametrize("every_s", [1.15, 0.62])
def test_a_rate_of_50_to_100_has_no_flag(every_s: float) -> None:
    t = np.arange(5000) / 500
    spikes = np.exp(-(((t % every_s) - every_s / 2) ** 2) / (2 * 0.012**2))
    leads = {lead: spikes * (n + 1) / 6 for n, lead in enumerate(("V1", "V2", "V3"))}
    assert not any(flag.startswith("rate") for flag in canonical(recording(leads)).flags)


def test_a_right_axis_is_no_swap_of_the_arms() -> None:
    leads = beats(5000)
    one, two = -0.3 * leads["II"], leads["II"]
    leads |= {"I": one, "III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    assert _record(lambda own: own.update(leads)).flags == ()


def test_a_lead_that_reaches_the_rail_in_one_beat_alone_is_not_saturated() -> None:
    leads = beats(5000)
    first_s = int(np.argmax(leads["V5"][:600])) / 500
    high = np.abs(np.arange(5000) / 500 - first_s) < 0.1
    leads["V5"] = np.where(high, np.minimum(leads["V5"] * 2, 1.4 * leads["V5"].max()), leads["V5"])
    run = np.count_nonzero(leads["V5"] == leads["V5"].max())
    assert 3 <= run < 50, "long enough for a short run at the rail, shorter than a tenth of a second"
    assert _record(lambda own: own.update(leads)).flags == ()


@pytest.mark.parametrize(("off_mv", "flags"), [(0.02, ()), (0.08, ("limb_leads_disagree",))])
def test_limb_leads_disagree_from_a_twentieth_of_a_millivolt_on(off_mv: float, flags: tuple[str, ...]) -> None:
    assert _record(lambda leads: leads.update(aVL=leads["aVL"] + off_mv)).flags == flags


def test_irregular_beats_and_none_stand_out() -> None:
    t = np.arange(5000) / 500
    at = np.cumsum([0.5, 0.6, 1.1, 0.5, 0.9, 1.3, 0.6, 0.8, 1.2, 0.5])
    spikes = sum(np.exp(-((t - s) ** 2) / (2 * 0.012**2)) for s in at)
    assert canonical(recording({"V1": np.asarray(spikes)})).flags[-1] == "irregular"
    assert canonical(recording({"V1": 0.1 * t})).flags[-1] == "no_beats"


def test_only_the_part_that_is_kept_is_judged() -> None:
    leads = beats(15_000)
    leads["V1"][:3000] = 0.0
    assert canonical(recording(leads), seconds=10).flags == ()
    assert canonical(recording(leads)).flags == ("lead_flat:V1",)


def test_flags_of_leads_are_words_without_blanks() -> None:
    assert not any(set(" :,") & set(word) for word in LEAD_FLAGS)
    assert all(lead.isascii() and not set(" :,") & set(lead) for lead in TWELVE)
