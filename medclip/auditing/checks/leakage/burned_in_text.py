"""Text burned into the pixels: what headers say of it. Letters in the pixels themselves are not looked for.

A name in the image tells whose it is, and a marker ("portable", a hospital's logo, the side in a fixed font) tells a
model where it was taken. DICOM's BurnedInAnnotation (0028,0301) says whether there is any; it is often absent, and no
header can prove that an image is clean. medclip has no detector of letters, so images without a header are counted
as not tested.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError
from medclip.files.readers.pool import ReadingPool

if TYPE_CHECKING:
    from medclip.adapters.base import Source
    from medclip.settings import Settings

_READ_AHEAD = 64


def flags_of_headers(headers: Sequence[str | None]) -> tuple[bool | None, ...]:
    """Read the flags from the column `headers` of a files.parquet.

    Args:
        headers: JSON object of each file; None where it has no medical header.

    Returns:
        True or False where the header says so; None where it says nothing.
    """
    flags = (json.loads(h).get("burned_in") if h else None for h in headers)
    return tuple(flag if isinstance(flag, bool) else None for flag in flags)


def flags_of_files(paths: Sequence[str | Path | None], settings: Settings) -> tuple[bool | None, ...]:
    """Read the flags from the files' own headers, without their pixels.

    Args:
        paths: File of each row, or the folder of one series; None where a row has none.
        settings: Limits and number of reading processes.

    Returns:
        True or False where the header says so; None where it says nothing or cannot be read.
    """
    files = list(dict.fromkeys(Path(p) for p in paths if p is not None))
    flags: dict[Path, bool | None] = {}
    with ReadingPool.of(settings) as pool:
        futures = pool.map(flag_of_file, ((path, settings) for path in files), ahead=_READ_AHEAD)
        for path, future in zip(files, futures, strict=True):
            try:
                flags[path] = future.result()
            except MedclipError:
                flags[path] = None
    return tuple(None if p is None else flags[Path(p)] for p in paths)


def flag_of_file(path: Path, settings: Settings) -> bool | None:
    """Read the flag of one unit; runs in a reading process."""
    from medclip.adapters.sources import source_of

    return flag_of(source_of(path, settings))


def flag_of(source: Source) -> bool | None:
    """Return what the headers of one unit's files state: True where any does, False where all state there is none."""
    flags = [facts.header.burned_in for facts in source.facts if facts.header is not None]
    if True in flags:
        return True
    return False if flags and None not in flags else None


def burned_in_row(flags: Sequence[bool | None], num_rows: int) -> dict[str, Any]:
    """Make the row of the table of leakage.

    Args:
        flags: Flag of each row, None where its header says nothing; empty where no header was read.
        num_rows: Number of rows of the audit set.
    """
    num_stated = sum(flag is not None for flag in flags)
    num_burned_in = sum(flag is True for flag in flags)
    if not flags:
        sentence = "Not tested for text in the pixels: the headers of the images were not read."
    elif not num_stated:
        sentence = (
            f"Not tested for text in the pixels: no header of the {num_rows} images says whether there is any, and "
            "letters in pixels are not looked for."
        )
    else:
        sentence = (
            f"{num_burned_in} of the {num_stated} images whose header says anything of it have text burned into the "
            "pixels: it may name the patient, and a model may read the hospital from it. "
            if num_burned_in
            else f"None of the {num_stated} headers that say anything of it report text in the pixels. "
        ) + f"{num_rows - num_stated} of {num_rows} images are without such a header and were not tested."
    return {
        "check": "text burned into the pixels",
        "found": num_burned_in,
        "tested": num_stated,
        "severity": "note",
        "sentence": sentence,
    }
