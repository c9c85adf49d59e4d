"""NIfTI-1 and -2, pairs of .hdr and .img, ANALYZE and MINC.

nibabel understands the headers; the voxels are read here, because a header can state any size, a compressed file can
unpack to any size, and nibabel reads extensions and data on their word. So the size is checked first, then no more
than that is unpacked.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.slice_geometry import arrange, axis_codes, check_affine, natural_plane, oblique_deg
from medclip.imaging.volume.volume_read import RELATIVE, VolumeRead, check_bytes, damage_named, extent, fill
from medclip.sample import Step, Volume
from medclip.settings import Settings

_GZIP = b"\x1f\x8b"
_HEAD = 540
"""Bytes of the longest header (NIfTI-2)."""
_MAX_OFFSET = 64 * 1024**2
"""Extensions before the voxels; larger ones are a lie or a bomb."""
MAX_RATIO = 1032
"""What deflate can compress at most: a smaller file cannot hold what its header states."""
_CHUNK = 4 * 1024**2
_MM = {"meter": 1000.0, "micron": 0.001}
_SECONDS = {"msec": 1e-3, "usec": 1e-6}


def read_nifti(path: Path, settings: Settings, *, image: Path | None = None) -> VolumeRead:
    """Read a NIfTI or ANALYZE volume and lay it out to be shown, without resampling.

    Args:
        path: A .nii or .nii.gz file, or the .hdr of a pair.
        settings: Limits.
        image: The .img of a pair; None to look for it beside the header.

    Returns:
        [slice, row, column] or [frame, slice, row, column]: the stored type where there is no scaling, else the
        smallest integer type that holds the scaled values exactly, else float32. Slices lie across the clearly thickest
        axis, else axial.

    Raises:
        MedclipError: EMPTY_FILE, TRUNCATED, CORRUPT, TOO_LARGE, MISSING_FILE (no .img), NOT_SUPPORTED_YET (colour,
            complex numbers, more than four axes), NON_FINITE.
    """
    with damage_named(), quiet("nibabel"):
        header, name, paired = _header(path)
        shape = _shape(header)
        source = _pair_of(path, image) if paired else path
        stored = _voxels(source, header, shape, settings, paired=paired)
        voxels, scaling = _scaled(stored, header)
        steps = _notes(header, name) + scaling
        return laid_out(voxels, _affine(header), _spacing(header, shape), steps, f"nibabel {name}")


def read_stored(path: Path, settings: Settings) -> NDArray[Any]:
    """Read the values of a NIfTI file as they are stored and scaled, [x, y], [x, y, z] or [x, y, z, time].

    Raises:
        MedclipError: As `read_nifti`.
    """
    with damage_named(), quiet("nibabel"):
        header, _, paired = _header(path)
        source = _pair_of(path, None) if paired else path
        return _scaled(_voxels(source, header, _shape(header), settings, paired=paired), header)[0]


def read_minc(path: Path, settings: Settings) -> VolumeRead:
    """Read a MINC volume through nibabel.

    Raises:
        MedclipError: MISSING_CODEC for MINC 2 without h5py; CORRUPT, TOO_LARGE.
    """
    import nibabel

    try:
        with quiet("nibabel"):
            image: Any = nibabel.load(path)
            shape = tuple(int(length) for length in image.shape)
            if not 3 <= len(shape) <= 4:
                raise MedclipError(Reason.NOT_SUPPORTED_YET, f"the volume has {len(shape)} axes; 3 or 4 are read.")
            check_bytes(shape, 8, settings)  # nibabel scales in float64
            voxels = np.asarray(image.dataobj)
            affine = np.asarray(image.affine, np.float64)
            # MINC keeps time first and nibabel with it, so its spatial axes are the last three.
            zooms = tuple(float(step or 0) for step in image.header.get_zooms())
    except MedclipError:
        raise
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC,
            "MINC 2 files are HDF5, which needs another package.",
            hint="Run: pip install 'medclip-imaging[minc]' (it brings h5py).",
        ) from None
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "the volume does not fit into memory.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, "the MINC volume is damaged and cannot be read.") from None
    stored = {"stored_shape": shape, "stored_spacing": tuple(round(step, 6) for step in zooms)}
    if len(shape) == 4:
        voxels, zooms = np.moveaxis(voxels, 0, -1), (*zooms[1:], zooms[0])
    read = laid_out(narrowed(voxels), affine, zooms, [], "nibabel MINC")
    return read._replace(headers={**read.headers, **stored})


def _header(path: Path) -> tuple[Any, str, bool]:
    """Parse the header; give it, the format's name, and whether the voxels are in another file."""
    from nibabel.analyze import AnalyzeHeader
    from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
    from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
    from nibabel.spm2analyze import Spm2AnalyzeHeader
    from nibabel.spm99analyze import Spm99AnalyzeHeader

    with _opened(path) as file:
        head = file.read(_HEAD)
    if not head:
        raise MedclipError(Reason.EMPTY_FILE, "the file is empty.")
    for magic, kind, name, paired in (
        (b"n+1\0", Nifti1Header, "NIfTI-1", False),
        (b"ni1\0", Nifti1PairHeader, "NIfTI-1 pair", True),
        (b"n+2\0", Nifti2Header, "NIfTI-2", False),
        (b"ni2\0", Nifti2PairHeader, "NIfTI-2 pair", True),
    ):
        first = "2" in name
        if (head[4:8] if first else head[344:348]) == magic:
            size = kind.template_dtype.itemsize
            if len(head) < size:
                raise MedclipError(Reason.TRUNCATED, "the file ends inside its header.")
            return kind(head[:size], check=False), name, paired
    if len(head) < 348:
        raise MedclipError(Reason.TRUNCATED, "the file ends inside its header.")
    kind = next((k for k in (Spm2AnalyzeHeader, Spm99AnalyzeHeader) if k.may_contain_header(head)), AnalyzeHeader)
    return kind(head[:348], check=False), "ANALYZE", True


