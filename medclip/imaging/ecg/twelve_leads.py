"""From a stored record to the twelve leads: order by name, gaps, derived limb leads, mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.ecg.filters import middle
from medclip.imaging.ecg.lead_names import OTHER, TWELVE, lead_name, lead_names
from medclip.imaging.ecg.quality import assess
from medclip.imaging.ecg.recording import Recording
from medclip.sample import Signal, Step
from medclip.wording import count

MAX_MISSING = 0.1
"""A lead with a larger share of missing samples, in the part that is judged, is masked."""

_LIMB: Mapping[str, tuple[float, float]] = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}
"""Every limb lead as a sum of I and II (Einthoven, Goldberger): any two of the six give the others."""

_DIFFERS_MV = 0.05
_FLAT_S = 1.0


def canonical(recording: Recording, *, mlii_as_ii: bool = False, seconds: float | None = None) -> Signal:
    """Order a record's leads as is canonical, and compute limb leads that are not stored.

    Args:
        recording: Recording as it was read.
        mlii_as_ii: Whether MLII (the modified lead of ambulatory records, with electrodes on the chest) is taken for
            lead II where there is no II. It is not the same lead; off, it is not used.
        seconds: Seconds of the part in the middle of the record over which every lead is judged, the part that
            `prepare` keeps: what is missing elsewhere in a long record is no reason to lose a lead, nor what is there
            to keep it. None, or a shorter record: over all of it.

    Returns:
        The twelve leads at the record's rate and length, unfiltered. A lead that is not stored, or lacks more than 10 %
        of its samples or has the same value throughout in the part that is judged, is computed from two other limb
        leads where it can be, else masked and zero. Gaps of the other leads are interpolated, outside that part
        whatever their length. Its flags are of that part, too.
    """
    rows, steps = _standard_rows(recording, mlii_as_ii=mlii_as_ii)
    samples = recording.values_mv.shape[1]
    part = middle(samples, recording.sampling_hz, seconds)
    judged = part.stop - part.start
    where = "" if judged == samples else f" of the middle {judged / recording.sampling_hz:g} s"
    values = np.zeros((len(TWELVE), samples), np.float32)
    mask = np.zeros(len(TWELVE), np.bool_)
    lost: dict[str, str] = {}
    for position, lead in enumerate(TWELVE):
        if lead not in rows:
            continue
        row, sign = rows[lead]
        stored = recording.values_mv[row]
        present = np.isfinite(stored[part])
        missing = int(judged - np.count_nonzero(present))
        if missing > MAX_MISSING * judged:
            steps.append(Step("mask", f"{lead}: {missing:,} of {count(judged, 'sample')} missing{where}"))
            lost[lead] = "lead_gaps"
            continue
        if judged >= recording.sampling_hz * _FLAT_S and not np.ptp(stored[part][present]):
            steps.append(Step("mask", f"{lead}: flat, so no electrode was on"))
            lost[lead] = "lead_flat"
            continue
        if missing:
            steps.append(Step("gaps", f"{lead}: {count(missing, 'sample')} interpolated"))
        np.multiply(_without_gaps(stored), sign, out=values[position])
        mask[position] = True
    differing = tuple(_disagreements(values[:, part], mask))
    steps.extend(differing)
    derived, pair = _derive(values, mask)
    if derived:
        steps.append(Step("derive", f"{', '.join(derived)} from {pair[0]} and {pair[1]}"))
    if not mask.all():
        steps.append(Step("mask", f"no usable signal: {', '.join(TWELVE[i] for i in np.flatnonzero(~mask))}"))
    quality = assess(values[:, part], mask, recording.sampling_hz, lost=lost, derived=derived, disagree=bool(differing))
    return Signal(
        values,
        mask,
        recording.sampling_hz,
        tuple(meaning.name for meaning in lead_names(recording.stored_leads)),
        recording.stored_samples,
        recording.stored_hz,
        derived,
        "mV",
        tuple(steps),
        quality.flags,
        quality.heart_rate_bpm,
    )


def ordered(recording: Recording) -> Recording:
    """Return a record of those of the twelve leads that it has, in their order and with their sign; gaps stay gaps.

    `canonical` makes the same of it as of the record itself.
    """
    rows, _ = _standard_rows(recording, mlii_as_ii=False)
    leads = tuple(lead for lead in TWELVE if lead in rows)
    values = np.zeros((len(leads), recording.values_mv.shape[1]), np.float32)
    for place, (row, sign) in enumerate(rows[lead] for lead in leads):
        np.multiply(recording.values_mv[row], np.float32(sign), out=values[place])
    units = tuple(recording.units[rows[lead][0]] for lead in leads)
    return replace(recording, values_mv=values, leads=leads, units=units)


def _standard_rows(recording: Recording, *, mlii_as_ii: bool) -> tuple[dict[str, tuple[int, float]], list[Step]]:
    """Find the row and sign of each of the twelve leads by name."""
    steps = [Step("note", note) for note in recording.notes]
    rows: dict[str, tuple[int, float]] = {}
    unused: list[str] = []
    meanings = lead_names(recording.leads)
    plain = {meaning.name for meaning in meanings if not meaning.inverted}
    for row, meaning in enumerate(meanings):
        lead = "II" if meaning.name == "MLII" and mlii_as_ii and "II" not in plain else meaning.name
        if lead not in TWELVE:
            unused.append(lead)
        elif lead in rows or (meaning.inverted and lead in plain):
            steps.append(Step("note", f"{lead} is stored more than once; the first is used"))
        else:
            rows[lead] = (row, -1.0 if meaning.inverted else 1.0)
            if meaning.inverted:
                steps.append(Step("invert", f"-{lead} negated"))
            if lead != meaning.name:
                steps.append(Step("rename", f"{meaning.name} taken for {lead}, as asked"))
    if unused:
        steps.append(Step("note", f"not one of the twelve leads, not used: {', '.join(unused)}"))
    stored = [lead for lead in (meaning.name for meaning in meanings) if lead in rows]
    if stored != sorted(stored, key=TWELVE.index):
        steps.append(Step("reorder", "leads put into the canonical order by name"))
    return rows, steps


def _without_gaps(stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Interpolate missing samples linearly; at the ends the nearest sample stands. At least one sample is there."""
    present = np.isfinite(stored)
    if present.all():
        return stored
    at = np.flatnonzero(present)
    line = stored.copy()
    line[~present] = np.interp(np.flatnonzero(~present), at, stored[at])
    return line


