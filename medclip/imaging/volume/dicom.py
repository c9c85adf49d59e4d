"""DICOM volumes: a file for each slice, enhanced objects, and Siemens mosaics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import items, numbers, quiet, text, three
from medclip.dicom.header.elements import number as number_of
from medclip.dicom.header.read import DicomHeader, modality_code
from medclip.dicom.pixels.render import public_headers, read_dicom, read_frames
from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.slice_geometry import (
    LPS_TO_RAS,
    PARALLEL_DEG,
    SAME_MM,
    Affine,
    Place,
    Stack,
    axis_codes,
    check_affine,
    evenly,
    layout_of,
    oblique_deg,
    plane_of,
    stack_of,
)
from medclip.imaging.volume.volume_read import AIR_HU, HU, RELATIVE, VolumeRead, check_bytes, exactly, extent, fill
from medclip.sample import Step, Volume
from medclip.settings import Settings
from medclip.wording import list_of

# A DICOM series, one slice a file, as one volume.

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
    """Stack slices, in their order, to a volume laid out to be shown.

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


# One DICOM file that holds a whole volume: enhanced CT and MR, Siemens mosaics.
#
# highdicom builds a volume from an enhanced object too (the tests compare), but gives no time, echo or b-value axis,
# refuses what has no frame of reference, and gives float64; so positions are read from the functional groups here.

_HU_TYPES = frozenset({"", "HU", "US", "HU_MOD"})
"""Rescale types of CT values; US (unspecified) is what many writers put there."""


def is_mosaic(header: DicomHeader) -> bool:
    """Return whether an image is a Siemens mosaic: the slices of a volume as tiles."""
    return header.mosaic and header.frames == 1


def read_enhanced(path: Path, header: DicomHeader, settings: Settings) -> VolumeRead:
    """Read a multi-frame object.

    Returns:
        [slice, row, column], or [frame, slice, row, column] where each place has several frames (times, echoes,
        b-values; in the order of these).

    Raises:
        MedclipError: UNEVEN_SLICES, TOO_LARGE, what `read_frames` raises.
    """
    check_bytes((header.frames, header.rows, header.columns), 2, settings)
    groups = _groups(path, header)
    repeats, steps = _by_place(groups)
    stack = stack_of([groups[frame].place for frame in repeats[0]], uneven=settings.policy.uneven_slices)
    read = read_frames(path, settings, header=header, mode="modality")
    if len(read.pixels) != header.frames:
        raise MedclipError(Reason.CORRUPT, "the file holds another number of frames than its header states.")
    unit = _unit(header, groups, rescaled=read.unit == HU)
    shape = (len(stack.order), header.rows, header.columns)
    volumes: list[VolumeRead] = []
    for frames in repeats:

        def slices(frames: Sequence[int] = frames) -> Iterator[NDArray[Any]]:
            for index in stack.order:
                yield grey(read.pixels[frames[index]])

        volumes.append(finish(slices(), shape, stack, unit, header, settings, [*read.steps, *steps], [read.decoder]))
    return _joined(volumes, [groups[frames[0]] for frames in repeats])


def read_mosaic(path: Path, header: DicomHeader, settings: Settings) -> VolumeRead | None:
    """Read a Siemens mosaic.

    The number of tiles and their place come from Siemens' private header of the image, through nibabel; where that was
    taken out, from the scanner's protocol.

    Returns:
        None where the tiles do not fill the image evenly: somebody made it smaller.

    Raises:
        MedclipError: CORRUPT if both are missing or make no sense.
    """
    count, affine, source = _mosaic_header(path)
    side = math.ceil(math.sqrt(count))
    if header.rows % side or header.columns % side or count < 1:
        return None
    decoded = read_dicom(path, settings, header=header, mode="modality")
    rows, columns = header.rows // side, header.columns // side
    tiles = grey(decoded.pixels).reshape(side, rows, side, columns).swapaxes(1, 2).reshape(-1, rows, columns)[:count]
    check_affine(affine)
    stack = Stack(tuple(range(count)), affine, np.arange(count) * np.float64(np.linalg.norm(affine[:3, 0])), even=True)
    steps = [*decoded.steps, Step("mosaic", f"{side} x {side} tiles to {count} slices, by the {source}")]
    return finish(iter(tiles), (count, rows, columns), stack, RELATIVE, header, settings, steps, [decoded.decoder])


def _mosaic_header(path: Path) -> tuple[int, NDArray[np.float64], str]:
    """Return the number of slices, the affine for [slice, row, column] in RAS, and which header says so."""
    try:
        with quiet("pydicom"):
            from nibabel.nicom import dicomwrappers

            wrapper: Any = dicomwrappers.wrapper_from_file(path)
            # nibabel counts (row, column, slice) and keeps DICOM's LPS.
            affine = LPS_TO_RAS @ np.asarray(wrapper.affine, np.float64)[:, [2, 0, 1, 3]]
            return int(wrapper.n_mosaic), affine + 0.0, "image header"
    except Exception:  # the image header was taken out, or is not as nibabel knows it
        try:
            with quiet("pydicom"):
                return *_mosaic_protocol(path), "protocol"
        except Exception:
            raise MedclipError(
                Reason.CORRUPT,
                "the image is a Siemens mosaic, but does not say how many slices it holds and where.",
                hint="Export it again with its private elements (0029,1010) or (0029,1020), or as enhanced MR.",
            ) from None


