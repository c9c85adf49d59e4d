"""Find the millimetre grid of a sheet, however it lies in the image: scale, rotation and perspective in one.

A window of the image has two peaks in its spectrum, one for each family of lines; their phases say where in the square
of 5 mm the window's centre lies. Neighbouring windows are joined by what their frequencies predict, from the clearest
outwards, and one homography is fitted to all of them. A sheet that is flat fits it; one that is bent does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.sheet.layouts import apply_homography

SQUARE_MM = 5.0
_SIDES_PX = (384, 640, 1024)
"""Of the middle of the sheet whose spectrum is taken first: the smallest holds 6 squares at 300 dpi, and over a larger
one lines of a photograph are no longer evenly spaced."""
_FEWEST_SQUARES = 20.0
_MOST_SQUARES = 150.0
"""Squares along the longer side of what is a sheet: 10 s are 50, a page of 11 inch 56."""
_LEAST_PEAK = 8.0
"""Of a peak, as a multiple of the median around it, to be lines and no chance."""
_BENT_MM = 0.8


@dataclass(frozen=True, eq=False)
class Grid:
    """How millimetres of the flat sheet lie in the image."""

    to_image: NDArray[np.float64]
    """float64 [3, 3]: from millimetres (x right, y down, the origin on a crossing of two lines) to pixels."""
    px_per_mm: float
    """At the centre of the image."""
    degrees: float
    """By which the sheet is turned, clockwise."""
    residual_mm: float
    """Root mean square of what the flat sheet leaves unexplained."""
    coverage: float
    """Share of the windows in which the grid was seen."""

    @property
    def is_straight(self) -> bool:
        """Whether the lines run along rows and columns of pixels, within half a pixel over the whole sheet."""
        matrix, span_mm = self.to_image, 300.0
        slant_px = max(abs(matrix[0, 1]), abs(matrix[1, 0])) * span_mm
        return bool(slant_px < 0.5 and abs(matrix[2, :2]).max() * span_mm < 2e-3)


def find_grid(lines: NDArray[np.float32]) -> Grid:
    """Find the grid.

    Args:
        lines: float32 [H, W]: how much darker than its paper a pixel is, ink taken out.

    Raises:
        MedclipError: NO_SCALE where there is no grid, or none that a flat sheet explains.
    """
    windows: list[tuple[_Window, NDArray[np.float64]]] = []
    refused = None
    for side in _SIDES_PX:
        try:
            across, down = _fundamentals(lines, side)
        except MedclipError as error:
            refused = error
            continue
        seen, possible = _windows(lines, across, down)
        windows = max(windows, seen, key=len)
        if len(seen) > 0.5 * possible or side >= max(lines.shape):
            break
    if len(windows) < 6:
        raise refused or _no_grid("its lines are seen in too few places")
    to_squares, residual, kept = _fit(windows)
    if residual * SQUARE_MM > _BENT_MM:
        raise MedclipError(
            Reason.NO_SCALE,
            f"the grid does not lie flat: {residual * SQUARE_MM:.1f} mm are left unexplained by a flat sheet.",
            hint="Scan the sheet, or photograph it pressed flat.",
        )
    scale = np.diag([SQUARE_MM, SQUARE_MM, 1.0])
    to_image = np.linalg.inv(scale @ to_squares)
    to_image /= to_image[2, 2]
    centre = np.array([[lines.shape[1] / 2, lines.shape[0] / 2]])
    middle = apply_homography(np.linalg.inv(to_image), centre)
    steps = apply_homography(to_image, middle + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    right, below = steps[1] - steps[0], steps[2] - steps[0]
    scale_px = float(np.sqrt(abs(right[0] * below[1] - right[1] * below[0])))
    degrees = float(np.degrees(np.arctan2(right[1], right[0])))
    return Grid(to_image, scale_px, degrees, residual * SQUARE_MM, kept)


def _no_grid(why: str) -> MedclipError:
    return MedclipError(
        Reason.NO_SCALE,
        f"no millimetre grid was found: {why}.",
        hint="Without it neither time nor voltage has a scale; a sharper or larger scan may show it.",
    )


def _spectrum(window: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Return the power of a window, its mean taken out, its edges faded; zero frequency in the middle."""
    faded = (window - window.mean()) * np.outer(np.hanning(window.shape[0]), np.hanning(window.shape[1]))
    return np.abs(np.fft.fftshift(np.fft.fft2(faded, (size, size)))) ** 2


