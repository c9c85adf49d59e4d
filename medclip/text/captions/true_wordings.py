"""Which wordings of the vocabularies are true of an image: what captions, in all their forms, may be composed of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from medclip.sample import Modality
from medclip.text.captions.record import CaptionRecord
from medclip.text.free_text.mentions import mentioned
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.outcomes import spoken_labels
from medclip.text.vocabulary.task import Task, TaskClass

if TYPE_CHECKING:
    from numpy.random import Generator

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
