"""Ages in years, however a table writes them, and the bands that they fall into."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medclip.auditing.input.options import about
from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import shown
from medclip.files.tables.table import Coded, decimal_commas, has_decimal_comma, is_blank
from medclip.statistics.cohort import MISSING, Attribute
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

DAYS_PER_YEAR = 365.25
MAX_AGE = 120.0
"""Older than anybody; such an age is a slip."""
_SUSPECT_MEDIAN = 130.0
"""A median above this means that the column is not in years."""
_FEW = 0.05
"""Share of ages that may be unreadable."""
_PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": DAYS_PER_YEAR / 7, "days": DAYS_PER_YEAR}
_UNITS = {"y": "years", "m": "months", "w": "weeks", "d": "days"}
_AGE = re.compile(
    r"[<>≥≤]?=?\s*(?P<sign>-?)(?P<number>(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?)\s*\+?[\s-]*"
    r"(?P<unit>y(ea)?rs?|y|y/?o|m|mos?|months?|w|wks?|weeks?|d|days?)?\.?([\s-]*(old|of age))?",
    re.IGNORECASE,
)
_BAND = re.compile(r"\d+\s*(-|–|to)\s*<?\d+(\s*(y|years?))?", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"(000|999)[YMWD]", re.IGNORECASE)
"""What writers of DICOM put where the age is not known."""
_UNKNOWN = frozenset({"unknown", "not stated", "not known", "missing", "?", "-", "none"})
PRESETS = {"cxr": (18.0, 25.0, 50.0, 65.0, 80.0)}
"""Bands of the published audit of chest X-ray models; the young are in none of them."""
_DEFAULT_EDGES = (0.0, 18.0, 25.0, 50.0, 65.0, 80.0)


def parse_age(text: str, unit: str = "years") -> float | None:
    """Read one age in years.

    Args:
        text: Text of an age: "45", "058Y", "6M", "12W", "30D", "45 years", "90+".
        unit: Unit of a plain number: "years", "months", "weeks" or "days".

    Returns:
        The age; NaN for a cell that says that it is not known; None for one that cannot be read.

    Example:
        >>> parse_age("058Y"), parse_age("6M"), parse_age("45 years"), parse_age("sixty")
        (58.0, 0.5, 45.0, None)
    """
    text = text.strip()
    if is_blank(text) or text.casefold() in _UNKNOWN or _PLACEHOLDER.fullmatch(text):
        return float("nan")
    match = _AGE.fullmatch(text)
    if not match:
        return None
    unit_text = match["unit"]
    per_year = _PER_YEAR[_UNITS[unit_text[0].lower()] if unit_text else unit]
    return (-1.0 if match["sign"] else 1.0) * float(match["number"]) / per_year


def are_bands(column: Coded) -> bool:
    """Whether a column holds bands that are made already ("18-24", "80+") and not ages."""
    stated = [v for v in column.used().values if not is_blank(v) and v.casefold() not in _UNKNOWN]
    return any(_BAND.fullmatch(v) for v in stated) and all(
        _BAND.fullmatch(v) or parse_age(v) is not None for v in stated
    )


def read_ages(column: Coded, name: str, unit: str, where: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Read a column of ages: in years, NaN where the age is not known; and notes.

    Raises:
        MedclipError: TABLE_INVALID for a column that is not one of ages, or that is in another unit.
    """
    parsed = [parse_age(text, unit) for text in column.values]
    counts = column.counts()
    unread = [i for i, age in enumerate(parsed) if age is None and counts[i]]
    if with_comma := [i for i in unread if has_decimal_comma(column.values[i])]:
        raise decimal_commas(name, int(counts[with_comma].sum()), where, has_option=True)
    num_unread = int(counts[unread].sum()) if unread else 0
    stated = sum(int(counts[i]) for i, age in enumerate(parsed) if age is None or not np.isnan(age))
    if num_unread > _FEW * stated:
        samples = ", ".join(shown(column.values[i]) for i in unread[:3])
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{num_unread:,} of {count(stated, 'age')} in the column {name!r} cannot be read: {samples}.",
            where=where,
            hint="Write years, 058Y, 6M, 12W, 30D, or bands such as 40-59.",
        )
    of_value = np.asarray([np.nan if age is None else age for age in parsed] or [np.nan], np.float64)
    years_N = of_value[column.codes_N]
    known_N = years_N[~np.isnan(years_N)]
    if len(known_N) and float(np.median(known_N)) > _SUSPECT_MEDIAN:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"half of the ages in the column {name!r} are above {_SUSPECT_MEDIAN:.0f}, so they are not in {unit}.",
            where=where,
            hint="Say --age-unit days (or months).",
        )
    notes = []
    impossible_N = (years_N < 0) | (years_N > MAX_AGE)
    placeholders = sum(int(counts[i]) for i, t in enumerate(column.values) if _PLACEHOLDER.fullmatch(t))
    for number, what in (
        (num_unread, "cannot be read"),
        (int(impossible_N.sum()), f"is below 0 or above {MAX_AGE:.0f} years"),
        (placeholders, "is a placeholder (000Y, 999Y)"),
    ):
        if number:
            notes.append(f"Age: taken as {MISSING} for {about(number, 'row')} where it {what}.")
    years_N[impossible_N] = np.nan
    return years_N, tuple(notes)


