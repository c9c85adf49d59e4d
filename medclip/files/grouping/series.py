"""Order the slices of a series in space, and say what is wrong with their spacing. From headers only.

Positions are projections on the normal of the slices, in millimetres of DICOM's patient coordinates (LPS+): for axial
slices that is the height, rising from the feet to the head.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.read import DicomHeader
from medclip.errors import Problem, Reason
from medclip.wording import count, list_of

Uneven = Literal["reject", "resample"]

SAME_PLANE_DEG = 0.5
"""Slices whose rows and columns differ by less are parallel."""
SAME_PLACE_MM = 0.01
"""Positions closer than this are one position: headers round to a hundredth."""
TOLERANCE = 0.02
TOLERANCE_MM = 0.1
"""Distances may differ from the median by 2 % or a tenth of a millimetre, whichever is more."""
SHEAR_DEG = 0.5
"""A shift of the origin along the slices beyond this angle is a gantry tilt."""
_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT"})
BESIDE_PX = 0.5
BESIDE_MM = 0.1
"""How far a slice may lie beside the line from the first to the last: half a pixel, but at least a tenth of a
millimetre. A tilted gantry moves slices evenly, so that they stay on one line."""
_SHOWN = 3


@dataclass(frozen=True)
class Slice:
    """One single-frame object of a series."""

    name: str
    header: DicomHeader
    sha256: str = ""


@dataclass(frozen=True)
class Stack:
    """Slices that are read together, ascending along their normal."""

    slices: tuple[Slice, ...]
    problem: Problem | None = None
    notes: tuple[str, ...] = ()


def stacks(slices: Iterable[Slice], *, uneven: Uneven = "reject") -> tuple[Stack, ...]:
    """Sort the slices of one series into stacks.

    Every slice is in exactly one stack. Copies with the same bytes are stacks of their own with a problem; localizers,
    slices of another plane, size or spacing are apart; positions that repeat are told apart by echo, b-value, time,
    image type or acquisition, else by the order of their instance numbers.

    Args:
        slices: Slices of the series, in any order.
        uneven: Whether gaps and uneven distances are a problem of the stack or a note.

    Returns:
        The stacks, in the order of their first name.
    """
    ordered = sorted(slices, key=lambda item: item.name)
    first: dict[str, Slice] = {}
    kept, copies = [], []
    for item in ordered:
        is_copy = bool(item.sha256) and first.setdefault(item.sha256, item) is not item
        (copies if is_copy else kept).append(item)
    groups: list[Stack] = []
    parts = _parts(kept, _shape_key)
    main = max((len(part) for part in parts), default=0)
    for part in parts:
        if any(word in _LOCALIZERS for word in part[0].header.image_type):
            groups += [Stack((item,), None, ("a localizer, kept apart from the series",)) for item in part]
            continue
        planes = _planes(part)
        widest = max(len(plane) for plane in planes)
        for plane in planes:
            notes: tuple[str, ...] = ()
            if len(plane) < widest:
                notes = ("not parallel to the other slices of the series, kept apart",)
            elif len(part) < main:
                notes = ("of another size or spacing than the other slices of the series, kept apart",)
            groups += [replace(stack, notes=(*notes, *stack.notes)) for stack in _placed(plane, uneven)]
    if copies and groups:
        groups = _with_copies(groups, copies)
    return tuple(sorted(groups, key=lambda stack: min(item.name for item in stack.slices)))


def _with_copies(groups: Sequence[Stack], copies: Sequence[Slice]) -> list[Stack]:
    """Note the copies where their original is, and give each its row."""
    counts: dict[str, int] = defaultdict(int)
    for item in copies:
        counts[item.sha256] += 1
    noted = []
    for stack in groups:
        num_copies = sum(counts[item.sha256] for item in stack.slices)
        note = f"{count(num_copies, 'file')} with the same bytes as a slice left out"
        noted.append(replace(stack, notes=(*stack.notes, note)) if num_copies else stack)
    problem = Problem(Reason.COMPANION, "the file holds the same bytes as another slice of its series.")
    return [*noted, *(Stack((item,), problem) for item in copies)]


def _parts(slices: Sequence[Slice], key: Callable[[Slice], Hashable]) -> list[list[Slice]]:
    parts: dict[Hashable, list[Slice]] = {}
    for item in slices:
        parts.setdefault(key(item), []).append(item)
    return list(parts.values())


def _shape_key(item: Slice) -> Hashable:
    header = item.header
    spacing = header.spacing_mm and tuple(round(side, 3) for side in header.spacing_mm)
    localizer = any(word in _LOCALIZERS for word in header.image_type)
    return header.rows, header.columns, header.samples_per_pixel, spacing, localizer


def _planes(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split slices by the directions of their rows and columns."""
    limit = math.cos(math.radians(SAME_PLANE_DEG))
    planes: list[tuple[NDArray[np.float64] | None, list[Slice]]] = []
    for item in slices:
        axes = _axes(item.header)
        for plane, members in planes:
            alike = axes is None if plane is None else axes is not None and bool(((plane * axes).sum(1) > limit).all())
            if alike:
                members.append(item)
                break
        else:
            planes.append((axes, [item]))
    return [members for _, members in planes]


