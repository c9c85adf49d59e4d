"""Heat maps in a folder: page, JSON, overlays and arrays, all of it or nothing; and what their checks say, in words."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from medclip.explaining.explainers import EXPLAINERS, QUICK
from medclip.explaining.explanation import Curve, Explained, Explanation, HeatMap
from medclip.files.output import new_folder
from medclip.reports.html_page import render_page, svg_uri
from medclip.sample import spoken
from medclip.version import __version__
from medclip.wording import capital, figure, percent

PAGE, NOTE = "explain.html", "explain.json"
_STYLES = ("style.css", "drawings.css", "explain.css")
NOT_MADE = "Insertion and deletion were not checked; --checks all does."
_ORDERS = {"map": "along the map", "random": "in random order", "centre": "from the middle out"}


def write_explained(explained: Explained, folder: Path, *, show_paths: bool = False) -> Explained:
    """Write explain.html, explain.json, and for each unit a PNG and the arrays.

    Arrays are safetensors: `map1.grid0` is the first prompt's map of the first image on the tower's grid, `map1.image0`
    the same in the image's own coordinates with NaN where the model saw nothing.

    Args:
        explained: Explained units.
        folder: Folder that is new, empty, or holds heat maps, which are replaced.
        show_paths: Whether files are named in the page.

    Returns:
        The same, knowing its folder.
    """
    with new_folder(folder) as draft:
        for unit in explained:
            if unit.maps:
                (draft / f"{_stem(explained, unit)}.png").write_bytes(unit.overlay)
                save_file(_arrays(unit), draft / f"{_stem(explained, unit)}.safetensors")
        facts = explained.facts()
        for row, unit in zip(facts["rows"], explained, strict=True):
            if unit.maps:
                stem = _stem(explained, unit)
                row |= {"overlay": f"{stem}.png", "arrays": f"{stem}.safetensors"}
        (draft / NOTE).write_text(json.dumps({"medclip": __version__, **facts}, indent=1) + "\n", encoding="utf-8")
        (draft / PAGE).write_text(render(explained, show_paths=show_paths), encoding="utf-8")
    return replace(explained, out=folder)


def render(explained: Explained, *, show_paths: bool = False) -> str:
    """Render the page. It loads nothing, runs nothing, and names files only where that was asked for."""
    values = {
        "explained": explained,
        "units": [(unit, _about(unit)) for unit in explained],
        "show_paths": show_paths,
        "version": __version__,
        "methods": EXPLAINERS,
        "orders": _ORDERS,
        "not_made": NOT_MADE if any(unit.checks == QUICK for unit in explained) else "",
    }
    return render_page("explain.html.j2", _STYLES, values)


def _stem(explained: Explained, unit: Explanation) -> str:
    return "explain" if len(explained) == 1 else f"explain-{unit.row}"


def _arrays(unit: Explanation) -> dict[str, np.ndarray]:
    arrays = {}
    for place, heat in enumerate(unit.maps, start=1):
        for number, grid in enumerate(heat.grids):
            arrays[f"map{place}.grid{number}"] = np.ascontiguousarray(grid, np.float32)
            arrays[f"map{place}.image{number}"] = np.ascontiguousarray(unit.in_image(heat, number))
    return arrays


def _about(unit: Explanation) -> dict[str, Any]:
    """Return what the page says of a unit beside what the unit has itself."""
    what = f"{spoken(unit.modality)} {unit.kind}" if unit.modality else unit.kind
    return {
        "what": what,
        "overlay": base64.b64encode(unit.overlay).decode(),
        "alt": f"{what} with heat maps for {'; '.join(heat.title for heat in unit.maps)}",
        "steps": "; ".join(f"{name.replace('_', ' ')}{': ' if d else ''}{d}" for name, d in unit.steps) or "none",
        "share_seen": min((place.share_seen for place in unit.placements), default=1.0),
        "maps": [_heat(unit, number) for number in range(len(unit.maps))],
    }


def _heat(unit: Explanation, number: int) -> dict[str, Any]:
    """Return what the page says of a map beside what the map has itself."""
    heat = unit.maps[number]
    several = len(unit.labels) > 1
    ranked = np.argsort(-np.asarray(heat.scores), kind="stable")[:12] if several else []
    rows, columns = heat.grids[heat.top].shape
    place = unit.placements[heat.top]
    return {
        "heat": heat,
        "score": score_of(heat),
        "beside": beside_score(heat),
        "verdicts": {verdict.check: verdict for verdict in heat.verdicts},
        "carries": carries(unit, heat).removeprefix("; "),
        "grid": f"{rows} x {columns} places, each {place.shown_height / rows / place.scale[0]:.0f} x "
        f"{place.shown_width / columns / place.scale[1]:.0f} px of the image",
        "padding": percent(heat.padding[heat.top]),
        "warnings": list(warnings(heat)),
        "images": [(capital(unit.labels[n]), figure(heat.scores[n]), heat.empty[n]) for n in ranked],
        "num_more": len(unit.labels) - len(ranked) if several else 0,
        "drawing": svg_uri(_curves(heat.curves)) if heat.curves else "",
    }


def _curves(curves: tuple[Curve, ...]) -> str:
    """Draw insertion and deletion side by side: full lines along the map, dashes at random, dots from the middle."""
    values = [value for c in curves for value in (*c.insertion, *c.deletion)]
    low, high = min(values), max(values)
    dashes = {"map": "", "random": "6 4", "centre": "1 4"}
    inks = {"map": "#c24a00", "random": "#5c6670", "centre": "#17607a"}
    lines = []
    for place, way in enumerate(("insertion", "deletion")):
        left = 20 + 320 * place
        lines.append(
            f'<text x="{left}" y="14">{way}: {"patches come" if way == "insertion" else "patches go"}</text>'
            f'<rect x="{left}" y="22" width="290" height="130" fill="none" stroke="#9aa4ae"/>'
        )
        for curve in curves:
            points = getattr(curve, way)
            path = " ".join(
                f"{left + 290 * n / (len(points) - 1):.1f},{152 - 130 * (y - low) / max(1e-9, high - low):.1f}"
                for n, y in enumerate(points)
            )
            lines.append(
                f'<polyline points="{path}" fill="none" stroke="{inks[curve.order]}" stroke-width="2" '
                f'stroke-dasharray="{dashes[curve.order]}" stroke-linecap="round"/>'
            )
        lines.append(
            f'<text x="{left}" y="168">0 %</text><text x="{left + 290}" y="168" text-anchor="end">100 %</text>'
        )
    for place, curve in enumerate(curves):
        left = 20 + 200 * place
        lines.append(
            f'<line x1="{left}" y1="188" x2="{left + 40}" y2="188" stroke="{inks[curve.order]}" stroke-width="2" '
            f'stroke-dasharray="{dashes[curve.order]}" stroke-linecap="round"/>'
            f'<text x="{left + 48}" y="192">{_ORDERS[curve.order]}</text>'
        )
    body = "".join(lines)
    style = "text{font:12px system-ui,sans-serif;fill:#3a434d}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 200" width="640" height="200"><style>{style}</style>'
        f'<rect width="640" height="200" fill="#fff"/>{body}</svg>'
    )


def sentences(unit: Explanation) -> Iterator[str]:
    """Yield a line for each prompt of a unit, then what its checks say."""
    if unit.problem is not None:
        yield unit.message
    for heat in unit.maps:
        beside = "".join(f" · {words}" for words in beside_score(heat))
        yield f"{heat.title}: {score_of(heat)}{beside}; {heat.method} at {heat.layer}{carries(unit, heat)}"
        for warning in warnings(heat):
            yield f"  {warning}"
        if passed := [verdict.check for verdict in heat.verdicts if verdict.passed]:
            yield f"  Checks passed: {', '.join(passed)}."
    if unit.checks == QUICK:
        yield f"  {NOT_MADE}"
    if unit.problem is None and unit.message:
        yield f"  {unit.message}."


def score_of(heat: HeatMap) -> str:
    """Return the score of a unit, and its probability where it has one."""
    probability = "" if heat.probability is None else f", {percent(heat.probability)}"
    return f"score {figure(heat.score)}{probability}"


def beside_score(heat: HeatMap) -> tuple[str, ...]:
    """Return what stands beside a score: why it is grey, and what the card says of how good such answers are."""
    return (*([heat.caution] if heat.caution else []), *(one["in_words"] for one in heat.figures))


def carries(unit: Explanation, heat: HeatMap) -> str:
    """Return which image of several carries most."""
    return f"; most is carried by {unit.labels[heat.top]}" if len(unit.labels) > 1 else ""


def warnings(heat: HeatMap) -> Iterator[str]:
    """Yield why a map should not be believed, where a check says so."""
    yield from (verdict.sentence for verdict in heat.verdicts if not verdict.passed)
    top = heat.padding[heat.top]
    if top >= 0.1:
        yield f"{percent(top)} of the map lies on padding, where there is no image."
