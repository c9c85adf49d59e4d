"""Edited pairs of image and text: a device filled in from around it, and denied in the text (CLIP-IN's edit pairs).

Where a mask lies, the image becomes a smooth surface between the pixels at its edge: no texture is invented, and a
large part that is filled shows as a smear. So a mask may cover `MOST_COVERED` of an image and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medclip.imaging.blending import filled
from medclip.pairs.sample_table import mask_over
from medclip.pairs.words.reports.edited_pairs import EditRow, edited_partner, pixels_of
from medclip.pairs.words.reports.hard_negatives import DEVICES, devices_of, edits_of, fault_of
from medclip.shards.sample_json import from_json
from medclip.shards.writing.rewrite import Partner

KIND = "device"
MOST_COVERED = 0.1
_DENIALS = ("No {} seen.", "No {} can be seen in this image.")
"""The first that is not too short for its text is taken."""


def without_device(text: str, modality: str = "") -> tuple[str, str, str]:
    """Deny the one device that a text affirms.

    Returns:
        The text, the device, and why there is none: `device_not_named`, `denied`, `several_devices`, `not_alone` where
        its sentence says more or another one names it, too, or a reason of `hard_negatives.fault_of`.

    Example:
        >>> without_device("Left chest pacemaker. No effusion.", "xray")
        ('No pacemaker seen. No effusion.', 'pacemaker', '')
    """
    devices = devices_of(text)
    affirmed = [name for name, value in devices.items() if value]
    if len(affirmed) != 1:
        return "", "", "several_devices" if affirmed else "denied" if devices else "device_not_named"
    (name,) = affirmed
    edits = [e for e in edits_of(text, modality) if e.kind == "device" and e.entity == name and e.before == "present"]
    if not edits:
        return "", name, "not_alone"
    match = DEVICES[name].search(edits[0].old)
    assert match is not None
    words = match[0] if match[0].isupper() else match[0].lower()
    fault: str | None = None
    for form in _DENIALS:
        written, _, _ = edits[0].written(text, form.format(words))
        fault = fault_of(text, written, edits[0], modality)
        if fault is None:
            return written, name, ""
    return "", name, fault or ""


def masked_partner(key: str, members: Mapping[str, bytes], mask: Path | None) -> tuple[Partner | None, EditRow]:
    """Make the partner of a rewritten sample, and the row of this candidate.

    Args:
        key: Key of the sample.
        members: Members of the sample, by extension.
        mask: File with the mask of its device; None where it has none.
    """
    record, _ = from_json(members["json"])
    modality = "" if record.modality is None else str(record.modality)
    text, device, reason = without_device(record.texts[0], modality) if record.texts else ("", "", "no_text")
    if mask is None and not reason:
        reason = "no_mask"
    if reason or mask is None:
        return None, EditRow(key, KIND, reason)
    pixels = pixels_of(members)
    if isinstance(pixels, str):
        return None, EditRow(key, KIND, pixels)
    mask_HW = mask_over(mask, (pixels.shape[0], pixels.shape[1]))
    if isinstance(mask_HW, str):
        return None, EditRow(key, KIND, mask_HW)
    if not 0 < mask_HW.mean() <= MOST_COVERED:
        return None, EditRow(key, KIND, "mask_too_large" if mask_HW.any() else "mask_empty")
    denied = [without_device(one, modality) for one in record.long_captions]
    edited = replace(
        record,
        texts=(text,),
        report=None,
        labels={},  # of the image with its device
        long_captions=tuple(one for one, of, _ in denied if of == device and one),
    )
    row = EditRow(key, KIND, "", entities=(device,), change="device")
    return edited_partner(row, members, edited, filled(pixels, mask_HW))