def _axes(header: DicomHeader) -> NDArray[np.float64] | None:
    """Return the unit vectors of a row and a column, [2, 3]; None where they are not stated or no directions."""
    if header.image_orientation is None:
        return None
    axes = np.asarray(header.image_orientation, np.float64).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if not (np.abs(lengths - 1) < 0.1).all() or abs(float(axes[0] @ axes[1])) > 0.1:
        return None
    return axes / lengths[:, None]


def positions(slices: Sequence[Slice]) -> NDArray[np.float64] | None:
    """Project the positions of parallel slices on their normal, in mm; None where any does not state its place."""
    axes = _axes(slices[0].header)
    if axes is None or any(item.header.image_position is None for item in slices):
        return None
    return np.array([item.header.image_position for item in slices], np.float64) @ np.cross(axes[0], axes[1])


def _placed(slices: list[Slice], uneven: Uneven) -> list[Stack]:
    """Make stacks of parallel slices of one size."""
    if len(slices) == 1:
        return [Stack((slices[0],), None, _tilt(slices))]
    lost, rest = [], []
    for item in slices:
        is_placed = item.header.image_position is not None and _axes(item.header) is not None
        (rest if is_placed else lost).append(item)
    if lost:
        problem = Problem(
            Reason.UNEVEN_SLICES,
            f"positions are not stated: {len(lost)} of {len(slices)} slices of the series do not say where they lie "
            "(position and orientation), so that they cannot be put in order.",
        )
        return [Stack((item,), problem) for item in lost] + (_placed(rest, uneven) if rest else [])
    heights = positions(slices)
    assert heights is not None
    order = np.argsort(heights, kind="stable")
    ordered, places = [slices[index] for index in order], heights[order]
    groups: list[list[Slice]] = []
    for index, item in enumerate(ordered):
        if index and places[index] - places[index - 1] < SAME_PLACE_MM:
            groups[-1].append(item)
        else:
            groups.append([item])
    if len(groups) == len(ordered):
        problem, notes = _spacing(places, uneven)
        problem = problem or _beside(ordered, places)
        return [Stack(tuple(ordered), problem, (*notes, *_tilt(ordered)))]
    return _repeated(groups, uneven)


_KEYS: tuple[tuple[str, Callable[[DicomHeader], Any]], ...] = (
    ("echo", lambda header: (header.echo_number, header.echo_time_ms)),
    ("b-value", lambda header: header.b_value),
    ("image type", lambda header: header.image_type),
    ("time point", lambda header: header.temporal_position),
    ("acquisition", lambda header: header.acquisition_number),
)


