"""What is searched for, as vectors: words in several phrasings, words it must not be like, and an example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.models.prototypes.class_vectors import encode_phrasings
from medclip.retrieval.approximate import Index
from medclip.retrieval.example import Example, read_examples
from medclip.retrieval.where import Condition
from medclip.settings import Settings
from medclip.text.checks.prompt_words import prompt_notes
from medclip.text.vocabulary.own_words import BAR, Prompt, Words

if TYPE_CHECKING:
    from medclip.models.model import Model


@dataclass(frozen=True)
class Question:
    """What a person asks."""

    words: tuple[str, ...] = ()
    """Ways to say what is looked for."""
    without: tuple[str, ...] = ()
    """What is not looked for."""
    like: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Search:
    """What is looked at for a question, and how hits are found and named."""

    conditions: tuple[Condition, ...] = ()
    """Which units are looked at, and which studies: those of which one unit fits. Of slides which slides."""
    num_hits: int = 50
    other_patients: bool = False
    """Leave out what is of an example's patient; an example that is not in the folder has none."""
    include_example: bool = False
    """Rank the example itself, too."""
    index: Index = "exact"
    modality: str | None = None
    """Of examples that are not in the folder and whose header does not say."""
    report_paths: bool = False
    """Name files by their paths."""
    settings: Settings | None = None
    """Limits, for reading an example and patches."""


@dataclass(frozen=True, eq=False)
class QuestionVectors:
    """A question in the embedding space; what it does not have is None."""

    words: NDArray[np.float32] | None
    """float32 [D]: normalised mean of the phrasings."""
    phrasings: NDArray[np.float32] | None
    """float32 [M, D]: each of them."""
    without: NDArray[np.float32] | None
    like: NDArray[np.float32] | None
    like_rows: tuple[int | None, ...] = ()
    """Of each example the first file of the unit in the folder that it is; None for one from elsewhere."""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> NDArray[np.float32] | None:
        """float32 [D]: words less what is not looked for."""
        if self.words is None:
            return None if self.without is None else -self.without
        return self.words if self.without is None else self.words - self.without


def read_question(words: Words, without: Words, like: Example | Sequence[Example] | None) -> Question:
    """Read a question; bars part ways to say the same thing.

    Raises:
        MedclipError: WRONG_USE where there is nothing to look for, or an empty text.
    """
    question = Question(_texts(words), _texts(without), read_examples(like))
    if not question.words and not question.like:
        raise MedclipError(
            Reason.WRONG_USE,
            "there is nothing to look for.",
            hint="Name words, such as 'pleural effusion on a lateral film', or an example: --like FILE.",
        )
    return question


def _texts(words: Words) -> tuple[str, ...]:
    texts = [words] if isinstance(words, str) else list(words)
    parts = [" ".join(part.split()) for text in texts for part in text.split(BAR)]
    if not all(parts):
        raise MedclipError(Reason.WRONG_USE, "a text to look for is empty.", hint="Say what the image may show.")
    return tuple(dict.fromkeys(parts))


def encode_words(model: Model, question: Question) -> QuestionVectors:
    """Encode the words of a question.

    Raises:
        MedclipError: WRONG_USE for a pack that is image only.
    """
    words = encode_phrasings(model, question.words) if question.words else None
    without = encode_phrasings(model, question.without) if question.without else None
    return QuestionVectors(
        None if words is None else words.mean,
        None if words is None else words.single,
        None if without is None else without.mean,
        None,
        notes=prompt_notes([Prompt("", question.words, question.without)], model.tokenizer),
    )
