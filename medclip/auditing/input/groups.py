"""From the cells of a column to groups of patients: sex, age, race, site, scanner, view, devices, intersections."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

from medclip.auditing.input.ages import age_attribute, are_bands, read_ages
from medclip.auditing.input.options import ReadOptions, about
from medclip.auditing.input.score_table import DIFFERENCE, DIFFERENCE_EDGES
from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import shown
from medclip.files.tables.table import Coded, is_blank, merged, plain_name
from medclip.statistics.cohort import ALL, CONFLICT, MISSING, Attribute
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CROSS = " × "
MAX_NUMBERS = 12
"""A column of numbers with more values than this needs bins."""
MAX_VALUES = 30
"""Of a column with more values than this the small ones are put together."""
_FEWEST_NAMES = 6
"""Fewer values than this are groups also of as few patients."""
ALL_VALUE = f"{ALL} (a value)"
"""Group of the rows whose cell says "all", which is the name of everybody."""
_MAX_GROUPS = np.iinfo(np.int16).max - 2
_SEX = {
    "f": "F",
    "female": "F",
    "w": "F",
    "woman": "F",
    "m": "M",
    "male": "M",
    "man": "M",
    "o": "O",
    "other": "O",
    "x": "O",
}
_UNKNOWN = frozenset({"unknown", "not stated", "not known", "unspecified", "missing", "?", "-"})
_UNKNOWN_SEX = frozenset({"u", "n"})
_YES = frozenset({"1", "true", "yes", "y", "present"})
_NO = frozenset({"0", "false", "no", "absent"})
_OPEN = "-1"
_CODES_NOT_PRESENCE = frozenset(
    {"site", "scanner", "race", "ethnicity", "view", "hospital", "centre", "center", "cluster", "fold", "group"}
)
"""Attributes whose 0 and 1 are names of groups, not "no" and "yes"."""
ALIASES: Mapping[str, tuple[str, ...]] = {
    "sex": ("gender", "patient_sex", "patient_gender", "patient_sex_dicom"),
    "age": ("age_years", "patient_age", "age_at_study", "anchor_age"),
    "race": ("ethnicity", "race_ethnicity", "patient_race"),
    "site": ("hospital", "institution", "centre", "center", "location"),
    "view": ("view_position", "projection", "view_position_dicom"),
    "scanner": ("device_model", "manufacturer_model_name"),
    "side": ("laterality", "image_laterality", "breast_side"),
}
"""Other names that the column of an attribute may have."""
MAKER = ("manufacturer", "maker", "vendor", "manufacturer_dicom")
MODEL = ("device_model", "manufacturer_model_name", "model_name", "scanner_model")
_CONSTANT = frozenset({"sex", "race"})


@dataclass(frozen=True)
class Grouping:
    """The attributes asked for, and what was assumed."""

    attributes: tuple[Attribute, ...]
    notes: tuple[str, ...]


def parse_by(by: Sequence[str], all_pairs: bool) -> list[tuple[str, ...]]:
    """Read what groups are asked for.

    Args:
        by: Names of attributes or columns; "sex*age" or "sex×age" for an intersection.
        all_pairs: Whether every pair of names that are no intersections is asked for, too.

    Returns:
        The parts of each, without repeats.

    Raises:
        MedclipError: WRONG_USE for a blank name, an intersection of one thing with itself, or the name of everybody.
    """
    parts_of: list[tuple[str, ...]] = []
    for name in by:
        parts = tuple(p.strip() for p in re.split(r"[*×]", name))
        if not all(parts) or len(set(parts)) < len(parts):
            raise MedclipError(
                Reason.WRONG_USE,
                f"groups are named by a column, or by some with * between them (sex*age), not {name!r}.",
            )
        if ALL in map(str.casefold, parts):
            raise MedclipError(
                Reason.WRONG_USE,
                f"the rows of everybody are called {ALL!r} in every table, so that no column of groups can have that "
                "name.",
                hint="Rename the column.",
            )
        parts_of.append(parts)
    if all_pairs:
        parts_of += combinations([parts[0] for parts in parts_of if len(parts) == 1], 2)
    seen: dict[frozenset[str], tuple[str, ...]] = {}
    for parts in parts_of:
        seen.setdefault(frozenset(parts), parts)
    return list(seen.values())


def make_groups(
    by: Sequence[str],
    column: Callable[[str], Coded],
    patients_N: NDArray[np.int32],
    options: ReadOptions,
    where: str,
) -> Grouping:
    """Divide the rows into groups in every way asked for."""
    parts_of = parse_by(by, options.all_pairs)
    notes: list[str] = []
    single: dict[str, Attribute] = {}
    for name in dict.fromkeys(p for parts in parts_of for p in parts):
        attribute, notes_of_one = one_attribute(name, column(name), patients_N, options, where)
        single[name] = attribute
        notes += notes_of_one
    attributes = [single[parts[0]] if len(parts) == 1 else cross([single[p] for p in parts]) for parts in parts_of]
    return Grouping(tuple(attributes), tuple(notes))


def one_attribute(
    name: str, cells: Coded, patients_N: NDArray[np.int32], options: ReadOptions, where: str
) -> tuple[Attribute, tuple[str, ...]]:
    """Understand the column of one attribute.

    Raises:
        MedclipError: TABLE_INVALID for values that are not understood.
    """
    kind = kind_of(name)
    if name in options.values or kind in options.values:
        cells = _renamed(cells, options.values[name if name in options.values else kind])
    if kind == "age" and name not in options.bins and not are_bands(cells):
        years_N, notes_of_ages = read_ages(cells, name, options.age_unit, where)
        attribute, age_notes = age_attribute(name, years_N, options.age_bins)
        return attribute, (*notes_of_ages, *age_notes)
    edges = options.bins.get(name, DIFFERENCE_EDGES if kind.startswith(DIFFERENCE) else ())
    if name in options.bins or edges:
        return _binned(name, cells, edges, where), ()
    if kind == "sex":
        cells = _sexes(cells, name, where)
    else:
        cells = _worded(cells, presence=kind not in _CODES_NOT_PRESENCE)
        _refuse_many_numbers(name, cells, where)
    notes: list[str] = []
    if kind in _CONSTANT:
        cells, notes = _same_for_a_patient(name, cells, patients_N)
    _refuse_names(name, cells, patients_N, where)
    if len(cells.values) > MAX_VALUES:
        cells, age_notes = _others_together(name, cells, patients_N, options.min_group, where)
        notes += age_notes
    return _attribute(name, cells, kind in _CONSTANT), tuple(notes)


def kind_of(name: str) -> str:
    """Return the attribute that a name means: `sex` for `PatientSex`; else the name itself in small letters."""
    plain = plain_name(name)
    for kind, others in ALIASES.items():
        if plain in {plain_name(n) for n in (kind, *others)}:
            return kind
    return name.strip().casefold()


def sex_of(text: str) -> str:
    """Return how a sex is printed: F for female; a text that is none stays as it is."""
    return _SEX.get(text.strip().casefold(), text)


def cross(parts: Sequence[Attribute]) -> Attribute:
    """Return the intersection of attributes; only combinations that occur are groups.

    A row for which one part is not stated is not stated in the intersection, and so with contradictory ones.
    """
    code_N = np.zeros(len(parts[0].codes_N), np.int64)
    missing_N = np.zeros(len(code_N), bool)
    conflict_N = np.zeros(len(code_N), bool)
    for part in parts:
        code_N = code_N * len(part.groups) + part.codes_N
        for group, flag_N in ((MISSING, missing_N), (CONFLICT, conflict_N)):
            if group in part.groups:
                flag_N |= part.codes_N == part.groups.index(group)
    whole_N = ~(missing_N | conflict_N)
    present, place_N = np.unique(code_N[whole_N], return_inverse=True)
    if len(present) > _MAX_GROUPS:
        raise MedclipError(
            Reason.WRONG_USE, f"the intersection of {list_of([p.name for p in parts])} has too many groups."
        )
    groups = []
    for code in present.tolist():
        names = []
        for part in reversed(parts):
            code, i = divmod(code, len(part.groups))
            names.append(part.groups[i])
        groups.append(CROSS.join(reversed(names)))
    codes_N = np.zeros(len(code_N), np.int16)
    codes_N[whole_N] = place_N
    for group, flag_N in ((CONFLICT, conflict_N & ~missing_N), (MISSING, missing_N)):
        if flag_N.any():
            codes_N[flag_N] = len(groups)
            groups.append(group)
    return Attribute(CROSS.join(p.name for p in parts), tuple(groups), codes_N, all(p.constant for p in parts))


def _renamed(cells: Coded, meaning: Mapping[str, str]) -> Coded:
    plain = {str(k).strip().casefold(): str(v) for k, v in meaning.items()}
    return cells.mapped(lambda text: plain.get(text.casefold(), text))


def _worded(cells: Coded, *, presence: bool) -> Coded:
    """Replace blanks by one word, texts that differ in case only by the most frequent spelling, 0/1 by "no" and "yes".

    The last only where the column states the presence of a thing. A value that is called as everybody is gets a name of
    its own.
    """
    counts = cells.counts()
    stated = [t.casefold() for t, n in zip(cells.values, counts, strict=True) if n and not _unknown(t)]
    yes_no = presence and bool(stated) and set(stated) <= _YES | _NO | {_OPEN}
    spelling: dict[str, tuple[int, str]] = {}
    for text, n in zip(cells.values, counts.tolist(), strict=True):
        spelling[text.casefold()] = max(spelling.get(text.casefold(), (-1, "")), (n, text))

    def word(text: str) -> str:
        small = text.casefold()
        if _unknown(text) or (yes_no and small == _OPEN):
            return MISSING
        if yes_no:
            return "yes" if small in _YES else "no"
        return ALL_VALUE if small == ALL else " ".join(spelling[small][1].split())

    return cells.mapped(word)


def _unknown(text: str) -> bool:
    return is_blank(text) or text.casefold() in _UNKNOWN


def _sexes(cells: Coded, name: str, where: str) -> Coded:
    values = {t for t in cells.used().values if not _unknown(t) and t.casefold() not in _UNKNOWN_SEX}
    strange = sorted(t for t in values if t.casefold() not in _SEX)
    if strange:
        digits = all(t.lstrip("-").isdigit() for t in strange)
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {name!r} says {', '.join(shown(t) for t in strange[:5])}"
            + (", and numbers do not say which sex they mean." if digits else ", which is no sex that is known here."),
            where=where,
            hint="Use F, M and O (female, male, other), or say what each means, such as --value sex:0=M.",
        )
    return cells.mapped(lambda text: _SEX.get(text.casefold(), MISSING))


def _refuse_many_numbers(name: str, cells: Coded, where: str) -> None:
    stated = [t for t in cells.values if t != MISSING]
    numbers = [t for t in stated if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", t)]
    if len(numbers) > MAX_NUMBERS and len(numbers) > 0.9 * len(stated):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {name!r} holds {len(numbers):,} different numbers, which are no groups.",
            where=where,
            hint=f"Say where to divide them, such as --bins {name}=10,20,30.",
        )


def _refuse_names(name: str, cells: Coded, patients_N: NDArray[np.int32], where: str) -> None:
    """Refuse a column with another value for every patient: its groups would be people."""
    values = [v for v in cells.used().values if v not in (MISSING, CONFLICT)]
    stated_N = cells.codes_N >= 0
    for value in (MISSING, CONFLICT):
        if value in cells.values:
            stated_N &= cells.codes_N != cells.values.index(value)
    if len(values) >= _FEWEST_NAMES and len(values) >= len(np.unique(patients_N[stated_N])):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {name!r} has as many values as there are patients, so its groups would be people.",
            where=where,
            hint="Name a column that many patients share.",
        )


def _same_for_a_patient(name: str, cells: Coded, patients_N: NDArray[np.int32]) -> tuple[Coded, list[str]]:
    """Hold a patient to one value: stated once is stated for all rows; stated in two ways is contradictory."""
    code = {t: i for i, t in enumerate(cells.values)}
    blank = code.get(MISSING, -1)
    stated_N = cells.codes_N != blank
    num = int(patients_N.max()) + 1 if len(patients_N) else 0
    low_P = np.full(num, len(cells.values), np.int32)
    high_P = np.full(num, -1, np.int32)
    np.minimum.at(low_P, patients_N[stated_N], cells.codes_N[stated_N])
    np.maximum.at(high_P, patients_N[stated_N], cells.codes_N[stated_N])
    two_P, silent_P = (high_P >= 0) & (low_P < high_P), high_P < 0
    value_P = np.where(silent_P, len(cells.values), np.where(two_P, len(cells.values) + 1, low_P))
    filled = int((~stated_N & ~silent_P[patients_N] & ~two_P[patients_N]).sum())
    notes = []
    if filled:
        notes.append(f"{name}: {about(filled, 'blank row')} filled in from another row of the same patient.")
    if two_P.any():
        rows = int(two_P[patients_N].sum())
        notes.append(
            f"{name}: stated in two ways for {about(int(two_P.sum()), 'patient')}, whose {about(rows, 'row')} are in "
            f"the group {CONFLICT!r}."
        )
    return merged(value_P[patients_N], [*cells.values, MISSING, CONFLICT]).used(), notes


def _others_together(
    name: str, cells: Coded, patients_N: NDArray[np.int32], smallest: int, where: str
) -> tuple[Coded, list[str]]:
    cells = cells.used()
    rows = cells.counts()
    pairs = np.unique(cells.codes_N.astype(np.int64) << 32 | patients_N) >> 32
    patients = np.bincount(pairs, minlength=len(cells.values))
    kept = (rows >= smallest) & (patients >= smallest)
    small = [t for t, keep in zip(cells.values, kept, strict=True) if not keep and t not in (MISSING, CONFLICT)]
    if len(small) == sum(t not in (MISSING, CONFLICT) for t in cells.values):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"none of the {len(small):,} values of the column {name!r} has {smallest} patients, so it makes no groups.",
            where=where,
            hint="Name a column that many patients share.",
        )
    if not small:
        return cells, []
    other = f"other ({count(len(small), 'value')})"
    note = f"{name}: {count(len(small), 'value')} with fewer than {smallest} rows or patients are put together."
    together = set(small)
    return cells.mapped(lambda t: other if t in together else t), [note]


def _binned(name: str, cells: Coded, edges: Sequence[float], where: str) -> Attribute:
    bounds = [float(e) for e in edges]
    if not bounds or any(not b > a for a, b in pairwise(bounds)):
        raise MedclipError(Reason.WRONG_USE, f"the bins of {name!r} are numbers that rise, not {edges!r}.")
    names = [f"<{bounds[0]:g}", *(f"{a:g}-<{b:g}" for a, b in pairwise(bounds))]
    names.append(f"≥{bounds[-1]:g}")
    places = []
    for text in cells.values:
        try:
            number = float("nan") if _unknown(text) else float(text)
        except ValueError:
            raise MedclipError(
                Reason.TABLE_INVALID, f"the column {name!r} holds {shown(text)}, which is no number.", where=where
            ) from None
        places.append(len(names) if number != number else int(np.searchsorted(bounds, number, side="right")))
    binned = merged(np.asarray(places, np.int32)[cells.codes_N], [*names, MISSING]).used()
    return _attribute(name, binned, constant=False, order=names)


def _attribute(name: str, cells: Coded, constant: bool, order: Sequence[str] = ()) -> Attribute:
    cells = cells.used()
    last = (CONFLICT, MISSING)

    def place(text: str) -> tuple[object, ...]:
        if text in last:
            return (2, last.index(text), ())
        if text.startswith("other ("):
            return (1, 0, ())
        return (0, order.index(text) if text in order else 0, _natural(text))

    groups = sorted(cells.values, key=place)
    if len(groups) > _MAX_GROUPS:
        raise MedclipError(Reason.WRONG_USE, f"the column {name!r} has too many values to be groups.")
    index = np.asarray([groups.index(t) for t in cells.values] or [0], np.int16)
    return Attribute(name, tuple(groups), index[cells.codes_N], constant)


def _natural(text: str) -> tuple[tuple[int, float, str], ...]:
    parts = re.findall(r"\d+|\D+", text.casefold())
    return tuple((0, float(p), "") if p.isdigit() else (1, 0.0, p) for p in parts)
