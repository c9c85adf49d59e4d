"""What is known of an image, as a value, and which wordings are true of it: views, sides, people, classes.

All captions, in all their forms, are composed of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from medclip.modalities import MODALITIES
from medclip.sample import Modality
from medclip.text.captions.candidates import WeighedCaption
from medclip.text.mentions import mentioned
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import Task, TaskClass, spoken_labels

if TYPE_CHECKING:
    from numpy.random import Generator


Region = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image."""
MAX_REGIONS = 10
"""Regions of a sample, at most."""


@dataclass(frozen=True)
class CaptionRecord:
    """Everything about an image that its captions may say."""

    modality: Modality | None
    view: str | None = None
    """AP, PA, LATERAL, CC, MLO."""
    laterality: str | None = None
    """"L", "R" or None."""
    age_years: float | None = None
    sex: str | None = None
    """"M", "F" or None."""
    labels: Mapping[str, str | Mapping[str, int]] = field(default_factory=dict)
    """Per task the class name (multi-class), 0/1 for each class that was looked for (multi-label), or months to an
    event and of follow-up (risk; `medclip.text.vocabulary.task`), which no caption speaks of."""
    texts: tuple[str, ...] = ()
    """Free text that came with the image."""
    generic: bool = False
    """The image is the generic rendering: its captions name the modality and nothing else."""
    report: str | None = None
    """The whole report of the examination, as it was written; captions draw from its findings and impression only."""
    negatives: tuple[str, ...] = ()
    """Captions that are false of the image and close to true ones. No caption is drawn from these, nor from what
    follows: `medclip.training.batches.sample_texts`."""
    long_captions: tuple[str, ...] = ()
    """Texts that say more than a caption does."""
    tags: tuple[str, ...] = ()
    """Single words and terms for what is seen."""
    absent_tags: tuple[str, ...] = ()
    """The same for what was looked for and is not there; of what stands in neither nothing is known."""
    candidates: tuple[WeighedCaption, ...] = ()
    """Captions of which a recipe with `data.candidates` draws one; nothing else is drawn from them."""
    edit_pairs: tuple[str, ...] = ()
    """Names of the pairs that the image is half of: two samples that differ by one edit, in image and text."""
    regions: tuple[Region, ...] = ()
    """Where on the stored image lies what its texts name, as shares of its width and height; `MAX_REGIONS` at most."""


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


VIEW_TASK = "chest_xray_view"


def without_outcomes(record: CaptionRecord) -> CaptionRecord:
    """Leave out of a record the labels that words say nothing of: what happened after the exam."""
    labels = spoken_labels(record.labels)
    return record if labels is record.labels else replace(record, labels=labels)


def image_names(record: CaptionRecord) -> tuple[str, ...]:
    """Name the image as its tasks do ("chest X-ray"), else by its modality."""
    return tuple(n for t in record.labels for n in load_task(t).image_names) or modality_names(record.modality)


def view_names(record: CaptionRecord) -> tuple[str, ...]:
    """Return how the image was taken; empty where nothing is known or the modality has no views."""
    label = record.labels.get(VIEW_TASK)
    if isinstance(label, str):
        return load_task(VIEW_TASK).class_named(label).prompts
    view = (record.view or "").upper()
    phrases = None if record.modality is None else record.modality.facts.views.get(view)
    if phrases is None:
        return ()
    return phrases or load_task(VIEW_TASK).class_named(view.lower()).prompts


@lru_cache(maxsize=64)
def modality_names(modality: Modality | None) -> tuple[str, ...]:
    """Name the image by its modality, with an article."""
    for c in load_task("modality").classes:
        if c.name == modality:
            return c.prompts
    if modality is None:
        return ("a medical image", "a clinical image")
    return modality.facts.image_phrases or (f"a {modality.facts.title} image",)


def labelled(task: Task, label: Mapping[str, int], value: int) -> list[TaskClass]:
    """Return the classes of a multi-label task whose label is `value`; of 0 none that is not to be denied."""
    classes = [task.class_named(name) for name, stated in label.items() if stated == value]
    return [c for c in classes if value or not any(label.get(name) == 1 for name in c.not_denied_with)]


def true_positives(task: Task, c: TaskClass, label: Mapping[str, int], *, nouns: bool = False) -> tuple[str, ...]:
    """Return the wordings that say the class is there and speak of no class that is not."""
    if nouns:
        return true_nouns(task, c, label, 1) or true_positives(task, c, label)
    return speaking_only_of(task, c, label, 1, c.prompts)


def true_negatives(task: Task, c: TaskClass, label: Mapping[str, int]) -> tuple[str, ...]:
    """Return the wordings that say the class is not there and speak of no class that is not labelled absent."""
    return speaking_only_of(task, c, label, 0, c.negative_prompts)


def true_nouns(task: Task, c: TaskClass, label: Mapping[str, int], value: int) -> tuple[str, ...]:
    """Return the noun phrases of the class that speak of no class with another label than `value`."""
    return speaking_only_of(task, c, label, value, c.nouns)


def speaking_only_of(
    task: Task, c: TaskClass, label: Mapping[str, int], value: int, wordings: tuple[str, ...]
) -> tuple[str, ...]:
    """Drop wordings that speak of another class too ("COVID-19 pneumonia"), unless its label is `value` as well."""
    return _within(task.name, wordings, frozenset([c.name, *(n for n, v in label.items() if v == value)]))


@lru_cache(maxsize=8192)
def _within(task_name: str, wordings: tuple[str, ...], allowed: frozenset[str]) -> tuple[str, ...]:
    return tuple(w for w in wordings if mentioned(task_name, w) <= allowed)


def pick(rng: Generator, options: Sequence[str]) -> str:
    """Draw one."""
    return options[int(rng.integers(len(options)))]


def weighted(rng: Generator, weights: Sequence[float]) -> int:
    """Draw a place in proportion to its weight."""
    at = rng.random() * sum(weights)
    for i, w in enumerate(weights):
        at -= w
        if at < 0:
            return i
    return len(weights) - 1
