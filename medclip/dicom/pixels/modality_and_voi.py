"""From stored values to modality units, and from those to 0 (black) - 1 (white): tables, rescales and windows.

All functions work on one-dimensional float64 or int64 values, so that a table of all possible values costs the same
whatever the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import floats, present, text, texts, value
from medclip.errors import MedclipError, Reason
from medclip.sample import Step
from medclip.wording import count as counted

Values = NDArray[np.float64]

_UNITS = frozenset(
    {
        *("HU", "HU_MOD", "OD", "MGML", "Z_EFF", "ED", "EDW", "PCT", "CNTS", "CM2", "PCNT", "CPS", "BQML", "MGMINML"),
        *("UMOLMINML", "MLMING", "MLG", "1CM", "UMOLML", "PROPCNTS", "PROPCPS", "MLMINML", "MLML", "GML", "STDDEV"),
    }
)
"""RescaleType and PET Units of the standard. Anything else may be free text, and stays where it is."""


WINDOW_HINT = "Name another window of the header, or a centre and a width of at least 1, such as 40,400."


class Element(NamedTuple):
    """The elements of one frame that the chain needs; equal elements give equal pixels."""

    slope: float | None
    """None where no usable rescale is stated: it takes a slope other than 0 and an intercept."""
    intercept: float
    unit: str
    """Of rescaled values; "relative" where nothing makes them values of a unit."""
    windows: tuple[tuple[float, float], ...]
    explanations: tuple[str, ...]
    function: str
    bad_rescale: bool
    """Part of a rescale is there and makes none."""
    bad_window: bool
    """The window is there and cannot be read."""
    spacing_mm: tuple[float, float] | None


def elements_of(dataset: Any, frame: int) -> Element:
    """Read rescale, windows and spacing of one frame: its own functional group, the shared one, else the object's."""
    groups = _groups(dataset, frame)
    values = _group(groups, "PixelValueTransformationSequence", dataset, "RescaleSlope")
    window = _group(groups, "FrameVOILUTSequence", dataset, "WindowCenter")
    measures = _group(groups, "PixelMeasuresSequence", dataset, "PixelSpacing")
    slope, intercept = floats(values, "RescaleSlope"), floats(values, "RescaleIntercept")
    centres, widths = floats(window, "WindowCenter"), floats(window, "WindowWidth")
    spacing = floats(measures, "PixelSpacing")
    usable = bool(slope and intercept and slope[0] != 0)
    return Element(
        slope=slope[0] if slope and usable else None,
        intercept=intercept[0] if intercept and usable else 0.0,
        unit=_unit(values, dataset, rescaled=usable),
        windows=tuple(zip(centres or (), widths or (), strict=False)),
        explanations=texts(window, "WindowCenterWidthExplanation"),
        function=(text(window, "VOILUTFunction") or "LINEAR").upper(),
        bad_rescale=not usable and (slope != () or intercept != ()),
        bad_window=None in (centres, widths),
        spacing_mm=(spacing[0], spacing[1]) if spacing and len(spacing) == 2 and min(spacing) > 0 else None,
    )


def _groups(dataset: Any, frame: int) -> list[Any]:
    groups = []
    try:
        per_frame = value(dataset, "PerFrameFunctionalGroupsSequence") or ()
        if frame < len(per_frame):
            groups.append(per_frame[frame])
        groups.extend(value(dataset, "SharedFunctionalGroupsSequence") or ())
    except Exception:  # a broken group is none
        return groups
    return groups


def _group(groups: Sequence[Any], name: str, dataset: Any, keyword: str) -> Any:
    for group in groups:
        try:
            items: Any = group.get(name) or ()
            if len(items) and keyword in items[0]:
                return items[0]
        except Exception:  # noqa: S112 - a broken group is none
            continue
    return dataset


def _unit(values: Any, dataset: Any, *, rescaled: bool) -> str:
    """Name the unit of rescaled values. Stored values that nothing rescales have none, whatever the header says."""
    word = (text(values, "RescaleType") or text(dataset, "Units")).upper()
    if present(dataset, "ModalityLUTSequence"):
        word = word or text(dataset.ModalityLUTSequence[0], "ModalityLUTType").upper()
    elif not rescaled:
        return "relative"
    if word in _UNITS:
        return word
    localizer = "LOCALIZER" in (kind.upper() for kind in texts(dataset, "ImageType"))
    is_ct = texts(dataset, "Modality")[:1] == ("CT",)
    return "HU" if is_ct and word in ("", "US") and rescaled and not localizer else "relative"


def to_modality(values: NDArray[Any], dataset: Any, element: Element, steps: list[Step]) -> Values:
    """Apply the modality LUT, or slope and intercept, to stored values."""
    if present(dataset, "ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        try:
            mapped = np.asarray(apply_modality_lut(values, dataset), np.float64)
        except Exception:
            steps.append(Step("rescale", "ignored: the header's modality LUT is unusable"))
            return values.astype(np.float64)
        steps.append(Step("rescale", "modality LUT"))
        return mapped
    if element.slope is None:
        if element.bad_rescale:
            steps.append(Step("rescale", "ignored: the header states no slope and intercept that make sense together"))
        return values.astype(np.float64)
    if (element.slope, element.intercept) != (1.0, 0.0):
        steps.append(Step("rescale", f"slope {element.slope:g}, intercept {element.intercept:g}"))
    return values * element.slope + element.intercept


def window(values: Values, centre: float, width: float, function: str) -> Values:
    """Map modality values to 0 - 1 by a window (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: Modality values.
        centre: Centre of the window (WindowCenter).
        width: Width of the window (WindowWidth); at least 1 for LINEAR, more than 0 for the others.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
        ValueError: For a width or function outside the standard.
    """
    if not np.isfinite([centre, width]).all():
        raise ValueError("a window outside the standard")
    if function == "SIGMOID" and width > 0:
        with np.errstate(over="ignore"):
            return 1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if function == "LINEAR" and width == 1:
        return (values > centre - 0.5).astype(np.float64)
    if function == "LINEAR" and width > 1:
        return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)
    raise ValueError("a window outside the standard")


