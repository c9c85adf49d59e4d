"""How views, sides and people are put into words in captions."""

from __future__ import annotations

from medclip.modalities import MODALITIES

SENTENCE_JOINTS = (". ", ", ", "; ", ". ")
SHOWING = ("showing", "with", "demonstrating", "that shows", "with findings of", ":")
_DECADES = ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")


def paired_organ(modality: str) -> str | None:
    """Return the organ of which one image of a modality shows one side."""
    facts = MODALITIES.get(modality)
    return None if facts is None else facts.paired_organ


def side_phrases(modality: str, laterality: str | None) -> tuple[str, ...]:
    """Return which side an image shows; empty where the side is unknown or the organ is not paired."""
    organ = paired_organ(modality)
    side = {"L": "left", "R": "right"}.get(laterality or "")
    if organ is None or side is None:
        return ()
    return (f"{side} {organ}", f"the {side} {organ}", f"{side} side", f"{organ} on the {side}")


def other_side(modality: str, laterality: str | None) -> str | None:
    """Name the side that an image of a paired organ does not show; None where that cannot be said."""
    if paired_organ(modality) is None:
        return None
    return {"L": "right", "R": "left"}.get(laterality or "")


def person_phrases(age_years: float | None, sex: str | None) -> tuple[str, ...]:
    """Describe a person by age group, decade and sex, never by the exact age.

    Args:
        age_years: Age in years, None when unknown.
        sex: Sex of the person, "M", "F" or None.

    Returns:
        Phrases that fit after "of"; empty when nothing is known.
    """
    if age_years is None:
        return {"M": ("a man", "a male patient"), "F": ("a woman", "a female patient")}.get(sex or "", ())
    if age_years < 18:
        return _young(age_years, sex)
    adult = {"M": "man", "F": "woman"}.get(sex or "", "patient")
    his = {"M": "his", "F": "her"}.get(sex or "", "their")
    phrases = [f"{group} {adult}" for group in _groups(age_years)]
    decade = int(age_years) // 10 - 2
    if 0 <= decade < len(_DECADES):
        phrases.append(f"a {adult} in {his} {_DECADES[decade]}")
    if sex in ("M", "F"):
        phrases.append(f"an adult {'male' if sex == 'M' else 'female'}")
    return tuple(phrases)


def _groups(age_years: float) -> tuple[str, ...]:
    if age_years >= 65:
        return ("an elderly", "an older", "an aged")
    if age_years >= 40:
        return ("a middle-aged",)
    return ("a young adult", "a young")


def _young(age_years: float, sex: str | None) -> tuple[str, ...]:
    child = {"M": "boy", "F": "girl"}.get(sex or "", "child")
    if age_years < 2:
        return ("an infant", "a baby")
    if age_years < 13:
        return (f"a young {child}" if child != "child" else "a young child", "a child", "a paediatric patient")
    return ("a teenager", "an adolescent", f"a teenage {child}" if child != "child" else "a young patient")


def every_phrase() -> tuple[str, ...]:
    """List every phrase this module can say, for training a tokenizer."""
    views = [p for facts in MODALITIES.values() for phrases in facts.views.values() for p in phrases]
    sides = [p for m in MODALITIES for side in "LR" for p in side_phrases(m, side)]
    people = [p for age in (None, *range(0, 105, 5)) for sex in (None, "M", "F") for p in person_phrases(age, sex)]
    return tuple(dict.fromkeys([*views, *sides, *(f"of {p}" for p in people), *(s for s in SHOWING if s != ":")]))
