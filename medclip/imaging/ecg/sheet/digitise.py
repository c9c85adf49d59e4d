"""Read the leads of a printed ECG back into millivolts, and say where that is not sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.layouts import LAYOUTS, MM_PER_S, SHEET_S, Layout, apply_homography, column_start
from medclip.imaging.ecg.sheet.millimetre_grid import Grid, find_grid
from medclip.imaging.ecg.sheet.traces import Pieces, Row, Trace, find_rows, follow, left_edge, part, pieces_of
from medclip.sample import Signal, Step
from medclip.wording import count, list_of

SAMPLING_HZ = 500.0
_LEAST_SEEN = 0.5
"""Share of a lead's columns that must show ink for it to be a lead."""
_LEAST_OF_STRIP = 0.15
"""Of a strip, which a record of 2.5 s fills to a quarter."""
_SURE, _DOUBT, _MOST_DOUBT = 0.9, 0.45, 0.05
"""Mean confidence of a lead that is sure, what is less is in doubt, and the share of a sure lead that may be."""
_LEAST_OF_SURE = 0.9
"""Share of its column that must have been read of a sure lead."""
_OF_DOUBT, _MOST_HIDDEN = 0.5, 0.02
"""Share of the square of what is in doubt that is taken for error, and the largest share of a sure lead's own size that
it may be: a correlation of 0.99 leaves 0.02."""
_SNAP_MM = 0.5
_SHORT_S = 0.3
"""By how much a strip must be shorter than the sheet for the record to be."""
_SMALLEST_PX = 200
_LAWS = ((("I", "III", "II"), (1, 1, -1)), (("aVR", "aVL", "aVF"), (1, 1, 1)))
"""Leads whose sum with these signs is zero (Einthoven, Goldberger)."""


