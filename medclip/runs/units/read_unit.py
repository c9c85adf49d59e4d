"""What a reading process does with one unit of files: facts first, pixels later. Never imports torch."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.model_images import as_shown
from medclip.dicom.header.safe_header import ALLOWED, public_values
from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import keyed_hash
from medclip.files.recognise.inspect import CHANGED, FileFacts, inspect_file, is_unchanged
from medclip.files.tables.cells import iso_week
from medclip.sample import Kind

if TYPE_CHECKING:
    from medclip.adapters.base import Source
    from medclip.dicom.header.read import DicomHeader
    from medclip.imaging.geometry import Placement
    from medclip.imaging.masks import Shown
    from medclip.models.inputs.preprocess import Images, Preprocess
    from medclip.sample import Modality, Sample, Stamp, View
    from medclip.settings import Settings


THUMBNAIL_PX = 160
SHEET_PX = 800
"""Longest side of the sheet of an ECG, whose twelve leads have to be legible."""
_JPEG_QUALITIES = (80, 65, 50)
_UNEVEN = 0.05
"""Difference of the scales along the two sides that is no rounding to whole pixels or patches."""
_THUMBNAIL_BYTES = 6_000
"""Thumbnails live in the ledger and, 200 of them, in the report: 6 kB each keeps that report near 2 MB."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One unit as the model and the report need it: small enough to cross a pipe."""

    images: Images
    """One for each view, at the model's size: what `Preprocess.together` makes of them."""
    thumbnail: bytes
    """JPEG of the first view, longest side at most 160 px, or PNG of an ECG's sheet, without metadata; empty when text
    is burned in, and where none is wanted."""
    burned_in: bool
    """The header says that text is burned into the pixels."""
    adapter: str
    preprocessing: str
    decoder: str
    steps: tuple[tuple[str, str], ...]
    laterality: str | None
    view: str | None
    coloured: bool = False
    """Whether the image shows colours; looked at where its modality is not known, and where its adapter leaves them
    out."""
    flat: bool = False
    """Whether nearly all of the image has one of four grey values (`is_flat`)."""
    headers: str | None = None
    """JSON of the values that `medclip.dicom.header.safe_header` lets out; None where neither header nor table
    states one."""
    look: bytes = b""
    """What the image is known again by (`medclip.imaging.perceptual_hash`), where that is asked for."""
    shown: tuple[Shown, ...] = ()
    """Where each view lies in what the model is shown, from its file on; where that is asked for."""
    spacing_mm: tuple[float, float] | None = None
    """Row and column spacing of the first view's pixels, where its file states one."""


def inspect(path: Path, settings: Settings, hashed: tuple[Stamp, str] | None) -> FileFacts:
    """Hash one file and find out what it is; its hash may be known from before.

    Raises:
        OSError: Where its drive does not deliver it now; the pool tries again.
    """
    return inspect_file(path, settings, hashed, raise_passing=True)


def ready_to_read(modalities: Collection[Modality]) -> None:
    """Import what `read` needs, so that a reading process has it by the time that the model is loaded."""
    from medclip.adapters.registry import get_adapter

    for module in _OF_READING:
        import_module(module)
    for modality in modalities:
        get_adapter(modality)


_OF_READING = (
    "PIL.Image",
    "medclip.imaging.ecg.sheet.draw_sheet",
    "medclip.imaging.perceptual_hash",
    "medclip.models.inputs.preprocess",
    "medclip.models.inputs.read_pixels",
)
"""What `read` imports once it is called, and what its arguments are made of."""


