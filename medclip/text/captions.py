"""Captions: what is known of an image, put into words that change with every draw and stay true.

Follows the label-to-caption idea of UniMed-CLIP (several wordings per label, a fresh one each time the image is read),
with wordings of our own that are composed from the task vocabularies instead of stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from medclip.sample import Modality
from medclip.text.mentions import mentioned
from medclip.text.native import draw_native
from medclip.text.phrases import MAMMOGRAPHY_VIEWS, SENTENCE_JOINTS, SHOWING, every_phrase, person_phrases, side_phrases
from medclip.text.prompts import expand, without_article
from medclip.text.vocabularies import Task, TaskClass, load_task, task_names

if TYPE_CHECKING:
    from numpy.random import Generator

MAX_WORDS = 40
SHORT_SHARE = 0.4
"""Share of composed captions that state one fact, in the very form of a zero-shot prompt."""
_VIEW_TASK = "chest_xray_view"


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
    """Per task the class name (multi-class) or 0/1 for each class that was looked for (multi-label)."""
    texts: tuple[str, ...] = ()
    """Free text that came with the image."""
    generic: bool = False
    """The image is the generic rendering: its captions name the modality and nothing else."""


def draw_caption(record: CaptionRecord, rng: Generator, *, native_share: float = 0.3) -> str:
    """Write one caption, new wording each time.

    Args:
        record: What is known. An image without labels gets captions of its modality, view and person only.
        rng: The only source of chance; the same state gives the same caption.
        native_share: Share of draws that quote the record's own text, where it has some that fits its labels.

    Returns:
        1 to 60 words. It never states a class that is not labelled present nor denies one that is not labelled absent;
        quoted text may speak of classes that nobody labelled.

    Raises:
        MedclipError: NO_TASK or TABLE_INVALID when a label names an unknown task or class.
    """
    if record.generic:
        return _modality_caption(record, rng)
    if record.texts and rng.random() < native_share:
        quoted = draw_native(record.texts, record.labels, rng)
        if quoted:
            return quoted
    if rng.random() < SHORT_SHARE:
        return _one_fact(record, rng)
    return _composed(record, rng)


def all_wordings() -> Iterator[str]:
    """Give every sentence and phrase that captions and prompts are made of, to train a tokenizer on."""
    for name in task_names():
        task = load_task(name)
        for c in expand(task):
            yield from c.positive
            yield from c.negative
        yield from task.image_names
        yield from task.none_prompts
        for c in task.classes:
            yield from (f"showing {n}" for n in c.nouns)
            yield from (f"no {without_article(n)}" for n in c.nouns)
            yield c.title
    yield from every_phrase()


def _modality_caption(record: CaptionRecord, rng: Generator) -> str:
    said = _modality_names(record.modality)
    templates = load_task("modality").templates
    return _pick(rng, templates).replace("{}", _pick(rng, said))


def _one_fact(record: CaptionRecord, rng: Generator) -> str:
    options: list[tuple[float, Task, tuple[str, ...]]] = [
        (0.3, load_task("modality"), _modality_names(record.modality))
    ]
    for name, label in record.labels.items():
        task = load_task(name)
        if isinstance(label, str):
            options.append((1.0, task, task.class_named(label).prompts))
            continue
        options += [(3.0, task, w) for c in _labelled(task, label, 1) if (w := _true_positives(task, c, label))]
        absent = _labelled(task, label, 0)
        total = sum(c.denial_weight for c in absent)
        options += [(1.5 * c.denial_weight / total, task, w) for c in absent if (w := _true_negatives(task, c, label))]
        if task.none_prompts and len(absent) == len(task.classes):
            options.append((1.5, task, task.none_prompts))
    _, task, wordings = options[_weighted(rng, [o[0] for o in options])]
    return _pick(rng, task.templates).replace("{}", _pick(rng, wordings))


def _composed(record: CaptionRecord, rng: Generator) -> str:
    image = _image_clause(record, rng)
    affirmed: list[str] = []
    denied: list[str] = []
    for name, label in record.labels.items():
        if name == _VIEW_TASK:
            continue
        task = load_task(name)
        if isinstance(label, str):
            affirmed.append(_pick(rng, task.class_named(label).prompts))
        else:
            says, denies = _findings(task, label, rng)
            affirmed += says
            denied += denies
    statements = affirmed + denied
    joint = _pick(rng, SENTENCE_JOINTS)
    if joint != ", ":  # with commas a denial would reach over what follows it: "no effusion, pneumonia"
        statements = [statements[i] for i in rng.permutation(len(statements))]
    caption = _frame(image, statements, joint, rng)
    while len(caption.split()) > MAX_WORDS and len(statements) > 1:
        statements = statements[:-1]
        caption = _frame(image, statements, joint, rng)
    if len(caption.split()) < 4:
        prefix = f"the image is {_pick(rng, _modality_names(record.modality))}"
        caption = f"{prefix}{joint}{caption}" if statements else prefix
    return caption


def _frame(image: str, statements: Sequence[str], joint: str, rng: Generator) -> str:
    if not statements:
        return image
    body = joint.join(statements)
    how = rng.random()
    if how < 0.2:
        return f"{body} on {image}" if len(statements) == 1 else f"{body}{joint}{image}"
    if how < 0.35:
        return body
    if how < 0.5:
        return f"{body}{joint}{image}"
    if how < 0.75 and not statements[0].startswith(("without", "the ", "not ", "free of")):
        showing = _pick(rng, SHOWING)
        return f"{image}: {body}" if showing == ":" else f"{image} {showing} {body}"
    return f"{image}{joint}{body}"


def _findings(task: Task, label: Mapping[str, int], rng: Generator) -> tuple[list[str], list[str]]:
    """Give what is said to be there and what is said not to be."""
    present, absent = _labelled(task, label, 1), _labelled(task, label, 0)
    affirmed: list[str] = []
    if present:
        chosen = [present[i] for i in rng.permutation(len(present))]
        if len(chosen) > 1 and rng.random() < 0.3:
            chosen = chosen[: 1 + int(rng.integers(len(chosen)))]
        nouns = rng.random() < 0.4
        words = [w for c in chosen[:4] if (w := _true_positives(task, c, label, nouns=nouns))]
        affirmed.append(_listed([_pick(rng, w) for w in words], "and"))
    elif task.none_prompts and len(absent) == len(task.classes) and rng.random() < 0.5:
        affirmed.append(_pick(rng, task.none_prompts))
    denied = _denials(task, label, absent, rng) if absent and (rng.random() < 0.35 or not affirmed) else []
    return [s for s in affirmed if s], denied


def _denials(task: Task, label: Mapping[str, int], absent: Sequence[TaskClass], rng: Generator) -> list[str]:
    left = list(absent)
    chosen = [
        left.pop(_weighted(rng, [c.denial_weight for c in left]))
        for _ in range(min(len(left), 1 + int(rng.integers(3))))
    ]
    if rng.random() < 0.5:
        nouns = [without_article(_pick(rng, w)) for c in chosen if (w := _true_nouns(task, c, label, 0))]
        if nouns:
            return [f"{_pick(rng, ('no', 'without', 'no evidence of', 'there is no'))} {_listed(nouns, 'or')}"]
    return [_pick(rng, w) for c in chosen if (w := _true_negatives(task, c, label))]


def _image_clause(record: CaptionRecord, rng: Generator) -> str:
    names = tuple(n for t in record.labels for n in load_task(t).image_names) or _modality_names(record.modality)
    clause = _pick(rng, names)
    view = _view_names(record)
    if view and rng.random() < 0.6:
        clause = f"{clause}, {_pick(rng, view)}" if rng.random() < 0.7 else f"{_pick(rng, view)}, {clause}"
    side = side_phrases(record.modality or "", record.laterality)
    if side and rng.random() < 0.5:
        clause = f"{clause}, {_pick(rng, side)}"
    person = person_phrases(record.age_years, record.sex)
    if person and rng.random() < 0.3:
        clause = f"{clause} of {_pick(rng, person)}"
    return clause


def _view_names(record: CaptionRecord) -> tuple[str, ...]:
    label = record.labels.get(_VIEW_TASK)
    if isinstance(label, str):
        return load_task(_VIEW_TASK).class_named(label).prompts
    view = (record.view or "").upper()
    if record.modality == Modality.XRAY and view in ("AP", "PA", "LATERAL"):
        return load_task(_VIEW_TASK).class_named(view.lower()).prompts
    return MAMMOGRAPHY_VIEWS.get(view, ()) if record.modality == Modality.MAMMOGRAPHY else ()


@lru_cache(maxsize=64)
def _modality_names(modality: Modality | None) -> tuple[str, ...]:
    for c in load_task("modality").classes:
        if c.name == modality:
            return c.prompts
    return ("a medical image", "a clinical image") if modality is None else (f"a {modality.value} recording",)


def _labelled(task: Task, label: Mapping[str, int], value: int) -> list[TaskClass]:
    return [c for n, v in label.items() if v == value and (c := task.class_named(n))]


def _true_positives(task: Task, c: TaskClass, label: Mapping[str, int], *, nouns: bool = False) -> tuple[str, ...]:
    if nouns:
        return _true_nouns(task, c, label, 1) or _true_positives(task, c, label)
    return _speaking_only_of(task.name, c.prompts, _allowed(c, label, 1))


def _true_negatives(task: Task, c: TaskClass, label: Mapping[str, int]) -> tuple[str, ...]:
    return _speaking_only_of(task.name, c.negative_prompts, _allowed(c, label, 0))


def _true_nouns(task: Task, c: TaskClass, label: Mapping[str, int], value: int) -> tuple[str, ...]:
    return _speaking_only_of(task.name, c.nouns, _allowed(c, label, value))


def _allowed(c: TaskClass, label: Mapping[str, int], value: int) -> frozenset[str]:
    return frozenset([c.name, *(n for n, v in label.items() if v == value)])


@lru_cache(maxsize=8192)
def _speaking_only_of(task_name: str, wordings: tuple[str, ...], allowed: frozenset[str]) -> tuple[str, ...]:
    """Drop wordings that speak of another class too ("COVID-19 pneumonia"), unless it has the same label."""
    return tuple(w for w in wordings if mentioned(task_name, w) <= allowed)


def _listed(items: Sequence[str], word: str) -> str:
    return " ".join([", ".join(items[:-1]), word, items[-1]]) if len(items) > 1 else "".join(items)


def _pick(rng: Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _weighted(rng: Generator, weights: Sequence[float]) -> int:
    at = rng.random() * sum(weights)
    for i, w in enumerate(weights):
        at -= w
        if at < 0:
            return i
    return len(weights) - 1
