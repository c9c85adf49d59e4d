"""False captions out of labels: what the true caption says, in the same form, of a class that the image does not have.

Where an image has one finding and another was looked for and is not there, the two change places: "pneumonia, no
effusion" becomes "effusion, no pneumonia". Polarity stays, so that only the noun tells true from false; an image
without any finding has no such caption, for "pneumonia" in the place of "no pneumonia" would be told by the "no". Of a
task with one true class another class is said, but none that says that nothing is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from medclip.text.captions.draw import draw_stated
from medclip.text.captions.record import CaptionRecord, labelled, pick
from medclip.text.mentions import NONE, contradicts
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import spoken_labels

if TYPE_CHECKING:
    from numpy.random import Generator


def draw_false(record: CaptionRecord, caption: str, rng: Generator, again: Generator) -> str:
    """Draw a false caption beside a true one that states labels.

    Args:
        record: Record of the image.
        caption: True caption, as `draw_stated` returned it.
        rng: Source of chance of which labels change.
        again: Generator in the state in which the true caption was drawn, so that both have one form.

    Returns:
        A caption that is false by the labels; blank where none of the labels that the true one states can change.

    Raises:
        MedclipError: NO_TASK or TABLE_INVALID when a label names an unknown task or class.

    Example:
        >>> from numpy.random import default_rng
        >>> film = CaptionRecord(None, labels={"chest_xray_findings": {"pneumonia": 1, "effusion": 0}})
        >>> true, _ = draw_stated(film, default_rng(5))
        >>> true
        'chest X-ray. no pleural effusion. opacities consistent with pneumonia'
        >>> draw_false(film, true, default_rng(5), default_rng(5))
        'chest X-ray. no pneumonia. costophrenic sulcus filled with fluid'
    """
    names = list(spoken_labels(record.labels))
    state = again.bit_generator.state
    for name in [names[i] for i in rng.permutation(len(names))] if not record.generic else []:
        changed = _changed(record, name, rng)
        if changed is None:
            continue
        again.bit_generator.state = state
        text, is_stated = draw_stated(changed, again)
        label = changed.labels[name]
        if is_stated and text != caption and _is_false(text, name, label, record):
            return text
    return ""


def _changed(record: CaptionRecord, name: str, rng: Generator) -> CaptionRecord | None:
    """Change what is true of one task; None where nothing can change."""
    task, label = load_task(name), record.labels[name]
    if isinstance(label, str):
        others = [c.name for c in task.classes if c.name != label and not c.name.startswith(NONE)]
        if not others or label.startswith(NONE):
            return None
        return replace(record, labels={**record.labels, name: pick(rng, others)})
    present, absent = ([c.name for c in labelled(task, label, value)] for value in (1, 0))
    if not present or not absent:
        return None
    swapped = {pick(rng, present): 0, pick(rng, absent): 1}
    return replace(record, labels={**record.labels, name: {**label, **swapped}})


def _is_false(text: str, name: str, label: str | Mapping[str, int], record: CaptionRecord) -> bool:
    """Whether a caption states what was changed: chance may have led it past."""
    if isinstance(label, str):
        return any(prompt in text for prompt in load_task(name).class_named(label).prompts)
    return contradicts(text, {name: record.labels[name]})
