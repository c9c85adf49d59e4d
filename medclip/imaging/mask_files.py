"""Files of masks: one reader for each format, a row of `READERS`; what is in no row is an image that is not black.

A mask is of one image. A file that holds those of several images (COCO, DICOM SEG) or structures is asked for those of
one, and refused where it does not name them: nothing is taken for the mask of another image, or of all structures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import inspect_file
from medclip.files.recognise.sniff import Format
from medclip.files.tables.table import plain_name
from medclip.imaging.masks import read_mask
from medclip.imaging.volume.nifti import read_stored
from medclip.imaging.volume.volume_read import check_bytes
from medclip.settings import Settings
from medclip.wording import count, list_of

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MaskOf:
    """What a mask is of."""

    image: Path
    size: tuple[int, int]
    """Rows and columns of the image's file."""
    structure: str
    """As the column of masks is called."""


def read_mask_of(path: Path, of: MaskOf, settings: Settings) -> Mask:
    """Read a mask.

    Args:
        path: The file: PNG and other images, as of `read_mask`; NIfTI of one slice, a DICOM Segmentation, COCO or
            GeoJSON.
        of: Image and structure.
        settings: Limits.

    Returns:
        bool [H, W], of the size that the file states; polygons, which state none, are drawn at that of the image.

    Raises:
        MedclipError: What `read_mask` and `read_stored` raise; TABLE_INVALID for a file that does not say which part
            of it is of this image and structure; NOT_SUPPORTED_YET for a volume; CORRUPT.
    """
    facts = inspect_file(path, settings)
    reader = READERS.get(facts.format)
    if facts.problem is not None and (reader is None or facts.problem.reason is not Reason.NOT_AN_IMAGE):
        raise facts.problem.error(path)
    try:
        return read_mask(path, facts.format, settings) if reader is None else reader(path, of, settings)
    except MedclipError as error:
        raise error.at(path) from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise MedclipError(Reason.CORRUPT, "the file of masks is damaged, or is none.", where=path) from None


def _of_nifti(path: Path, of: MaskOf, settings: Settings) -> Mask:
    """Read one slice as SimpleITK and nnU-Net write a single image: columns first, no axis turned."""
    stored = read_stored(path, settings)
    if stored.ndim != 2 and max(stored.shape[2:]) > 1:
        size = " x ".join(map(str, stored.shape))
        raise MedclipError(Reason.NOT_SUPPORTED_YET, f"the mask is a volume of {size}, and masks are of single images.")
    return stored.reshape(stored.shape[:2]).T > 0


def _of_segmentation(path: Path, of: MaskOf, settings: Settings) -> Mask:
    """Read the frames of a DICOM Segmentation that are derived from the image; none where it has no pixel there."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with quiet("pydicom"):
        read = dcmread(path)
        try:
            uid = str(dcmread(of.image, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        except (InvalidDicomError, OSError, AttributeError):
            raise _unclear("it refers to DICOM images, and this image is none") from None
        if str(read.get("SegmentationType")) not in ("BINARY", "FRACTIONAL"):
            raise MedclipError(Reason.NOT_SUPPORTED_YET, "it is no binary or fractional DICOM Segmentation.")
        series = read.get("ReferencedSeriesSequence", ())
        named = {str(one.ReferencedSOPInstanceUID) for each in series for one in each.ReferencedInstanceSequence}
        wanted = _chosen({int(one.SegmentNumber): str(one.SegmentLabel) for one in read.SegmentSequence}, of.structure)
        shape = int(read.get("NumberOfFrames", 1)), int(read.Rows), int(read.Columns)
        check_bytes(shape, 1, settings)
        frames, mask = read.pixel_array.reshape(shape), np.zeros(shape[1:], np.bool_)
        least = int(read.get("MaximumFractionalValue", 1)) / 2
        for frame, groups in zip(frames, read.PerFrameFunctionalGroupsSequence, strict=True):
            derived = groups.get("DerivationImageSequence", ())
            sources = {str(s.ReferencedSOPInstanceUID) for one in derived for s in one.get("SourceImageSequence", ())}
            named |= sources
            if uid in sources and int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber) in wanted:
                mask |= frame >= least
    if uid not in named:
        raise _unclear("it refers to other images than this one")
    return mask


def _of_json(path: Path, of: MaskOf, settings: Settings) -> Mask:
    if path.stat().st_size > settings.max_file_bytes:
        raise MedclipError(Reason.TOO_LARGE, "the file is larger than the limit for decoding.")
    document = _document(path, path.stat().st_mtime_ns)
    if isinstance(document, dict) and {"images", "annotations"} <= set(document):
        return _of_coco(document, of)
    features = document.get("features", [document]) if isinstance(document, dict) else document
    if not all(one.get("type") == "Feature" for one in features):
        raise _unclear("it is JSON, and neither COCO nor GeoJSON")
    return _of_features(features, of)


@lru_cache(maxsize=4)
def _document(path: Path, changed: int) -> Any:
    """Parse a file once for all images that it is of."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise MedclipError(Reason.CORRUPT, "the JSON is damaged and cannot be read.") from None