def _repeated(groups: list[list[Slice]], uneven: Uneven) -> list[Stack]:
    """Split slices of which several lie at one place."""
    everything = sorted((item for group in groups for item in group), key=lambda item: item.name)
    for word, key in _KEYS:
        parts = _parts(everything, lambda item, key=key: key(item.header))
        # Only what tells slices of one place apart may split: an acquisition number of each slice would shatter it.
        repeats = [len({key(item.header) for item in group}) for group in groups if len(group) > 1]
        if len(parts) < 2 or min(repeats) < 2 or (len(groups) > 1 and min(map(len, parts)) < 2):
            continue
        note = f"one of {len(parts)} stacks at the same place, told apart by {word}"
        return [
            replace(stack, notes=(note, *stack.notes))
            for part in parts
            for stack in _placed(sorted(part, key=lambda item: item.name), uneven)
        ]
    counts = {len(group) for group in groups}
    if len(counts) > 1:
        places = [positions([group[0]]) for group in groups if len(group) > 1]
        where = list_of([f"{float(place[0]):.1f} mm" for place in places if place is not None], most=_SHOWN)
        problem = Problem(
            Reason.UNEVEN_SLICES,
            f"several slices of the series lie at the same place ({where}) and nothing in their headers tells them "
            "apart.",
        )
        return [Stack(tuple(item for group in groups for item in group), problem)]
    (num_stacks,) = counts
    ranked = [sorted(group, key=lambda item: (_instance(item), item.header.lossy, item.name)) for group in groups]
    how = "nothing in their headers tells them apart" if len(groups) == 1 else "told apart by instance number only"
    if all(len({item.header.instance_uid for item in group}) == 1 and group[0].header.instance_uid for group in groups):
        how = "the same instances (SOP Instance UID) stored more than once"
    repeated = []
    for index in range(num_stacks):
        part = sorted((group[index] for group in ranked), key=lambda item: item.name)
        note = f"one of {count(num_stacks, 'stack')} at the same place, {how}"
        repeated += [replace(stack, notes=(note, *stack.notes)) for stack in _placed(part, uneven)]
    return repeated


def _instance(item: Slice) -> float:
    number = item.header.instance_number
    return math.inf if number is None else number


def _spacing(places: NDArray[np.float64], uneven: Uneven) -> tuple[Problem | None, tuple[str, ...]]:
    """Compare the distances of sorted, distinct positions with their median."""
    if len(places) < 3:
        return None, ()
    steps = np.diff(places)
    median = float(np.median(steps))
    allowed = max(TOLERANCE * median, TOLERANCE_MM)
    gaps, odd = [], []
    for (low, high), step in zip(pairwise(places.tolist()), steps.tolist(), strict=True):
        if abs(step - median) <= allowed:
            continue
        times = round(step / median)
        missing = times >= 2 and abs(step - times * median) <= times * allowed
        (gaps if missing else odd).append(f"between {low:.1f} and {high:.1f} mm")
    if not gaps and not odd:
        return None, ()
    words = [f"slices are missing {list_of(gaps, most=_SHOWN)}"] if gaps else []
    words += [f"distances are uneven {list_of(odd, most=_SHOWN)}"] if odd else []
    problem_text = f"{list_of(words)} (usual distance {median:.2f} mm)"
    if uneven == "resample":
        return None, (problem_text,)
    hint = "read it with uneven_slices='resample' to fill in between slices"
    return Problem(Reason.UNEVEN_SLICES, f"in the series {problem_text}; {hint}."), ()


def _beside(ordered: Sequence[Slice], places: NDArray[np.float64]) -> Problem | None:
    """Find slices that are shifted within their plane against the others; no setting can put those on one grid."""
    points = np.array([item.header.image_position for item in ordered], np.float64)
    part = (places - places[0]) / (places[-1] - places[0])
    off = np.linalg.norm(points - points[0] - part[:, None] * (points[-1] - points[0]), axis=1)
    allowed = max(BESIDE_PX * min(ordered[0].header.spacing_mm or (1.0, 1.0)), BESIDE_MM)
    if not off.max() > allowed:
        return None
    at = places[int(off.argmax())]
    return Problem(
        Reason.UNEVEN_SLICES,
        f"the slices of the series do not lie above one another: {int((off > allowed).sum())} of {len(ordered)} are "
        f"shifted sideways, the one at {at:.1f} mm by {off.max():.1f} mm.",
    )


def _tilt(ordered: Sequence[Slice]) -> tuple[str, ...]:
    """Note a gantry tilt: what the positions show, else what the header states."""
    first, last = ordered[0].header, ordered[-1].header
    axes = _axes(first)
    if axes is not None and first.image_position and last.image_position and len(ordered) > 1:
        shift = np.subtract(last.image_position, first.image_position)
        along = float(np.hypot(*(axes @ shift)))
        angle = math.degrees(math.atan2(along, abs(float(np.cross(axes[0], axes[1]) @ shift))))
        return (f"gantry tilt: slices are shifted by {angle:.1f} degrees",) if angle > SHEAR_DEG else ()
    stated = first.gantry_tilt_deg or 0.0
    return (f"gantry tilt of {stated:.1f} degrees stated",) if abs(stated) > SHEAR_DEG else ()
