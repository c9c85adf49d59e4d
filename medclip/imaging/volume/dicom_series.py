"""A DICOM series, one slice a file, as one volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.read import DicomHeader, modality_code
from medclip.dicom.pixels.render import public_headers, read_dicom
from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.orientation import Affine, axis_codes, layout_of, oblique_deg, plane_of
from medclip.imaging.volume.result import AIR_HU, HU, RELATIVE, VolumeRead, check_bytes, exactly, extent, fill
from medclip.imaging.volume.slice_geometry import Place, Stack, evenly, stack_of
from medclip.sample import Step, Volume
from medclip.settings import Settings

RADIOGRAPHS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"})
"""Image types of the radiograph that a CT scanner takes to plan the scan. It carries Modality CT and no HU."""
_NOT_DENSITY = frozenset({"PERFUSION", "RCBF", "RCBV", "MTT", "TTP", "TMAX", "SCREEN SAVE"})
"""Image types of maps that are computed from CT and have units of their own."""
_WHOLE = np.int16
_SHOWN = 3


def is_radiograph(header: DicomHeader) -> bool:
    """Return whether an object that calls itself CT is a radiograph."""
    return bool(RADIOGRAPHS & set(header.image_type))


def unit_of(header: DicomHeader, *, rescaled: bool) -> str:
    """Return the unit of a volume: HU for CT slices whose rescale made them HU, "relative" for all else."""
    if not rescaled or modality_code(header) != "CT" or is_radiograph(header):
        return RELATIVE
    if _NOT_DENSITY & set(header.image_type):
        return RELATIVE
    return HU


def read_slices(paths: Sequence[Path], headers: Sequence[DicomHeader], settings: Settings) -> VolumeRead:
    """Read a series of single-frame files into one volume.

    Slices are sorted along their normal, whatever the order of the files. The plane that was acquired stays the plane
    of the slices.

    Args:
        paths: The files.
        headers: Header of each file.
        settings: Limits and policy.

    Raises:
        MedclipError: UNEVEN_SLICES with the positions; what `read_dicom` raises for a slice, with `where` its path.
    """
    first = headers[0]
    if any((h.rows, h.columns) != (first.rows, first.columns) for h in headers):
        raise MedclipError(Reason.UNEVEN_SLICES, "the slices of the series differ in their numbers of pixels.")
    check_bytes((len(paths), first.rows, first.columns), np.dtype(_WHOLE).itemsize, settings)
    stack = stack_of([_place(header) for header in headers], uneven=settings.policy.uneven_slices)
    steps: list[Step] = []
    decoders: list[str] = []
    units: dict[str, int] = {}
    rescales: dict[str, int] = {}

    def slices() -> Iterator[NDArray[Any]]:
        for count, index in enumerate(stack.order):
            try:
                decoded = read_dicom(paths[index], settings, header=headers[index], mode="modality")
            except MedclipError as error:
                raise error.at(paths[index]) from None
            if count == 0:
                steps.extend(decoded.steps)
                decoders.append(decoded.decoder)
            rescale = next((step.detail for step in decoded.steps if step.name == "rescale"), "none")
            rescales[rescale] = rescales.get(rescale, 0) + 1
            units[decoded.unit] = units.get(decoded.unit, 0) + 1
            yield grey(decoded.pixels)
        if len(units) > 1:
            raise MedclipError(
                Reason.CORRUPT,
                f"only some slices of the series can be rescaled ({units.get(HU, 0)} of {sum(units.values())} to HU), "
                "so that their values cannot be compared.",
            )
        if len(rescales) > 1:
            steps[:] = [step for step in steps if step.name != "rescale"]
            steps.append(Step("rescale", f"{len(rescales)} different ones, each slice with its own: {_some(rescales)}"))

    ordered = slices()
    start = next(ordered)
    unit = unit_of(first, rescaled=HU in units)
    shape = (len(stack.order), first.rows, first.columns)
    return finish(chain([start], ordered), shape, stack, unit, first, settings, steps, decoders)


def _some(rescales: Mapping[str, int]) -> str:
    return "; ".join(list(rescales)[:_SHOWN]) + ("; ..." if len(rescales) > _SHOWN else "")


def grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return H x W of H x W x 1 pixels.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for colour, which has no modality units.
    """
    if pixels.ndim == 3 and pixels.shape[2] != 1:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, "the slice is a colour image; volumes are made of grey ones.")
    return pixels[:, :, 0] if pixels.ndim == 3 else pixels