@dataclass(frozen=True, eq=False)
class DigitisedSheet:
    """The ten seconds of a sheet."""

    signal: Signal
    """Twelve leads in mV at 500 Hz, ten seconds; zero where the sheet does not show a lead."""
    confidence: NDArray[np.float32]
    """float32 [12, 5000], 0 to 1: 0 where nothing was seen (not printed, or ink that is missing), at most 0.5 where the
    ink may be another row's, at the seams between leads, and where it is faint."""
    doubt_mv: NDArray[np.float32]
    """float32 [12, 5000]: height of the ink of which it is not clear to which row it belongs; 0 almost everywhere."""
    layout: str
    rhythm: tuple[str, ...]
    """Leads of the strips of ten seconds, by what they look like in their own column."""
    grid: Grid
    column_starts_s: tuple[float, ...]
    """Moment that each column of leads begins with; those of a record shorter than the sheet overlap."""
    notes: tuple[str, ...]
    """What was assumed, corrected or could not be read, in sentences."""
    contradicts: bool = False
    """Whether the limb leads contradict Einthoven's law."""

    def __repr__(self) -> str:
        """Return what was read in one line."""
        return f"DigitisedSheet({self.layout}, {self.signal}, {count(len(self.notes), 'note')})"

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Bool [12, 5000]: where a trace was seen."""
        return self.confidence > 0

    @property
    def lead_confidence(self) -> dict[str, float]:
        """Mean confidence of each lead over what was seen of it; 0 for a lead that was not."""
        means = {}
        for lead, values in zip(TWELVE, self.confidence, strict=True):
            means[lead] = float(values[values > 0].mean()) if (values > 0).any() else 0.0
        return means

    @property
    def sure_leads(self) -> tuple[str, ...]:
        """Leads that were read from end to end, and of which so little is in doubt that it cannot matter.

        No limb lead where they contradict each other.
        """
        sure = []
        least = LAYOUTS[self.layout].column_s * self.signal.sampling_hz * _LEAST_OF_SURE
        for n, lead in enumerate(TWELVE):
            is_read = self.shown[n]
            if is_read.sum() < least or (self.contradicts and lead in TWELVE[:6]):
                continue
            confidence, values = self.confidence[n, is_read], self.signal.values_mv[n, is_read].astype(np.float64)
            in_doubt = float((self.doubt_mv[n, is_read].astype(np.float64) ** 2).sum()) * _OF_DOUBT
            hidden = in_doubt / max(float(((values - values.mean()) ** 2).sum()), 1e-9)
            if confidence.mean() >= _SURE and (confidence < _DOUBT).mean() <= _MOST_DOUBT and hidden <= _MOST_HIDDEN:
                sure.append(lead)
        return tuple(sure)


def digitise(pixels: NDArray[np.uint8], *, layout: str | None = None) -> DigitisedSheet:
    """Read a sheet.

    Its grid gives scale, rotation and perspective, so a scan that is turned and a photograph taken at an angle are laid
    flat first. Rows are found by their calibration pulses, which give gain and zero.

    Args:
        pixels: uint8 [H, W, 1 or 3], paper at 25 mm/s.
        layout: Name of the layout, one of `LAYOUTS`; None finds it by the number of rows and by Einthoven's law.

    Raises:
        MedclipError: TOO_SMALL; NO_SCALE without a millimetre grid or on a sheet that does not lie flat; NOT_AN_IMAGE
            without traces; NOT_SUPPORTED_YET for another arrangement of leads; WRONG_USE for an unknown layout.
    """
    if layout is not None and layout not in LAYOUTS:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no layout {layout!r}.", hint=f"There are: {', '.join(LAYOUTS)}."
        )
    if min(pixels.shape[:2]) < _SMALLEST_PX:
        raise MedclipError(
            Reason.TOO_SMALL,
            f"the sheet has {pixels.shape[1]} x {pixels.shape[0]} pixels; "
            f"at less than {_SMALLEST_PX} its lines run together.",
        )
    lines, dark = part(pixels)
    grid = find_grid(lines)
    ink, px_per_mm, left_mm = _laid_flat(dark, grid)
    turned, pieces = 0, None
    rows: list[Row] = []
    for quarter in (0, 1, 3, 2):
        candidate = np.ascontiguousarray(np.rot90(ink, quarter))
        parts = pieces_of(candidate, px_per_mm)
        rows = find_rows(candidate, parts)
        if any(row.mm_per_mv for row in rows) and len(rows) >= 3:
            ink, turned, pieces = candidate, quarter, parts
            break
    if pieces is None:
        pieces = pieces_of(ink, px_per_mm)
        rows = find_rows(ink, pieces)
    if not rows:
        raise MedclipError(Reason.NOT_AN_IMAGE, "a grid was found, but no trace on it.")
    notes = _notes_of(grid, turned, rows)
    candidates = _layouts_for(len(rows), layout)
    left = _snapped(left_edge(pieces, rows), px_per_mm, left_mm, snap=not turned)
    sheet = min((_read(ink, pieces, rows, left, one) for one in candidates), key=lambda reading: reading.contradiction)
    return _finished(sheet, grid, notes, ink.shape)


def _laid_flat(ink: NDArray[np.float32], grid: Grid) -> tuple[NDArray[np.float32], float, float]:
    """Return the ink on a flat sheet, its pixels per mm, and the mm of the grid at its left edge.

    It is the image itself where it lies straight.
    """
    if grid.is_straight:
        return ink, grid.px_per_mm, -grid.to_image[0, 2] / grid.to_image[0, 0]
    height, width = ink.shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    placed = apply_homography(np.linalg.inv(grid.to_image).astype(np.float64), corners)
    low, high = placed.min(0), placed.max(0)
    scale = min(max(grid.px_per_mm, 3.0), 12.0)
    size = np.ceil((high - low) * scale).astype(int)
    if not np.isfinite(size).all() or size.prod() > 6 * ink.size + 1e6:
        raise MedclipError(
            Reason.NO_SCALE,
            "the sheet was photographed at so flat an angle that its far side cannot be read.",
            hint="Photograph it from above.",
        )
    to_input = grid.to_image @ np.array([[1 / scale, 0, low[0]], [0, 1 / scale, low[1]], [0, 0, 1]])
    to_input /= to_input[2, 2]
    source = Image.fromarray((ink * 255).astype(np.uint8))
    flat = source.transform(
        (int(size[0]), int(size[1])),
        Image.Transform.PERSPECTIVE,
        to_input.ravel()[:8].tolist(),
        Image.Resampling.BICUBIC,
    )
    return (np.asarray(flat, np.float32) / 255).astype(np.float32), scale, float(low[0])


def _snapped(left: float, px_per_mm: float, left_mm: float, *, snap: bool) -> float:
    """Return where the leads begin: on a line of 5 mm, if it is one within half a millimetre."""
    millimetres = left_mm + left / px_per_mm
    line = round(millimetres / 5) * 5
    return left + (line - millimetres) * px_per_mm if snap and abs(line - millimetres) < _SNAP_MM else left


def _notes_of(grid: Grid, turned: int, rows: Sequence[Row]) -> list[str]:
    notes = []
    if turned:
        notes.append(f"The sheet was turned by {90 * turned} degrees and was turned back.")
    if not grid.is_straight:
        notes.append(f"The sheet lay at {grid.degrees:+.1f} degrees or at an angle to the camera and was laid flat.")
    if grid.residual_mm > 0.3:
        notes.append(f"The paper is not quite flat: {grid.residual_mm:.1f} mm are left unexplained.")
    if grid.coverage < 0.8:
        notes.append(f"The grid was followed over {grid.coverage:.0%} of the sheet only.")
    gains = {row.mm_per_mv for row in rows if row.mm_per_mv}
    if not gains:
        notes.append(
            "No calibration pulse was found: 10 mm/mV is assumed, and the middle of each row is taken for 0 mV."
        )
    elif len(gains) > 1:
        notes.append(f"The rows have different gains: {list_of(sorted(f'{gain:g}' for gain in gains))} mm/mV.")
    return notes


def _layouts_for(number: int, layout: str | None) -> list[Layout]:
    if layout is not None:
        if len(LAYOUTS[layout].rows_mm) != number:
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET,
                f"{count(number, 'row')} were found on the sheet, but {layout} has {len(LAYOUTS[layout].rows_mm)}.",
            )
        return [LAYOUTS[layout]]
    fitting = [one for one in LAYOUTS.values() if len(one.rows_mm) == number]
    if not fitting:
        names = ", ".join(f"{name} ({len(one.rows_mm)})" for name, one in LAYOUTS.items())
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"{count(number, 'row')} of leads were found; the layouts are {names}.",
            hint="Crop the image to the leads, or scan it sharper.",
        )
    return fitting


_Cut = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""mV, confidence and doubt in mV of ten seconds."""


