"""The values that travel through every room: files become studies, studies become samples with views.

All are frozen. Arrays inside are not copied; treat them as read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medclip.errors import Problem


class Modality(StrEnum):
    """The imaging modalities medclip knows by name. Whether one can be read is for the adapters to say."""

    XRAY = "xray"
    MAMMOGRAPHY = "mammography"
    CT = "ct"
    MRI = "mri"
    ULTRASOUND = "ultrasound"
    PATHOLOGY = "pathology"
    FUNDUS = "fundus"
    DERMATOLOGY = "dermatology"
    ENDOSCOPY = "endoscopy"
    OCT = "oct"
    ECG = "ecg"


_SPOKEN = {"xray": "X-ray", "ct": "CT", "mri": "MRI", "oct": "OCT", "ecg": "ECG"}


def spoken(modality: str) -> str:
    """Give a modality's name as it stands in a sentence: X-ray, CT, mammography; other words stay as they are."""
    return _SPOKEN.get(str(modality), str(modality))


class ModalitySource(StrEnum):
    """Who said what modality a file has."""

    HEADER = "header"
    TABLE = "table"
    OPTION = "option"
    INFERRED = "inferred"


@dataclass(frozen=True)
class FileRef:
    """One path found on disk, readable or not."""

    path: Path
    name: str
    """Path relative to the folder that was named, with forward slashes; the order of files is the byte order of it."""
    size_bytes: int = 0
    problem: Problem | None = None
    """Set when the path cannot be opened at all (loop, no permission, not a file)."""


@dataclass(frozen=True)
class Step:
    """One operation that was applied to the pixels."""

    name: str
    detail: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where pixels came from and everything that was done to them."""

    sha256: str
    """Hash of the file's bytes."""
    format: str
    """Name of the format as sniffed from the bytes."""
    adapter: str
    preprocessing: str
    """Hash of the adapter's name, version and parameters: equal hash, equal pixels."""
    steps: tuple[Step, ...] = ()
    decoder: str = ""


@dataclass(frozen=True, eq=False)
class View:
    """One image of a study, ready for any model of its modality."""

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    """H x W x C with C = 1 (grey) or 3 (RGB)."""
    value_range: tuple[float, float]
    """Values that stand for black and white in `pixels`, e.g. (0, 255) for uint8, (0, 1) for float32."""
    unit: str = "relative"
    laterality: str | None = None
    """"L", "R" or None when unknown."""
    position: str | None = None
    """View as the field names it: AP, PA, LATERAL, CC, MLO; None when unknown."""
    spacing_mm: tuple[float, float] | None = None
    """Row and column spacing in millimetres of `pixels`."""
    burned_in: bool | None = None
    """Whether the header says that text is burned into the pixels; None when it says nothing."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What an adapter makes of one file."""

    modality: Modality | None
    """None only for the generic rendering that is used to infer the modality."""
    views: tuple[View, ...]
    provenance: Provenance
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Allow-listed, non-identifying header values."""


@dataclass(frozen=True)
class Study:
    """Files that belong together: one examination of one patient."""

    key: str
    """Keyed hash of the study UID, or of the table's or folder's name for it: not reversible without the key."""
    patient: str | None
    """Keyed hash of the patient id, None when unknown."""
    files: tuple[FileRef, ...]
    modality: Modality | None
    modality_source: ModalitySource | None
    grouping: str
    """What tied the files together: uid, table, folder or file."""
    file_sources: tuple[ModalitySource | None, ...] = ()
    """Who named the modality of each of `files`, in their order; `modality_source` is that of the first."""
