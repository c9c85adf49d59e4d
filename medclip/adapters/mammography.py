"""Mammography: MG and secondary captures of it, scanned film and exported images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from medclip.adapters.base import ImageAdapter, Source, value_range
from medclip.adapters.depth import to_range
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.pixels.decoded import Decoded
from medclip.files.grouping.mammography_exam import exam_view
from medclip.files.recognise.inspect import PROJECTION_CODES, FileFacts
from medclip.imaging.crop import breast
from medclip.imaging.geometry import crop
from medclip.sample import Modality, Sample, Step, View, ViewKind
from medclip.settings import Settings

_MIRRORED = Step("note", "the chest wall lies on the other side than PatientOrientation says: the image was mirrored")
_CONTRADICTION = Step("note", "header, table and file name state different sides, so that the side is not known")


class MammographyAdapter(ImageAdapter):
    """One mammogram to one grey view: white on black, cropped to the breast, chest wall on the left, armpit above.

    Images deeper than 8 bits outside DICOM are stretched from their minimum (the background) to their 99.9
    percentile, which keeps lead markers from setting the white.
    """

    name = "mammography"
    modality = Modality.MAMMOGRAPHY
    version = 3
    grey = True
    dicom_codes = PROJECTION_CODES
    percentiles = (0, 99.9)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        crop = {
            "grid": breast.GRID,
            "margin": breast.MARGIN,
            "area": breast.MIN_AREA,
            "level": breast.TOWARDS_BACKGROUND,
            "side": breast.CLEAR_SIDE,
            "frame": list(breast.FRAME),
            "white": list(breast.WHITE),
        }
        return {**super().parameters, "percentiles": list(self.percentiles), "breast": crop}

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read an image, and say what its header knows of implants and processing."""
        stated = exam_view("", source.first.header, table=source.stated_view, file_name=source.path.name)
        sample = super().read_unit(_with_side(source, stated.view.side), settings)
        header = source.first.header or DicomHeader()
        view = replace(
            sample.views[0],
            laterality=stated.view.side or None,
            position=stated.view.position or None,
            exam_kind=None if stated.view.kind == ViewKind.STANDARD else stated.view.kind,
        )
        of_view = {
            "laterality": view.laterality,
            "position": view.position,
            "implant": stated.implant,
            "for_processing": _is_raw(header),
            "exam_kind": view.exam_kind,
            "view_modifiers": stated.modifiers or None,
            "instance_number": stated.number,
            "sides_contradict": stated.sides_contradict or None,
        }
        provenance = sample.provenance
        if stated.sides_contradict:
            provenance = replace(provenance, steps=(*provenance.steps, _CONTRADICTION))
        return replace(sample, views=(view,), headers={**sample.headers, **of_view}, provenance=provenance)

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Stretch deep images, crop to the breast, turn the chest wall to the left; uncropped, leave it where it is."""
        pixels, steps = to_range(decoded, facts, self.percentiles)
        header = facts.header or DicomHeader()
        limits = value_range(pixels)
        if breast.has_white_background(pixels, limits):
            pixels = np.asarray(sum(limits) - pixels, pixels.dtype)
            steps += (Step("invert", "the background was white, whatever the header says"),)
        located = breast.find_breast(pixels, limits) if cropped else None
        flipped: tuple[int, ...] = ()
        if located is not None:
            pixels = crop(pixels, located.box)
            steps += (Step("crop breast", str(located.box)),)
        wall, why = _chest_wall(located, header)
        if wall == "right" and cropped:
            pixels, flipped = np.flip(pixels, axis=1), (1,)
            steps += (Step("flip", f"chest wall was on the right ({why})"),)
        if cropped and _is_upside_down(header):
            pixels, flipped = np.flip(pixels, axis=0), (0, *flipped)
            steps += (Step("flip", "it stood on its head (by PatientOrientation)"),)
        if located is not None and located.chest_wall is not None and located.chest_wall != _stated_wall(header):
            steps += (_MIRRORED,) if _stated_wall(header) else ()
        steps += _remarks(header)
        view = View(
            pixels,
            limits,
            part=None if located is None else located.box,
            flipped=flipped,
            spacing_mm=decoded.spacing_mm or header.spacing_mm,
            burned_in=header.burned_in,
        )
        return view, steps


def _with_side(source: Source, side: str) -> Source:
    """Return the source with the side that is believed, as the chest wall may be told by it."""
    facts = source.first
    if side == (facts.header or DicomHeader()).laterality:
        return source
    header = replace(facts.header or DicomHeader(), laterality=side)
    return replace(source, facts=(replace(facts, header=header), *source.facts[1:]))


def _is_raw(header: DicomHeader) -> bool | None:
    return header.presentation_intent == "FOR PROCESSING" if header.presentation_intent else None


def _remarks(header: DicomHeader) -> tuple[Step, ...]:
    """Note what makes a mammogram look different, though nothing is done about it."""
    steps: tuple[Step, ...] = ()
    if _is_raw(header):
        steps += (Step("note", "image for processing: detector values without the maker's contrast, unlike others"),)
    if header.breast_implant:
        steps += (Step("note", "the header states a breast implant"),)
    return steps


def _chest_wall(located: breast.Breast | None, header: DicomHeader) -> tuple[str | None, str]:
    """Decide the chest wall's side: by the tissue, else by the row's direction, else by the side of the body."""
    if located is not None and located.chest_wall is not None:
        return located.chest_wall, "by the tissue"
    if stated := _stated_wall(header):
        return stated, "by PatientOrientation"
    if header.laterality in ("L", "R"):
        return ("left" if header.laterality == "L" else "right"), "by laterality"
    return None, ""


def _stated_wall(header: DicomHeader) -> str | None:
    """Return the side of the image that the header says the chest wall is on."""
    # The first value says where columns lead: towards the nipple (anterior) means that the chest wall is left.
    direction = header.patient_orientation[0].upper() if header.patient_orientation else ""
    return {"A": "left", "P": "right"}.get(direction)


def _is_upside_down(header: DicomHeader) -> bool:
    """Return whether rows lead upwards, or in a CC view outwards: then the armpit is at the bottom of the image."""
    if len(header.patient_orientation) < 2:
        return False
    rows, view = header.patient_orientation[1].upper(), exam_view("", header).view
    if view.position == "CC":
        return bool(view.side) and rows.startswith(view.side)
    return rows.startswith("H")
