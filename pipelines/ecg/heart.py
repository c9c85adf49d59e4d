"""A simulated heart: what is planted in a record, and which of PTB-XL's 71 statements are true of it.

A heart has a rhythm, a way of conduction, at most one infarct, one ischaemia, a hypertrophy, a form of repolarisation
and premature beats, each named by its SCP-ECG code. Statements follow from what is planted, never from the signal, so
the labels are those of a person who overlooks nothing; voltages of healthy and hypertrophied hearts overlap all the
same, because bodies differ. They follow as they do in PTB-XL: an acute infarct
is ST elevation (STE_), too, an old one Q waves (QWAVE), a first-degree block a long PR interval (LPR).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Vector = tuple[float, float, float]
"""To the left, to the feet, to the back."""
DIRECTIONS: Mapping[str, Vector] = {
    "inferior": (0.0, 1.0, 0.0),
    "anteroseptal": (-0.15, 0.0, -0.99),
    "anterior": (0.4, 0.0, -0.92),
    "anterolateral": (0.85, -0.1, -0.52),
    "lateral": (0.95, -0.3, 0.1),
    "inferolateral": (0.7, 0.7, 0.1),
    "posterior": (0.0, 0.0, 1.0),
    "inferoposterior": (0.0, 0.75, 0.66),
    "inferoposterolateral": (0.55, 0.62, 0.55),
    "unspecific": (0.8, 0.5, -0.3),
}
"""From the heart's middle to each wall."""
INFARCTS: Mapping[str, str] = {
    "IMI": "inferior",
    "ASMI": "anteroseptal",
    "AMI": "anterior",
    "ALMI": "anterolateral",
    "LMI": "lateral",
    "ILMI": "inferolateral",
    "PMI": "posterior",
    "IPMI": "inferoposterior",
    "IPLMI": "inferoposterolateral",
}
INJURIES: Mapping[str, str] = {
    "INJAS": "anteroseptal",
    "INJAL": "anterolateral",
    "INJIN": "inferior",
    "INJLA": "lateral",
    "INJIL": "inferolateral",
}
ISCHAEMIAS: Mapping[str, str] = {
    "ISC_": "unspecific",
    "ISCAL": "anterolateral",
    "ISCIN": "inferior",
    "ISCIL": "inferolateral",
    "ISCAS": "anteroseptal",
    "ISCLA": "lateral",
    "ISCAN": "anterior",
}
FAULTS = ("arms swapped", "electrode off", "flat lead", "saturated lead")
_SINUS = ("SR", "STACH", "SBRAD", "SARRH")
WITHOUT_P = ("AFIB", "AFLT", "SVTAC", "PSVT")
"""Rhythms in which no P wave of the sinus node is seen before a QRS complex, at least for a while."""
SUPERCLASS_SHARES = {"NORM": 0.36, "MI": 0.24, "STTC": 0.26, "CD": 0.24, "HYP": 0.14}
"""About what PTB-XL has; all but NORM may meet in one heart."""
_RHYTHMS = {
    "SR": 0.52,
    "STACH": 0.08,
    "SBRAD": 0.07,
    "SARRH": 0.07,
    "AFIB": 0.1,
    "AFLT": 0.03,
    "SVTAC": 0.025,
    "PSVT": 0.02,
    "SVARR": 0.025,
    "PACE": 0.04,
}
_CONDUCTION = {
    ("CRBBB",): 0.15,
    ("CLBBB",): 0.14,
    ("IRBBB",): 0.14,
    ("ILBBB",): 0.05,
    ("LAFB",): 0.15,
    ("LPFB",): 0.05,
    ("IVCD",): 0.08,
    ("WPW",): 0.05,
    ("1AVB",): 0.1,
    ("2AVB",): 0.04,
    ("3AVB",): 0.03,
    ("CRBBB", "LAFB"): 0.04,
}
_HYPERTROPHY = {
    ("LVH",): 0.5,
    ("LVH", "LAO/LAE"): 0.1,
    ("RVH",): 0.12,
    ("LAO/LAE",): 0.1,
    ("RAO/RAE",): 0.08,
    ("RVH", "RAO/RAE"): 0.04,
    ("SEHYP",): 0.06,
}
_REPOLARISATION = {"NDT": 0.25, "NST_": 0.2, "DIG": 0.12, "LNGQT": 0.15, "ANEUR": 0.06, "EL": 0.08}
_FORMS = {"NT_": 0.3, "LOWT": 0.3, "TAB_": 0.2, "INVT": 0.2}


