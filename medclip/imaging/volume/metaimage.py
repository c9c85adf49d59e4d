"""MetaImage (.mha, .mhd with its files of voxels): volumes, and images of one slice.

The header is understood by `medclip.files.recognise.metaimage_header`. Voxels are read here and not by ITK: a header
can state any size, so that it is checked first, and no more than that is unpacked. Values and places are those of
SimpleITK, which the tests' files were written with.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.pixels.decoded import check_size
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.companions import voxels_beside
from medclip.files.recognise.metaimage_header import MetaImageHeader, read_metaimage_header
from medclip.imaging.volume.nifti import MAX_RATIO, laid_out, narrowed, short
from medclip.imaging.volume.slice_geometry import LPS_TO_RAS
from medclip.imaging.volume.volume_read import VolumeRead, check_bytes, damage_named
from medclip.sample import Step
from medclip.settings import Settings

_GZIP = b"\x1f\x8b"
_ZLIB_OR_GZIP = 47
_CHUNK = 1024**2


def read_metaimage(path: Path, settings: Settings) -> VolumeRead:
    """Read a MetaImage volume and lay it out to be shown, without resampling.

    Args:
        path: The .mha, or the .mhd whose files of voxels lie beside it.
        settings: Limits and policy.

    Returns:
        [slice, row, column] or [frame, slice, row, column] in the stored type; floating-point numbers as float32.

    Raises:
        MedclipError: As `read_metaimage_header`; TOO_LARGE, MISSING_FILE; NOT_SUPPORTED_YET for several values a voxel
            and more than four axes; NON_FINITE.
    """
    with damage_named():
        header = _header(path)
        shape = header.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if header.channels != 1:
            what = "the MetaImage holds several values at each place (colour, a deformation field), not a grey volume."
            raise MedclipError(Reason.NOT_SUPPORTED_YET, what)
        if len(shape) > 4:
            raise MedclipError(Reason.NOT_SUPPORTED_YET, f"the volume has {len(shape)} axes; 2 to 4 are read.")
        shape = (*shape, 1)[: max(3, len(shape))]
        dtype = np.dtype(header.dtype)
        check_bytes(shape, max(dtype.itemsize, 4) if dtype.kind == "f" else dtype.itemsize, settings)
        voxels = narrowed(_values(path, header, settings).reshape(shape, order="F"))
        affine, spacing, steps = _geometry(header, len(shape))
        return laid_out(voxels, affine, spacing, steps, "MetaImage")


def read_metaimage_2d(path: Path, settings: Settings) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Read a MetaImage of one slice as it is stored.

    Returns:
        [H, W, C] in native byte order; spacing of rows and columns in mm where it is stated.

    Raises:
        MedclipError: As `read_metaimage`.
    """
    with damage_named():
        header = _header(path)
        columns, rows = header.shape[:2]
        check_size(columns, rows, settings)
        check_bytes((rows, columns, header.channels), np.dtype(header.dtype).itemsize, settings)
        pixels = _values(path, header, settings).reshape(rows, columns, header.channels)
        spacing = None if header.spacing is None else (abs(header.spacing[1]), abs(header.spacing[0]))
        return pixels, spacing if spacing is not None and min(spacing) > 0 else None


def _header(path: Path) -> MetaImageHeader:
    with path.open("rb") as file:
        return read_metaimage_header(file)


def _values(path: Path, header: MetaImageHeader, settings: Settings) -> NDArray[Any]:
    """Read all values, in the file's order, in native byte order. Their size must have been checked."""
    dtype = np.dtype(header.dtype)
    count = math.prod(header.shape) * header.channels * dtype.itemsize
    places = _places(path, header.files)
    if sum(place.stat().st_size for place in places) * MAX_RATIO < count:
        raise short(header.shape)
    if count % len(places):
        raise MedclipError(Reason.CORRUPT, "the voxels cannot be shared evenly among the files that the header names.")
    data = np.empty(count, np.uint8)
    for part, place in zip(data.reshape(len(places), -1), places, strict=True):
        with place.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            start = header.header_bytes if not header.files else header.skipped_bytes
            start = size - len(part) if start == -1 else start
            if start < 0:
                raise short(header.shape)
            file.seek(start)
            stands = file.read(2)
            file.seek(start)
            compressed = header.compressed or (size - start != len(part) and stands == _GZIP)
            if (size - start) * (MAX_RATIO if compressed else 1) < len(part):
                raise short(header.shape)
            _fill(part, _unpacked(file, settings) if compressed else _plain(file), header.shape)
    stored = data.view(dtype)
    return stored if dtype.isnative else stored.astype(dtype.newbyteorder("="))


def _places(path: Path, names: Sequence[str]) -> list[Path]:
    """Return the files of voxels; the header itself where it names none."""
    placed = voxels_beside(path, names)
    if placed.problem is not None:
        raise placed.problem.error(path)
    return [path.with_name(name) for name in placed.parts] or [path]


def _fill(part: NDArray[np.uint8], blocks: Iterator[bytes], shape: Sequence[int]) -> None:
    at, view = 0, memoryview(cast(Any, part))
    for block in blocks:
        take = min(len(block), len(part) - at)
        view[at : at + take] = block[:take]
        at += take
        if at == len(part):
            next(blocks, None)  # a compressed file has its check sum behind the last value
            return
    raise short(shape)


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_CHUNK):
        yield block


def _unpacked(file: BinaryIO, settings: Settings) -> Iterator[bytes]:
    """Yield what a zlib or gzip stream holds, in small parts.

    Raises:
        EOFError: Where its end is missing, unless the policy accepts that.
        zlib.error: Where it is damaged.
    """
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    while not stream.eof:
        packed = stream.unconsumed_tail or file.read(_CHUNK)
        block = stream.decompress(packed, _CHUNK)
        if block:
            yield block
        elif not packed:
            if settings.policy.accept_unterminated:
                return
            raise EOFError


def _geometry(header: MetaImageHeader, axes: int) -> tuple[NDArray[np.float64], tuple[float, ...], list[Step]]:
    """Return the affine of [x, y, z] to RAS millimetres, the spacing of all axes, and what had to be assumed."""
    steps: list[Step] = []
    stated = len(header.shape)
    spacing = header.spacing or (1.0,) * stated
    if header.spacing is None:
        steps.append(Step("spacing", "the header states none; voxels are taken for cubes of 1 mm, as ITK does"))
    directions = np.eye(stated) if header.directions is None else np.array(header.directions)
    if header.directions is None:
        steps.append(Step("orientation", "the header states none; taken for LPS, as ITK does"))
    affine = np.eye(4)
    num = min(3, stated)
    affine[:num, :num] = (directions[:num, :num] * np.array(spacing[:num])[:, None]).T
    affine[:num, 3] = header.origin[:num]
    return LPS_TO_RAS @ affine, (*spacing, *(1.0,) * axes)[:axes], steps
