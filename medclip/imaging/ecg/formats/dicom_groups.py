"""Choose the multiplex groups of a DICOM waveform that hold the twelve leads, and join them in time.

A group has one rate and one start. Most objects have all leads in one; some store limb and chest leads in two, or the
four columns of a printed sheet (3 leads x 2.5 s) in four, each with its offset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE, lead_name
from medclip.imaging.ecg.recording import Recording, check_size, stretch
from medclip.imaging.ecg.twelve_leads import MAX_MISSING
from medclip.settings import Settings


@dataclass(frozen=True)
class GroupFacts:
    """What a multiplex group states of itself."""

    standard: frozenset[str]
    """Those of the twelve leads that it holds."""
    seconds: float
    offset_ms: float | None
    """When its first sample was taken, from a time that all groups share; None if the file does not say."""
    derived: bool
    """Whether it was computed (median beat), and is no recording."""

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Order of groups: recorded before derived, more of the twelve leads, longer."""
        return not self.derived, len(self.standard), self.seconds


def pick(groups: Sequence[GroupFacts]) -> tuple[int, ...]:
    """Choose the groups that are read.

    Args:
        groups: All groups of an object, at least one.

    Returns:
        Numbers in the file's order: the best group, and recorded ones that hold leads which it lacks, or a longer copy
        of a lead in the same time (a rhythm strip under a printed sheet).
    """
    best = max(range(len(groups)), key=lambda number: groups[number].rank)
    picked, have = [best], set(groups[best].standard)
    recorded = [number for number, group in enumerate(groups) if not group.derived and number != best]
    if groups[best].derived:
        return (best,)
    for number in sorted(recorded, key=lambda number: -groups[number].seconds):
        if groups[number].standard - have:
            picked.append(number)
            have |= groups[number].standard
    if len(picked) == 1:
        return (best,)
    first, last = _span([groups[number] for number in picked])
    for number in recorded:
        start = groups[number].offset_ms
        if number in picked or start is None or not groups[number].standard:
            continue
        begin = start / 1000
        longer = all(
            groups[number].seconds > groups[other].seconds
            for other in picked
            if groups[other].standard & groups[number].standard
        )
        if longer and first - 0.1 <= begin and begin + groups[number].seconds <= last + 0.1:
            picked.append(number)
    return tuple(sorted(picked))


def join(parts: Sequence[tuple[GroupFacts, Recording]], settings: Settings) -> Recording:
    """Put groups where they belong in time; a lead that is in several is taken from the longest.

    Args:
        parts: Groups with what was read of them, at least two.
        settings: Limits.

    Returns:
        One recording at the fastest group's rate; NaN where a lead was not recorded.

    Raises:
        MedclipError: NOT_SUPPORTED_YET if the file does not say when the groups start though they differ in length, or
            if no lead covers the time that they span; TOO_LARGE.
    """
    starts_s, notes = _starts([facts for facts, _ in parts])
    hz = max(part.sampling_hz for _, part in parts)
    starts = [round(start * hz) for start in starts_s]
    lengths = [round(part.values_mv.shape[1] * hz / part.sampling_hz) for _, part in parts]
    samples = max(start + length for start, length in zip(starts, lengths, strict=True))
    longest: dict[str, int] = {}
    for number, (_, part) in enumerate(parts):
        for name in (lead_name(lead).name for lead in part.leads):
            if name in TWELVE and (name not in longest or lengths[number] > lengths[longest[name]]):
                longest[name] = number
    rows = [
        (number, row)
        for number, (_, part) in enumerate(parts)
        for row, lead in enumerate(part.leads)
        if longest.get(lead_name(lead).name, number) == number
    ]
    if max(lengths[number] for number in longest.values()) < (1 - MAX_MISSING) * samples:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"the leads were recorded at different times, in {len(parts)} groups of at most {max(lengths) / hz:g} s "
            f"within {samples / hz:g} s; expected at least one lead over {1 - MAX_MISSING:.0%} of the time.",
            hint="Export the record with all leads over the whole time.",
        )
    check_size(len(rows), samples, settings)
    values = np.full((len(rows), samples), np.nan, np.float32)
    for line, (number, row) in zip(values, rows, strict=True):
        start = starts[number]
        line[start : start + lengths[number]] = stretch(parts[number][1].values_mv[row], lengths[number])
    if len({part.sampling_hz for _, part in parts}) > 1:
        notes = (*notes, "leads of a lower sampling rate interpolated to that of the fastest")
    if min(lengths) < samples:
        notes = (*notes, "the groups differ in length or start; the rest is a gap")
    return Recording(
        values,
        tuple(parts[number][1].leads[row] for number, row in rows),
        hz,
        tuple(name for _, part in parts for name in part.stored_leads),
        samples,
        hz,
        tuple(parts[number][1].units[row] for number, row in rows),
        (*notes, *dict.fromkeys(note for _, part in parts for note in part.notes)),
        parts[0][1].decoder,
    )


def _span(groups: Sequence[GroupFacts]) -> tuple[float, float]:
    """Return the first and last second of groups; nothing where one does not state its offset."""
    stated = [(group.offset_ms / 1000, group.seconds) for group in groups if group.offset_ms is not None]
    if len(stated) < len(groups):
        return math.inf, -math.inf
    return min(start for start, _ in stated), max(start + seconds for start, seconds in stated)


def _starts(groups: Sequence[GroupFacts]) -> tuple[list[float], tuple[str, ...]]:
    """Return the seconds at which groups start after the first of them."""
    stated = [group.offset_ms / 1000 for group in groups if group.offset_ms is not None]
    if len(stated) == len(groups):
        return [start - min(stated) for start in stated], ("joined by their time offsets",)
    if stated or max(group.seconds for group in groups) - min(group.seconds for group in groups) > 0.01:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"the leads are spread over {len(groups)} multiplex groups, and not all of them say when they start; "
            "expected a time offset in each.",
            hint="Export the record with all leads in one group, or with offsets.",
        )
    # One time of acquisition and one length: DICOM counts offsets from the former, and without one nothing is shifted.
    return [0.0] * len(groups), ("joined as simultaneous: they are of one length, and state no time offset",)
