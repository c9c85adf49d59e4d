"""The forms that a study's results are written in, by the names of the option `--export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.export.fhir import Release, bundle_text, fhir_bundle
from medclip.export.heat_map_image import heat_map_image
from medclip.export.source_headers import Headers, read_headers
from medclip.export.structured_report import structured_report
from medclip.export.study_result import Algorithm, StudyResult

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NO_MAP = "no heat map"
UNFIT = "a header that cannot be copied"
WAVEFORM = "waveforms, which an image library does not hold"
_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."
"""What the SOP classes of ECGs and other waveforms begin with (PS3.4, B.5)."""


@dataclass(frozen=True)
class ResultFormat:
    """One form of results."""

    suffix: str
    needs_header: bool
    title: str
    encode: Callable[[StudyResult, Headers, Algorithm, datetime], bytes]
    needs_map: bool = False
    """It is of a heat map, which the model draws."""


def _fhir(release: Release, result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime) -> bytes:
    return bundle_text(fhir_bundle(result, headers, algorithm, created, release)).encode()


RESULT_FORMATS: Mapping[str, ResultFormat] = {
    "sr": ResultFormat(".dcm", True, "DICOM SR", structured_report),
    "sc": ResultFormat(".dcm", True, "DICOM heat map", heat_map_image, needs_map=True),
    "fhir-r4b": ResultFormat(".json", False, "FHIR R4B", partial(_fhir, "R4B")),
    "fhir-r5": ResultFormat(".json", False, "FHIR R5", partial(_fhir, "R5")),
}
"""Forms by name, which is that of their folder, too."""


def encode_study(
    result: StudyResult, paths: Mapping[str, Path], names: Sequence[str], algorithm: Algorithm, created: datetime
) -> dict[str, bytes | str]:
    """Read the headers of a study's files and write its answers in some forms; called in a reading process.

    Args:
        result: The answers.
        paths: Where each of its files lies, by name.
        names: Of the forms.
        algorithm: What answered.
        created: When the results count as made.

    Returns:
        By form the content of its file, or in words why there is none.
    """
    headers = read_headers(result.files, paths.__getitem__)
    contents: dict[str, bytes | str] = {}
    for name in names:
        form = RESULT_FORMATS[name]
        lacking = headers.lacking or (WAVEFORM if any(map(_is_waveform, headers.images)) else "")
        if form.needs_header and lacking:
            contents[name] = lacking
            continue
        if form.needs_map and result.drawn is None:
            contents[name] = NO_MAP
            continue
        try:
            contents[name] = form.encode(result, headers, algorithm, created)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            contents[name] = UNFIT  # highdicom raises them of headers that break their standard
    return contents


def _is_waveform(header: Dataset) -> bool:
    return str(header.SOPClassUID).startswith(_WAVEFORMS)
