"""Which texts and labels of a sample a step gets: of which view and side, in which role, what is true. No torch here.

A row of `medclip.training.losses.LOSSES` says which roles it reads beside captions; only these are drawn and cut into
tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.sample import POSITIONS, SIDES, VIEW_KINDS, ViewType
from medclip.shards.sample_json import SampleView
from medclip.text.captions.candidates import SYNTHETIC
from medclip.text.captions.record import CaptionRecord
from medclip.text.free_text import aside, sentences, split_report
from medclip.text.vocabulary.task import Task, spoken_labels

ALL_SIDES = -1
"""Number of the side of a caption that is about all that is shown, or about a side that nobody named."""


@dataclass(frozen=True)
class Subject:
    """What one caption is drawn of."""

    record: CaptionRecord
    side: int = ALL_SIDES
    """Number of the side that it is about."""
    quoted: bool = False
    """It is quoted from the view's own texts, whatever share of captions is quoted elsewhere."""


def subjects_of(record: CaptionRecord, views: Sequence[SampleView], num_texts: int) -> list[Subject]:
    """Choose what the captions of a sample are about: one view after the other, each side in turn.

    Views that nothing of their own is said of are passed over. Where that is so of all, every caption is drawn of the
    sample's record; so is it where a report or texts of the whole examination stand against labels of views alone.

    Args:
        record: Record of the whole sample.
        views: Views in hanging order; none for a sample of one image.
        num_texts: Captions of a sample.
    """
    speaking = [view for view in views if view.texts or view.report]
    if not speaking and not (record.texts or record.report):
        speaking = [view for view in views if spoken_labels(view.labels)]
    if not speaking:
        sides = {view.view.side for view in views} if views else {record.laterality or ""}
        return [Subject(record, _number(sides.pop()) if len(sides) == 1 else ALL_SIDES)] * num_texts
    of_side: dict[str, list[SampleView]] = {}
    for view in speaking:
        of_side.setdefault(view.view.side, []).append(view)
    turns = list(of_side.values())
    chosen = [turns[n % len(turns)][n // len(turns) % len(turns[n % len(turns)])] for n in range(num_texts)]
    return [_subject(record, view) for view in chosen]


def types_of(record: CaptionRecord, views: Sequence[SampleView]) -> tuple[tuple[int, int, int], ...]:
    """Number side, position and kind of each view, as `ViewFusion.types` does; of one image by its record."""
    several = [view.view for view in views] or [ViewType(record.laterality or "", record.view or "")]
    return tuple((side, position, kind) for kind, position, side in (view.hanging for view in several))


def view_of(numbers: tuple[int, int, int]) -> ViewType:
    """Return the view that `types_of` numbered so; what has no name is unknown."""
    names = (SIDES, POSITIONS, VIEW_KINDS)
    side, position, kind = (
        kinds[number] if 0 <= number < len(kinds) else "" for number, kinds in zip(numbers, names, strict=True)
    )
    return ViewType(side, position, kind)


def kin_of(record: CaptionRecord, views: Sequence[SampleView]) -> str:
    """Return a text that is equal for examinations of which the same labels are true, view by view.

    Labels of the whole stand for both sides together, and say nothing of one; they count where one side is shown.
    """
    if any(spoken_labels(view.labels) for view in views):
        return json.dumps([(view.view.slot, spoken_labels(view.labels)) for view in views], sort_keys=True)
    if len({view.view.side for view in views}) > 1:
        return ""
    return label_key(replace(record, labels=spoken_labels(record.labels)))


def label_key(record: CaptionRecord) -> str:
    """Return a text that is equal for records which the same statements are true of.

    It is empty where only a text of its own is known of an image: what it says is not what the texts of others say.
    """
    if not (record.generic or record.labels) and (record.texts or record.report):
        return ""
    view = None if record.generic else record.view
    labels = {} if record.generic else record.labels
    return json.dumps([record.generic, record.modality, view, labels], sort_keys=True)


def _subject(record: CaptionRecord, view: SampleView) -> Subject:
    of_view = replace(
        record,
        view=view.view.position or None,
        laterality=view.view.side or None,
        labels=view.labels,
        texts=view.texts,
        report=view.report,
    )
    return Subject(of_view, _number(view.view.side), quoted=bool(view.texts or view.report))


def _number(side: str) -> int:
    return SIDES.index(side) if side in SIDES else ALL_SIDES


def labels_of(label_key: str) -> Mapping[str, Any]:
    """Read the labels of an image back from its `label_key`; none where nothing is known."""
    return json.loads(label_key)[3] if label_key else {}


def truth_of(task: Task, label_keys: Sequence[str], classes: Sequence[str] = ()) -> NDArray[np.float64]:
    """Read from labels what is true of N images.

    Args:
        task: Task that is asked.
        label_keys: `medclip.training.batches.sample_texts.label_key` makes them.
        classes: Classes that are asked for, in this order; all of the task's where empty.

    Returns:
        Of a task with one answer [N, 1]: the number of the class, C for one that is not asked for; of any other
        [N, C]: 1 and 0. NaN where it is not known.
    """
    names = [*classes] or [c.name for c in task.classes]
    return task.rules.truth_of(task, [labels_of(key).get(task.name) for key in label_keys], names)


OWN = "own"
"""Role of the caption, which is drawn of every sample where any loss reads words."""


class Role(NamedTuple):
    """A kind of texts that samples may have."""

    texts: Callable[[CaptionRecord], tuple[str, ...]]
    """Reads them from what is known of a sample; none where it has none of this role."""
    is_encoded: bool
    """The text tower reads them."""
    stated_by: str
    """Where a sample says them."""


def _long(record: CaptionRecord) -> tuple[str, ...]:
    return record.long_captions or ((record.report,) if record.report else ())


def _tags(record: CaptionRecord) -> tuple[str, ...]:
    """Return the tags of a record; where it has none, the names of the classes that its labels say are true."""
    if record.tags:
        return record.tags
    tags: list[str] = []
    for label in spoken_labels(record.labels).values():
        tags += [label] if isinstance(label, str) else [name for name, value in label.items() if value == 1]
    return tuple(tags)


def _absent(record: CaptionRecord) -> tuple[str, ...]:
    """Return the tags that a record denies, and the names of the classes that its labels say are not true."""
    looked_for = [label for label in spoken_labels(record.labels).values() if not isinstance(label, str)]
    return (*record.absent_tags, *(name for label in looked_for for name, value in label.items() if value == 0))


def _synthetic(record: CaptionRecord) -> tuple[str, ...]:
    return tuple(caption.text for caption in record.candidates if caption.kind == SYNTHETIC)


def _summary(record: CaptionRecord) -> tuple[str, ...]:
    """Return the impression of a report, or else the texts, without sentences that no image shows, such as advice."""
    impression = split_report(record.report).get("impression") if record.report else None
    cleaned = [
        " ".join(sentence for sentence in sentences(text, min_words=1) if aside(sentence) is None)
        for text in ([impression] if impression else record.texts)
    ]
    return tuple(text for text in cleaned if text)


def _attributes(record: CaptionRecord) -> tuple[str, ...]:
    """Return the tags of a record as one text."""
    tags = _tags(record)
    return ("; ".join(tags),) if tags else ()


ROLES: dict[str, Role] = {
    "negative": Role(lambda record: record.negatives, True, "`negatives` of its JSON or table"),
    "long": Role(_long, True, "`long_captions` of its JSON or table, or its report"),
    "tags": Role(_tags, False, "`tags` of its JSON or table, or its labels"),
    "absent": Role(_absent, False, "`absent_tags` of its JSON or table, or its labels"),
    "pair": Role(lambda record: record.edit_pairs, False, "`edit_pairs` of its JSON or table"),
    "synthetic": Role(_synthetic, True, "the captions that models wrote, of shards of `medclip pairs rewrite`"),
    "summary": Role(_summary, True, "the impression of its report, or its texts"),
    "attributes": Role(_attributes, True, "`tags` of its JSON or table, or its labels"),
}
"""Roles of texts beside the caption. Each draws from a stream of chance of its own, by its place here."""


class DrawnRole(NamedTuple):
    """A role that a run draws."""

    name: str
    num_texts: int
    """Texts of each sample, K."""
    words: tuple[str, ...] = ()
    """Of tags, which K words there are: all of a sample are taken, and none is drawn."""

    def draw(self, record: CaptionRecord, rng: np.random.Generator | None) -> tuple[str, ...]:
        """Return K texts of a sample, blank ones where it has fewer; nothing where it has none of this role.

        Args:
            record: Facts on the sample.
            rng: Only source of chance; the first texts are taken where None.
        """
        texts = ROLES[self.name].texts(record)
        if not texts or record.generic:  # a generic rendering says its modality and nothing else
            return ()
        if self.words:
            stated = {text.casefold() for text in texts}
            return tuple(word if word.casefold() in stated else "" for word in self.words)
        if rng is not None:
            texts = tuple(texts[i] for i in rng.permutation(len(texts)))
        return (*texts, *[""] * self.num_texts)[: self.num_texts]


@dataclass(frozen=True, eq=False)
class RoleTexts:
    """The texts of one role of the b samples of a batch: K of each."""

    texts: tuple[tuple[str, ...], ...]
    """What `DrawnRole.draw` returned of each sample."""
    tokens: NDArray[np.int32]
    """int32 [b, K, L]; L = 0 where the text tower does not read them. Valid until the batch is released."""
    num_tokens: int
    """Columns of `tokens` that the longest of them needs, rounded up to a multiple of 8, at most L."""

    @property
    def has_B(self) -> NDArray[np.bool_]:
        """Which samples have any text of this role; tags that are not among the words count, too."""
        return np.array([bool(texts) for texts in self.texts], np.bool_)

    @property
    def mask_BK(self) -> NDArray[np.bool_]:
        """Which of its K texts each sample has: of tags, the words that are stated."""
        none = ("",) * self.tokens.shape[1]
        return np.array([[bool(text) for text in texts or none] for texts in self.texts], np.bool_)


def no_texts(role: DrawnRole, size: int, context_length: int) -> RoleTexts:
    """Return the texts of samples that have none of a role."""
    length = context_length if ROLES[role.name].is_encoded else 0
    tokens = np.zeros((size, role.num_texts, length), np.int32)
    return RoleTexts(((),) * size, tokens, min(8, length))
