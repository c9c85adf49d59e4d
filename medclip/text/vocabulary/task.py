"""A task and its classes: what is asked of an image, and which answers there are.

Labels of a risk task say when an event was seen after the exam, and how long it was looked for. They say what happened
later, not what the image shows: no caption and no check of one reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from medclip.dicom.header.body_parts import DESCRIBED, SAYS_NO_BODY_PART
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.sample import Modality
from medclip.text.vocabulary.task_kinds import TASK_KINDS, TaskKind, kind_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VARIABLE = "MEDCLIP_TASKS"
"""Environment variable with the folders of task files of one's own, joined as in PATH; started processes inherit it."""


Level = Literal["image", "breast", "exam"]
EVENT, FOLLOWUP = "event_months", "followup_months"
"""What the label of a risk task holds: months from the exam to the diagnosis, absent where none was seen, and to the
last that is known."""


@dataclass(frozen=True)
class TaskClass:
    """One answer a task can give."""

    name: str
    """Key in tables and cards: lower case, digits and underscores."""
    title: str
    """What a report prints."""
    prompts: tuple[str, ...] = ()
    """Wordings that say the class is there, each fit for any of the task's templates; a risk task has none."""
    negative_prompts: tuple[str, ...] = ()
    """Wordings that say it is not there; only multi-label classes have them."""
    codes: Mapping[str, str] = field(default_factory=dict)
    """`sct` (SNOMED CT), `radlex` and `scp` (SCP-ECG), given only where the concept is the same."""
    nouns: tuple[str, ...] = ()
    """Noun phrases that fit after "with" and, without their article, after "no"; captions are composed of them."""
    stems: tuple[str, ...] = ()
    """Beginnings of words that betray a mention of the class; every wording of the class need not hold one."""
    shows: str = ""
    """Terms of the body part that images of the class show: an image that nothing else says it of is not asked about
    other parts where the model is sure of the class."""
    denial_weight: float = 1.0
    """How readily a report says that this is absent, relative to the other classes of the task."""
    not_denied_with: tuple[str, ...] = ()
    """Classes beside which no caption says that this is absent, though its label is 0: what is listed may be a case of
    it, such as inferolateral of inferior infarction, or bring it along."""


@dataclass(frozen=True)
class Task:
    """A question that can be asked of an image."""

    name: str
    title: str
    kind: str
    """Name of its kind, as scores have it: a row of `medclip.text.vocabulary.task_kinds.TASK_KINDS`."""
    modalities: tuple[Modality, ...]
    """Modalities the question makes sense for; empty means any."""
    templates: tuple[str, ...]
    """Sentences with one `{}` that a prompt is put into."""
    classes: tuple[TaskClass, ...]
    image_names: tuple[str, ...] = ()
    """What images of this task are called, e.g. "chest X-ray"; used in captions of labelled images."""
    none_prompts: tuple[str, ...] = ()
    """Wordings for an image of which the labels say that nothing is there (`says_none`)."""
    not_part_of_none: tuple[str, ...] = ()
    """Classes that such a wording says nothing of: they need not have been looked for."""
    body_parts: tuple[str, ...] = ()
    """Upper-case DICOM terms of the anatomy the question is about; empty means any."""
    ordered: bool = False
    """The classes of a multi-class task are steps of one scale, in their order: agreement may be weighted."""
    outside_order: tuple[str, ...] = ()
    """Classes of an ordered task that are no step of it, such as BI-RADS 0: weighted agreement leaves them out."""
    worst_last: bool = False
    """Of a multi-class task: where the images of a breast or woman differ, the later class is true of her. An ordered
    task has that anyway."""
    level: Level = "image"
    """What an answer is true of: the image, all images of the breast, or the whole exam."""
    normal_if_none: bool = True
    """An image of which the answer says that nothing is there is a normal one; False for a question about one thing
    among many: a breast without cancer may have a cyst."""
    asked_of: str | None = None
    """Images that the question is asked of, "images with a breast lesion", where its classes do not cover all of its
    modality: of any other none of them is true, and the model answers all the same. None where they do."""
    horizons_years: tuple[int, ...] = ()
    """Of a risk task: class k is "the event has happened within so many years", so probabilities never fall."""

    @property
    def has_words(self) -> bool:
        """Whether the question can be asked in words; a risk and a map are asked of a trained head only."""
        return not (self.rules.timed or self.rules.placed)

    @property
    def rules(self) -> TaskKind:
        """The row of its kind in `TASK_KINDS`.

        Raises:
            MedclipError: TABLE_INVALID for a kind that is not in the table.
        """
        for row in TASK_KINDS.values():
            if row.stands_for and all(getattr(self, key, None) == value for key, value in row.stands_for.items()):
                return row
        return kind_named(self.kind)

    def years(self, names: Sequence[str]) -> list[int]:
        """Return the years that classes of a risk task stand for."""
        of_class = dict(zip((c.name for c in self.classes), self.horizons_years, strict=True))
        return [of_class[name] for name in names]

    @property
    def none_in_words(self) -> str:
        """What stands beside every answer to a question whose classes do not cover its modality; blank otherwise."""
        return f"asked only of {self.asked_of}: of any other image none of these is true" if self.asked_of else ""

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the classes that are steps of an ordered task, in their order; empty for any other task."""
        return tuple(c.name for c in self.classes if c.name not in self.outside_order) if self.ordered else ()

    def step_numbers(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return where the steps of an ordered task stand among some of its classes, from the lowest to the highest."""
        return tuple(names.index(name) for name in self.steps if name in names)

    def is_about(self, body_part: str) -> bool:
        """Whether what a header states of the body part fits; what is empty or says nothing fits every task.

        Args:
            body_part: BodyPartExamined, e.g. "CHEST" or "PORT CHEST"; where the header's descriptions name a part, too,
                as `medclip.dicom.header.body_parts.stated_part` writes it: then both have to fit.
        """
        stated = (part.strip(" ,").upper() for part in body_part.split(DESCRIBED))
        return not self.body_parts or all(
            text in SAYS_NO_BODY_PART or any(part in text for part in self.body_parts) for text in stated
        )

    def denies_all(self, label: Mapping[str, int]) -> bool:
        """Whether a multi-label answer says that nothing is there: no class is 1, and each is 0 that has to be.

        Args:
            label: 0 or 1 for each class that was looked for.
        """
        needed = [c.name for c in self.classes if c.name not in self.not_part_of_none]
        return all(label.get(name) == 0 for name in needed) and not any(label.values())

    def class_named(self, name: str) -> TaskClass:
        """Return one class.

        Raises:
            MedclipError: TABLE_INVALID when the task has no such class.
        """
        for c in self.classes:
            if c.name == name:
                return c
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"task {self.name} has no class {name!r}.",
            hint=did_you_mean(name, (c.name for c in self.classes), "It has"),
        )


