"""Images as a caller in Python holds them: paths, arrays, views, samples or a data frame, as one list of inputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.discover import walk
from medclip.files.tables.manifest import file_named, read_manifest
from medclip.sample import FileRef, Modality, Sample, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MISSING = Problem(Reason.MISSING_FILE, "the file does not exist.")
_FORMS = "paths, arrays (H x W or H x W x 3), views, samples, studies, or a data frame with a column `file`"


@runtime_checkable
class Study(Protocol):
    """What `medclip.open_study` returns, as far as it is asked here."""

    def samples(self) -> tuple[Sample, ...]:
        """Read everything, once."""
        ...


@dataclass(frozen=True, eq=False)
class GivenImage:
    """One input by its name."""

    name: str
    """The path as it was given; "image 3" (03 of twenty) for the fourth of a list of arrays, views or samples."""
    image: Path | NDArray[Any] | View | Sample | Study
    modality: Modality | None = None
    """What a data frame says of it."""


def given_images(images: Any) -> list[GivenImage]:
    """List what a caller gave, in its order.

    Args:
        images: A path, array, view, sample or opened study; several of them, mixed as one likes; an array
            [N, H, W, C] of N images; or a data frame with the columns of a manifest, of which `file` and `modality`
            count here.

    Raises:
        MedclipError: WRONG_USE for anything else, and for an array that is no image; TABLE_INVALID for a data frame
            that is no manifest.

    Example:
        >>> [given.name for given in given_images(["a.png", "b.dcm"])]
        ['a.png', 'b.dcm']
    """
    if _is_array(images):
        several = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, (str, os.PathLike, View, Sample, Study)):
        several = [images]
    elif isinstance(images, Iterable) and not is_frame(images):
        several = list(images)
    else:
        _refuse_other(images)
        return [GivenImage(row.file, file_named(Path(row.file)), row.modality) for row in read_manifest(images).rows]
    digits = len(str(max(len(several) - 1, 0)))
    return [_given(image, f"image {number:0{digits}}") for number, image in enumerate(several)]


def is_several(images: Any) -> bool:
    """Return whether a caller gave images themselves, and not one path."""
    return not isinstance(images, (str, os.PathLike))


def is_frame(images: Any) -> bool:
    """Return whether it has named columns, as data frames of every library do."""
    return any(hasattr(images, name) for name in ("collect_schema", "columns", "column_names"))


def as_files(inputs: Sequence[GivenImage], folder: Path, *, follow_links: bool = False) -> tuple[FileRef, ...]:
    """Return the files that inputs are, by name; arrays are written first.

    Args:
        inputs: Images from `given_images`. A folder stands for all files below it, and a path where nothing is carries
            its problem.
        folder: Folder that arrays are written to; has to live as long as the files are read.
        follow_links: Whether links out of given folders are followed, as in `medclip.files.discover.walk`.

    Raises:
        MedclipError: WRONG_USE for views, samples and studies, which are no files, and for a file that is named twice.
    """
    refs: dict[str, FileRef] = {}
    for number, given in enumerate(inputs):
        name, path = PurePosixPath(given.name).as_posix(), given.image
        if isinstance(path, (View, Sample, Study)):
            raise MedclipError(
                Reason.WRONG_USE,
                "a view, sample or study was read already, and a run reads files itself.",
                where=name,
                hint="Give its path, its pixels as an array, or embed it with model.embed_images.",
            )
        path = path if isinstance(path, Path) else write_array(path, folder / f"{number}.tif")
        is_folder = path.is_dir()
        is_there = os.path.lexists(path)
        for ref in walk(path, follow_links=follow_links) if is_there else [FileRef(path, name, problem=_MISSING)]:
            full = f"{name}/{ref.name}" if is_folder else name
            if full in refs:
                raise MedclipError(Reason.WRONG_USE, "this file is given twice.", where=full, hint="Give it once.")
            refs[full] = replace(ref, name=full, place=(str(PurePosixPath(full).parent), full))
    return tuple(sorted(refs.values(), key=lambda ref: [part.encode() for part in ref.place]))


def write_array(array: NDArray[Any], path: Path) -> Path:
    """Write an array of pixels as a file that reads back with the same values: an uncompressed TIFF, and nothing else.

    Args:
        array: H x W, H x W x 1 or H x W x 3 of any type of numbers. uint8 and uint16 are kept, truth values become 0
            and 255, other whole numbers within 0 to 65535 become uint16, everything else float32, as they do when an
            image file is read.
        path: Path of the file; one that is there is replaced.
    """
    import numpy as np
    import tifffile

    pixels = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    elif pixels.dtype.kind in "ui" and pixels.dtype != np.uint8 and pixels.min() >= 0 and pixels.max() <= 65535:
        pixels = pixels.astype(np.uint16)
    elif pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32)
    form = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", "metadata": None, "software": False}
    tifffile.imwrite(path, np.ascontiguousarray(pixels), **form)
    return path


def _given(image: Any, name: str) -> GivenImage:
    if isinstance(image, (str, os.PathLike)):
        return GivenImage(os.fspath(image), Path(image))
    if isinstance(image, (View, Sample, Study)):
        return GivenImage(name, image)
    if not _is_array(image):
        raise _other(image, name)
    is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
    if not is_image or image.dtype.kind not in "buif" or not image.size:
        raise MedclipError(
            Reason.WRONG_USE,
            f"an image is an array of numbers, H x W or H x W x 3; this is {image.dtype} {list(image.shape)}.",
            where=name,
            hint="Bring channels to the end with numpy.moveaxis; a stack of grey images is given as a list.",
        )
    return GivenImage(name, image)


def _refuse_other(images: Any) -> None:
    if not is_frame(images):
        raise _other(images, None)


def _other(image: Any, name: str | None) -> MedclipError:
    return MedclipError(
        Reason.WRONG_USE,
        f"images are given as {_FORMS}; this is of the type {type(image).__name__}.",
        where=name,
        hint="An image of another library becomes an array with numpy.asarray(image).",
    )


def _is_array(image: Any) -> TypeGuard[NDArray[Any]]:
    import numpy as np

    return isinstance(image, np.ndarray)
