"""Reports of simulated hearts, English and German: every sentence follows from what is planted, and nothing is denied.

A report names the rhythm, mostly with its rate, then infarcts, blocks, hypertrophy and repolarisation, in wordings of
medclip's statements. What is left out now and then, as people leave it out, is a form that follows from a diagnosis
(the Q waves of an infarct); no diagnosis and no rhythm is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from heart import Heart

from medclip.text.ecg_statements import statements
from medclip.wording import capital

LANGUAGES = ("en", "de")
_RATE = {
    "en": ("{x}, {n} per minute", "{x} at {n} bpm", "{x}, rate {n}", "{x}"),
    "de": ("{x}, {n}/min", "{x}, Frequenz {n}", "{x} mit {n} pro Minute", "{x}"),
}
_VENTRICULAR = {"en": ("{x}, ventricular rate {n}", "{x}"), "de": ("{x}, Kammerfrequenz {n}", "{x}")}
_SINUS = {
    "en": {"SR": ("sinus rhythm", "a regular sinus rhythm", "rhythm from the sinus node")},
    "de": {"SR": ("Sinusrhythmus", "regelmäßiger Sinusrhythmus")},
}
"""The vocabulary's nouns say a normal rate, which is not that of the ventricles where beats are dropped."""
_FRAMES = {
    "en": ("{x}", "{x}", "{x} noted", "findings: {x}", "{x}, clinical correlation advised"),
    "de": ("{x}", "{x}", "{x} nachweisbar", "Befund: {x}", "{x}, klinisch korrelieren"),
}
_STAGES = {
    "en": {True: ("probably acute", "recent", "acute stage"), False: ("age undetermined", "probably old", "old")},
    "de": {True: ("wohl frisch", "akutes Stadium", "frisch"), False: ("Alter unbestimmt", "wohl alt", "alt")},
}
_NORMAL = {"en": "otherwise {x}", "de": "sonst {x}"}
_LEFT_OUT = 0.4
"""How often a form that follows from a diagnosis is not mentioned."""


def write_report(heart: Heart, seed: int, language: str = "en") -> str:
    """Write the report of a record; the same arguments write the same.

    Args:
        heart: What is planted.
        seed: Of the cohort.
        language: en or de.
    """
    rng = np.random.default_rng((seed, heart.patient, heart.record, 5, LANGUAGES.index(language)))
    words = {code: s.english if language == "en" else s.german for code, s in statements().items()} | _SINUS[language]
    wording = {code: _pick(rng, words[code]) for code in heart.statements}
    dropped = {"2AVB", "3AVB"} & set(heart.conduction)
    rhythm = _pick(rng, (_VENTRICULAR if dropped else _RATE)[language]).format(
        x=wording[heart.rhythm], n=round(heart.rate)
    )
    sentences = [rhythm]
    implied = set(heart.statements) - {heart.form, heart.voltage, heart.premature} if not heart.is_normal else set()
    for code in heart.statements:
        statement = statements()[code]
        left_out = code in implied and not statement.diagnostic and not statement.rhythm and rng.random() < _LEFT_OUT
        if code == heart.rhythm or left_out:
            continue
        if code == "NORM":
            sentences.append(_NORMAL[language].format(x=wording[code]))
            continue
        sentence = wording[code] if statement.rhythm else _pick(rng, _FRAMES[language]).format(x=wording[code])
        if code == heart.infarct:
            sentence = f"{wording[code]}, {_pick(rng, _STAGES[language][heart.acute])}"
        sentences.append(sentence)
    return " ".join(f"{capital(s)}." for s in sentences)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