def _opened(path: Path) -> BinaryIO:
    """Open a file, unpacked if it is compressed."""
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path, "rb") if compressed else path.open("rb"))


def _pair_of(path: Path, image: Path | None) -> Path:
    """Find the .img of a .hdr."""
    stem = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    stem = stem[: -len(".hdr")] if stem.lower().endswith(".hdr") else stem
    choices = [image] if image is not None else [path.with_name(stem + end) for end in (".img", ".img.gz", ".IMG")]
    for choice in choices:
        if choice.is_file():
            return choice
    raise MedclipError(
        Reason.MISSING_FILE, "the file is the header of a volume; the .img file with the voxels is not beside it."
    )


def _shape(header: Any) -> tuple[int, ...]:
    """Return the lengths of three or four axes.

    Raises:
        MedclipError: CORRUPT; NOT_SUPPORTED_YET for fewer than two axes or more than four longer than 1.
    """
    shape = [int(length) for length in header.get_data_shape()]
    if not shape or min(shape) < 1:
        raise MedclipError(Reason.CORRUPT, "the header states a volume without voxels.")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) == 5 and shape[3] == 1:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, "the file holds a vector at each place (a deformation field), not an image."
        )
    if not 2 <= len(shape) <= 4:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, f"the volume has {len(shape)} axes; 2 to 4 are read.")
    return (*shape, 1) if len(shape) == 2 else tuple(shape)


def _voxels(path: Path, header: Any, shape: Sequence[int], settings: Settings, *, paired: bool) -> NDArray[Any]:
    """Read the stored values, [x, y, z] or [x, y, z, time], native byte order."""
    dtype = np.dtype(header.get_data_dtype())
    if dtype.fields or dtype.kind not in "uif" or dtype.itemsize > 8:
        what = "colours" if dtype.fields else "complex numbers" if dtype.kind == "c" else "a type of value"
        raise MedclipError(Reason.NOT_SUPPORTED_YET, f"the volume holds {what} that medclip does not read.")
    check_bytes(shape, max(dtype.itemsize, 4) if dtype.kind == "f" else dtype.itemsize, settings)
    offset = float(header.get_data_offset())
    if not 0 <= offset <= _MAX_OFFSET:
        raise MedclipError(Reason.CORRUPT, "the header puts the voxels at an impossible place in the file.")
    start = int(offset) if paired or offset else int(header.template_dtype.itemsize) + 4
    count = math.prod(shape) * dtype.itemsize
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
        size = file.seek(0, io.SEEK_END)
    if size * (MAX_RATIO if compressed else 1) < start + count:
        raise short(shape)
    data = np.empty(count, np.uint8)
    with _opened(path) as file:
        file.seek(start)
        view, at = memoryview(cast(Any, data)), 0
        while at < count:
            got = cast(Any, file).readinto(view[at : at + _CHUNK])
            if not got:
                raise short(shape)
            at += got
        if compressed and not settings.policy.accept_unterminated:
            _check_sum(file)
    stored = data.view(dtype).reshape(shape, order="F")
    return stored if dtype.isnative else stored.astype(dtype.newbyteorder("="))


