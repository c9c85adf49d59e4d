"""What else than a finding an image shows, in phrases that complete a prompt: view, device, patient, quality.

The first value of each attribute is blank ("not known"): without it a model would be forced to see one of the others.
Phrases of devices go with findings (a chest tube with a pneumothorax), so that they may tell the label itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from medclip.sample import Modality

UNKNOWN = ""
Attribute = Mapping[str, tuple[str, ...]]
"""Phrases of each value; of the value `UNKNOWN` a blank one."""

_NOT_KNOWN: Attribute = {UNKNOWN: ("",)}
_SEX: Attribute = {**_NOT_KNOWN, "F": ("of a woman",), "M": ("of a man",)}
_AGE: Attribute = {
    **_NOT_KNOWN,
    "child": ("of a child",),
    "young adult": ("of a young adult",),
    "older adult": ("of an older adult",),
}
CONTEXTS: Mapping[Modality, Mapping[str, Attribute]] = {
    Modality.XRAY: {
        "view": {
            **_NOT_KNOWN,
            "PA": ("PA view", "upright"),
            "AP": ("AP view", "portable", "supine"),
            "LATERAL": ("lateral view",),
        },
        "device": {
            **_NOT_KNOWN,
            "endotracheal tube": ("with an endotracheal tube",),
            "chest tube": ("with a chest tube",),
            "central line": ("with a central line",),
            "pacemaker": ("with a pacemaker",),
            "sternal wires": ("with sternal wires",),
        },
        "quality": {
            **_NOT_KNOWN,
            "low exposure": ("low exposure",),
            "rotated": ("rotated",),
            "motion": ("motion blurred",),
        },
        "sex": _SEX,
        "age": _AGE,
    },
    Modality.CT: {
        "window": {
            **_NOT_KNOWN,
            "lung": ("lung window",),
            "soft tissue": ("soft tissue window",),
            "bone": ("bone window",),
        },
        "contrast": {**_NOT_KNOWN, "with": ("with contrast",), "without": ("without contrast",)},
        "slices": {**_NOT_KNOWN, "thin": ("thin slice",), "thick": ("thick slice",)},
    },
    Modality.PATHOLOGY: {
        "stain": {**_NOT_KNOWN, "strong": ("strongly stained",), "weak": ("weakly stained",)},
        "magnification": {**_NOT_KNOWN, "low": ("at low magnification",), "high": ("at high magnification",)},
        "quality": {**_NOT_KNOWN, "blurred": ("out of focus",)},
    },
    Modality.FUNDUS: {
        "field": {**_NOT_KNOWN, "macula": ("centred on the macula",), "disc": ("centred on the optic disc",)},
        "quality": {**_NOT_KNOWN, "hazy": ("with hazy media",), "dark": ("dark image",)},
    },
}
"""By modality; others have none."""


def combinations(attributes: Sequence[Attribute]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Combine the values of attributes, and their phrases.

    Returns:
        Phrases of each combination of values, blanks skipped and joined with ", "; one blank phrase where nothing is
        known.

    Example:
        >>> view, device = {"": ("",), "frontal": ("frontal view",)}, {"": ("",), "tube": ("with a tube", "intubated")}
        >>> combinations([view, device])[("frontal", "tube")]
        ('frontal view, with a tube', 'frontal view, intubated')
    """
    combined: dict[tuple[str, ...], tuple[str, ...]] = {}
    for values in product(*attributes):
        parts = product(*(attribute[value] for attribute, value in zip(attributes, values, strict=True)))
        combined[values] = tuple(", ".join(phrase for phrase in phrases if phrase) for phrases in parts)
    return combined


def completed(prompt: str, phrase: str) -> str:
    """Complete a prompt by a phrase.

    Example:
        >>> completed("chest X-ray: edema", "lateral view"), completed("chest X-ray: edema", "")
        ('chest X-ray: edema, lateral view.', 'chest X-ray: edema.')
    """
    sentence = prompt.rstrip(" .")
    return f"{sentence}, {phrase}." if phrase else f"{sentence}."
