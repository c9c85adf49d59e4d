"""The pixel size that the XML of an OME-TIFF states (https://docs.openmicroscopy.org/ome-model/, Pixels)."""

from __future__ import annotations

import math
from xml.etree import ElementTree

_LONGEST = 32_000_000
"""Characters of XML that are read; plates with thousands of pictures have a few millions."""
_TO_UM = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "å": 1e-4, "in": 25400.0}
_NAMES = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "centimeter": "cm", "meter": "m", "inch": "in"}


def ome_mpp(text: str | None, number: int) -> tuple[float, float] | None:
    """Read PhysicalSizeY and PhysicalSizeX of one picture in micrometres.

    Args:
        text: The XML. One that declares entities or a document type is not read: OME needs neither, and they are how
            XML refers to other files or grows without bounds.
        number: Which picture, from 0.

    Returns:
        Row and column size; None where they are not stated, or not in a unit of length.
    """
    if not text or len(text) > _LONGEST or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        root = ElementTree.fromstring(text.encode())  # noqa: S314 - without entities, and it never fetches anything
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return None
    elements = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    if number >= len(elements):
        return None
    rows, columns = (_size(elements[number].attrib, axis) for axis in "YX")
    return (rows, columns) if min(rows, columns) > 0 and max(rows, columns) < 1e6 else None


def _size(attributes: dict[str, str], axis: str) -> float:
    """Return one side in µm, 0 where it is not known."""
    # The Greek mu and the micro sign are two characters; both are in use.
    unit = attributes.get(f"PhysicalSize{axis}Unit", "µm").strip().lower().replace("μ", "µ")
    unit = unit.replace("metre", "meter").removesuffix("s")
    factor = _TO_UM.get(_NAMES.get(unit, unit), 0.0)
    try:
        size = float(attributes.get(f"PhysicalSize{axis}", "0")) * factor
    except ValueError:
        return 0.0
    return size if math.isfinite(size) else 0.0
