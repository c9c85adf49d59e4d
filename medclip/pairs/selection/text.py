"""Keep pairs whose text names something of the metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from medclip.pairs.pile import Pile, Words
from medclip.pairs.selection.metadata_files import MetadataSettings, read_metadata
from medclip.pairs.selection.steps import Context, Verdict
from medclip.text.checks.matching import match_batches
from medclip.text.checks.metadata import left_out_notes
from medclip.wording import count, number

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TextSettings(MetadataSettings):
    """What a text is to name."""

    polarity: Literal["all", "affirmed"] = "all"
    """`affirmed`: a concept that is denied wherever it stands does not count."""
    reference: bool = False
    """Entries are matched as they stand, as MetaCLIP does."""


def names_an_entry(
    pile: Pile, rows_M: NDArray[np.int64], settings: TextSettings, context: Context, step: int
) -> Verdict:
    """Keep texts that name an entry.

    Returns:
        Verdict whose value is the number of concepts that a text names.

    Raises:
        MedclipError: Refusals of `read_metadata`.
    """
    metadata = read_metadata(settings.metadata, context.folder, reference=settings.reference)
    affirmed = settings.polarity == "affirmed" and not settings.reference
    texts = Words(pile, rows_M)
    num_M = np.zeros(len(rows_M))
    for batch in match_batches(texts, metadata, polarity=affirmed, progress=context.progress):
        counted_M2 = batch.index_M2[batch.affirmed_M]
        concept_M = metadata.concept_E[counted_M2[:, 0]].astype(np.int64)
        keys = np.unique(counted_M2[:, 1].astype(np.int64) * len(metadata.concepts) + concept_M)
        text, num = np.unique(keys // len(metadata.concepts), return_counts=True)
        num_M[text] = num
    dropped = int((num_M == 0).sum())
    notes = left_out_notes(metadata.about())
    if dropped:
        notes += (f"{count(dropped, 'pair')} of {number(len(rows_M))} without a concept of the metadata.",)
    return Verdict(num_M > 0, num_M, facts=metadata.about(), notes=notes)