def _check_sum(file: BinaryIO) -> None:
    """Read on to the end of a compressed file, where its check sum is: zeros in its middle unpack to something, too.

    Raises:
        EOFError: Where the end is missing.
        gzip.BadGzipFile: Where the sum is another.
    """
    for _ in range(_MAX_OFFSET // _CHUNK):
        if not file.read(_CHUNK):
            return


def short(shape: Sequence[int]) -> MedclipError:
    """Return the refusal of a file with fewer voxels than its header states."""
    return MedclipError(
        Reason.TRUNCATED, f"the file ends before its voxels do; the header states {' x '.join(map(str, shape))}."
    )


def _scaled(stored: NDArray[Any], header: Any) -> tuple[NDArray[Any], list[Step]]:
    """Apply slope and intercept."""
    slope, inter = header.get_slope_inter()
    slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
    if (slope, inter) == (1.0, 0.0):
        return (narrowed(stored) if stored.dtype.kind == "f" else stored), []
    step = [Step("scale", f"slope {slope:g}, intercept {inter:g}")]
    if stored.dtype.kind != "f" and slope.is_integer() and inter.is_integer():
        ends = [int(stored.min()) * int(slope) + int(inter), int(stored.max()) * int(slope) + int(inter)]
        for kind in (np.int16, np.uint16, np.int32, np.uint32):
            if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
                # Integers wrap around, so what fits in the end may overflow on the way.
                factor, offset = np.array([int(slope), int(inter)]).astype(kind)
                return stored.astype(kind) * factor + offset, step
    scaled = stored.astype(np.float64) if stored.dtype.itemsize > 2 else stored.astype(np.float32)
    if stored.dtype.itemsize > 2:
        return (scaled * slope + inter).astype(np.float32), step
    if stored.dtype.kind == "f":
        return (scaled * np.float32(slope) + np.float32(inter)), step
    # 8 and 16 bits: each possible value once in float64, then a look-up.
    limits = np.iinfo(stored.dtype)
    table = (np.arange(limits.min, limits.max + 1, dtype=np.float64) * slope + inter).astype(np.float32)
    return table[stored.astype(np.int32) - limits.min], step


def narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """Bring floating-point numbers to float32."""
    return values if values.dtype.kind != "f" else values.astype(np.float32, copy=False)


def _affine(header: Any) -> NDArray[np.float64]:
    affine = np.asarray(header.get_best_affine(), np.float64).copy()
    affine[:3] *= _MM.get(_units(header)[0], 1.0)
    check_affine(affine)
    return affine


def _units(header: Any) -> tuple[str, str]:
    try:
        space, time = header.get_xyzt_units()
        return str(space), str(time)
    except Exception:  # ANALYZE has none; others may hold a code that does not exist
        return "unknown", "unknown"


def _spacing(header: Any, shape: Sequence[int]) -> tuple[float, ...]:
    """Return the header's spacing, in mm, and its step in time, in the header's own unit."""
    zooms = [float(step) for step in header.get_zooms()][: len(shape)]
    factor = _MM.get(_units(header)[0], 1.0)
    return tuple(step * factor if axis < 3 else step for axis, step in enumerate(zooms))


def _notes(header: Any, name: str) -> list[Step]:
    if name == "ANALYZE":
        what = "ANALYZE does not say left from right; taken as it is usual, first voxel at the right"
        return [Step("orientation", what)]
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        what = "the header states no orientation (qform and sform 0); taken for LAS, as NIfTI has it"
        return [Step("orientation", what)]
    if int(header["qform_code"]) > 0 and int(header["sform_code"]) > 0:
        return _contradiction(header)
    return []


def _contradiction(header: Any) -> list[Step]:
    """Note where the two statements of orientation differ: which side is the left may hang on it."""
    try:
        s_axes, q_axes = axis_codes(np.asarray(header.get_sform())), axis_codes(np.asarray(header.get_qform()))
    except Exception:  # an unusable qform says nothing
        return []
    if s_axes == q_axes:
        return []
    return [Step("note", f"sform says {s_axes} and qform {q_axes}; the sform is taken, as NIfTI readers do")]


def laid_out(
    voxels: NDArray[Any], affine: NDArray[np.float64], zooms: Sequence[float], steps: list[Step], decoder: str
) -> VolumeRead:
    """Lay [x, y, z] or [x, y, z, time] out to be shown."""
    check_affine(affine)
    low, high = extent(voxels)
    headers: Mapping[str, Any] = {
        "stored_shape": tuple(int(length) for length in voxels.shape),
        "stored_spacing": tuple(round(step, 6) for step in zooms),
        "stored_orientation": axis_codes(affine),
        "oblique_deg": oblique_deg(affine),
        "value_range": (low, high),
    }
    turned = np.moveaxis(voxels, 3, 0) if voxels.ndim == 4 else voxels
    arranged, shown_affine, plane = arrange(turned, affine, natural_plane(affine))
    arranged = np.ascontiguousarray(arranged)
    arranged, filled = fill(arranged, RELATIVE, low)
    done = (
        *steps,
        Step("layout", f"{headers['stored_orientation']} stored, shown in {plane} slices"),
        *filled,
        Step("volume", f"{' x '.join(map(str, arranged.shape))}, {arranged.dtype}"),
    )
    return VolumeRead(Volume(arranged, shown_affine, RELATIVE, plane), done, decoder, headers)