Label = TypeVar("Label")

MOST_MONTHS = 1200
FIELDS = (EVENT, FOLLOWUP)
"""What the columns of a table are called, `label:TASK:FIELD`; no class of a task may be called so."""


def spoken_labels(labels: Mapping[str, Label]) -> Mapping[str, Label]:
    """Leave out the labels that words say nothing of.

    Example:
        >>> spoken_labels({"breast_density": "fatty", "breast_cancer_risk": {"followup_months": 60}})
        {'breast_density': 'fatty'}
    """
    if not any(map(is_outcome, labels.values())):
        return labels
    return {name: label for name, label in labels.items() if not is_outcome(label)}


def is_outcome(label: object) -> bool:
    """Whether a label is one of a risk task; its task need not be known here."""
    return isinstance(label, Mapping) and FOLLOWUP in label


def outcome_word(label: str | Mapping[str, int]) -> str:
    """Return under which word the label of a risk task is counted."""
    return "event" if EVENT in label else "no event"


def outcome_of(event_months: int | None, followup_months: int | None) -> dict[str, int]:
    """Check the label of a risk task.

    Args:
        event_months: Whole months from the exam to the diagnosis; None where none was seen.
        followup_months: Whole months from the exam to the last that is known; None where only the event is known,
            which is then the last that is known.

    Returns:
        `event_months`, only where an event was seen, and `followup_months`; empty where neither is known.

    Raises:
        MedclipError: TABLE_INVALID for negative months, more than a hundred years, or a follow-up that ends before the
            event.

    Example:
        >>> outcome_of(14, 60), outcome_of(None, 60)
        ({'event_months': 14, 'followup_months': 60}, {'followup_months': 60})
    """
    if followup_months is None:
        followup_months = event_months
    if followup_months is None:
        return {}
    if not all(0 <= months <= MOST_MONTHS for months in (event_months or 0, followup_months)):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{event_months if event_months is not None else followup_months} months from the exam cannot be.",
            hint=f"Use whole months from 0 to {MOST_MONTHS}; a cancer found before the exam is no event after it.",
        )
    if event_months is None:
        return {FOLLOWUP: followup_months}
    if followup_months < event_months:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the follow-up of {followup_months} months is shorter than the {event_months} months to the event.",
            hint=f"`{FOLLOWUP}` counts to the last that is known of the patient, `{EVENT}` to the diagnosis.",
        )
    return {EVENT: event_months, FOLLOWUP: followup_months}


def events_by_year(task: Any, labels: Sequence[Any], names: Sequence[str]) -> NDArray[np.float64]:
    """Read whether an event has happened by the end of each year, float64 [N, K]; NaN where it is not known."""
    import numpy as np

    from medclip.objectives.hazard import hazard_targets

    event_N, followup_N = (
        np.array([(label or {}).get(field, np.nan) for label in labels], np.float64) for field in (EVENT, FOLLOWUP)
    )
    years = task.years(names)
    truth_NK, known_NK = hazard_targets(event_N, followup_N, max(years))
    return np.where(known_NK.numpy() > 0, truth_NK.numpy(), np.nan)[:, [year - 1 for year in years]]