@dataclass(frozen=True)
class Heart:
    """What is planted in one record of one patient."""

    patient: int
    record: int
    """Of the patient, from 0."""
    age: int
    sex: int
    """As in PTB-XL: 0 a man, 1 a woman."""
    rhythm: str
    rate: float
    """Beats a minute, of the ventricles."""
    conduction: tuple[str, ...] = ()
    infarct: str = ""
    acute: bool = False
    injury: str = ""
    ischaemia: str = ""
    hypertrophy: tuple[str, ...] = ()
    strain: bool = False
    repolarisation: str = ""
    form: str = ""
    """A change of the T wave that is no diagnosis."""
    voltage: str = ""
    """LVOLT, HVOLT, VCLVH or none."""
    premature: str = ""
    """PVC, PAC, PRC(S) (both), or none."""
    pattern: str = ""
    """BIGU or TRIGU, where premature beats come in turn."""
    axis_deg: float = 0.0
    """How far the patient's frontal axis is turned from an average one."""
    rotation_deg: float = 0.0
    """How far the heart is turned about the body's long axis, which moves the transition over the chest."""
    amplitude: float = 1.0
    torso: float = 0.0
    """How much the distances of the chest electrodes differ from an average torso's; 1 as patients do."""
    noise_mv: float = 0.01
    wander_mv: float = 0.05
    fault: str = ""
    """What is wrong with an electrode, one of FAULTS; no statement speaks of it."""

    @property
    def is_normal(self) -> bool:
        """Whether nothing but a slow, fast or breathing sinus rhythm is there."""
        planted = (self.conduction, self.infarct, self.injury, self.ischaemia, self.hypertrophy, self.repolarisation)
        others = (self.form, self.voltage, self.premature)
        return self.rhythm in ("SR", "SARRH", "SBRAD") and not any(planted) and not any(others)

    @property
    def statements(self) -> tuple[str, ...]:
        """Return the SCP-ECG codes that are true, in the order diagnosis, form, rhythm, each once."""
        diagnoses = [self.infarct, self.injury, self.ischaemia, *self.conduction, *self.hypertrophy]
        forms = [self.form, self.voltage, self.premature]
        if self.premature == "PRC(S)":
            forms += ["PVC", "PAC"]
        if self.acute:
            forms.append("STE_")
        elif self.infarct:
            forms.append("QWAVE")
        if self.injury or self.strain or self.repolarisation == "DIG":
            forms.append("STD_")
        if self.ischaemia or self.strain or (self.infarct and not self.acute):
            forms.append("INVT")
        if "LVH" in self.hypertrophy:
            forms.append("VCLVH")
        if "1AVB" in self.conduction:
            forms.append("LPR")
        if "IVCD" in self.conduction:
            forms.append("ABQRS")
        codes = ["NORM"] if self.is_normal else [*diagnoses, self.repolarisation]
        rhythm = [] if self.rhythm in ("PACE",) else [self.rhythm]
        rhythm += ["PACE"] if self.rhythm == "PACE" else []
        return tuple(dict.fromkeys(code for code in (*codes, *forms, *rhythm, self.pattern) if code))


def draw_heart(patient: int, record: int, seed: int, *, faults: float = 0.0, noise: float = 1.0) -> Heart:
    """Draw one record's heart; the same numbers and seed draw the same.

    Args:
        patient: Number of the patient: age, sex, axis and voltages are theirs, and whether they are healthy.
        record: Of the patient.
        seed: Of the cohort.
        faults: Share of records with a fault of an electrode.
        noise: Factor on noise and wander; 0 for clean records.
    """
    own = np.random.default_rng((seed, patient, 1))
    age, sex = int(np.clip(own.normal(60, 17), 18, 94)), int(own.integers(2))
    axis = float(own.normal(0, 14) - 0.25 * (age - 60))
    amplitude = float(own.lognormal(-0.002 * (age - 55), 0.13))
    rotation = float(own.normal(0, 10))
    healthy = own.random() < SUPERCLASS_SHARES["NORM"]
    rng = np.random.default_rng((seed, patient, record, 2))
    base = {
        "patient": patient,
        "record": record,
        "age": age,
        "sex": sex,
        "axis_deg": axis,
        "amplitude": amplitude,
        "rotation_deg": rotation,
        "torso": 1.0,
        "noise_mv": noise * float(rng.lognormal(np.log(0.009), 0.5)),
        "wander_mv": noise * float(rng.lognormal(np.log(0.04), 0.6)),
        "fault": _draw(rng, dict.fromkeys(FAULTS, 1.0)) if rng.random() < faults else "",
    }
    if healthy:
        rhythm = _draw(rng, {"SR": 0.75, "SBRAD": 0.12, "SARRH": 0.13})
        return Heart(rhythm=rhythm, rate=_rate(rng, rhythm), **base)
    return Heart(**base | _disease(rng))