_PROTOCOL = re.compile(rb"### ASCCONV BEGIN.*?###(.*?)### ASCCONV END ###", re.DOTALL)
_MOST_TILES = 1024
_SLICE_AXES = ("Sag", "Cor", "Tra")


def _mosaic_protocol(path: Path) -> tuple[int, NDArray[np.float64]]:
    """Read a mosaic's slices from the scanner's protocol, the text within (0029,1020).

    Tiles stand in the order of the protocol's slices, or against it where ucImageNumbTra (Sag, Cor) is there, as
    dicom2nifti has it. Which of the two ends ImagePositionPatient belongs to, the positions of the protocol tell:
    dicom2nifti takes the lowest slice, dcm2niix the first tile. As in all mosaics it is the corner of a slice as large
    as the whole mosaic: https://nipy.org/nibabel/dicom/dicom_mosaic.html

    Raises:
        Exception: Of any kind, where something is missing or does not fit.
    """
    from pydicom import dcmread

    dataset = dcmread(path, force=True, stop_before_pixels=True)
    try:
        held = dataset.private_block(0x0029, "SIEMENS CSA HEADER")[0x20].value
    except KeyError:  # the names of private blocks are taken out before their elements
        held = dataset[0x0029, 0x1020].value
    match = _PROTOCOL.search(bytes(held))
    assert match is not None
    lines = (line.partition("=") for line in match[1].decode("latin-1").splitlines())
    protocol = {name.strip(): value.strip() for name, _, value in lines}
    count = int(protocol["sSliceArray.lSize"])
    stated = dataset.get((0x0019, 0x100A))
    if not 1 < count <= _MOST_TILES or (stated is not None and int(stated.value) != count):
        raise ValueError("a slab, whose slices the protocol does not list")
    positions = np.array(
        [
            [float(protocol.get(f"sSliceArray.asSlice[{index}].sPosition.d{axis}", 0)) for axis in _SLICE_AXES]
            for index in range(count)
        ]
    )
    across, down = np.reshape(np.asarray(dataset.ImageOrientationPatient, np.float64), (2, 3))
    normal = np.cross(across, down)
    along = positions @ normal
    if f"sSliceArray.ucImageNumb{_SLICE_AXES[int(np.abs(normal).argmax())]}" in protocol:
        along = along[::-1]
    apart = np.diff(along)
    if not (np.all(apart > SAME_MM) or np.all(apart < -SAME_MM)):
        raise ValueError("slices at one place, or in no order")
    spacing = number_of(dataset, "SpacingBetweenSlices") or abs(float(apart[0]))
    step = math.copysign(spacing, apart[0]) * normal
    side = math.ceil(math.sqrt(count))
    row_mm, column_mm = (float(mm) for mm in dataset.PixelSpacing)
    origin = np.asarray(dataset.ImagePositionPatient, np.float64)
    if abs(origin @ normal - along[-1]) < abs(origin @ normal - along[0]):
        origin = origin - step * (count - 1)
    share = (1 - 1 / side) / 2
    origin = origin + share * (dataset.Columns * column_mm * across + dataset.Rows * row_mm * down)
    affine = np.eye(4)
    affine[:3] = np.column_stack([step, down * row_mm, across * column_mm, origin])
    return count, LPS_TO_RAS @ affine + 0.0