@dataclass(frozen=True, eq=False)
class _Reading:
    layout: Layout
    values: NDArray[np.float32]
    confidence: NDArray[np.float32]
    doubt: NDArray[np.float32]
    strips: tuple[_Cut, ...]
    contradiction: float
    """Share of lead II that I + III do not explain, and of aVR, aVL and aVF that does not cancel."""


def _read(ink: NDArray[np.float32], pieces: Pieces, rows: Sequence[Row], left: float, layout: Layout) -> _Reading:
    second = MM_PER_S * pieces.px_per_mm
    borders = [left + n * layout.column_s * second for n in range(1, layout.columns)]
    right = left + SHEET_S * second
    traces = follow(ink, pieces, rows, borders, (left - pieces.line_px, right + pieces.line_px))
    num = round(SHEET_S * SAMPLING_HZ)
    values, confidence, doubt = (np.zeros((12, num), np.float32) for _ in range(3))
    gains = [row.mm_per_mv for row in rows if row.mm_per_mv]
    usual = float(np.median(gains)) if gains else 10.0
    for lead, row, column in layout.cells:
        part_of = (column * layout.column_s, (column + 1) * layout.column_s)
        at = TWELVE.index(lead)
        values[at], confidence[at], doubt[at] = _cut(traces[row], rows[row], usual, left, second, part_of)
    strips: list[_Cut] = []
    for row in range(len(rows) - len(layout.rhythm), len(rows)):
        strips.append(_cut(traces[row], rows[row], usual, left, second, (0.0, SHEET_S), _LEAST_OF_STRIP))
    return _Reading(layout, values, confidence, doubt, tuple(strips), _contradiction(values, confidence))


