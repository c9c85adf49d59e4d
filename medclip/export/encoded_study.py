"""A study's results encoded in some forms, in a reading process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.export.formats import Format
from medclip.export.source_headers import read_headers
from medclip.export.study_result import Algorithm, StudyResult
from medclip.lazy import import_name

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NO_MAP = "no heat map"
UNFIT = "a header that cannot be copied"
WAVEFORM = "waveforms, which an image library does not hold"
_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."
"""What the SOP classes of ECGs and other waveforms begin with (PS3.4, B.5)."""


def encode_study(
    result: StudyResult, paths: Mapping[str, Path], forms: Mapping[str, Format], algorithm: Algorithm, created: datetime
) -> dict[str, bytes | str]:
    """Read the headers of a study's files and write its answers in some forms; called in a reading process.

    Args:
        result: The answers.
        paths: Path of each file of the study, by name.
        forms: Forms by name; rows and not names alone, for the process may have another table.
        algorithm: Algorithm that answered.
        created: Time at which the results count as made.

    Returns:
        By form the content of its file, or in words why there is none.
    """
    headers = read_headers(result.files, paths.__getitem__)
    contents: dict[str, bytes | str] = {}
    for name, form in forms.items():
        lacking = headers.lacking or (WAVEFORM if any(map(_is_waveform, headers.images)) else "")
        if form.needs_header and lacking:
            contents[name] = lacking
            continue
        if form.needs_map and result.drawn is None:
            contents[name] = NO_MAP
            continue
        try:
            contents[name] = import_name(form.target)(result, headers, algorithm, created)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            contents[name] = UNFIT  # highdicom raises them of headers that break their standard
    return contents


def _is_waveform(header: Dataset) -> bool:
    return str(header.SOPClassUID).startswith(_WAVEFORMS)
