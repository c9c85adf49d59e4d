"""Draw heat maps over the images they belong to: one PNG for a unit, prompts side by side.

The colours are those of `medclip.imaging.intensity`, over the image in grey. What the model never saw is hatched and
has no colour. Images with burned-in text stay out, as in reports.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.explaining.explainers import COMMON
from medclip.explaining.explanation import Explanation, HeatMap
from medclip.explaining.maps import scaled
from medclip.explaining.seen import Seen
from medclip.imaging import geometry
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.layouts import SheetMap
from medclip.imaging.intensity import HUE, blend
from medclip.wording import count, figure, percent

__all__ = ["HUE", "MOST_ROWS", "draw_overlay", "large_overlay", "small_overlay"]

MOST_ROWS = 4
"""Images of a unit that are drawn: those that carry most, in their order."""
_DPI = 110
_PANEL_IN = 3.3
_SHEET_IN = 8.0
"""Width of the sheet of an ECG, on which twelve leads are legible."""
_LEAST_PX = 400
"""Longest side of a panel: a smaller image is enlarged first, so that the line around a map covers no half of it."""
_MOST_LINES = 3
"""Of a title, of a score, and of why an answer is grey."""
_GREY = "#6b7280"
_WITHHELD = 70
"""Grey that stands for an image that is not shown."""


def draw_overlay(explanation: Explanation, seen: Seen) -> bytes:
    """Draw the unit; the PNG's bytes, with no word about the file."""
    panels = _panels(explanation, seen)
    return _drawn(panels, explanation, _PANEL_IN if seen.sheet is None else _SHEET_IN)


def small_overlay(explanation: Explanation, seen: Seen, heat: HeatMap, longest_px: int) -> bytes:
    """Draw the image that carries most with its map alone: a JPEG without words, for a report's thumbnails."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(geometry.fit(large_overlay(explanation, seen, heat), longest_px)).save(
        buffer, format="JPEG", quality=80, optimize=True
    )
    return buffer.getvalue()


def large_overlay(explanation: Explanation, seen: Seen, heat: HeatMap) -> NDArray[np.uint8]:
    """Draw the image that carries most with its map alone, as large as it is shown: [H, W, 3]."""
    return _painted(explanation, seen, heat, heat.top, _largest(explanation, heat, [heat.top]))


Panel = tuple[str, NDArray[np.uint8], bool]
"""Its words, its image, and whether the words are grey."""


def _panels(explanation: Explanation, seen: Seen) -> list[list[Panel]]:
    """Return rows of panels: an image as it is, then with the map of each prompt."""
    rows: list[list[Panel]] = []
    if seen.overview is not None and not explanation.burned_in:
        for words, drawn in (("score of each tile", _tile_scores), ("map of each tile", _tile_maps)):
            parts = [
                (_headed(h, words, is_first=not rows), drawn(explanation, seen, h), bool(h.caution))
                for h in explanation.maps
            ]
            rows.append([("the slide", seen.overview, False), *parts])
    chosen = _chosen(explanation, MOST_ROWS - len(rows) // 2)
    for number in chosen:
        label = seen.labels[number] or "the image as it is read"
        row = [] if seen.sheet is not None else [(label, _plain(explanation, seen, number, grey=False), False)]
        for heat in explanation.maps:
            words = _score_words(heat, number) if rows else _headed(heat, _score_words(heat, number), is_first=True)
            image = _painted(explanation, seen, heat, number, _largest(explanation, heat, chosen))
            row.append((words, image, bool(heat.caution)))
        rows.append(row)
    return rows


def _headed(heat: HeatMap, words: str, *, is_first: bool) -> str:
    """Write what is explained above the words of a panel, and below them in the first row why the answer is grey."""
    return "\n".join([heat.title, words, *[heat.caution] * (is_first and bool(heat.caution))])


def _score_words(heat: HeatMap, number: int) -> str:
    if heat.empty[number]:
        return "empty map"
    single = len(heat.scores) == 1
    probability = "" if heat.probability is None or not single else f", {percent(heat.probability)}"
    most = ", carries most" if not single and number == heat.top else ""
    return f"score {figure(heat.scores[number])}{probability}{most}"


def _chosen(explanation: Explanation, most: int) -> list[int]:
    """Return the images that some prompt scores highest, in their order."""
    ranks = [np.argsort(-np.asarray(heat.scores), kind="stable") for heat in explanation.maps]
    ordered = dict.fromkeys(int(n) for place in zip(*ranks, strict=True) for n in place)
    return sorted(list(ordered)[:most])


def _largest(explanation: Explanation, heat: HeatMap, numbers: Sequence[int]) -> float:
    """Return the value of the strongest colour: one for the images drawn, so that slices can be compared."""
    maps = explanation.maps if explanation.scale == COMMON else (heat,)
    return max((float(one.grids[n].max()) for one in maps for n in numbers), default=0.0)


def _plain(explanation: Explanation, seen: Seen, number: int, *, grey: bool) -> NDArray[np.uint8]:
    image = seen.shown[number]
    if explanation.burned_in:
        image = np.full_like(image, _WITHHELD)
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    if grey and image.shape[2] == 3:
        rgb = np.repeat((rgb @ np.array([0.299, 0.587, 0.114]))[:, :, None], 3, axis=2).astype(np.uint8)
    larger = -(-_LEAST_PX // max(rgb.shape[:2]))
    return rgb.repeat(larger, axis=0).repeat(larger, axis=1)


def _painted(explanation: Explanation, seen: Seen, heat: HeatMap, number: int, largest: float) -> NDArray[np.uint8]:
    """Lay a map over its image, [H, W, 3]."""
    image = (_plain(explanation, seen, number, grey=True) / 255).astype(np.float32)
    if seen.sheet is not None:
        return blend(image, _on_sheet(seen.sheet, heat.grids[number], image) / (largest or 1.0))
    values = explanation.in_image(heat, number)
    values = _resized(values, (image.shape[0], image.shape[1])) / (largest or 1.0)
    return blend(image, values)


def _on_sheet(sheet: SheetMap, grid: NDArray[np.float32], image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay a map of leads and seconds over the sheet that they are drawn on, [H, W]; elsewhere zero."""
    values = np.zeros(image.shape[:2], np.float32)
    half = (sheet.boxes[1].zero_px - sheet.boxes[0].zero_px) / 2
    for box in sheet.boxes:
        rows = slice(round(box.zero_px - half), round(box.zero_px + half))
        for second, value in enumerate(grid[TWELVE.index(box.lead)]):
            left, right = (box.left_px + (s - sheet.start_s) * sheet.px_per_s for s in (second, second + 1))
            values[rows, max(0, round(left)) : max(0, round(right))] = value
    return values


