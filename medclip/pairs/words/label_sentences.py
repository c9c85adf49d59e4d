"""One sentence per caption of what the labels of an image say: the wordings that label-only sets are given.

Follows the label-to-caption conversion of UniMed-CLIP (several descriptions per label: modality, finding or anatomy,
varied wording and pattern, no facts of the patient) with patterns of our own over the task vocabularies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from medclip.text.captions.record import (
    VIEW_TASK,
    CaptionRecord,
    image_names,
    labelled,
    pick,
    true_nouns,
    view_names,
    weighted,
    without_outcomes,
)
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import without_article
from medclip.text.vocabulary.task import Task
from medclip.wording import list_of

if TYPE_CHECKING:
    from numpy.random import Generator

MAX_FINDINGS = 4
"""Findings that one sentence combines; an image with more is given different ones each time."""
DENIAL_SHARE = 0.3
VIEW_SHARE = 0.2
_TRIES = 40
"""Draws for each sentence that is wanted, before the wordings are taken to be used up."""

_PRESENT = (
    "this {image} shows {findings}",
    "{image} with {findings}",
    "{image} demonstrating {findings}",
    "there is evidence of {findings} on this {image}",
    "findings of {findings} on this {image}",
    "the {image} reveals {findings}",
    "{findings} can be seen on this {image}",
    "on this {image} one recognises {findings}",
    "the appearances on this {image} are those of {findings}",
    "{image} in which {findings} can be made out",
)
_ABSENT = (
    "no {findings} on this {image}",
    "this {image} shows no {findings}",
    "there is no {findings} on this {image}",
    "{image} without {findings}",
    "no evidence of {findings} on this {image}",
    "the {image} gives no sign of {findings}",
    "on this {image} there is no {findings}",
)
_OF_THE_IMAGE = (VIEW_TASK, "modality")
"""Tasks whose answer names the image rather than what it shows."""
_AS_READ = (
    "{image}: {findings}",
    "reading of this {image}: {findings}",
    "this {image} was read as follows: {findings}",
    "the answer that this {image} gives: {findings}",
    "what this {image} shows: {findings}",
)
"""For wordings that may be whole clauses."""


def distinct_sentences(record: CaptionRecord, n: int, rng: Generator) -> tuple[str, ...]:
    """Write `n` different sentences of what the labels say.

    Args:
        record: Record, of which labels, modality and view are used; age, sex, side and texts are not.
        n: Number of sentences that are wanted.
        rng: Source of chance.

    Returns:
        At most `n` sentences, no two alike; fewer where the wordings of the labels do not give more, none without
        labels.

    Raises:
        MedclipError: NO_TASK or TABLE_INVALID when a label names an unknown task or class.

    Example:
        >>> import numpy as np
        >>> record = CaptionRecord(None, labels={"fundus_cataract": {"cataract": 0}})
        >>> len(distinct_sentences(record, 10, np.random.default_rng(0)))
        10
    """
    record, sentences = without_outcomes(record), dict[str, None]()
    for _ in range(n * _TRIES if record.labels else 0):
        sentence = draw_sentence(record, rng)
        if sentence:
            sentences[sentence] = None
        if len(sentences) == n:
            break
    return tuple(sentences)


def draw_sentence(record: CaptionRecord, rng: Generator) -> str | None:
    """Write one sentence that combines what the labels say is there, or says that nothing is.

    Returns:
        The sentence, or None when no wording of the labels is true of the image.
    """
    image = without_article(pick(rng, [n for n in image_names(record) if not n.startswith("one ")]))
    tasks = [t for t in record.labels if t not in _OF_THE_IMAGE]
    views = view_names(record)
    if not tasks:
        return _closed(pick(rng, _AS_READ), image, pick(rng, views)) if views else None
    if views and rng.random() < VIEW_SHARE:
        image = f"{image}, {pick(rng, views)},"
    name = pick(rng, tasks)
    task, label = load_task(name), record.labels[name]
    if isinstance(label, str):
        return _closed(pick(rng, _AS_READ), image, pick(rng, task.class_named(label).prompts))
    return _findings(task, label, image, rng)


def _findings(task: Task, label: Mapping[str, int], image: str, rng: Generator) -> str | None:
    present, absent = _nouns(task, label, 1), _nouns(task, label, 0)
    denied = _denied(task, absent, rng)
    if present:
        chosen = [present[name] for name in _some(list(present), MAX_FINDINGS, rng)]
        findings = list_of([pick(rng, nouns) for nouns in chosen], "and")
        if denied and rng.random() < DENIAL_SHARE:
            return _closed(pick(rng, _PRESENT[:3]), image, f"{findings}, without {denied}")
        return _closed(pick(rng, _PRESENT), image, findings)
    if task.none_prompts and task.denies_all(label) and rng.random() < 0.7:
        return _closed(pick(rng, _AS_READ), image, pick(rng, task.none_prompts))
    return _closed(pick(rng, _ABSENT), image, denied) if denied else None


def _nouns(task: Task, label: Mapping[str, int], value: int) -> dict[str, tuple[str, ...]]:
    return {c.name: w for c in labelled(task, label, value) if (w := true_nouns(task, c, label, value))}


def _denied(task: Task, absent: Mapping[str, Sequence[str]], rng: Generator) -> str:
    """Name one or two classes that are not there, the ones that reports deny most often first."""
    left, chosen = list(absent), []
    for _ in range(min(len(left), 1 + int(rng.integers(2)))):
        chosen.append(left.pop(weighted(rng, [task.class_named(name).denial_weight for name in left])))
    return list_of([without_article(pick(rng, absent[name])) for name in chosen], "or")


def _some(names: Sequence[str], most: int, rng: Generator) -> list[str]:
    return [names[int(i)] for i in rng.permutation(len(names))[:most]]


def _closed(pattern: str, image: str, findings: str) -> str:
    sentence = pattern.format(image=image, findings=findings).replace(",:", ":").rstrip(",")
    return f"{sentence[0].upper()}{sentence[1:]}."
