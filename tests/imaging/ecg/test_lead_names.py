"""Names of leads."""

from __future__ import annotations

import pytest

from medclip.imaging.ecg.lead_names import OTHER, TWELVE, lead_name, lead_names


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


@pytest.mark.parametrize(
    "stored",
    [
        "RESP",
        "Pleth",
        "ABP",
        "EDF Annotations",
        "SpO2",
        "EEG Fpz-Cz",
        "EEG C3",
        "EEG(sec)",
        "C3-A2",
        "C4-Ref",
        "Fp1",
        "Cz",
        "C3..",
        "FT9-FT10",
        "EOG horizontal",
        "ROC-A1",
        "EMG submental",
        "EMG1",
        "Resp oro-nasal",
        "THOR RES",
        "Temp rectal",
        "SaO2",
        "H.R.",
        "Event marker",
        "ACC X",
    ],
)
def test_other_signals_are_no_ecg(stored: str) -> None:
    assert not lead_name(stored).ecg
    assert not lead_name(stored).standard


@pytest.mark.parametrize(
    ("stored", "lead"),
    [
        ("DI", "I"),
        ("DII", "II"),
        ("DIII", "III"),
        ("D1", "I"),
        ("d2", "II"),
        ("D3", "III"),
        ("C1", "V1"),
        ("ECG C6", "V6"),
        ("ECGII", "II"),
        ("LEADII", "II"),
        ("ECGaVF", "aVF"),
        ("ekgV4", "V4"),
        ("LEAD DII", "II"),
        ("II [uV]", "II"),
        ("V1 (\u00b5V)", "V1"),
        ("V2[mV] (filtered)", "V2"),
        ("a VR", "aVR"),
        ("AVl", "aVL"),
        ("ML II", "MLII"),
    ],
)
def test_more_spellings_of_leads_are_understood(stored: str, lead: str) -> None:
    assert lead_name(stored).name == lead
    assert not lead_name(stored).inverted


@pytest.mark.parametrize(
    "stored",
    ["V4 (R)", "V3 (right)", "II (INVERTED)", "II (inv)", "aVR (-)", "I-II", "V1-", "V2 (high)", "II (noise) (mV)"],
)
def test_a_bracket_or_sign_that_may_change_the_lead_makes_it_none_of_the_twelve(stored: str) -> None:
    assert lead_name(stored).name == OTHER


@pytest.mark.parametrize("stored", ["\u2212aVR", "ECG -AVR", "-aVR (mV)", "-AvR"])
def test_more_spellings_of_the_negative_of_avr_are_understood(stored: str) -> None:
    assert (lead_name(stored).name, lead_name(stored).inverted) == ("aVR", True)


def test_c1_to_c6_are_chest_leads_only_beside_an_ecg() -> None:
    six = tuple(f"C{number}" for number in range(1, 7))
    for names in (("I", *six), ("DII", "C3"), six, ("ECG C3",)):
        assert [m.name for m in lead_names(names) if m.name[0] == "V"] == [f"V{n[-1]}" for n in names if "C" in n[-2:]]
    for names in (("C3", "C4"), ("ECG", "C3"), ("Fp1", *six), ("II", "EEG O1", "C3")):
        assert not any(m.standard for name, m in zip(names, lead_names(names), strict=True) if name[0] == "C")


def test_in_a_record_with_an_eeg_unknown_channels_are_no_ecg_unless_they_say_so() -> None:
    assert [meaning.ecg for meaning in lead_names(("EEG Fpz-Cz", "Aux 7", "ECG", "EKG2"))] == [False, False, True, True]
    assert [meaning.ecg for meaning in lead_names(("RESP", "Aux 7"))] == [False, True]


def test_every_name_of_the_closed_list_stands_for_itself() -> None:
    for stored in ("EEG Cz", "Temp rectal", "C3", "MLII", "vx", "free text", "H.R.", "marker"):
        name = lead_name(stored).name
        assert lead_name(name).name == name
