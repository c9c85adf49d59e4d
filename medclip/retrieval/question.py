"""What is searched for, as vectors: words in several phrasings, words it must not be like, and an example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.open_embeddings import Embeddings
from medclip.embeddings.write_embeddings import hash_of
from medclip.errors import MedclipError, Reason
from medclip.files.input_paths import refuse_missing
from medclip.models.wordings import encode_phrasings
from medclip.text.checks.prompt_words import prompt_notes
from medclip.text.vocabulary.own_words import BAR, Prompt, Words

if TYPE_CHECKING:
    from medclip.models.model import Model

Example = str | Path | int
"""A file, or the number of one in the folder that is searched."""


@dataclass(frozen=True)
class Question:
    """What a person asks."""

    words: tuple[str, ...] = ()
    """Ways to say what is looked for."""
    without: tuple[str, ...] = ()
    """What is not looked for."""
    like: tuple[Example, ...] = ()


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
    examples = () if like is None else (like,) if isinstance(like, (str, Path, int)) else tuple(like)
    question = Question(_texts(words), _texts(without), examples)
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


def row_of(embeddings: Embeddings, example: Example) -> int | None:
    """Return the unit of the folder that an example is, by its first file; None where it is none of them.

    A file is known by the hash of its bytes.

    Raises:
        MedclipError: MISSING_FILE for a file that is not there; WRONG_USE for a number that no unit has.
    """
    if isinstance(example, str) and example.isdecimal() and not Path(example).exists():
        example = int(example)
    if isinstance(example, int):
        file = embeddings.columns("files", ["row", "unit", "copy_of"], [example]).to_pylist()
        rows = [row for row in file[0].values() if row is not None] if file else [example]
        if units := set(embeddings.columns("units", ["row"], rows).column(0).to_pylist()):
            return next(row for row in rows if row in units)
        raise MedclipError(
            Reason.WRONG_USE,
            f"no image of these embeddings has the number {example}.",
            where=embeddings.folder,
            hint="Numbers are those of the column `row` of units.parquet.",
        )
    path = Path(example)
    refuse_missing(path)
    if not path.is_file():
        return None
    from pyarrow import compute as pc

    units = embeddings.columns("units", ["row", "sha256"])
    same = units.filter(pc.equal(units.column("sha256"), hash_of(path)))  # pyright: ignore[reportAttributeAccessIssue]
    return same.column("row")[0].as_py() if same.num_rows else None