def _voi_table(both: Values, item: Any, order: str) -> tuple[Values, int]:
    """Look modality values up in one VOI LUT; give 0 - 1 and the bits it declares."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    count = count or 1 << 16
    data = item["LUTData"].value
    if data is None or not len(data):
        raise ValueError("an empty table")
    if not isinstance(data, bytes):
        table = np.atleast_1d(np.asarray(data, np.float64))[:count]
    elif len(data) >= 2 * count:
        table = np.frombuffer(data, f"{order}u2", count).astype(np.float64)
    else:  # bytes, not words
        table = np.frombuffer(data, np.uint8)[:count].astype(np.float64)
    if first >= 1 << 15 and both.max() < first:
        first -= 1 << 16  # a negative number that was read as an unsigned one
    places = np.clip(np.rint(both) - first, 0, len(table) - 1).astype(np.intp)
    mapped = table[places]
    entries, top = float(table.max()), float((1 << bits) - 1)
    # Some writers declare 16 bits and store 8 or 12: then the largest entry is white.
    top = top if top / 2 < entries <= top else entries
    if top <= 0:
        raise ValueError("an empty table")
    return mapped / top, bits


def to_display(
    values: Values, ends: Values, dataset: Any, element: Element, wanted: Any, steps: list[Step]
) -> Values | None:
    """Apply the chosen VOI LUT or window.

    Args:
        values: Modality values.
        ends: The smallest and largest that occur (any two values between which something should show).
        dataset: Data set that holds VOI LUTs.
        element: Element that holds the frame's windows.
        wanted: `PixelPolicy.window`.
        steps: List that receives what was done.

    Returns:
        0 - 1; None if the header states nothing that shows anything, or nothing is wanted.

    Raises:
        MedclipError: WRONG_USE where a window is asked for that the header does not have, or that cannot be used. What
            was asked for is never replaced by something else.
    """
    if wanted == "none":
        return None
    both = np.concatenate([values, ends])
    for name, function in _choices(dataset, element, wanted):
        try:
            mapped, detail = function(both)
        except Exception:
            if wanted != 0:
                raise MedclipError(
                    Reason.WRONG_USE, "the window that was asked for cannot be used.", hint=WINDOW_HINT
                ) from None
            steps.append(Step("window", f"ignored: the header's {name} is unusable"))
            continue
        if wanted != 0 or mapped[-2] != mapped[-1] or (name == "window" and ends[0] == ends[1]):
            steps.append(Step("window", detail))
            return mapped[: len(values)]
        steps.append(Step("window", f"ignored: the header's {name} is unusable"))
    if element.bad_window and not element.windows:
        steps.append(Step("window", "ignored: the header's window is unusable"))
    return None


def _choices(dataset: Any, element: Element, wanted: Any) -> list[tuple[str, Callable[[Values], tuple[Values, str]]]]:
    """List the transformations to try: one that was asked for, or for 0 the first LUT and then the first window."""
    luts = list(value(dataset, "VOILUTSequence") or ())
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    tables = [("VOI LUT", _by_table(item, order)) for item in luts]
    windows = [("window", _by_window(c, w, element.function)) for c, w in element.windows]
    if isinstance(wanted, tuple):
        return [("window", _by_window(float(wanted[0]), float(wanted[1]), "LINEAR"))]
    if wanted == 0:
        return tables[:1] + windows[:1]
    every = tables + windows
    if isinstance(wanted, int):
        if 0 < wanted < len(every):
            return [every[wanted]]
    else:
        names = [(texts(item, "LUTExplanation") or ("",))[0] for item in luts]
        names += [*element.explanations, *[""] * len(windows)]
        places = [n for n, name in enumerate(names[: len(every)]) if name.casefold() == str(wanted).casefold()]
        if places:
            return [every[places[0]]]
    raise MedclipError(
        Reason.WRONG_USE,
        f"the header states {counted(len(tables), 'VOI LUT')} and {counted(len(windows), 'window')}, and not the one "
        "that was asked for.",
        hint=WINDOW_HINT,
    )


def _by_table(item: Any, order: str) -> Callable[[Values], tuple[Values, str]]:
    def apply(values: Values) -> tuple[Values, str]:
        mapped, bits = _voi_table(values, item, order)
        return mapped, f"VOI LUT, {bits} bits"

    return apply


def _by_window(centre: float, width: float, function: str) -> Callable[[Values], tuple[Values, str]]:
    def apply(values: Values) -> tuple[Values, str]:
        return window(values, centre, width, function), f"{function}, centre {centre:g}, width {width:g}"

    return apply
