"""Open a slide by its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.tiff_directories import ends_early, is_vendors
from medclip.imaging.slides.readers.backend import SlideSpec, missing
from medclip.imaging.slides.readers.openslide import is_installed, knows
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.settings import Settings

# What can be read of a whole slide at a coarse scale, where stored tiles are damaged.

DAMAGED = (Reason.CORRUPT, Reason.TRUNCATED, Reason.NON_FINITE)
"""What costs the patches that need a stored tile, and not the slide."""
_PART_PX = 64


def readable_overview(reader: SlideReader, mpp_um: float) -> tuple[NDArray[np.uint8], int]:
    """Read a whole slide in small parts; those that need a damaged tile are white.

    Returns:
        RGB uint8 [H, W, 3], and how many parts are damaged.

    Raises:
        MedclipError: That of the last part where none can be read; what is no damage of single tiles.
    """
    rows, columns = reader.effective_mpp(mpp_um)
    height, width = (max(1, round(side / mpp)) for side, mpp in zip(reader.size_um, (rows, columns), strict=True))
    overview = np.full((height, width, 3), 255, np.uint8)
    num_parts, num_damaged = 0, 0
    last: MedclipError | None = None
    for top in range(0, height, _PART_PX):
        for left in range(0, width, _PART_PX):
            part = min(_PART_PX, height - top), min(_PART_PX, width - left)
            num_parts += 1
            try:
                overview[top : top + part[0], left : left + part[1]] = reader.read(
                    top * rows, left * columns, *part, mpp_um
                )
            except MedclipError as error:
                if error.reason not in DAMAGED:
                    raise
                num_damaged += 1
                last = error
    if last is not None and num_damaged == num_parts:
        raise last
    return overview, num_damaged


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_slide(paths: Path | str | Sequence[Path | str], settings: Settings | None = None) -> SlideReader:
    """Open a slide: what it is, is decided by its bytes.

    Args:
        paths: One file, or all files of a DICOM slide.
        settings: Limits, cache size and the µm/px of slides that do not say; default settings if None.

    Returns:
        A reader that can be pickled and is opened anew in each process.

    Raises:
        MedclipError: NOT_SUPPORTED_YET if no reader knows the file; EMPTY_FILE, CORRUPT or TRUNCATED if it is damaged.
    """
    settings = settings or Settings()
    several = (paths,) if isinstance(paths, str | Path) else tuple(paths)
    files = tuple(Path(path).absolute() for path in several)
    if not files:
        raise MedclipError(Reason.WRONG_USE, "a slide needs at least one file.")
    policy = settings.policy
    spec = SlideSpec(
        _backend_name(files),
        files,
        settings.slide_cache_bytes,
        settings.max_pixels,
        policy.mpp_um,
        policy.accept_unterminated,
    )
    try:
        return SlideReader(spec)
    except MedclipError as error:
        # OpenSlide takes plain TIFFs by their tiles, and refuses compressions that tifffile reads (JPEG 2000, WebP).
        if spec.backend != "openslide" or error.reason is not Reason.NOT_SUPPORTED_YET or not _is_plain_tiff(files[0]):
            raise
    return SlideReader(replace(spec, backend="tiff"))


def _backend_name(files: tuple[Path, ...]) -> str:
    """Choose who opens the files: wsidicom for DICOM, OpenSlide for what it knows, tifffile for other TIFFs."""
    try:
        with files[0].open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise MedclipError(Reason.READ_ERROR, f"the slide could not be opened ({type(error).__name__}).") from None
    if not head:
        raise MedclipError(Reason.EMPTY_FILE, "the file has no content.")
    if head[128:] == b"DICM":
        return "dicom"
    if head[:4] in _TIFF:
        _check_end(files[0])
    if len(files) != 1:
        raise MedclipError(
            Reason.WRONG_USE, "only DICOM slides consist of several files; open other slides one by one."
        )
    if knows(files[0]):
        return "openslide"
    if head[:4] in _TIFF and (is_installed() or _is_plain_tiff(files[0])):
        return "tiff"
    if not is_installed():
        # Another reader would open a vendor's TIFF as something it is not, or call it damaged.
        raise missing("openslide-python (with openslide-bin)")
    raise MedclipError(
        Reason.NOT_SUPPORTED_YET,
        "the file is no slide that OpenSlide, wsidicom or tifffile know by its bytes.",
    )


def _check_end(path: Path) -> None:
    """Refuse a TIFF that was cut: what is left of its directories may still look like a slide, of another kind."""
    try:
        with path.open("rb") as file:
            if not ends_early(file):
                return
    except OSError:
        return  # who opens it says why
    raise MedclipError(Reason.TRUNCATED, "the slide ends too early; copy it again from its source.")


def _is_plain_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF in no vendor's own format."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _TIFF and not is_vendors(file)
    except OSError:
        return False
