"""Where the captions of a table of images come from: one table of sources. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medclip.wording import list_of


@dataclass(frozen=True)
class CaptionSource:
    """One row of the table."""

    about: str
    """What help says of it: the table that is read, by what it must have."""
    target: str
    """module:function, of the path of the table, a `CaptionsForm`, a `Progress` and its options to the table of pairs
    (pyarrow, with the columns file and captions) and a `CaptionsReport`."""
    options: tuple[str, ...] = ()
    """Options of `captions` that it takes, of those that not every source does; others are refused."""
    num_captions: int = 10
    """Captions of a row, where none are named."""


CAPTION_SOURCES: Mapping[str, CaptionSource] = {
    "labels": CaptionSource(
        "a table with the columns file, modality and label:TASK or label:TASK:CLASS, as `shards build` reads it",
        "medclip.pairs.sources.labels:captions_of_labels",
        options=("writer",),
    ),
    "mammography": CaptionSource(
        "the annotations of VinDr-Mammo, RSNA, CBIS-DDSM, DDSM, CDD-CESM, EMBED or INbreast, or a table of your own",
        "medclip.pairs.sources.mammography:captions_of_mammography",
        options=("dataset", "file", "findings", "writer"),
    ),
    "ecg": CaptionSource(
        "the table of PTB-XL, MIMIC-IV-ECG, CPSC2018 or Chapman-Shaoxing",
        "medclip.pairs.sources.ecg:captions_of_ecg",
        options=("dataset", "file", "language", "min_likelihood"),
        num_captions=3,
    ),
}
"""Names, as --from has them."""


def sources_with(option: str) -> str:
    """Write the names of the sources that take an option."""
    return list_of([name for name, row in CAPTION_SOURCES.items() if option in row.options], "or")
