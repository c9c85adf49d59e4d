"""Captions: what is known of an image, put into words that change with every draw and stay true.

Follows the label-to-caption idea of UniMed-CLIP (several wordings per label, a fresh one each time the image is read),
with wordings of our own that are composed from the task vocabularies instead of stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from medclip.text.captions.record import (
    SENTENCE_JOINTS,
    SHOWING,
    VIEW_TASK,
    CaptionRecord,
    every_phrase,
    image_names,
    labelled,
    modality_names,
    other_side,
    person_phrases,
    pick,
    side_phrases,
    true_negatives,
    true_nouns,
    true_positives,
    view_names,
    weighted,
    without_outcomes,
)
from medclip.text.free_text import Native, draw_native, draw_report, draw_whole, shuffled
from medclip.text.vocabulary.load import load_task, spoken_names
from medclip.text.vocabulary.prompts import expand, without_article
from medclip.text.vocabulary.task import Task, TaskClass
from medclip.wording import list_of

if TYPE_CHECKING:
    from numpy.random import Generator

MAX_WORDS = 40
REPORT_WORDS = 60
SHORT_SHARE = 0.4
"""Share of composed captions that state one fact, in the very form of a zero-shot prompt."""


def draw_caption(
    record: CaptionRecord,
    rng: Generator,
    *,
    native_share: float = 0.3,
    report_share: float = 0.5,
    report_words: int = REPORT_WORDS,
    native: Native = "sentences",
) -> str:
    """Write one caption, new wording each time; `draw_stated` also tells whether it is quoted.

    Args:
        record: Record of the image. An image without labels gets captions of its modality, view and person only.
        rng: The only source of chance; the same state gives the same caption.
        native_share: Share of draws that quote the record's own text, where it has some that fits its labels; of the
            draws that `report_share` leaves.
        report_share: Share of draws that quote the record's report, where it has one with sentences that fit. A record
            without a report takes nothing from `rng` for it.
        report_words: Most words of a quoted report: 60 suit a text tower of 77 tokens, 180 one of 256.
        native: Form of what is quoted: "sentences" quotes sentences of the report and of the texts; "whole" gives the
            whole report, or one of the texts, unchanged and whatever the labels say; "shuffled" gives the same with its
            sentences in a new order. The shares hold for all three.

    Returns:
        1 to 60 words, or `report_words` where that is more; a whole text has its own length. But for whole texts, it
        never states a class that is not labelled present nor denies one that is not labelled absent, as far as the
        word lists of `mentions` see it; quoted text may speak of classes that nobody labelled.

    Raises:
        MedclipError: NO_TASK or TABLE_INVALID when a label names an unknown task or class.
    """
    return draw_stated(
        record, rng, native_share=native_share, report_share=report_share, report_words=report_words, native=native
    )[0]


def draw_stated(
    record: CaptionRecord,
    rng: Generator,
    *,
    native_share: float = 0.3,
    report_share: float = 0.5,
    report_words: int = REPORT_WORDS,
    native: Native = "sentences",
) -> tuple[str, bool]:
    """Write one caption as `draw_caption` does, and tell whether it states labels and metadata, and nothing else.

    Returns:
        The caption, and whether it fits every record that is labelled alike; what is quoted fits its own alone.
    """
    if record.generic:
        return _modality_caption(record, rng), True
    record = without_outcomes(record)
    if record.report and rng.random() < report_share:
        if native != "sentences" and record.report.strip():
            return shuffled(record.report, rng) if native == "shuffled" else record.report, False
        side = other_side(record.modality or "", record.laterality)
        quoted = draw_report(record.report, record.labels, rng, max_words=report_words, other_side=side)
        if quoted:
            return quoted, False
    if record.texts and rng.random() < native_share:
        quote_whole = native != "sentences"
        quoted = draw_whole(record.texts, rng) if quote_whole else draw_native(record.texts, record.labels, rng)
        if quoted:
            return shuffled(quoted, rng) if native == "shuffled" else quoted, False
    if rng.random() < SHORT_SHARE:
        return _one_fact(record, rng), True
    return _composed(record, rng), True


def all_wordings() -> Iterator[str]:
    """Yield every sentence and phrase that captions and prompts are made of, to train a tokenizer on."""
    for name in spoken_names():
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
    names = modality_names(record.modality)
    templates = load_task("modality").templates
    return pick(rng, templates).replace("{}", pick(rng, names))


def _one_fact(record: CaptionRecord, rng: Generator) -> str:
    options: list[tuple[float, Task, tuple[str, ...]]] = [(0.3, load_task("modality"), modality_names(record.modality))]
    for name, label in record.labels.items():
        task = load_task(name)
        if isinstance(label, str):
            options.append((1.0, task, task.class_named(label).prompts))
            continue
        options += [(3.0, task, w) for c in labelled(task, label, 1) if (w := true_positives(task, c, label))]
        absent = labelled(task, label, 0)
        total = sum(c.denial_weight for c in absent)
        options += [(1.5 * c.denial_weight / total, task, w) for c in absent if (w := true_negatives(task, c, label))]
        if task.none_prompts and task.denies_all(label):
            options.append((1.5, task, task.none_prompts))
    _, task, wordings = options[weighted(rng, [o[0] for o in options])]
    return pick(rng, task.templates).replace("{}", pick(rng, wordings))


def _composed(record: CaptionRecord, rng: Generator) -> str:
    image = _image_clause(record, rng)
    affirmed: list[str] = []
    denied: list[str] = []
    for name, label in record.labels.items():
        if name == VIEW_TASK:
            continue
        task = load_task(name)
        if isinstance(label, str):
            affirmed.append(pick(rng, task.class_named(label).prompts))
        else:
            says, denies = _findings(task, label, rng)
            affirmed += says
            denied += denies
    statements = affirmed + denied
    joint = pick(rng, SENTENCE_JOINTS)
    if joint != ", ":  # with commas a denial would reach over what follows it: "no effusion, pneumonia"
        statements = [statements[i] for i in rng.permutation(len(statements))]
    caption = _frame(image, statements, joint, rng)
    while len(caption.split()) > MAX_WORDS and len(statements) > 1:
        statements = statements[:-1]
        caption = _frame(image, statements, joint, rng)
    if len(caption.split()) < 4:
        prefix = f"the image is {pick(rng, modality_names(record.modality))}"
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
        showing = pick(rng, SHOWING)
        return f"{image}: {body}" if showing == ":" else f"{image} {showing} {body}"
    return f"{image}{joint}{body}"


def _findings(task: Task, label: Mapping[str, int], rng: Generator) -> tuple[list[str], list[str]]:
    """Return what is said to be there and what is said not to be."""
    present, absent = labelled(task, label, 1), labelled(task, label, 0)
    affirmed: list[str] = []
    if present:
        chosen = [present[i] for i in rng.permutation(len(present))]
        if len(chosen) > 1 and rng.random() < 0.3:
            chosen = chosen[: 1 + int(rng.integers(len(chosen)))]
        nouns = rng.random() < 0.4
        words = [w for c in chosen[:4] if (w := true_positives(task, c, label, nouns=nouns))]
        affirmed.append(list_of([pick(rng, w) for w in words], "and"))
    elif task.none_prompts and task.denies_all(label) and rng.random() < 0.5:
        affirmed.append(pick(rng, task.none_prompts))
    denied = _denials(task, label, absent, rng) if absent and (rng.random() < 0.35 or not affirmed) else []
    return [s for s in affirmed if s], denied


def _denials(task: Task, label: Mapping[str, int], absent: Sequence[TaskClass], rng: Generator) -> list[str]:
    remaining = list(absent)
    chosen = [
        remaining.pop(weighted(rng, [c.denial_weight for c in remaining]))
        for _ in range(min(len(remaining), 1 + int(rng.integers(3))))
    ]
    if rng.random() < 0.5:
        nouns = [without_article(pick(rng, w)) for c in chosen if (w := true_nouns(task, c, label, 0))]
        if nouns:
            return [f"{pick(rng, ('no', 'without', 'no evidence of', 'there is no'))} {list_of(nouns, 'or')}"]
    return [pick(rng, w) for c in chosen if (w := true_negatives(task, c, label))]


def _image_clause(record: CaptionRecord, rng: Generator) -> str:
    clause = pick(rng, image_names(record))
    view = view_names(record)
    if view and rng.random() < 0.6:
        clause = f"{clause}, {pick(rng, view)}" if rng.random() < 0.7 else f"{pick(rng, view)}, {clause}"
    side = side_phrases(record.modality or "", record.laterality)
    if side and rng.random() < 0.5:
        clause = f"{clause}, {pick(rng, side)}"
    person = person_phrases(record.age_years, record.sex)
    if person and rng.random() < 0.3:
        clause = f"{clause} of {pick(rng, person)}"
    return clause
