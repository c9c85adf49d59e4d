"""Open one file or folder and look at it: samples and views, as scoring would see them. For notebooks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.registry import read_sample
from medclip.errors import MedclipError, Reason
from medclip.files.dicom_header import modality_from_header
from medclip.files.discover import discover
from medclip.files.inspect import inspect_file
from medclip.imaging.geometry import letterbox
from medclip.imaging.intensity import to_uint8
from medclip.sample import Modality, Sample, View
from medclip.scoring.options import parse_modality
from medclip.settings import Settings

_TILE_PX = 256
_MAX_TILES = 8
MAX_FILES = 64
"""More files than this are a collection to score, not a study to look at: everything opened is held in memory."""


@dataclass(frozen=True, eq=False, repr=False)
class OpenedStudy:
    """The samples of one file or folder. A notebook shows it as a strip of its views."""

    samples: tuple[Sample, ...]

    @property
    def views(self) -> tuple[View, ...]:
        """All views, in file order."""
        return tuple(view for sample in self.samples for view in sample.views)

    @property
    def modality(self) -> Modality | None:
        """The modality of all samples; None where it is unknown or where they differ."""
        found = {sample.modality for sample in self.samples}
        return found.pop() if len(found) == 1 else None

    def __repr__(self) -> str:
        """Say what it is in one line; the arrays would fill screens."""
        files, views = len(self.samples), len(self.views)
        said = f"{files} file{'s' * (files != 1)}, {views} view{'s' * (views != 1)}"
        return f"OpenedStudy({self.modality or 'modality unknown'}, {said})"

    def _repr_png_(self) -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(contact_sheet(self.views)).save(buffer, format="PNG")
        return buffer.getvalue()


def open_study(
    path: str | Path, modality: Modality | str | None = None, *, settings: Settings | None = None
) -> OpenedStudy:
    """Open a file, or the images of a folder, through the adapters.

    Args:
        path: A file or a folder of at most 64 files. Files that are no image (a report, a table) are left out.
        modality: What it shows, where headers do not say; without either, a plain 8-bit rendering is given.
        settings: Limits.

    Returns:
        The study with its samples in file order, held in memory.

    Raises:
        MedclipError: What is wrong with the file; NOTHING_TO_DO when a folder has no image, WRONG_USE when it has
            too many files.

    Example:
        >>> from medclip import open_study
        >>> study = open_study("examples/studies/mammogram")
        >>> study
        OpenedStudy(mammography, 4 files, 4 views)
    """
    root, named, settings = Path(path), parse_modality(modality), settings or Settings()
    refs = discover(root)
    if len(refs) > MAX_FILES:
        raise MedclipError(
            Reason.WRONG_USE,
            f"this folder holds {len(refs)} files, more than the {MAX_FILES} that are opened at once.",
            where=root,
            hint="Name one study's folder, or score it all with medclip.score.",
        )
    samples: list[Sample] = []
    for ref in refs:
        facts = inspect_file(ref.path, settings)
        problem = ref.problem or facts.problem
        if problem is not None:
            if len(refs) == 1 or str(problem.status) == "failed":
                raise MedclipError(problem.reason, problem.message, where=ref.path)
            continue
        found = named or (modality_from_header(facts.header) if facts.header is not None else None)
        samples.append(read_sample(ref.path, facts, found, settings))
    if not samples:
        raise MedclipError(Reason.NOTHING_TO_DO, "there is no image here.", where=root, hint="Name another folder.")
    return OpenedStudy(tuple(samples))


def contact_sheet(views: Sequence[View], tile_px: int = _TILE_PX) -> NDArray[np.uint8]:
    """Put up to eight views side by side.

    Args:
        views: At least one view.
        tile_px: Side of each picture.

    Returns:
        uint8 [tile_px, n * tile_px, 3].
    """
    return np.concatenate([letterbox(to_uint8(view), tile_px) for view in views[:_MAX_TILES]], axis=1)
