"""Texts of a sample beside its caption, by their role: which there are, and what a step gets of them. No torch here.

A row of `medclip.training.losses.LOSSES` says which roles it reads; only these are drawn and cut into tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medclip.text.captions.record import CaptionRecord
from medclip.text.vocabulary.outcomes import spoken_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


ROLES: dict[str, Role] = {
    "negative": Role(lambda record: record.negatives, True, "`negatives` of its JSON or table"),
    "long": Role(_long, True, "`long_captions` of its JSON or table, or its report"),
    "tags": Role(_tags, False, "`tags` of its JSON or table, or its labels"),
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
            record: What is known of the sample.
            rng: The only source of chance; the first texts are taken where None.
        """
        texts = ROLES[self.name].texts(record)
        if not texts:
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
    """As `Batch.num_tokens`, of these."""
    num_texts: int
    """K."""

    @property
    def has_B(self) -> NDArray[np.bool_]:
        """Which samples have any text of this role; tags that are not among the words count, too."""
        return np.array([bool(texts) for texts in self.texts], np.bool_)

    @property
    def mask_BK(self) -> NDArray[np.bool_]:
        """Which of its K texts each sample has: of tags, the words that are stated."""
        none: tuple[Any, ...] = ("",) * self.num_texts
        return np.array([[bool(text) for text in texts or none] for texts in self.texts], np.bool_)


def no_texts(role: DrawnRole, size: int, context_length: int) -> RoleTexts:
    """Return the texts of samples that have none of a role."""
    length = context_length if ROLES[role.name].is_encoded else 0
    tokens = np.zeros((size, role.num_texts, length), np.int32)
    return RoleTexts(((),) * size, tokens, min(8, length), role.num_texts)