def _resized(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring a map to the size of the image that is shown: at most `SHOWN_PX`, by the nearest pixel."""
    rows, columns = ((np.arange(n) + 0.5) * full / n for n, full in zip(size, values.shape, strict=True))
    return values[rows.astype(int)][:, columns.astype(int)]


def _tile_maps(explanation: Explanation, seen: Seen, heat: HeatMap) -> NDArray[np.uint8]:
    largest = _largest(explanation, heat, range(len(heat.grids))) or 1.0
    return _slide(seen, [explanation.in_image(heat, n) / largest for n in range(len(heat.grids))])


def _tile_scores(explanation: Explanation, seen: Seen, heat: HeatMap) -> NDArray[np.uint8]:
    """Colour each tile by its score, the lowest of the slide without colour."""
    scores = scaled(np.asarray(heat.scores))
    return _slide(seen, [np.full((1, 1), score, np.float32) for score in scores])


def _slide(seen: Seen, tiles: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Lay values of 0 to 1 of each tile over the overview; what no tile covers is pale, as the model never saw it."""
    assert seen.overview is not None
    grey = (seen.overview @ np.array([0.299, 0.587, 0.114]) / 255).astype(np.float32)
    height, width = grey.shape
    values = np.full((height, width), np.nan, np.float32)
    for tile, (top, left, bottom, right) in zip(tiles, seen.boxes, strict=True):
        rows = slice(round(top * height), max(round(top * height) + 1, round(bottom * height)))
        columns = slice(round(left * width), max(round(left * width) + 1, round(right * width)))
        part = values[rows, columns]
        if part.size:
            part[:] = _resized(tile, (part.shape[0], part.shape[1]))
    image = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)
    out = blend(image, np.nan_to_num(values))
    return np.where(np.isnan(values)[:, :, None], (0.5 + 0.5 * image) * 255, out).astype(np.uint8)


