"""The slide that vectors are of: opened again from the folder where it lies, if it is still the same."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.readers.open import open_slide
from medclip.settings import Settings
from medclip.slides.store.slide_features import SlideFeatures
from medclip.slides.store.slide_store import SlideRow

if TYPE_CHECKING:
    from medclip.imaging.slides.readers.pyramid import SlideReader

_ALIKE = 0.01
"""How much, of a side, a slide may differ from the one that was embedded."""
_SIDE_PX, _QUALITY = 256, 85


def embedded_paths(images: Path, row: SlideRow) -> list[Path]:
    """Return the files of a slide of a store: of a DICOM slide those of its folder that are of the same series.

    Args:
        images: The folder that was embedded, or the one file.
        row: The slide.

    Raises:
        OSError: Where its folder is gone.
    """
    path = images if images.is_file() else images / row.file
    if row.num_files == 1:
        return [path]
    beside = sorted(p for p in path.parent.iterdir() if p.suffix == path.suffix)
    series = _series(path)
    return [p for p in beside if _series(p) == series] if series else beside


def _series(path: Path) -> str:
    """Return the series of a DICOM file; blank for any other."""
    import pydicom

    try:
        with quiet("pydicom"):
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
            return str(header.get("SeriesInstanceUID") or "")
    except Exception:  # pydicom raises many types, whose texts may quote header values
        return ""


def open_embedded(images: Path, row: SlideRow, slide_size_um: tuple[float, float], settings: Settings) -> SlideReader:
    """Open the slide of a row again.

    Args:
        images: The folder that was embedded.
        row: The slide; a scale that came from a table or an option is taken again.
        slide_size_um: Height and width that the slide had, in µm.
        settings: Limits.

    Raises:
        MedclipError: MISSING_FILE where it is not there, CHANGED where it has another size; as `open_slide`.
    """
    policy = settings.policy
    if row.mpp_source in ("table", "option") and row.mpp_um is not None:
        policy = replace(policy, mpp_um=row.mpp_um)
    try:
        paths = embedded_paths(images, row)
    except OSError as e:
        raise MedclipError(Reason.MISSING_FILE, "there is no such slide in the folder of slides.", where=images) from e
    reader = open_slide(paths, replace(settings, policy=policy))
    sides = zip(reader.size_um, slide_size_um, strict=True)
    if any(abs(side - embedded) > _ALIKE * embedded for side, embedded in sides):
        reader.close()
        raise MedclipError(Reason.CHANGED, "the slide here has another size than the one that was embedded.")
    return reader


def patch_jpeg(
    images: Path, row: SlideRow, features: SlideFeatures, corner_um: tuple[float, float], settings: Settings
) -> bytes:
    """Return a patch as a small JPEG; b"" where its slide is not there, is another one, or cannot be read.

    Args:
        images: The folder that was embedded.
        row: The slide.
        features: Features of the slide, for sizes and scales.
        corner_um: Top and left of the patch in µm.
        settings: Limits.
    """
    from PIL import Image

    try:
        with open_embedded(images, row, features.slide_size_um, settings) as reader:
            pixels = reader.read(*corner_um, features.size_px, features.size_px, features.mpp_um)
    except (MedclipError, OSError):
        return b""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()
