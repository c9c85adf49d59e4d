"""Names of leads."""

from __future__ import annotations

import pytest

from medclip.imaging.ecg_leads import OTHER, TWELVE, lead_name


@pytest.mark.parametrize("lead", TWELVE)
@pytest.mark.parametrize(
    "pattern", ["{}", " {} ", "LEAD {}", "Lead_{}", "ECG {}", "ECG-{}", "MDC_ECG_LEAD_{}", "ekg {}", "{}-REF"]
)
def test_every_spelling_of_a_lead_is_understood(lead: str, pattern: str) -> None:
    for spelled in (lead, lead.upper(), lead.lower()):
        assert lead_name(pattern.format(spelled)).name == lead


@pytest.mark.parametrize("stored", ["-aVR", "aVRneg", "-AVR", "MDC_ECG_LEAD_AVRneg", "Lead -aVR"])
def test_the_negative_of_avr_is_told_apart(stored: str) -> None:
    assert lead_name(stored).name == "aVR"
    assert lead_name(stored).inverted


@pytest.mark.parametrize("stored", ["", "Jane Doe", "ECG 1", "sig 0, fmt 508", "V10", "IV", "II_2", "aV", "-V1"])
def test_free_text_is_no_lead_and_keeps_out(stored: str) -> None:
    assert lead_name(stored).name == OTHER
    assert not lead_name(stored).standard


def test_modified_and_chest_leads_are_not_standard_ones() -> None:
    for stored in ("MLII", "MLIII", "V", "vx", "CM5", "V4R", "V7"):
        assert lead_name(stored).ecg
        assert not lead_name(stored).standard


def test_other_signals_are_no_ecg() -> None:
    assert not any(lead_name(stored).ecg for stored in ("RESP", "Pleth", "ABP", "EDF Annotations", "SpO2"))