def read(
    source: Source,
    modality: Modality | None,
    preprocess: Preprocess,
    settings: Settings,
    look: bool = False,
    small: bool = True,
    where_shown: bool = False,
) -> Reading:
    """Read one unit through the adapter of its modality and bring it to the model's size.

    Args:
        source: The files, with what `inspect` found.
        modality: Modality whose adapter reads it; None for the generic rendering that modalities are inferred from.
        preprocess: Preprocessing of the model, with its crop.
        settings: Limits.
        look: Whether to keep what the image is known again by, too: some milliseconds.
        small: Whether to draw an ECG's small sheet, which takes three times as long as reading it.
        where_shown: Whether to keep where each view lies in what the model is shown, for maps.

    Raises:
        MedclipError: Whatever the adapter refuses, or a model of volumes or ECGs; CHANGED where a file is not the one
            that was looked at, so that no pixels are scored under the hash and the patient of others.
    """
    from medclip.adapters.model_images import images_of
    from medclip.adapters.registry import read_unit
    from medclip.imaging.ecg.sheet.draw_sheet import small_sheet_png
    from medclip.imaging.intensity import has_colours, is_flat, to_uint8
    from medclip.imaging.perceptual_hash import look_of, look_of_views
    from medclip.models.inputs.read_pixels import pixels_of

    try:
        sample = read_unit(source, modality, preprocess.reading(settings))
    finally:  # also where the bytes of another file made no sense
        for path, facts in zip(source.paths, source.facts, strict=True):
            if not is_unchanged(path, facts):
                raise CHANGED.error(path)
    if preprocess.signal is not None and sample.signal is not None:
        sheet = small_sheet_png(sample.signal) if small else b""
        return _reading(sample, source, pixels_of(sample, preprocess), sheet)
    images = images_of(sample)
    if not images:
        raise MedclipError(Reason.OTHER_INPUT, f"the {sample.kind} has no image, and this model takes images only.")
    pixels = pixels_of(sample, preprocess)
    first = images[0]
    burned_in = any(view.burned_in for view in images)
    seen, where = pixels[0], preprocess.placement(*first.pixels.shape[:2])
    if preprocess.volume is not None:  # of clips the middle of the middle one, which is square
        seen = pixels[len(pixels) // 2][preprocess.volume.num_frames // 2]
        where = preprocess.placement(*seen.shape[:2])
    shown = tuple(_shown(view, preprocess) for view in images) if where_shown and source.kind is Kind.IMAGE else ()
    known_by = None
    if look and modality is not None:
        known_by = look_of_views(pixels) if preprocess.shows_all else look_of(to_uint8(images[len(images) // 2]))
    if sample.signal is not None:
        seen_small = small_sheet_png(sample.signal) if small else b""
    else:
        seen_small = b"" if burned_in else thumbnail(as_shown(sample, seen), where)
    reading = _reading(sample, source, pixels, seen_small)
    looked_at = sample.kind is Kind.IMAGE and sample.signal is None
    return replace(
        reading,
        burned_in=burned_in,
        laterality=first.laterality,
        view=first.position,
        coloured=first.in_colour or (modality is None and has_colours(to_uint8(first))),
        flat=looked_at and is_flat(to_uint8(first)),
        look=known_by.to_bytes() if known_by is not None else b"",
        shown=shown,
        spacing_mm=first.spacing_mm,
    )


def _shown(view: View, preprocess: Preprocess) -> Shown:
    """Return where a view lies in what the model is shown."""
    from medclip.imaging.masks import shown_of

    size = view.stored_size or view.part_of or view.pixels.shape[:2]
    return shown_of(view, size, preprocess.placement(*view.pixels.shape[:2]))


def _reading(sample: Sample, source: Source, pixels: Images, small: bytes) -> Reading:
    """Return what any sample has."""
    header = source.first.header
    return Reading(
        images=pixels,
        thumbnail=small,
        burned_in=False,
        adapter=sample.provenance.adapter,
        preprocessing=sample.provenance.preprocessing,
        decoder=sample.provenance.decoder,
        steps=tuple((step.name, step.detail) for step in sample.provenance.steps),
        laterality=None,
        view=None,
        headers=_public_json({**({} if header is None else public_values(header)), **sample.headers}),
    )


def _public_json(values: Mapping[str, Any]) -> str | None:
    """Write the values whose names are on the allow-list, in its order; None where there are none.

    A sample's headers hold more, of the adapter's own making; a sample knows more of some than the first file does.
    """
    public = {entry.name: values[entry.name] for entry in ALLOWED if values.get(entry.name) is not None}
    return json.dumps(public) if public else None


def with_origin(headers: str | None, header: DicomHeader, key: bytes) -> str | None:
    """Add when and where a file was made to its header values: its week, and hashes of device, site and protocol.

    Serial numbers, names of sites and of protocols are free text of whoever set the device up, so that they leave as
    keyed hashes only. Without a believable date the week is left out. Also a file that could not be read has them: why
    files fail is worth knowing by week and device, too.

    Args:
        headers: JSON as `Reading.headers`.
        header: Header of the file.
        key: Identity key.

    Example:
        >>> from medclip.dicom.header.read import DicomHeader
        >>> with_origin('{"modality": "CR"}', DicomHeader(study_date="20240131"), bytes(32))
        '{"modality": "CR", "week": "2024-W05"}'
        >>> with_origin(None, DicomHeader(study_date="19000101"), bytes(32)) is None
        True
    """
    week = iso_week(header.study_date)
    origin = {} if week is None else {"week": week}
    for kind, text in (("device", header.device), ("site", header.institution), ("protocol", header.protocol)):
        if words := " ".join(text.lower().split()):
            origin[kind] = keyed_hash(kind, words, key)
    return json.dumps({**json.loads(headers or "{}"), **origin}) if origin else headers


def thumbnail(seen_HWC: NDArray[np.uint8], where: Placement) -> bytes:
    """Make the report's small image from what the model saw: without padding, at the image's own aspect ratio.

    Args:
        seen_HWC: uint8 [H, W, 1 or 3]: the model's input.
        where: Place of the image in the model's input.

    Returns:
        JPEG bytes without any metadata, usually under 6 kB.
    """
    from PIL import Image

    from medclip.imaging.geometry import crop

    part_HWC = crop(seen_HWC, where.filled)
    image = Image.fromarray(np.ascontiguousarray(part_HWC[:, :, 0] if part_HWC.shape[2] == 1 else part_HWC))
    down, across = where.scale
    is_stretched = (where.resized_height, where.resized_width) == (where.shown_height, where.shown_width)
    if is_stretched and abs(down / across - 1) > _UNEVEN:
        width, height = image.width / across, image.height / down
        share = THUMBNAIL_PX / max(width, height)
        image = image.resize((max(1, round(width * share)), max(1, round(height * share))), Image.Resampling.LANCZOS)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    body = b""
    for quality in _JPEG_QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True)
        body = buffer.getvalue()
        if len(body) <= _THUMBNAIL_BYTES:
            break
    return body