def _cut(
    trace: Trace,
    row: Row,
    usual: float,
    left: float,
    second: float,
    part_of: tuple[float, float],
    least_seen: float = _LEAST_SEEN,
) -> _Cut:
    """Return ten seconds of a lead, of which a row shows a part: mV, confidence and doubt, zero elsewhere."""
    times = np.arange(round(SHEET_S * SAMPLING_HZ)) / SAMPLING_HZ
    columns = ((np.arange(len(trace.y_px)) + 1) / 2 - left) / second
    inside = (columns >= part_of[0] - 0.004) & (columns <= part_of[1] + 0.004)
    seen = inside & np.isfinite(trace.y_px)
    values, confidence, doubt = (np.zeros(len(times), np.float32) for _ in range(3))
    if inside.sum() < 10 or seen.sum() < least_seen * inside.sum():
        return values, confidence, doubt
    zero = row.zero_px if row.mm_per_mv else float(np.median(trace.y_px[seen]))
    scale = (row.mm_per_mv or usual) * second / MM_PER_S
    in_part = (times >= part_of[0]) & (times < part_of[1])
    values[in_part] = np.interp(times[in_part], columns[seen], (zero - trace.y_px[seen]) / scale)
    confidence[in_part] = np.interp(times[in_part], columns[inside], trace.sure[inside])
    doubt[in_part] = np.interp(times[in_part], columns[inside], trace.doubt_px[inside]) / scale
    # Before its first and behind its last ink nothing was seen; short gaps inside are bridged at confidence 0.
    ends = columns[seen][[0, -1]]
    beyond = in_part & ((times < ends[0] - 0.02) | (times > ends[1] + 0.02))
    values[beyond] = confidence[beyond] = doubt[beyond] = 0
    return values, confidence, doubt


def _together(confidence: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.bool_]:
    """Return where all of some leads were read."""
    return np.asarray((confidence[[TWELVE.index(name) for name in names]] > 0.4).all(0))


def _contradiction(values: NDArray[np.float32], confidence: NDArray[np.float32]) -> float:
    """Return how much the limb leads contradict Einthoven and Goldberger, as a share of their own size."""
    lead = {name: TWELVE.index(name) for name in TWELVE}
    worst = []
    for names, signs in _LAWS:
        at = [lead[name] for name in names]
        both = _together(confidence, names)
        if both.sum() < SAMPLING_HZ / 2:
            continue
        part_of = values[at][:, both] - values[at][:, both].mean(1, keepdims=True)
        size = float(np.sqrt((part_of**2).sum(0).mean())) + 1e-6
        worst.append(float(np.sqrt(np.mean((np.array(signs)[:, None] * part_of).sum(0) ** 2))) / size)
    return max(worst, default=1.0)


