"""The leads of a DICOM waveform are found in all its groups, and put where they belong in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import Recording
from medclip.imaging.ecg.twelve_leads import canonical
from tests.kits.ecg import heart, read_as, write_dicom

Counts = dict[str, np.ndarray]
COLUMNS = (TWELVE[:3], TWELVE[3:6], TWELVE[6:9], TWELVE[9:])


def _counts(samples: int = 5000, hz: float = 500.0) -> Counts:
    return {lead: np.round(line * 200).astype(np.int16) for lead, line in heart(samples, hz).items()}


def _some(counts: Counts, leads: tuple[str, ...], part: slice = slice(None)) -> Counts:
    return {lead: counts[lead][part] for lead in leads}


def _sheet(counts: Counts) -> list[dict[str, object]]:
    """Store twelve leads as carts print them: four columns of 2.5 s, one after the other."""
    return [
        {"leads": _some(counts, leads, slice(1250 * number, 1250 * (number + 1))), "offset_ms": 2500 * number}
        for number, leads in enumerate(COLUMNS)
    ]


def _read(tmp_path: Path, groups: list[dict[str, object]]) -> Recording:
    return read_as(write_dicom(tmp_path / "a.dcm", groups), Format.DICOM)


def _refusal(tmp_path: Path, groups: list[dict[str, object]]) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        _read(tmp_path, groups)
    return caught.value


def test_limb_and_chest_leads_of_two_simultaneous_groups_are_joined(tmp_path: Path) -> None:
    counts = _counts()
    groups: list[dict[str, object]] = [
        {"leads": _some(counts, TWELVE[:6]), "offset_ms": 40},
        {"leads": _some(counts, TWELVE[6:]), "offset_ms": 40},
    ]
    found = _read(tmp_path, groups)
    assert found.leads == found.stored_leads == TWELVE
    assert (found.stored_samples, found.stored_hz) == (5000, 500)
    assert found.notes == ("multiplex groups 1 and 2 of 2", "joined by their time offsets")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    wanted = np.concatenate([dataset.waveform_array(0).T, dataset.waveform_array(1).T])
    np.testing.assert_allclose(found.values_mv, wanted / 1000, atol=1e-6)
    assert canonical(found).mask.all()


def test_groups_of_one_length_without_offsets_are_taken_as_simultaneous_and_that_is_said(tmp_path: Path) -> None:
    counts = _counts()
    found = _read(tmp_path, [{"leads": _some(counts, TWELVE[6:])}, {"leads": _some(counts, TWELVE[:6])}])
    assert set(found.leads) == set(TWELVE)
    assert "state no time offset" in found.notes[1]
    found = canonical(found)
    np.testing.assert_allclose(found.values_mv, np.stack(list(counts.values())) * 0.005, atol=1e-5)


def test_groups_are_placed_by_their_offset_and_the_rest_is_a_gap(tmp_path: Path) -> None:
    counts = _counts()
    groups: list[dict[str, object]] = [
        {"leads": _some(counts, TWELVE[6:], slice(100, 5000)), "offset_ms": 1200},
        {"leads": _some(counts, TWELVE[:6]), "offset_ms": 1000},
    ]
    found = canonical(_read(tmp_path, groups))
    assert found.mask.all()
    np.testing.assert_allclose(found.values_mv[6:, 100:], np.stack(list(counts.values()))[6:, 100:] * 0.005, atol=1e-5)
    gaps = [step.detail for step in found.steps if step.name == "gaps"]
    assert gaps[0] == "V1: 100 samples interpolated"
    assert "differ in length or start" in " ".join(step.detail for step in found.steps)


def test_groups_of_two_rates_are_joined_at_the_higher(tmp_path: Path) -> None:
    fast, slow = _counts(), _counts(2500, 250.0)
    groups: list[dict[str, object]] = [
        {"leads": _some(fast, TWELVE[:6]), "offset_ms": 0},
        {"leads": _some(slow, TWELVE[6:]), "offset_ms": 0, "hz": 250},
    ]
    found = _read(tmp_path, groups)
    assert (found.leads, found.sampling_hz, found.stored_samples) == (TWELVE, 500, 5000)
    np.testing.assert_allclose(found.values_mv[6:, ::2], np.stack(list(slow.values()))[6:] * 0.005, atol=1e-5)
    assert any("lower sampling rate" in note for note in found.notes)


def test_a_printed_sheet_without_a_rhythm_strip_is_refused_with_what_was_found(tmp_path: Path) -> None:
    error = _refusal(tmp_path, _sheet(_counts()))
    assert error.reason is Reason.NOT_SUPPORTED_YET
    assert "at different times, in 4 groups of at most 2.5 s within 10 s" in str(error)


def test_a_printed_sheet_with_a_rhythm_strip_keeps_the_strip_and_says_what_is_missing(tmp_path: Path) -> None:
    counts = _counts()
    strip: dict[str, object] = {"leads": {"II": counts["II"]}, "offset_ms": 0}
    found = _read(tmp_path, [*_sheet(counts), strip])
    assert found.leads.count("II") == 1
    assert found.notes[0] == "multiplex groups 1, 2, 3, 4 and 5 of 5"
    assert np.isnan(found.values_mv).sum() == 11 * 3750
    result = canonical(found)
    assert [lead for lead, there in zip(TWELVE, result.mask, strict=True) if there] == ["II"]
    np.testing.assert_allclose(result.values_mv[1], counts["II"] * 0.005, atol=1e-5)
    masked = [step.detail for step in result.steps if step.name == "mask"]
    assert "V1: 3,750 of 5,000 samples missing" in masked


def test_leads_in_groups_that_cannot_be_placed_are_refused(tmp_path: Path) -> None:
    counts = _counts()
    limb, chest = _some(counts, TWELVE[:6]), _some(counts, TWELVE[6:], slice(0, 4000))
    for groups in (
        [{"leads": limb}, {"leads": chest}],
        [{"leads": limb, "offset_ms": 0}, {"leads": _some(counts, TWELVE[6:])}],
    ):
        error = _refusal(tmp_path, groups)
        assert error.reason is Reason.NOT_SUPPORTED_YET
        assert "spread over 2 multiplex groups" in str(error)
    far: list[dict[str, object]] = [{"leads": limb, "offset_ms": 0}, {"leads": chest, "offset_ms": 1e12}]
    assert _refusal(tmp_path, far).reason is Reason.NOT_SUPPORTED_YET


def test_a_group_that_brings_no_lead_is_not_joined_and_derived_ones_never_are(tmp_path: Path) -> None:
    counts = _counts()
    groups: list[dict[str, object]] = [
        {"leads": counts, "offset_ms": 0},
        {"leads": {"II": np.zeros(9000, np.int16)}, "offset_ms": 0},
        {"leads": _counts(600), "originality": "DERIVED", "offset_ms": 0},
    ]
    found = _read(tmp_path, groups)
    assert found.notes == ("multiplex group 1 of 3",)
    assert found.values_mv.shape == (12, 5000)
    groups = [{"leads": _some(counts, ("I", "II"))}, {"leads": _counts(600), "label": "MEDIAN BEAT"}]
    found = _read(tmp_path, groups)
    assert found.leads == ("I", "II")
    assert found.notes[1] == "only in a derived group, not read: III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6"


def test_the_iec_names_of_chest_leads_are_known_by_the_limb_leads_of_another_group(tmp_path: Path) -> None:
    counts = _counts()
    chest = {f"C{lead[1]}": counts[lead] for lead in TWELVE[6:9]}
    found = canonical(_read(tmp_path, [{"leads": _some(counts, TWELVE[:6])}, {"leads": chest}]))
    assert [lead for lead, there in zip(TWELVE, found.mask, strict=True) if not there] == ["V4", "V5", "V6"]
    np.testing.assert_allclose(found.values_mv[6], counts["V1"] * 0.005, atol=1e-5)