def _of(values: NDArray[np.float32], lead: str) -> NDArray[np.float64]:
    return values[TWELVE.index(lead)].astype(np.float64)


def _derive(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compute the missing limb leads in place from the first two that are there; I and II where they are."""
    present = [lead for lead in _LIMB if mask[TWELVE.index(lead)]]
    absent = [lead for lead in _LIMB if lead not in present]
    pair = next(combinations(present, 2), ())
    if not absent or not pair:
        return (), ()
    weights = np.linalg.inv(np.array([_LIMB[lead] for lead in pair]))
    # 3 x T of float64 at most: a copy of both leads, then each result.
    first, second = (_of(values, lead) for lead in pair)
    for lead in absent:
        a, b = np.array(_LIMB[lead]) @ weights
        values[TWELVE.index(lead)] = a * first + b * second
        mask[TWELVE.index(lead)] = True
    return tuple(absent), pair


def _disagreements(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> Iterable[Step]:
    """Yield which stored limb leads are not what I and II make them: mixed-up names, gains or moments in time."""
    if not mask[:2].all():
        return
    one, two = _of(values, "I"), _of(values, "II")
    for lead in ("III", "aVR", "aVL", "aVF"):
        if mask[TWELVE.index(lead)]:
            a, b = _LIMB[lead]
            off = float(np.sqrt(np.mean((_of(values, lead) - a * one - b * two) ** 2)))
            if off > _DIFFERS_MV:
                yield Step("note", f"stored {lead} differs from what I and II give by {off:.2f} mV (RMS)")


def header_leads(signal: Signal) -> tuple[str, ...]:
    """Name the stored channels for a sample's headers: names of the closed list, and "other" for free text."""
    return tuple(name if lead_name(name).name == name else OTHER for name in signal.stored_leads)