class _Group:
    """What one frame's functional groups say."""

    def __init__(self, shared: Any, per_frame: Any, number: int, header: DicomHeader) -> None:
        def find(sequence: str) -> Any:
            return next((held[0] for groups in (per_frame, shared) if (held := items(groups, sequence))), None)

        measures, content = find("PixelMeasuresSequence"), find("FrameContentSequence")
        spacing = numbers(measures, "PixelSpacing", 2)
        self.place = Place(
            three(numbers(find("PlanePositionSequence"), "ImagePositionPatient", 3)),
            numbers(find("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
            header.spacing_mm if spacing is None or min(spacing) <= 0 else (spacing[0], spacing[1]),
            number_of(measures, "SpacingBetweenSlices")
            or number_of(measures, "SliceThickness")
            or header.slice_spacing_mm
            or header.slice_thickness_mm,
        )
        self.stack = text(content, "StackID")
        self.echo_ms = number_of(find("MREchoSequence"), "EffectiveEchoTime")
        self.b_value = number_of(find("MRDiffusionSequence"), "DiffusionBValue")
        self.rescale_type = text(find("PixelValueTransformationSequence"), "RescaleType")
        time = number_of(content, "TemporalPositionIndex")
        self.order = (time or 0.0, self.echo_ms or 0.0, self.b_value or 0.0, number)


def _groups(path: Path, header: DicomHeader) -> list[_Group]:
    from pydicom import dcmread

    try:
        with quiet("pydicom"):
            dataset = dcmread(path, force=True, stop_before_pixels=True)
            shared = next(iter(items(dataset, "SharedFunctionalGroupsSequence")), None)
            per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
            if per_frame and len(per_frame) != header.frames:
                raise MedclipError(Reason.CORRUPT, "the header describes another number of frames than it states.")
            return [
                _Group(shared, per_frame[number] if per_frame else None, number, header)
                for number in range(header.frames)
            ]
    except MedclipError:
        raise
    except Exception:
        raise MedclipError(Reason.CORRUPT, "the header's description of the frames cannot be read.") from None


def _by_place(groups: Sequence[_Group]) -> tuple[list[list[int]], list[Step]]:
    """Return for each time (echo, b-value) the frames at each place, places in the same order throughout."""
    if all(group.place.position is None for group in groups):
        mm = groups[0].place.thickness_mm or 1.0
        for index, group in enumerate(groups):
            old = group.place
            group.place = Place((0.0, 0.0, index * mm), old.orientation or (1, 0, 0, 0, 1, 0), old.spacing_mm, mm)
            if old.orientation is not None:
                normal = np.cross(old.orientation[:3], old.orientation[3:]) * index * mm
                group.place = Place((normal[0], normal[1], normal[2]), old.orientation, old.spacing_mm, mm)
        note = f"the header states none; frames are taken for slices in the file's order, {mm:g} mm apart"
        return [list(range(len(groups)))], [Step("position", note)]
    if len({group.stack for group in groups}) > 1 and not _parallel(groups):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, "the object holds stacks of several orientations; one volume has one."
        )
    places = _places(groups)
    counts = {len(frames) for frames in places}
    if len(counts) > 1:
        raise MedclipError(
            Reason.UNEVEN_SLICES,
            f"the object has {min(counts)} to {max(counts)} frames at the places of its slices ({_odd(places)}); "
            "a series in time has the same number at each.",
        )
    ordered = [sorted(frames, key=lambda number: groups[number].order) for frames in places]
    return [list(frames) for frames in zip(*ordered, strict=True)], []


def _odd(places: Sequence[Sequence[int]]) -> str:
    """Name the places with another number of frames than most, counted from the first."""
    numbers = [len(frames) for frames in places]
    usual = max(set(numbers), key=numbers.count)
    odd = [f"place {index + 1} of {len(places)} has {count}" for index, count in enumerate(numbers) if count != usual]
    return list_of(odd, most=_SHOWN)


def _places(groups: Sequence[_Group]) -> list[list[int]]:
    """Group the frames of one place, by their distance along the normal."""
    positions = [group.place.position for group in groups]
    if any(position is None for position in positions):
        raise MedclipError(Reason.UNEVEN_SLICES, "some frames of the object do not say where they lie.")
    cosines = groups[0].place.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    along = np.array(positions, np.float64) @ np.cross(cosines[:3], cosines[3:])
    order = np.argsort(along, kind="stable")
    starts = np.flatnonzero(np.diff(along[order]) > SAME_MM) + 1
    return [[int(number) for number in part] for part in np.split(order, starts)]


def _parallel(groups: Sequence[_Group]) -> bool:
    orientations = [group.place.orientation for group in groups if group.place.orientation is not None]
    return not orientations or bool(
        np.abs(np.array(orientations) - np.array(orientations[0])).max() < np.radians(PARALLEL_DEG)
    )


def _unit(header: DicomHeader, groups: Sequence[_Group], *, rescaled: bool) -> str:
    unit = unit_of(header, rescaled=rescaled)
    return unit if unit != HU or {group.rescale_type for group in groups} <= _HU_TYPES else RELATIVE


def _joined(volumes: Sequence[VolumeRead], firsts: Sequence[_Group]) -> VolumeRead:
    """Order volumes of one place by time."""
    first = volumes[0]
    headers: dict[str, Any] = dict(first.headers)
    echoes, b_values = [group.echo_ms for group in firsts], [group.b_value for group in firsts]
    headers |= {} if echoes[0] is None else {"echo_time_ms": echoes[0]}
    headers |= {} if b_values[0] is None else {"b_value": b_values[0]}
    if len(volumes) == 1:
        return first._replace(headers=headers)
    if len(set(echoes)) > 1:
        headers["echo_times_ms"] = tuple(echoes)
    if len(set(b_values)) > 1:
        headers["b_values"] = tuple(b_values)
    ranges = [read.headers["value_range"] for read in volumes]
    headers["value_range"] = (min(low for low, _ in ranges), max(high for _, high in ranges))
    headers["stored_shape"] = (*headers["stored_shape"], len(volumes))
    voxels = np.stack([read.volume.voxels for read in volumes])
    step = Step("frames", f"{len(volumes)} volumes in the order of time, echo and b-value")
    volume = Volume(voxels, first.volume.affine, first.volume.unit, first.volume.plane)
    return VolumeRead(volume, (*first.steps, step), first.decoder, headers)
