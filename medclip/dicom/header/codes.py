"""Tables of DICOM codes: which modality code an object class means, which view a mammogram shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medclip.dicom.header import elements as values
from medclip.sample import ViewKind

VIEW_CODES: Mapping[str, str] = {
    "R-10242": "CC",
    "399162004": "CC",
    "R-10226": "MLO",
    "399368009": "MLO",
    "R-10224": "ML",
    "399260004": "ML",
    "R-10228": "LM",
    "399352003": "LM",
    "R-10230": "LMO",
    "399099002": "LMO",
    "R-1024A": "XCCL",
    "R-1024B": "XCCM",
    "R-10206": "AP",
    "399348003": "AP",
    "R-10214": "PA",
    "R-40888": "PA",
    "272479007": "PA",
    "R-10202": "FRONTAL",
    "399033003": "FRONTAL",
    "R-102CD": "LATERAL",
    "399067008": "LATERAL",
    "R-10232": "LATERAL",
    "399198007": "LATERAL",
    "R-10236": "LATERAL",
    "399173006": "LATERAL",
    "R-102C1": "OBLIQUE",
    "399182000": "OBLIQUE",
    "R-10234": "OBLIQUE",
    "399236003": "OBLIQUE",
    "R-10238": "OBLIQUE",
    "399184004": "OBLIQUE",
    "R-10208": "OBLIQUE",
    "399312000": "OBLIQUE",
    "R-10216": "OBLIQUE",
    "399059000": "OBLIQUE",
    "R-10220": "LAO",
    "399135007": "LAO",
    "R-40985": "RAO",
    "399356000": "RAO",
    "R-10212": "LPO",
    "399006002": "LPO",
    "R-10210": "RPO",
    "399038007": "RPO",
}
"""Views by their SNOMED code, old and new: mammography (PS3.16, CID 4014) and projection X-ray (CID 4010)."""
MAMMOGRAPHIC = frozenset({"CC", "MLO", "LMO", "XCCL", "XCCM"})
"""Views that only breasts are seen in."""
VIEW_MODIFIERS: Mapping[str, str] = {
    "R-102D5": "implant displaced",
    "399209000": "implant displaced",
    "R-102D6": "magnification",
    "399163009": "magnification",
    "R-102D7": "spot compression",
    "399055006": "spot compression",
    "R-102D2": "cleavage",
    "399161006": "cleavage",
    "R-102D1": "axillary tail",
    "399011000": "axillary tail",
    "R-40AB2": "axillary tissue",
    "442580003": "axillary tissue",
    "R-102C2": "tangential",
    "399110001": "tangential",
    "R-102D3": "rolled",
    "399197002": "rolled",
    "R-102D4": "rolled",
    "399226006": "rolled",
    "R-102CA": "rolled",
    "414493004": "rolled",
    "R-102C9": "rolled",
    "415670009": "rolled",
}
"""What was done differently in a view (PS3.16, CID 4015)."""
EXAM_KINDS: Mapping[str, ViewKind] = {
    "LOW_ENERGY": ViewKind.LOW_ENERGY,
    "RECOMBINED": ViewKind.SUBTRACTED,
    "SUBTRACTED": ViewKind.SUBTRACTED,
    "SUBTRACTION": ViewKind.SUBTRACTED,
    "GENERATED_2D": ViewKind.SYNTHETIC,
}
"""Values of a mammogram's ImageType that name how it was made (PS3.3 C.8.11.7, and what makers write there)."""

SOP_MODALITIES: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",
    "1.2.840.10008.5.1.4.1.1.1.2.1": "MG",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.6.1": "US",
    "1.2.840.10008.5.1.4.1.1.3.1": "US",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
    "1.2.840.10008.5.1.4.1.1.12.1": "XA",
    "1.2.840.10008.5.1.4.1.1.12.2": "RF",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "SM",
}
DEVICES: Mapping[str, str] = {
    **dict.fromkeys(("CR", "DX", "MG", "RF", "XA", "IO", "PX", "DR"), "a projection X-ray"),
    "CT": "a CT",
    "MR": "an MR",
    "US": "an ultrasound",
}
"""Modality codes by the device that made the image; those of one device are used for one another."""
TO_BE_INFERRED = frozenset({"", "OT", "RG", "SC"})
"""Modality codes that do not say what the image shows."""
WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."
"""Stem of the SOP classes of waveforms: ECGs, haemodynamics, respiration."""
ECG_CLASSES = frozenset(f"{WAVEFORMS}1.{last}" for last in (1, 2, 3, 4))
"""12-lead, general, ambulatory and 32-bit general ECG."""


def view_code(dataset: Any) -> str:
    """Return the view that a data set's ViewCodeSequence names as a word; "" where none is known."""
    items = values.items(dataset, "ViewCodeSequence")
    return VIEW_CODES.get(values.text(items[0], "CodeValue"), "") if items else ""


def view_modifiers(dataset: Any) -> tuple[str, ...]:
    """Return the known modifiers of the view, such as implant displaced, magnification and spot compression."""
    codes = [
        values.text(item, "CodeValue")
        for view in values.items(dataset, "ViewCodeSequence")[:1]
        for item in values.items(view, "ViewModifierCodeSequence")
    ]
    return tuple(sorted({VIEW_MODIFIERS[code] for code in codes if code in VIEW_MODIFIERS}))