def _drawn(rows: Sequence[Sequence[Panel]], explanation: Explanation, panel_in: float) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    aspects = [max(image.shape[0] / image.shape[1] for _, image, _ in row) for row in rows]
    heights = [panel_in * min(1.6, max(0.3, aspect)) + 0.35 for aspect in aspects]
    width = panel_in * columns + 0.2
    notes = _notes(explanation, max(44, int(width * 14.5)))
    legend = 0.55 + 0.135 * len(notes)
    first = max(_wrapped(words).count("\n") for words, _, _ in rows[0])
    head_in = max(0.2, 0.14 * first)
    height = sum(heights) + 0.1 + head_in + legend
    figure_ = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure_)
    top = height - 0.05
    for number, (row, row_height) in enumerate(zip(rows, heights, strict=True)):
        head = 0.35 + (head_in if number == 0 else 0.0)
        for column, (words, image, is_grey) in enumerate(row):
            left = 0.1 + column * panel_in
            box = (left + 0.05, top - row_height - (head - 0.35), panel_in - 0.1, row_height - 0.35)
            axes = figure_.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            axes.imshow(image, vmin=0, vmax=255, interpolation="antialiased")
            axes.set_axis_off()
            colour = _GREY if is_grey else "black"
            # A prompt may hold what would be read as a formula: "$\frac{6$".
            axes.set_title(_wrapped(words), fontsize=8.5, loc="left", pad=3, color=colour, parse_math=False)
        top -= row_height + (head - 0.35)
    _legend(figure_, notes, width, height)
    buffer = io.BytesIO()
    figure_.savefig(buffer, format="png", metadata={"Software": "medclip"})
    return buffer.getvalue()


def _wrapped(words: str) -> str:
    lines = [part for line in words.split("\n") for part in textwrap.wrap(line, 46)[:_MOST_LINES]]
    return "\n".join(lines)


def _legend(figure_: Any, notes: Sequence[str], width: float, height: float) -> None:
    """Draw the scale with its words below the panels."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(16, axis=0)
    bar = blend(np.full((16, 256, 3), 0.35, np.float32), ramp)
    below = 0.135 * len(notes) + 0.12
    axes = figure_.add_axes((1.65 / width, (below + 0.06) / height, 1.5 / width, 0.13 / height))
    axes.imshow(bar, aspect="auto")
    axes.set_axis_off()
    figure_.text(
        1.37 / width, (below + 0.12) / height, "does not raise the score", fontsize=7.5, va="center", ha="right"
    )
    figure_.text(3.23 / width, (below + 0.12) / height, "raises it most", fontsize=7.5, va="center")
    figure_.text(0.1 / width, (below - 0.03) / height, "\n".join(notes), fontsize=7.5, va="top", linespacing=1.25)


def _notes(explanation: Explanation, letters: int) -> list[str]:
    """Return the lines below the scale."""
    several = len(explanation.maps) > 1
    shared = "one scale for all prompts" if explanation.scale == COMMON else "each prompt has a scale of its own"
    hidden = len(explanation.labels) - len(_chosen(explanation, MOST_ROWS))
    notes = [
        f"Model attention evidence: what in the {'record' if explanation.seconds else 'pixels'} moves this score. No "
        "localisation, no cause, no diagnosis.",
        f"The line is half of the largest value drawn{f'; {shared}' if several else ''}.",
    ]
    if min((place.share_seen for place in explanation.placements), default=1.0) < 1:
        notes.append("Hatched: never seen by the model.")
    if explanation.burned_in:
        notes.append("Image withheld: the header says that text is burned in.")
    elif hidden > 0:
        one, where = ("tile", "drawn in the slide alone") if explanation.kind == "slide" else ("image", "not drawn")
        notes.append(f"{count(hidden, f'more {one}')} of this {explanation.kind} {where}; all maps are in the arrays.")
    return [line for note in notes for line in textwrap.wrap(note, letters)]