def _of_coco(document: Mapping[str, Any], of: MaskOf) -> Mask:
    """Draw the annotations of an image, which is known by its name without folders."""
    images = [one for one in document["images"] if Path(str(one["file_name"])).name == of.image.name]
    if len(images) != 1:
        raise _unclear(f"it names {count(len(images), 'image')} as this one is called")
    (image,) = images
    if (image["height"], image["width"]) != of.size:
        sizes = f"{image['height']} x {image['width']} pixels, and the image has {of.size[0]} x {of.size[1]}"
        raise _unclear(f"its image has {sizes}")
    wanted = _chosen({one["id"]: str(one["name"]) for one in document["categories"]}, of.structure)
    mask = np.zeros(of.size, np.bool_)
    for one in document["annotations"]:
        if one["image_id"] == image["id"] and one["category_id"] in wanted:
            shapes = one["segmentation"]
            if isinstance(shapes, Mapping):
                mask |= _of_runs(shapes["counts"], of.size)
            else:
                for flat in shapes:  # parts of one object, each without holes
                    mask |= filled([np.reshape(flat, (-1, 2))], of.size)
    return mask


def _of_runs(counts: str | Sequence[int], size: tuple[int, int]) -> Mask:
    """Read the lengths of runs of COCO, down the columns, the first outside; as text, in its packed form."""
    lengths: list[int] = []
    if isinstance(counts, str):
        value = shift = 0
        for letter in counts.encode():
            bits = letter - 48
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                value -= (bits & 16) and 1 << shift
                lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
                value = shift = 0
    else:
        lengths = list(counts)
    if sum(lengths) != size[0] * size[1] or min(lengths) < 0:
        raise ValueError("runs do not fill the image")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size[1], size[0]).T


def _of_features(features: Sequence[Mapping[str, Any]], of: MaskOf) -> Mask:
    """Draw polygons in pixels of the image, as QuPath exports them; the structure is their classification."""
    names = [str(((one.get("properties") or {}).get("classification") or {}).get("name", "")) for one in features]
    wanted = _chosen(dict(enumerate(names)), of.structure)
    mask = np.zeros(of.size, np.bool_)
    for number, one in enumerate(features):
        shape = one["geometry"]
        if shape["type"] not in ("Polygon", "MultiPolygon"):
            raise _unclear(f"it has a {shape['type']}, and masks are made of polygons")
        for rings in [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]:
            if number in wanted:
                mask |= filled([np.asarray(ring, np.float64)[:, :2] for ring in rings], of.size)
    return mask


def filled(rings: Sequence[NDArray[Any]], size: tuple[int, int]) -> Mask:
    """Draw a polygon with its holes: pixels whose centre lies in an odd number of rings.

    Args:
        rings: Corners [n, 2] as x and y, where the first pixel reaches from 0 to 1; closed or not.
        size: Rows and columns.

    Example:
        >>> filled([np.array([[1, 0], [3, 0], [3, 2], [1, 2]])], (2, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0]]
    """
    height, width = size
    crossed = np.zeros((height, width + 1), np.bool_)
    for ring in rings:
        for ends in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
            (x, y), (to_x, to_y) = sorted(ends, key=lambda end: (end[1], end[0]))  # there and back is the same line
            rows = np.arange(max(0, int(np.ceil(y - 0.5))), min(height, int(np.ceil(to_y - 0.5))))
            if len(rows):
                at_x = x + (rows + 0.5 - y) * (to_x - x) / (to_y - y)
                crossed[rows, np.clip(np.ceil(at_x - 0.5), 0, width).astype(np.intp)] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :width]


def _chosen(names: Mapping[Any, str], structure: str) -> set[Any]:
    """Choose what is called as the structure is; all of it where everything has one name."""
    wanted = {key for key, name in names.items() if plain_name(name) == plain_name(structure)}
    if not wanted and len(set(names.values())) > 1:
        several = list_of(sorted(set(names.values())), most=5)
        raise _unclear(f"it has {several}, none of which is called {structure!r} as the column is")
    return wanted or set(names)


def _unclear(what: str) -> MedclipError:
    return MedclipError(Reason.TABLE_INVALID, f"this is no mask of the image: {what}.")


READERS: Mapping[Format, Callable[[Path, MaskOf, Settings], Mask]] = {
    Format.NIFTI: _of_nifti,
    Format.DICOM: _of_segmentation,
    Format.JSON: _of_json,
}
"""Readers of masks that are no images, by what the bytes of the file are."""