def _place(header: DicomHeader) -> Place:
    return Place(
        header.image_position,
        header.image_orientation,
        header.spacing_mm,
        header.slice_spacing_mm if _plausible(header) else header.slice_thickness_mm,
    )


def _plausible(header: DicomHeader) -> bool:
    """Some writers put the gap between slices where the distance of their centres belongs."""
    spacing, thickness = header.slice_spacing_mm, header.slice_thickness_mm
    return spacing is not None and spacing > 0 and (thickness is None or spacing >= 0.3 * thickness)


def finish(
    slices: Iterator[NDArray[Any]],
    shape: tuple[int, int, int],
    stack: Stack,
    unit: str,
    header: DicomHeader,
    settings: Settings,
    steps: list[Step],
    decoders: list[str],
) -> VolumeRead:
    """Put slices, in the stack's order, into a volume laid out to be shown.

    The array is allocated in its final layout, so that nothing is copied twice.
    """
    layout = layout_of(stack.affine, slice_axis=0)
    affine: Affine = stack.affine
    turned = tuple(shape[axis] for axis in layout.axes)
    voxels = np.empty(turned, _WHOLE)
    window = _inverse(layout, voxels)
    padded = 0
    for index, values in enumerate(slices):
        if unit == HU and values.dtype.kind == "f":  # here, not at the end: one padded slice must not cost the int16
            values, holes = _air(values)
            padded += holes
        exact = values if values.dtype == _WHOLE else exactly(values, voxels.dtype) if voxels.dtype == _WHOLE else None
        if exact is None and voxels.dtype == _WHOLE:
            check_bytes(turned, 4, settings)
            voxels = voxels.astype(np.float32)
            window = _inverse(layout, voxels)
        window[index] = values if exact is None else exact
    low, high = extent(voxels)
    extra = list(stack.steps)
    if padded:
        extra.append(Step("fill", f"{padded} voxels of padding set to {AIR_HU} HU"))
    headers = {
        **public_headers(header),
        **stored_facts(affine, shape),
        "value_range": (low, high),
        **({"gantry_tilt_deg": header.gantry_tilt_deg} if header.gantry_tilt_deg else {}),
    }
    voxels, filled = fill(voxels, unit, low)
    if stack.even:
        affine = layout.affine(affine, shape)
    else:
        even, even_affine, step = evenly(_inverse(layout, voxels), stack)
        voxels, affine = np.ascontiguousarray(layout.apply(even)), layout.affine(even_affine, even.shape)
        extra.append(step)
    done = (*steps, *extra, *filled, Step("volume", f"{' x '.join(map(str, voxels.shape))}, {voxels.dtype}, {unit}"))
    return VolumeRead(Volume(voxels, affine, unit, plane_of(affine)), done, ", ".join(decoders), headers)


def _air(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Set pixels without a value (padding) to air; say how many there were."""
    if np.isfinite(values.sum(dtype=np.float64)):  # NaN anywhere shows in the sum
        return values, 0
    holes = ~np.isfinite(values)
    return np.where(holes, values.dtype.type(AIR_HU), values), int(np.count_nonzero(holes))


def _inverse(layout: Any, voxels: NDArray[Any]) -> NDArray[Any]:
    """Look at a laid out array as [slice, row, column] of the acquisition; a view that can be written to."""
    back = voxels[tuple(slice(None, None, -1 if flip else 1) for flip in layout.flips)]
    return back.transpose(*(layout.axes.index(axis) for axis in range(3)))


def stored_facts(affine: Affine, shape: Sequence[int]) -> Mapping[str, Any]:
    """Return how the file holds the voxels, in NIfTI's order: columns, rows, slices."""
    as_nifti = affine[:, [2, 1, 0, 3]]
    spacing = np.linalg.norm(as_nifti[:3, :3], axis=0)
    return {
        "stored_shape": tuple(int(length) for length in reversed(shape)),
        "stored_spacing": tuple(round(float(mm), 6) for mm in spacing),
        "stored_orientation": axis_codes(as_nifti),
        "oblique_deg": oblique_deg(as_nifti),
    }
