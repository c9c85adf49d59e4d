"""Joining rows of scores to rows of labels by their keys, and saying why they do not join."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.pseudonyms import keyed_hash
from medclip.files.tables.table import Coded, Table, is_blank
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

_JOINT = "\x1f"
"""Stands between the parts of a key of several columns."""
_SUFFIX = re.compile(r"(\.[A-Za-z][A-Za-z0-9]{1,6}){1,2}$")
_SAMPLES = 3
MAX_PARTS = 6
"""Most folders that are compared at the end of a path."""


def _slashes(key: str) -> str:
    return key.replace("\\", "/").removeprefix("./")


def _name(key: str) -> str:
    return _slashes(key).rpartition("/")[2]


def _stem(key: str) -> str:
    return _SUFFIX.sub("", _name(key))


def _zeros(key: str) -> str:
    integral = re.sub(r"\.0+$", "", key) if re.fullmatch(r"\d+\.0+", key) else key
    return integral.lstrip("0") or "0" if integral.isdigit() else integral


RULES: Mapping[str, tuple[Callable[[str], str], str]] = {
    "exact": (lambda k: k, "as they are written"),
    "case": (str.casefold, "with small and capital letters taken as equal"),
    "suffix": (lambda k: _SUFFIX.sub("", k), "without the suffix (such as .png)"),
    "name": (_name, "by the file's name, without folders"),
    "stem": (_stem, "by the file's name, without folders and suffix"),
    "zeros": (_zeros, "as whole numbers, without leading zeros"),
    "loose": (lambda k: _zeros(_stem(k).casefold()), "without folders, suffix, case and leading zeros"),
}
"""How keys may be compared: what of a key counts, and that in words."""


@dataclass(frozen=True, eq=False)
class Side:
    """The keys of one table."""

    keys: Coded
    what: str
    """"rows of labels", for messages."""
    where: str


def key_of(table: Table, columns: Sequence[str]) -> Coded:
    """Return the key of each row; one of several columns is joined to one text, and blank if any part is."""
    first = table.coded(columns[0])
    for column in columns[1:]:
        other = table.coded(column)
        code_N = first.codes_N.astype(np.int64) * len(other.values) + other.codes_N
        _, index, inverse_N = np.unique(code_N, return_index=True, return_inverse=True)
        texts = []
        for i in index.tolist():
            a, b = first.values[first.codes_N[i]], other.values[other.codes_N[i]]
            texts.append("" if is_blank(a) or is_blank(b) else f"{a}{_JOINT}{b}")
        first = Coded(inverse_N.astype(np.int32), tuple(texts)).mapped(lambda t: t)
    return first


def without_twins(table: Table, keys: Coded, what: str) -> tuple[NDArray[np.intp], list[str]]:
    """Drop rows that repeat another, and refuse a key that has two different rows.

    Returns:
        The rows that are kept, and notes.

    Raises:
        MedclipError: TABLE_INVALID with how many keys.
    """
    blank = np.asarray([is_blank(v) for v in keys.values] or [True])
    repeated_N = ((keys.counts() > 1) & ~blank)[keys.codes_N]
    kept_N = ~repeated_N
    rows = np.flatnonzero(repeated_N)
    if len(rows):
        cells = [table.coded(c).take(rows).codes_N for c in table.names]
        stacked = np.stack([keys.codes_N[rows], *cells], 1)
        _, first = np.unique(stacked, axis=0, return_index=True)
        rows_per_key = np.unique(keys.codes_N[rows[first]], return_counts=True)[1]
        torn = int((rows_per_key > 1).sum())
        if torn:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"{count(torn, 'key')} of {len(keys.values):,} have several {what}, which differ.",
                where=table.where,
                hint="Keep one row for each, or name a further column that tells them apart (--key again)."
                + (" Where one row of labels belongs to several images, say --repeat-labels." * (what != "rows")),
            )
        kept_N[rows[first]] = True
    dropped = int((~kept_N).sum())
    return np.flatnonzero(kept_N), [f"Dropped: {count(dropped, 'row')} that repeat another of the {what}."] * bool(
        dropped
    )


def num_copies(table: Table) -> int:
    """Count the rows that are equal to an earlier one in every column."""
    import pyarrow as pa

    flat = [
        name for name, kind in zip(table.names, table.arrow.schema.types, strict=True) if not pa.types.is_nested(kind)
    ]
    return table.num_rows - table.arrow.select(flat).group_by(flat).aggregate([]).num_rows


def join(
    left: Side, right: Side, match: str, identity_key: Callable[[], bytes], *, by_path: bool = False
) -> tuple[NDArray[np.intp], NDArray[np.intp], tuple[str, ...]]:
    """Find for each row on the left the row on the right with the same key.

    Args:
        left: The keys whose order is kept; repeated ones all find the same row.
        right: Keys that are different from each other.
        match: A name of `RULES`, or "auto".
        identity_key: Function that gives the key of the hashes in messages.
        by_path: Whether keys are paths: "auto" then compares their ends, too.

    Returns:
        Rows on the left that have a partner, ascending; the partner of each; and notes.

    Raises:
        MedclipError: TABLE_INVALID where nothing joins, with counts, hashed samples and what would make them join;
            WRONG_USE for an unknown rule.
    """
    if match != "auto" and match not in RULES:
        raise MedclipError(
            Reason.WRONG_USE,
            f"keys are not compared by {match!r}.",
            hint=did_you_mean(match, ("auto", *RULES), "Choose one of"),
        )
    notes: list[str] = []
    rule = RULES["exact" if match == "auto" else match][0]
    found_V, ambiguous = _lookup(left.keys, right.keys, rule)
    if match == "auto" and by_path and (found_V < 0).any():
        best = max(
            (_lookup(left.keys, right.keys, _ending(parts))[0] for parts in range(MAX_PARTS, 0, -1)),
            key=lambda f: _num_rows(left.keys, f),
        )
        if _num_rows(left.keys, best) > _num_rows(left.keys, found_V):
            found_V = best
            notes.append(
                "The files of scores and labels are joined by the ends of their paths, where these are unique."
            )
    elif match not in ("auto", "exact"):
        notes.append(f"Keys are compared {RULES[match][1]}.")
        if ambiguous:
            notes.append(f"{count(ambiguous, 'key')} left out, since they become equal to others so.")
    row_of = np.full(len(right.keys.values) + 1, -1, np.intp)
    row_of[right.keys.codes_N] = np.arange(len(right.keys))
    row_N = row_of[found_V][left.keys.codes_N] if len(found_V) else np.zeros(0, np.intp)
    left_M = np.flatnonzero(row_N >= 0)
    if not len(left_M):
        raise _not_joined(left, right, identity_key())
    return left_M, row_N[left_M], tuple(notes)


def _ending(parts: int) -> Callable[[str], str]:
    return lambda key: "/".join(_slashes(key).split("/")[-parts:])


def _lookup(left: Coded, right: Coded, rule: Callable[[str], str]) -> tuple[NDArray[np.intp], int]:
    """Find for each value on the left the number of the value on the right, -1 where there is none or more than one."""
    place: dict[str, int] = {}
    twice: set[str] = set()
    for i, value in enumerate(right.values):
        key = rule(value)
        if key in place:
            twice.add(key)
        elif not is_blank(value):
            place[key] = i
    ruled = [rule(v) for v in left.values]
    several = {key for key, n in Counter(ruled).items() if n > 1}
    out = twice | several
    places = [
        -1 if key in out or is_blank(v) else place.get(key, -1) for key, v in zip(ruled, left.values, strict=True)
    ]
    return np.asarray(places, np.intp), len([k for k in out if k in place])


def _num_rows(keys: Coded, found_V: NDArray[np.intp]) -> int:
    return int(keys.counts()[found_V >= 0].sum())


def _not_joined(left: Side, right: Side, identity_key: bytes) -> MedclipError:
    def samples(side: Side) -> str:
        some = [v for v in side.keys.values if not is_blank(v)][:_SAMPLES]
        return ", ".join(keyed_hash("key", v, identity_key) for v in some) or "none"

    advice = would_join(left.keys, right.keys)
    return MedclipError(
        Reason.TABLE_INVALID,
        f"the keys do not join: {len(left.keys):,} {left.what} and {len(right.keys):,} {right.what}, none in common. "
        f"Three keys, hashed: {left.what} {samples(left)}; {right.what} {samples(right)}.",
        where=f"{left.where} and {right.where}",
        hint=advice or "Are they of the same images? Name the key columns with --key SCORES=LABELS.",
    )


def would_join(left: Coded, right: Coded) -> str:
    """Return how keys would have to be compared for more of them to join; "" where nothing helps."""
    exact = _num_rows(left, _lookup(left, right, RULES["exact"][0])[0])
    for name, (rule, words) in RULES.items():
        number = _num_rows(left, _lookup(left, right, rule)[0])
        if number > exact:
            return f"Compared {words} {number:,} of {len(left):,} would join: say --match {name}."
    return ""