def _fundamentals(lines: NDArray[np.float32], side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the frequency of the squares across and down in the middle of the image, in cycles per pixel."""
    height, width = lines.shape
    side = min(side, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    size = 2 * side
    power = _spectrum(lines[top : top + side, left : left + side], size)
    frequency = (np.arange(size) - size // 2) / size
    fx, fy = np.meshgrid(frequency, frequency)
    radius = np.hypot(fx, fy)
    lowest = _FEWEST_SQUARES / max(height, width)
    highest = min(0.49, 5.2 * _MOST_SQUARES / max(height, width))
    usable = (radius >= lowest) & (radius <= highest)
    background = np.median(power[usable])
    # Ink and shadows put their power at low frequencies: peaks are weighed against their own ring.
    rings = np.minimum((radius * size).astype(int), size)
    level = np.maximum(_median_of_rings(power, rings, usable), background)
    contrast = np.where(usable, power / level[rings], 0.0)
    # Only lines near enough to the axes are across and down; a sheet turned by more is turned by 90 degrees first.
    half = (fx > 0) & (np.abs(fy) < fx)
    chosen = []
    for side_of in (half, (fy > 0) & (np.abs(fx) <= fy)):
        peak = _strongest(np.where(side_of, power * (contrast > _LEAST_PEAK), 0.0), fx, fy)
        if peak is None:
            raise _no_grid("no two families of evenly spaced lines are seen")
        chosen.append(_lowest_harmonic(peak, contrast, size, max(height, width)))
    across, down = chosen
    ratio = np.hypot(*across) / np.hypot(*down)
    if not 0.6 < ratio < 1.7:
        raise _no_grid("the lines across and down are not equally far apart")
    return across, down


def _median_of_rings(
    power: NDArray[np.float64], rings: NDArray[np.int_], usable: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the median power at each distance from the middle of a spectrum."""
    order = np.argsort(rings[usable], kind="stable")
    keys, values = rings[usable][order], power[usable][order]
    level = np.zeros(rings.max() + 1)
    numbers, starts = np.unique(keys, return_index=True)
    for number, part in zip(numbers, np.split(values, starts[1:]), strict=True):
        level[number] = np.median(part)
    return level


def _strongest(
    power: NDArray[np.float64], fx: NDArray[np.float64], fy: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the frequency of the highest peak; None where there is none."""
    at = np.unravel_index(int(np.argmax(power)), power.shape)
    return np.array([fx[at], fy[at]]) if power[at] > 0 else None


def _lowest_harmonic(
    peak: NDArray[np.float64], contrast: NDArray[np.float64], size: int, longer_px: int
) -> NDArray[np.float64]:
    """Return the frequency of the squares, of which the strongest peak may be a harmonic, as a rule the fifth."""

    def seen(frequency: NDArray[np.float64]) -> float:
        column, row = np.round(frequency * size).astype(int) + size // 2
        return float(contrast[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].max(initial=0.0))

    for harmonic in (5, 4, 3, 2):
        base = peak / harmonic
        squares = np.hypot(*base) * longer_px
        if squares >= _FEWEST_SQUARES and all(seen(base * n) > _LEAST_PEAK for n in range(1, harmonic)):
            return base
    if np.hypot(*peak) * longer_px > _MOST_SQUARES:  # lines of a millimetre, and none of five that stands out
        return peak / 5
    return peak


@dataclass(frozen=True, eq=False)
class _Window:
    x: float
    y: float
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    phases: NDArray[np.float64]
    """Of the squares across and down at the centre, in cycles."""
    weight: float


def _windows(
    lines: NDArray[np.float32], across: NDArray[np.float64], down: NDArray[np.float64]
) -> tuple[list[tuple[_Window, NDArray[np.float64]]], int]:
    """Return the windows in which the grid is seen, with their places counted in squares, grown from the middle.

    The second value is how many windows the image has.
    """
    height, width = lines.shape
    period = 2 / (np.hypot(*across) + np.hypot(*down))
    side = int(min(max(6 * period, 24), height, width))
    step = side / 2
    columns, rows = int((width - side) / step) + 1, int((height - side) / step) + 1
    fade = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    offsets = np.arange(side, dtype=np.float64) + 0.5 - side / 2

    def measure(column: int, row: int, across: NDArray[np.float64], down: NDArray[np.float64]) -> _Window | None:
        left, top = int(column * step), int(row * step)
        part = lines[top : top + side, left : left + side]
        faded = (part - part.mean()) * fade
        total = float((faded**2).sum()) + 1e-12
        frequencies, phases, strength = [], [], []
        for frequency in (across, down):
            best, value = _climb(faded, frequency, offsets, side)
            frequencies.append(best)
            phases.append(-np.angle(value) / (2 * np.pi))
            strength.append(abs(value) ** 2 / (total * side * side))
        weight = float(min(strength))
        if weight < 2e-3:
            return None
        return _Window(left + side / 2, top + side / 2, frequencies[0], frequencies[1], -np.array(phases), weight)

    start = None
    for column, row in sorted(
        ((c, r) for c in range(columns) for r in range(rows)),
        key=lambda at: (at[0] - (columns - 1) / 2) ** 2 + (at[1] - (rows - 1) / 2) ** 2,
    ):
        window = measure(column, row, across, down)
        if window is not None:
            start = (column, row), window
            break
    if start is None:
        return [], columns * rows
    placed = {start[0]: (start[1], start[1].phases)}
    waiting = [start[0]]
    tried = {start[0]}
    while waiting:
        waiting.sort(key=lambda at: placed[at][0].weight)
        column, row = waiting.pop()
        window, place = placed[column, row]
        for at in ((column - 1, row), (column + 1, row), (column, row - 1), (column, row + 1)):
            if at in tried or not (0 <= at[0] < columns and 0 <= at[1] < rows):
                continue
            tried.add(at)
            other = measure(*at, window.across, window.down)
            if other is None:
                continue
            way = np.array([other.x - window.x, other.y - window.y])
            between = np.array([(window.across + other.across) @ way, (window.down + other.down) @ way]) / 2
            expected = place + between
            placed[at] = other, other.phases + np.round(expected - other.phases)
            waiting.append(at)
    return list(placed.values()), columns * rows


def _climb(
    faded: NDArray[np.float32], frequency: NDArray[np.float64], offsets: NDArray[np.float64], side: int
) -> tuple[NDArray[np.float64], complex]:
    """Return the frequency near a given one at which a window has most power, and the Fourier sum there."""

    def value(at: NDArray[np.float64]) -> complex:
        right = np.exp(-2j * np.pi * at[0] * offsets)
        below = np.exp(-2j * np.pi * at[1] * offsets)
        return complex(below @ faded @ right)

    reach = 0.35 / side
    best = frequency
    for _ in range(4):
        for axis in (0, 1):
            shift = np.zeros(2)
            shift[axis] = reach
            powers = [abs(value(best + n * shift)) for n in (-1, 0, 1)]
            bend = powers[0] - 2 * powers[1] + powers[2]
            move = 0.5 * (powers[0] - powers[2]) / bend if bend < 0 else float(np.argmax(powers)) - 1
            best = best + np.clip(move, -1, 1) * shift
        reach /= 2
    return best, value(best)


def _fit(windows: list[tuple[_Window, NDArray[np.float64]]]) -> tuple[NDArray[np.float64], float, float]:
    """Fit the homography from pixels to squares; outliers are left out in turn."""
    points = np.array([[window.x, window.y] for window, _ in windows])
    squares = np.array([place for _, place in windows])
    kept = np.ones(len(points), np.bool_)
    centre, spread = points.mean(0), max(points.std(), 1.0)
    scaled = (points - centre) / spread
    normal = np.array([[1 / spread, 0, -centre[0] / spread], [0, 1 / spread, -centre[1] / spread], [0, 0, 1]])
    matrix = np.eye(3)
    residual = np.zeros(len(points))
    for _ in range(4):
        x, y = scaled[kept].T
        u, v = squares[kept].T
        zero, one = np.zeros_like(x), np.ones_like(x)
        system = np.concatenate(
            [
                np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], 1),
                np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], 1),
            ]
        )
        solved = np.linalg.lstsq(system, np.concatenate([u, v]), rcond=None)[0]
        matrix = np.append(solved, 1.0).reshape(3, 3)
        residual = np.linalg.norm(apply_homography(matrix, scaled) - squares, axis=1)
        limit = max(3 * np.median(residual[kept]), 0.02)
        again = residual < limit
        if again.sum() < 6 or (again == kept).all():
            break
        kept = again
    return matrix @ normal, float(np.sqrt(np.mean(residual[kept] ** 2))), float(kept.mean())
