"""Volumes: from files to voxels with a place in the patient.

This is the room's door; the parts are `slice_geometry` (where slices lie, layout without resampling), `dicom` (a file
for each slice, enhanced objects, mosaics), `nifti` (NIfTI, ANALYZE, MINC), `metaimage` and `resample` (other grids,
slices worth showing).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.imaging.volume.dicom import is_mosaic, read_enhanced, read_mosaic, read_slices
from medclip.imaging.volume.dicom import is_radiograph as is_radiograph
from medclip.imaging.volume.metaimage import read_metaimage
from medclip.imaging.volume.nifti import read_minc
from medclip.imaging.volume.nifti import read_nifti as read_nifti
from medclip.imaging.volume.resample import resample as resample
from medclip.imaging.volume.resample import slice_indices as slice_indices
from medclip.imaging.volume.volume_read import VolumeRead as VolumeRead
from medclip.sample import Step
from medclip.settings import Settings

VOLUMES = frozenset({Format.NIFTI, Format.MINC, Format.METAIMAGE})
"""Formats that hold a volume in a file (or a header and its voxels), beside DICOM."""


def read_volume(paths: Sequence[Path], facts: Sequence[FileFacts], settings: Settings) -> VolumeRead:
    """Read the files of one volume, whatever their format.

    Args:
        paths: A series' slices, one enhanced object, one NIfTI file, or a header and its voxels.
        facts: Facts of each file.
        settings: Limits and policy.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for other formats; what the format's reader raises.
    """
    form = facts[0].format
    if form is Format.DICOM:
        return read_series(paths, facts, settings)
    if form is Format.NIFTI:
        return read_nifti(paths[0], settings, image=paths[1] if len(paths) > 1 else None)
    if form is Format.MINC:
        return read_minc(paths[0], settings)
    if form is Format.METAIMAGE:
        return read_metaimage(paths[0], settings)
    raise MedclipError(Reason.NOT_SUPPORTED_YET, f"volumes in the format {form} are not read.")


def read_series(paths: Sequence[Path], facts: Sequence[FileFacts], settings: Settings) -> VolumeRead:
    """Read a DICOM series, an enhanced object or a mosaic.

    Args:
        paths: The files; slices in any order.
        facts: Facts of each file, with headers.
        settings: Limits and policy.

    Returns:
        The volume, rescaled (HU for CT): int16 where that holds every value exactly, else float32.

    Raises:
        MedclipError: UNEVEN_SLICES with positions in mm; TOO_LARGE; what reading a slice raises.
    """
    headers = [fact.header for fact in facts if fact.header is not None]
    if len(headers) != len(paths) or not headers:
        raise MedclipError(Reason.CORRUPT, "the series holds a file without a DICOM header.")
    multi = next((index for index, header in enumerate(headers) if header.frames > 1 or is_mosaic(header)), None)
    if multi is None:
        return read_slices(paths, headers, settings)
    if len(paths) > 1:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, "the series mixes files of one slice with files of many; they are read apart."
        )
    if not is_mosaic(headers[0]):
        return read_enhanced(paths[0], headers[0], settings)
    mosaic = read_mosaic(paths[0], headers[0], settings)
    if mosaic is not None:
        return mosaic
    stack = read_slices(paths, headers, settings)
    note = Step("note", "the header says mosaic, and its tiles do not fill the image: shown as one, not cut apart")
    return stack._replace(steps=(note, *stack.steps))
