"""pipelines/ecg/simulate.py: twelve leads that show what is planted, reports and labels that say it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import find_peaks

from medclip.text.ecg_statements import labels_of, statements
from tests.kits.ecg import read
from tests.kits.ecg_cohort import heart, leads, module_of, write_cohort

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
INFERIOR, LATERAL, SEPTAL = ("II", "III", "aVF"), ("I", "V5", "V6"), ("V1", "V2")


def at(name: str) -> int:
    return LEADS.index(name)


def beats(values: np.ndarray, hz: float = 500.0) -> np.ndarray:
    """Return the samples of QRS complexes, by the steepest slopes over all leads."""
    slope = np.abs(np.gradient(values, axis=1)).sum(0)
    smooth = np.convolve(slope, np.ones(40) / 40, "same")
    return find_peaks(smooth, distance=0.25 * hz, height=0.35 * np.percentile(smooth, 99))[0]


def level(values: np.ndarray, names: tuple[str, ...], start_s: float, stop_s: float) -> float:
    """Return the mean of leads over a span after the middle of each QRS complex, less the span before it."""
    rows = [at(n) for n in names]
    inside = [b for b in beats(values) if 150 < b < values.shape[1] - 300]
    spans = [
        values[rows, b + int(500 * start_s) : b + int(500 * stop_s)].mean() - values[rows, b - 35 : b - 28].mean()
        for b in inside
    ]
    return float(np.median(spans))


def deepest(values: np.ndarray, names: tuple[str, ...]) -> float:
    """Return the lowest point of leads in the first 35 ms of the QRS complex."""
    rows = [at(n) for n in names]
    spans = [values[rows, b - 18 : b].min() for b in beats(values) if 100 < b < values.shape[1] - 100]
    return float(np.median(spans))


def test_the_same_seed_writes_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    tables = [write_cohort(tmp_path / n, 3, seed=seed, seconds=2) for n, seed in (("a", 0), ("b", 0), ("c", 1))]
    files = [sorted(p.relative_to(t.parent) for p in t.parent.rglob("*.*")) for t in tables]
    assert files[0] == files[1]
    assert all((tables[0].parent / f).read_bytes() == (tables[1].parent / f).read_bytes() for f in files[0])
    assert tables[0].read_bytes() != tables[2].read_bytes()


def test_limb_leads_obey_einthoven_and_goldberger_with_noise_and_all() -> None:
    x = leads(noise_mv=0.05, wander_mv=0.2).astype(np.float64)
    np.testing.assert_allclose(x[0] + x[2], x[1], atol=1e-6)
    np.testing.assert_allclose(x[3] + x[4] + x[5], 0, atol=1e-6)


def test_a_record_reads_back_as_it_was_computed(tmp_path: Path) -> None:
    write_cohort(tmp_path, 1, seconds=4)
    simulate = module_of("simulate")
    computed = simulate.simulate_leads(simulate.draw_heart(0, 0, 0), 0, seconds=4)
    stored = read(tmp_path / "records" / "00000_0.hea")
    assert stored.leads == LEADS
    assert stored.sampling_hz == 500
    np.testing.assert_allclose(stored.values_mv, computed, atol=0.00051)


def test_a_normal_record_has_r_waves_that_grow_over_the_chest_and_upright_t_waves() -> None:
    x = leads()
    heights = [np.percentile(x[at(f"V{n}")], 99.5) for n in (1, 3, 5)]
    assert heights[0] < heights[1] < heights[2]
    assert x[at("V1")].min() < -0.5
    assert x[at("aVR")].min() < -0.5 < 0.3 > x[at("aVR")].max()
    assert min(level(x, (n,), 0.22, 0.3) for n in ("I", "II", "V3", "V4", "V5", "V6")) > 0.05


@pytest.mark.parametrize(("rhythm", "rate"), [("SR", 72), ("SBRAD", 48), ("STACH", 120), ("PACE", 65)])
def test_the_rate_is_the_one_that_is_planted(rhythm: str, rate: float) -> None:
    found = beats(leads(rhythm=rhythm, rate=rate))
    assert 60 / (np.median(np.diff(found)) / 500) == pytest.approx(rate, rel=0.04)


def test_fibrillation_is_irregular_and_has_no_p_wave_and_a_sinus_rhythm_is_not() -> None:
    spread = {}
    for rhythm in ("SR", "AFIB"):
        gaps = np.diff(beats(leads(rhythm=rhythm, rate=80)))
        spread[rhythm] = gaps.std() / gaps.mean()
    assert spread["SR"] < 0.04 < 0.12 < spread["AFIB"]


def test_every_third_beat_of_trigeminy_is_early_and_a_pause_follows() -> None:
    gaps = np.diff(beats(leads(premature="PVC", pattern="TRIGU"))) / (500 * 60 / 72)
    early = np.flatnonzero(gaps < 0.8)
    assert len(early) >= 3
    assert set(np.diff(early)) == {3}
    assert all(gaps[k + 1] > 1.2 for k in early if k + 1 < len(gaps))


def test_no_p_wave_is_conducted_in_a_third_degree_block_and_some_are_in_a_second_degree_one() -> None:
    third = beats(leads(conduction=("3AVB",), rate=40))
    assert 60 / (np.median(np.diff(third)) / 500) == pytest.approx(40, rel=0.04)
    signal = module_of("heart_signal")
    counts = {}
    for seed in range(6):
        planted = heart(conduction=("2AVB",), rate=40)
        p, qrs = signal._rhythm(planted, np.random.default_rng(seed), 10.0)
        counts[seed] = len(p) / len(qrs)
    assert {round(ratio, 1) for ratio in counts.values()} <= {1.3, 1.4, 2.0, 2.1, 1.9}


def test_bundle_branch_blocks_are_broad_and_turn_v1_their_own_way() -> None:
    def seconds_a_beat(values: np.ndarray, name: str, below_mv: float) -> float:
        return float((values[at(name)] < below_mv).sum() / 500 / 12)

    left, right, normal = leads(conduction=("CLBBB",)), leads(conduction=("CRBBB",)), leads()
    assert seconds_a_beat(left, "V1", -0.3) > 2 * seconds_a_beat(normal, "V1", -0.3)
    assert left[at("V1")].max() < 1.2 > normal[at("V1")].max()
    assert right[at("V1")].max() > 2 * normal[at("V1")].max()
    assert seconds_a_beat(right, "V6", -0.2) > 0.02 > seconds_a_beat(normal, "V6", -0.2)


def test_an_old_infarct_has_q_waves_over_its_wall_only() -> None:
    normal, infarct = leads(), leads(infarct="IMI")
    assert deepest(infarct, INFERIOR) < deepest(normal, INFERIOR) - 0.15
    assert deepest(infarct, ("V5",)) > deepest(normal, ("V5",)) - 0.15


@pytest.mark.parametrize(("code", "own", "other"), [("IMI", INFERIOR, ("aVL",)), ("ASMI", SEPTAL, ("II",))])
def test_an_acute_infarct_raises_the_st_segment_over_its_wall(code: str, own: tuple[str, ...], other: tuple) -> None:
    x = leads(infarct=code, acute=True)
    assert level(x, own, 0.07, 0.1) > 0.1 > level(x, other, 0.07, 0.1)


def test_ischaemia_and_injury_lower_the_st_segment_and_a_strain_turns_lateral_t_waves() -> None:
    assert level(leads(ischaemia="ISCLA"), LATERAL, 0.07, 0.1) < -0.02
    assert level(leads(injury="INJIN"), INFERIOR, 0.07, 0.1) < -0.1
    assert level(leads(hypertrophy=("LVH",), strain=True), LATERAL, 0.22, 0.3) < -0.05


def test_hypertrophy_has_the_voltages_of_sokolow_and_lyon_and_low_voltage_has_none() -> None:
    def sokolow(x: np.ndarray) -> float:
        return float(x[at("V5")].max() - x[at("V1")].min())

    assert sokolow(leads(hypertrophy=("LVH",))) > 3.5
    assert sokolow(leads(voltage="VCLVH")) > 3.0 > sokolow(leads())
    assert np.ptp(leads(voltage="LVOLT")[:6], axis=1).max() < 0.6


def test_a_long_qt_ends_later() -> None:
    ends = {k: np.argmax(leads(repolarisation=k)[1, beats(leads())[3] + 60 :][:200]) for k in ("", "LNGQT")}
    assert ends["LNGQT"] - ends[""] > 30


def test_statements_reports_and_labels_follow_from_what_is_planted() -> None:
    planted = heart(infarct="IMI", acute=True, conduction=("1AVB",), rhythm="SBRAD", rate=50)
    assert planted.statements == ("IMI", "1AVB", "STE_", "LPR", "SBRAD")
    report = module_of("heart_report").write_report
    assert heart().statements == ("NORM", "SR")
    for language in ("en", "de"):
        text = report(planted, 0, language).lower()
        assert "sinus" in text
        words = statements()["IMI"].english if language == "en" else statements()["IMI"].german
        assert any(w.lower() in text for w in words)
    assert labels_of(planted.statements)["ecg_superclass"] == {"norm": 0, "mi": 1, "sttc": 0, "cd": 1, "hyp": 0}


def test_a_report_of_dropped_beats_names_the_ventricular_rate() -> None:
    report = module_of("heart_report").write_report
    texts = {report(heart(conduction=("3AVB",), rate=41.0), seed) for seed in range(8)}
    assert any("ventricular rate 41" in t for t in texts)
    assert not any("41 bpm" in t or "normal" in t for t in texts)


def test_every_statement_is_planted_in_some_record_and_every_report_says_rhythm_and_diagnoses() -> None:
    simulate, report = module_of("simulate"), module_of("heart_report").write_report
    seen: dict[str, int] = {}
    for number, drawn in enumerate(simulate.hearts(2500, 1, 0)):
        for code in drawn.statements:
            seen[code] = seen.get(code, 0) + 1
        if number % 25 == 0:
            for language in ("en", "de"):
                text = report(drawn, 0, language).lower()
                for code in drawn.statements:
                    s = statements()[code]
                    if s.diagnostic or s.rhythm:
                        words = (s.english if language == "en" else s.german) + ("sinus",) * (code == "SR")
                        assert any(w.lower() in text for w in words), (code, text)
    assert set(seen) == set(statements())
    assert 0.3 < seen["NORM"] / 2500 < 0.5


def test_the_tables_have_the_labels_of_the_codes_and_patients_stay_in_one_fold(tmp_path: Path) -> None:
    with write_cohort(tmp_path, 12, records=2, seconds=1).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    for row in rows:
        labels = labels_of(row["scp_codes"].split("|"))
        assert all(int(row[f"label:{t}:{c}"]) == v for t, classes in labels.items() for c, v in classes.items())
    folds = {(r["patient"], r["strat_fold"], r["split"]) for r in rows}
    assert len(folds) == 12
    with (tmp_path / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        ptbxl = list(csv.DictReader(file))
    assert [r["filename_hr"] + ".hea" for r in ptbxl] == [r["file"] for r in rows]


def test_swapped_arms_turn_lead_i_and_other_faults_spoil_a_chest_lead() -> None:
    clean, swapped = leads(), leads(fault="arms swapped")
    np.testing.assert_array_equal(swapped[0], -clean[0])
    np.testing.assert_array_equal(swapped[[1, 2, 3, 4]], clean[[2, 1, 4, 3]])
    np.testing.assert_array_equal(swapped[5:], clean[5:])
    for fault in ("flat lead", "electrode off", "saturated lead"):
        spoiled = leads(fault=fault)
        assert sum(not np.array_equal(a, b) for a, b in zip(spoiled, clean, strict=True)) == 1
        assert replace(heart(), fault=fault).statements == heart().statements


def test_healthy_patients_have_voltages_as_those_of_ptb_xl_and_differ_over_the_chest() -> None:
    simulate = module_of("simulate")
    drawn = [h for h in simulate.hearts(90, 1, 3) if h.is_normal]
    records = np.stack([simulate.simulate_leads(h, 3, sampling_hz=100) for h in drawn])
    assert 0.15 < records.std() < 0.27, "0.22 mV in healthy records of PTB-XL"
    tall = np.percentile(records[:, at("V4")], 99.5, axis=1)
    assert tall.std() > 0.25