def _disease(rng: np.random.Generator) -> dict[str, Any]:
    """Draw what is planted in a patient who is not healthy."""
    planted = {name: rng.random() < share * 1.5 for name, share in SUPERCLASS_SHARES.items()}
    rhythm: str = _draw(rng, _RHYTHMS)
    conduction = _conduction(rng, rhythm) if planted["CD"] else ()
    dropped = bool({"2AVB", "3AVB"} & set(conduction))
    hidden = rhythm == "PACE" or bool({"CLBBB", "WPW"} & set(conduction))
    infarct, injury = _infarct(rng) if planted["MI"] and not hidden else ("", "")
    hypertrophy: tuple[str, ...] = _draw(rng, _HYPERTROPHY) if planted["HYP"] and not hidden else ()
    if rhythm in WITHOUT_P:
        hypertrophy = tuple(h for h in hypertrophy if h not in ("LAO/LAE", "RAO/RAE"))
    changed = {"ischaemia": "", "repolarisation": "", "form": ""}
    if not hidden and not injury:
        changed |= _repolarisation(rng, planted["STTC"], infarct)
    if changed["repolarisation"] == "ANEUR":
        infarct = "ASMI"
    large = bool({"LVH", "RVH"} & set(hypertrophy))
    alone = not infarct and not injury and not changed["ischaemia"] and not changed["repolarisation"]
    return (
        {
            "rhythm": rhythm,
            "rate": float(rng.uniform(36, 46)) if dropped else _rate(rng, rhythm),
            "conduction": conduction,
            "infarct": infarct,
            "injury": injury,
            "hypertrophy": hypertrophy,
            "acute": bool(infarct and changed["repolarisation"] != "ANEUR" and rng.random() < 0.35),
            "strain": bool("LVH" in hypertrophy and alone and rng.random() < 0.6),
            "voltage": "" if large or hidden else _draw(rng, {"": 0.86, "LVOLT": 0.06, "HVOLT": 0.04, "VCLVH": 0.04}),
        }
        | changed
        | _premature(rng, rhythm, dropped)
    )


def _conduction(rng: np.random.Generator, rhythm: str) -> tuple[str, ...]:
    """Draw a block that can be told in this rhythm; a paced heart has none of its own."""
    conduction: tuple[str, ...] = () if rhythm == "PACE" else _draw(rng, _CONDUCTION)
    of_p = () if rhythm == "SR" else ("2AVB", "3AVB") if rhythm in _SINUS else ("1AVB", "2AVB", "3AVB", "WPW")
    return tuple(c for c in conduction if c not in of_p)


def _infarct(rng: np.random.Generator) -> tuple[str, str]:
    """Draw an infarct, or now and then an injury instead."""
    if rng.random() < 0.12:
        return "", _draw(rng, dict.fromkeys(INJURIES, 1.0))
    return _draw(rng, dict.fromkeys(INFARCTS, 1.0) | {"IMI": 4.0, "ASMI": 4.0}), ""


def _repolarisation(rng: np.random.Generator, planted: bool, infarct: str) -> dict[str, str]:
    """Draw an ischaemia (of hearts without an infarct), another diagnosis, or a mere form of the T wave."""
    if planted and rng.random() < 0.55:
        return {} if infarct else {"ischaemia": _draw(rng, dict.fromkeys(ISCHAEMIAS, 1.0) | {"ISC_": 3.0})}
    if planted:
        return {"repolarisation": _draw(rng, _REPOLARISATION)}
    return {} if infarct or rng.random() > 0.15 else {"form": _draw(rng, _FORMS)}


def _premature(rng: np.random.Generator, rhythm: str, dropped: bool) -> dict[str, str]:
    """Draw premature beats, which are told in a sinus rhythm, ventricular ones in atrial fibrillation, too."""
    premature: str = _draw(rng, {"": 0.82, "PVC": 0.09, "PAC": 0.06, "PRC(S)": 0.03})
    pattern: str = _draw(rng, {"": 0.7, "BIGU": 0.17, "TRIGU": 0.13})
    if dropped or rhythm not in ("SR", "SBRAD", "SARRH", "AFIB") or (rhythm == "AFIB" and premature != "PVC"):
        return {}
    return {"premature": premature, "pattern": pattern if premature == "PVC" and rhythm != "AFIB" else ""}


def _rate(rng: np.random.Generator, rhythm: str) -> float:
    low, high = {
        "STACH": (102, 140),
        "SBRAD": (42, 58),
        "AFIB": (60, 140),
        "AFLT": (70, 150),
        "SVTAC": (150, 200),
        "PSVT": (150, 190),
        "PACE": (60, 75),
        "SVARR": (75, 125),
    }.get(rhythm, (61, 95))
    return float(rng.uniform(low, high))


def _draw(rng: np.random.Generator, shares: Mapping[Any, float]) -> Any:
    """Draw a key; shares need not add up to 1."""
    keys, weights = list(shares), np.array(list(shares.values()))
    return keys[int(rng.choice(len(keys), p=weights / weights.sum()))]