def age_edges(bins: str | Sequence[float] | None) -> tuple[float, ...]:
    """Return the lower edges of the bands.

    Args:
        bins: Edges: "0,20,40,60,80", numbers, the name of a preset, or None for 0, 18, 25, 50, 65, 80.

    Raises:
        MedclipError: WRONG_USE for edges that do not rise.
    """
    if bins is None:
        return _DEFAULT_EDGES
    if isinstance(bins, str) and bins.strip().lower() in PRESETS:
        return PRESETS[bins.strip().lower()]
    try:
        edges = tuple(float(b) for b in (bins.split(",") if isinstance(bins, str) else bins))
    except ValueError:
        edges = ()
    if not edges or not np.isfinite(edges).all() or any(b <= a for a, b in itertools.pairwise(edges)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"bands of age are lower edges in years that rise, such as 0,20,40,60,80, or {', '.join(PRESETS)}; "
            f"not {bins!r}.",
        )
    return edges


def age_attribute(
    name: str, years_N: NDArray[np.float64], bins: str | Sequence[float] | None
) -> tuple[Attribute, tuple[str, ...]]:
    """Divide ages into bands, left-closed: 18 is in 18-24, and 24.9 as well.

    Args:
        name: Name of the attribute.
        years_N: Age of each row in years; NaN where it is not known.
        bins: Bands, as `age_edges` takes them. Those of a preset carry the names of the publication ("18-25" is 18 to
            below 25).

    Returns:
        The attribute, with `cohort.MISSING` last where an age is not known or below the first edge; and notes.
    """
    edges = age_edges(bins)
    preset = isinstance(bins, str) and bins.strip().lower() in PRESETS
    names = [_band(a, b, preset) for a, b in itertools.pairwise(edges)] + [f"{edges[-1]:g}+"]
    known_N = ~np.isnan(years_N)
    place_N = np.searchsorted(edges, np.where(known_N, years_N, np.inf), side="right") - 1
    young = int((known_N & (place_N < 0)).sum())
    missing_N = ~known_N | (place_N < 0)
    present = [i for i in range(len(edges)) if ((place_N == i) & ~missing_N).any()]
    codes_N = np.searchsorted(present, np.where(missing_N, 0, place_N)).astype(np.int16)
    codes_N[missing_N] = len(present)
    groups = [names[i] for i in present] + ([MISSING] if missing_N.any() else [])
    note = f"Age: {about(young, 'row')} of patients below {edges[0]:g} years, who are in no band, are {MISSING}."
    return Attribute(name, tuple(groups), codes_N), (note,) if young else ()


def _band(low: float, high: float, preset: bool) -> str:
    integral = float(high).is_integer() and float(low).is_integer()
    if preset or not integral:
        return f"{low:g}-{high:g}" if preset else f"{low:g}-<{high:g}"
    return f"{low:g}-{high - 1:g}" if high - 1 > low else f"{low:g}"
