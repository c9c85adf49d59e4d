"""Prompts: a task's wordings put into its templates, and phrases of context that complete them.

Contexts say what else than a finding an image shows: view, device, patient, quality. The first value of each is blank
("not known"): without it a model would be forced to see one of the others. Phrases of devices go with findings (a chest
tube with a pneumothorax), so that they may tell the label itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.text.vocabulary.task import Task


@dataclass(frozen=True)
class ClassPrompts:
    """Every sentence that stands for one class."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    """Empty for multi-class tasks."""
    by_template: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    """The same sentences, positive and negative ones of each template."""


def expand(task: Task, classes: Sequence[str] | None = None) -> tuple[ClassPrompts, ...]:
    """Fill every template with every wording.

    Args:
        task: The vocabulary entry.
        classes: The classes to use, in this order; all of the task's where None.

    Returns:
        One entry per class; sentences are distinct, in the order template by wording.

    Raises:
        MedclipError: TABLE_INVALID for a class that the task does not have or that is named twice, WRONG_USE for none,
            NO_TASK for a task that has no words (a risk).

    Example:
        >>> from medclip.text.vocabulary.load import load_task
        >>> expand(load_task("fundus_cataract"))[0].negative[0]
        'no cataract'
    """
    chosen = task.classes if classes is None else tuple(task.class_named(c) for c in classes)
    if not task.has_words:
        raise MedclipError(
            Reason.NO_TASK,
            f"{task.name} is a risk: it is asked of a head that was trained on follow-up, not of words.",
            hint="Use a model pack with a head for it.",
        )
    if not chosen:
        raise MedclipError(Reason.WRONG_USE, f"no class of task {task.name} was named.")
    if len({c.name for c in chosen}) != len(chosen):
        raise MedclipError(Reason.TABLE_INVALID, f"a class of task {task.name} is named twice.")
    return tuple(
        ClassPrompts(
            c.name,
            fill(task.templates, c.prompts),
            fill(task.templates, c.negative_prompts),
            tuple((fill([t], c.prompts), fill([t], c.negative_prompts)) for t in task.templates),
        )
        for c in chosen
    )


def without_article(phrase: str) -> str:
    """Drop a leading "a", "an" or "the", so that the phrase fits after "no"."""
    return re.sub(r"^(a|an|the)\s+", "", phrase, flags=re.IGNORECASE)


def fill(templates: Sequence[str], wordings: Sequence[str]) -> tuple[str, ...]:
    """Combine every wording with every template; sentences are distinct, in the order template by wording."""
    return tuple(dict.fromkeys(t.replace("{}", w) for t in templates for w in wordings))


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
