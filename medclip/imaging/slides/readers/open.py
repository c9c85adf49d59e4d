"""Open a slide by its bytes; and what every reader of slides can do, in micrometres and µm/px.

How a region is made of stored pixels is written in `medclip.imaging.slides.readers.pyramid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.tiff import ends_early, is_vendors
from medclip.imaging.slides.readers.backend import Level, SlideSpec, missing
from medclip.imaging.slides.readers.pyramid import BACKENDS, PyramidReader
from medclip.settings import Settings

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class SlideReader(Protocol):
    """A slide, in micrometres. Can be pickled; every process opens the files for itself, when it first reads."""

    @property
    def size_um(self) -> tuple[float, float]:
        """Height and width in micrometres. Raises NO_SCALE where the pixel size is unknown."""
        ...

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the finest stored resolution in pixels."""
        ...

    @property
    def mpp_um(self) -> tuple[float, float] | None:
        """Row and column size of a pixel at the finest resolution in µm; None if neither file nor user says. What the
        file says goes first, unless it is a print resolution.
        """
        ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """Sizes of the stored resolutions, finest first: to be told, not to be asked for."""
        ...

    @property
    def properties(self) -> Mapping[str, str | float]:
        """Allow-listed facts: vendor, objective_power."""
        ...

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of label, macro, thumbnail: they may show identifiers, and are read only on request."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of how pixels are made, such as how channels become colours."""
        ...

    def stored_mpp(self) -> tuple[float, ...]:
        """µm/px of the stored resolutions, finest first."""
        ...

    def effective_mpp(self, mpp_um: float) -> tuple[float, float]:
        """Row and column µm/px of what `read` gives for a wanted µm/px."""
        ...

    def read(self, top_um: float, left_um: float, height_px: int, width_px: int, mpp_um: float) -> NDArray[np.uint8]:
        """Read RGB [height_px, width_px, 3] at a scale, from a corner in µm."""
        ...

    def thumbnail(self, mpp_um: float) -> NDArray[np.uint8]:
        """Read the whole slide at a scale."""
        ...

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Read label, macro or thumbnail as RGB [H, W, 3]. May show a patient's name."""
        ...

    def close(self) -> None:
        """Close the files; reading again opens them again."""
        ...


def open_slide(paths: Path | str | Sequence[Path | str], settings: Settings | None = None) -> PyramidReader:
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
        return PyramidReader(spec)
    except MedclipError as error:
        # OpenSlide takes plain TIFFs by their tiles, and refuses compressions that tifffile reads (JPEG 2000, WebP).
        if spec.backend != "openslide" or error.reason is not Reason.NOT_SUPPORTED_YET or not _is_plain_tiff(files[0]):
            raise
    return PyramidReader(replace(spec, backend="tiff"))


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
    module = import_module(BACKENDS["openslide"])
    if module.knows(files[0]):
        return "openslide"
    if head[:4] in _TIFF and (module.is_installed() or _is_plain_tiff(files[0])):
        return "tiff"
    if not module.is_installed():
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
