"""One DICOM file that holds a whole volume: enhanced CT and MR, Siemens mosaics.

highdicom builds a volume from an enhanced object too (the tests compare), but gives no time, echo or b-value axis,
refuses what has no frame of reference, and gives float64; so positions are read from the functional groups here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import items, numbers, text, three
from medclip.dicom.header.elements import number as number_of
from medclip.dicom.header.quiet import quiet
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.pixels.render import read_dicom, read_frames
from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.dicom_series import finish, grey, unit_of
from medclip.imaging.volume.orientation import LPS_TO_RAS, check_affine
from medclip.imaging.volume.result import HU, RELATIVE, VolumeRead, check_bytes
from medclip.imaging.volume.slice_geometry import PARALLEL_DEG, SAME_MM, Place, Stack, stack_of
from medclip.sample import Step, Volume
from medclip.settings import Settings
from medclip.wording import list_of

_SHOWN = 3
_HU_TYPES = frozenset({"", "HU", "US", "HU_MOD"})
"""Rescale types of CT values; US (unspecified) is what many writers put there."""


def is_mosaic(header: DicomHeader) -> bool:
    """Return whether an image is a Siemens mosaic: the slices of a volume as tiles."""
    return header.mosaic and header.frames == 1


def read_enhanced(path: Path, header: DicomHeader, settings: Settings) -> VolumeRead:
    """Read a multi-frame object.

    Args:
        path: The file.
        header: Header of the file.
        settings: Limits and policy.

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
    """Read a Siemens mosaic: the number of tiles and their place come from Siemens' private header, through nibabel.

    Returns:
        None where the tiles do not fill the image evenly: somebody made it smaller.

    Raises:
        MedclipError: CORRUPT if that header is missing or makes no sense.
    """
    count, affine = _mosaic_header(path)
    side = math.ceil(math.sqrt(count))
    if header.rows % side or header.columns % side or count < 1:
        return None
    decoded = read_dicom(path, settings, header=header, mode="modality")
    rows, columns = header.rows // side, header.columns // side
    tiles = grey(decoded.pixels).reshape(side, rows, side, columns).swapaxes(1, 2).reshape(-1, rows, columns)[:count]
    check_affine(affine)
    stack = Stack(tuple(range(count)), affine, np.arange(count) * np.float64(np.linalg.norm(affine[:3, 0])), even=True)
    steps = [*decoded.steps, Step("mosaic", f"{side} x {side} tiles to {count} slices")]
    return finish(iter(tiles), (count, rows, columns), stack, RELATIVE, header, settings, steps, [decoded.decoder])


def _mosaic_header(path: Path) -> tuple[int, NDArray[np.float64]]:
    """Return the number of slices and the affine for [slice, row, column] in RAS."""
    try:
        with quiet("pydicom"):
            from nibabel.nicom import dicomwrappers

            wrapper: Any = dicomwrappers.wrapper_from_file(path)
            count = int(wrapper.n_mosaic)
            # nibabel counts (row, column, slice) and keeps DICOM's LPS.
            affine = LPS_TO_RAS @ np.asarray(wrapper.affine, np.float64)[:, [2, 0, 1, 3]]
    except Exception:
        raise MedclipError(
            Reason.CORRUPT, "the image is a Siemens mosaic, but does not say how many slices it holds and where."
        ) from None
    return count, affine + 0.0


class _Group:
    """What one frame's functional groups say."""

    def __init__(self, shared: Any, own: Any, number: int, header: DicomHeader) -> None:
        def find(sequence: str) -> Any:
            return next((held[0] for groups in (own, shared) if (held := items(groups, sequence))), None)

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
            own = items(dataset, "PerFrameFunctionalGroupsSequence")
            if own and len(own) != header.frames:
                raise MedclipError(Reason.CORRUPT, "the header describes another number of frames than it states.")
            return [_Group(shared, own[number] if own else None, number, header) for number in range(header.frames)]
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
    """Put the frames of one place together, by their distance along the normal."""
    positions = [group.place.position for group in groups]
    if any(position is None for position in positions):
        raise MedclipError(Reason.UNEVEN_SLICES, "some frames of the object do not say where they lie.")
    cosines = groups[0].place.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    along = np.array(positions, np.float64) @ np.cross(cosines[:3], cosines[3:])
    order = np.argsort(along, kind="stable")
    starts = np.flatnonzero(np.diff(along[order]) > SAME_MM) + 1
    return [[int(number) for number in part] for part in np.split(order, starts)]


def _parallel(groups: Sequence[_Group]) -> bool:
    known = [group.place.orientation for group in groups if group.place.orientation is not None]
    return not known or bool(np.abs(np.array(known) - np.array(known[0])).max() < np.radians(PARALLEL_DEG))


def _unit(header: DicomHeader, groups: Sequence[_Group], *, rescaled: bool) -> str:
    unit = unit_of(header, rescaled=rescaled)
    return unit if unit != HU or {group.rescale_type for group in groups} <= _HU_TYPES else RELATIVE


def _joined(volumes: Sequence[VolumeRead], firsts: Sequence[_Group]) -> VolumeRead:
    """Put volumes of one place in the order of time."""
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
