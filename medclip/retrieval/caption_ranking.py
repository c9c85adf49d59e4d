"""Captions for an image: given sentences, ranked by their cosine with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason, refuse_missing
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import no_such
from medclip.progress import Progress, Silent
from medclip.result import Result
from medclip.retrieval.hits import finite, weak_ranks, z_words
from medclip.retrieval.question import Example, Load, example_vector
from medclip.retrieval.top_rows import exact_scores
from medclip.settings import Settings
from medclip.text.checks.prompt_words import num_cut
from medclip.wording import count, figure, number

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("caption", "text", "sentence", "report")
"""Where a table has its captions: the first of these columns, or its only one."""


@dataclass(frozen=True)
class CaptionHit:
    """One place of the ranking. Field order is column order."""

    rank: int
    row: int
    """Of the table or file, from 1; of captions that stand there several times the first."""
    caption: str
    score: float
    """Cosine with the image."""
    z: float | None
    """Standard deviations above the mean of all captions."""


@dataclass(frozen=True, repr=False)
class CaptionRanking(Result):
    """The captions that lie closest to an image."""

    hits: tuple[CaptionHit, ...]
    num_captions: int
    """Different captions that were looked at."""
    mean: float
    sd: float
    notes: tuple[str, ...]
    """Sentences that must be read with the hits."""

    @property
    def table(self) -> pa.Table:
        """The hits as an Arrow table; `medclip.retrieval.hits.write_hits` writes it."""
        from medclip.files.tables.write import schema_of, table_of

        return table_of(self.hits, CaptionHit, schema_of(CaptionHit))

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps(asdict(self), indent=1)

    def _facts(self) -> Mapping[str, object]:
        best = self.hits[0]
        facts = {
            "hits": f"{number(len(self.hits))} of {count(self.num_captions, 'caption')}",
            "best": f"{figure(best.score, decimals=3)}, {z_words(best.z)}: {best.caption}",
            "note": self.notes[0] if self.notes else "",
        }
        return {name: value for name, value in facts.items() if value}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return self.table.slice(0, most).to_pylist()


def read_captions(source: Any) -> list[str]:
    """Read sentences: a list of them, a text file with one a line, or a table with a column of them.

    Returns:
        One for each row; blank ones stay, so that numbers of rows do.

    Raises:
        MedclipError: Those of `read_table`; TABLE_INVALID for a table without such a column, NOTHING_TO_DO where every
            sentence is blank.
    """
    if isinstance(source, (list, tuple)):
        texts = list(source)
    elif isinstance(source, (str, Path)) and Path(source).suffix == ".txt":
        refuse_missing(source, "file of captions")
        try:
            texts = Path(source).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise MedclipError(Reason.READ_ERROR, "this is no text in UTF-8 that can be read.", where=source) from e
    else:
        refuse_missing(source, "table of captions")
        table = read_table(source, "the table of captions")
        column = table.find(*COLUMNS) or (table.names[0] if len(table.names) == 1 else None)
        if column is None:
            raise no_such(COLUMNS[0], table.names, table.where, "captions")
        texts = table.texts(column)
    texts = [" ".join(str(text).split()) for text in texts]
    if not any(texts):
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no caption: all of them are blank.", hint="Write one sentence a line."
        )
    return texts


def rank_captions(
    captions: Sequence[str],
    like: Sequence[Example],
    load: Load,
    *,
    embeddings: Embeddings | None = None,
    num_hits: int = 50,
    modality: str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> CaptionRanking:
    """Rank captions by their cosine with an image, or with the mean vector of several.

    Args:
        captions: Captions from `read_captions`.
        like: The images, at least one.
        load: Function that loads the model.
        embeddings: Folder that an image may be in; then it is not read.
        num_hits: Number of hits.
        modality: Modality of images whose header does not say.
        settings: Settings, of which the limits for reading an image count.
        progress: Progress bar of texts and images.

    Raises:
        MedclipError: Those of `example_vector`; WRONG_USE for a pack that is image only.
    """
    progress = progress or Silent()
    rows: dict[str, int] = {}
    for row, text in enumerate(captions, start=1):
        if text:
            rows.setdefault(text, row)
    image, _ = example_vector(embeddings, like, load, modality=modality, settings=settings, progress=progress)
    texts = list(rows)
    model = load()
    vectors = model.embed_text(texts, progress=progress)
    scores = exact_scores(vectors, image[None])
    order = np.lexsort((np.array(list(rows.values())), -scores))[:num_hits]
    mean, sd = float(scores.mean(dtype=np.float64)), float(scores.std(dtype=np.float64))
    hits = tuple(
        CaptionHit(
            rank,
            rows[texts[n]],
            texts[n],
            round(float(scores[n]), 6),
            finite((float(scores[n]) - mean) / sd) if sd > 1e-6 else None,
        )
        for rank, n in enumerate(order.tolist(), start=1)
    )
    notes = (_cut(num_cut(texts, model.tokenizer), len(texts)), weak_ranks(hits[0].z, len(texts)))
    return CaptionRanking(hits, len(texts), mean, sd, tuple(note for note in notes if note))


def _cut(num: int, num_captions: int) -> str:
    if not num:
        return ""
    verb, all_ = "is" if num == 1 else "are", count(num_captions, "caption")
    return f"{number(num)} of {all_} {verb} longer than the model reads: the first words count alone."