def _finished(reading: _Reading, grid: Grid, notes: list[str], shape: tuple[int, ...]) -> DigitisedSheet:
    values, confidence, doubt = reading.values.copy(), reading.confidence.copy(), reading.doubt.copy()
    starts = _column_starts(reading)
    if starts != _nominal(reading.layout):
        values, confidence, doubt = (_placed(each, reading.layout, starts) for each in (values, confidence, doubt))
        notes.append(
            f"The strips show less than {SHEET_S:g} s: the columns are taken for parts of that record that begin at "
            f"{list_of([f'{start:.1f}' for start in starts])} s."
        )
    rhythm = []
    for strip, sure, strip_doubt in reading.strips:
        lead, likeness = _likest(strip, sure, reading.values, reading.confidence)
        rhythm.append(lead)
        if likeness < 0.9 and sure.any():
            notes.append(f"The strip looks most like {lead}, but not much like it (correlation {likeness:.2f}).")
        elif sure.any():
            at = TWELVE.index(lead)
            better = sure > confidence[at]
            values[at, better], confidence[at, better] = strip[better], sure[better]
            doubt[at, better] = strip_doubt[better]
    compared = any(_together(reading.confidence, names).sum() >= SAMPLING_HZ / 2 for names, _ in _LAWS)
    contradicts = compared and reading.contradiction > 0.5
    if contradicts:
        notes.append("The limb leads contradict Einthoven's law: they stand otherwise, or a trace was lost.")
    mask = np.array([sure.any() for sure in confidence], np.bool_)
    if not mask.any():
        raise MedclipError(Reason.NOT_AN_IMAGE, "a grid was found, but no lead whose trace could be followed on it.")
    if not mask.all():
        notes.append(f"No trace of {list_of([lead for lead, seen in zip(TWELVE, mask, strict=True) if not seen])}.")
    for lead, sure in zip(TWELVE, confidence, strict=True):
        is_read = sure > 0
        share = float((sure[is_read] < _DOUBT).mean()) if is_read.any() else 0.0
        if share > _MOST_DOUBT:
            notes.append(f"{lead}: not sure over {share:.0%} of what is shown.")
    steps = (
        Step("digitise", f"{shape[1]} x {shape[0]} pixels, {grid.px_per_mm:.2f} px/mm, layout {reading.layout.name}"),
        *(Step("digitise", note) for note in notes),
    )
    values[~mask] = 0
    signal = Signal(
        values,
        mask,
        SAMPLING_HZ,
        tuple(lead for lead, seen in zip(TWELVE, mask, strict=True) if seen),
        values.shape[1],
        SAMPLING_HZ,
        steps=steps,
    )
    return DigitisedSheet(
        signal, confidence, doubt, reading.layout.name, tuple(rhythm), grid, starts, tuple(notes), contradicts
    )


def _nominal(layout: Layout) -> tuple[float, ...]:
    return tuple(n * layout.column_s for n in range(layout.columns))


def _column_starts(reading: _Reading) -> tuple[float, ...]:
    """Return the moment that each column begins with; those of a record that its strips show to be short overlap."""
    layout = reading.layout
    seen = [np.flatnonzero(sure) for _, sure, _ in reading.strips if sure.any()]
    if layout.columns == 1 or not seen:
        return _nominal(layout)
    first, last = min(each[0] for each in seen) / SAMPLING_HZ, max(each[-1] for each in seen) / SAMPLING_HZ
    if last - first > SHEET_S - _SHORT_S:
        return _nominal(layout)
    return tuple(column_start(layout, column, first, last) for column in range(layout.columns))


def _placed(lines: NDArray[np.float32], layout: Layout, starts: tuple[float, ...]) -> NDArray[np.float32]:
    """Move every lead from where its column stands on the sheet to the moment that the column begins with."""
    placed = np.zeros_like(lines)
    length = round(layout.column_s * SAMPLING_HZ)
    for lead, _, column in layout.cells:
        at = TWELVE.index(lead)
        source, target = round(column * layout.column_s * SAMPLING_HZ), round(starts[column] * SAMPLING_HZ)
        part_of = lines[at, source : source + length][: lines.shape[1] - target]
        placed[at, target : target + len(part_of)] = part_of
    return placed


def _likest(
    strip: NDArray[np.float32], sure: NDArray[np.float32], values: NDArray[np.float32], confidence: NDArray[np.float32]
) -> tuple[str, float]:
    """Return the lead whose own column a strip agrees with best, and their correlation."""
    best = ("II", 0.0)
    for at, lead in enumerate(TWELVE):
        both = (confidence[at] > 0.3) & (sure > 0.3)
        if both.sum() < SAMPLING_HZ / 2 or min(strip[both].std(), values[at][both].std()) < 1e-4:
            continue
        likeness = float(np.corrcoef(strip[both], values[at][both])[0, 1])
        if likeness > best[1]:
            best = (lead, likeness)
    return best
