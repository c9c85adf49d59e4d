"""Explain one unit: read it, compute its maps, check them, draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.explaining.checks import Occlusions, curves, randomisation, rank_correlation
from medclip.explaining.explanation import Explanation, HeatMap, Sensitivity, image_share, share_on_padding
from medclip.explaining.maps import Maps, compute_maps
from medclip.explaining.methods import ExplainOptions
from medclip.explaining.overlay import draw_overlay
from medclip.explaining.records import is_present
from medclip.explaining.seen import Seen
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.sample import Kind, Modality

if TYPE_CHECKING:
    from medclip.explaining.target import Target
    from medclip.imaging.geometry import Placement
    from medclip.models.model import Model


class Asked(Protocol):
    """What is asked of a unit."""

    def of(self, features_VD: NDArray[np.float32], modality: Modality | None, kind: Kind) -> tuple[Target, ...]:
        """Return what is explained."""
        ...

    def least_related(self, target: Target, feature_D: NDArray[np.float32], modality: Modality | None) -> Target | None:
        """Return what can be asked that has least to do with it."""
        ...


def explain_unit(
    model: Model, seen: Seen, asked: Asked, options: ExplainOptions, *, row: int, file: str, draw: bool = True
) -> Explanation:
    """Explain one unit.

    Args:
        model: The loaded model.
        seen: Unit as reading left it.
        asked: Questions that are asked.
        options: Options of explaining.
        row: Number of the unit, from 1.
        file: Name of the unit's first file.
        draw: Whether the overlay is drawn.

    Raises:
        MedclipError: NO_TASK where no question fits; NON_FINITE; NOT_SUPPORTED_YET for a tower that is not understood.
    """
    features_VD = model.encode_image(seen.images)
    if not np.isfinite(features_VD).all():
        raise MedclipError(Reason.NON_FINITE, "the model's features of this image are not finite numbers.")
    targets = asked.of(features_VD, seen.modality, seen.kind)
    places = tuple(model.preprocess.placement(*size) for size in seen.sizes)
    all_maps = compute_maps(model, seen.images, targets, options.method)
    checked = _checks(model, seen, features_VD, all_maps, places, asked, options) if options.checks else {}
    heat_maps = [
        HeatMap(
            maps.target.name,
            maps.target.against,
            maps.target.title,
            maps.target.task,
            maps.target.unit_score(features_VD),
            tuple(map(float, maps.scores_V)),
            maps.grids,
            maps.empty,
            tuple(share_on_padding(grid, place) for grid, place in zip(maps.grids, places, strict=True)),
            maps.method,
            maps.layer,
            _top(maps),
            caution=maps.target.caution,
            figures=maps.target.figures,
            **checked.get(number, {}),
        )
        for number, maps in enumerate(all_maps)
    ]
    plain = Explanation(
        row=row,
        file=file,
        kind=str(seen.kind),
        modality=None if seen.modality is None else str(seen.modality),
        labels=seen.labels,
        placements=places,
        burned_in=seen.burned_in,
        sha256=seen.sha256,
        adapter=seen.adapter,
        preprocessing=seen.preprocessing,
        steps=seen.steps,
        maps=tuple(heat_maps),
        scale=options.scale,
    )
    if seen.sheet is not None:
        shares = {heat.title: _shares(heat.grids[0]) for heat in plain.maps}
        plain = replace(
            plain, seconds={title: [round(s, 4) for s in part.sum(0).tolist()] for title, part in shares.items()}
        )
        leads = {title: dict(zip(TWELVE, part.sum(1).round(4).tolist(), strict=True)) for title, part in shares.items()}
    else:
        leads = {} if seen.kind.value != "signal" else {h.title: share_on_leads(plain, h) for h in plain.maps}
    return replace(plain, overlay=draw_overlay(plain, seen) if draw else b"", leads=leads)


def _shares(grid: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what each place of a map has of its sum; zeros for an empty map."""
    return grid.astype(np.float64) / max(float(grid.sum()), 1e-12)


def _top(maps: Maps) -> int:
    """Return which image carries most."""
    return int(np.argmax(maps.scores_V))


def _checks(
    model: Model,
    seen: Seen,
    features_VD: NDArray[np.float32],
    all_maps: Sequence[Maps],
    places: Sequence[Placement],
    asked: Asked,
    options: ExplainOptions,
) -> dict[int, dict[str, Any]]:
    """Check of each score the map of the image that carries most, unless it is empty.

    What does not depend on what is asked is done once for all scores of an image.
    """
    results: dict[int, dict[str, Any]] = {}
    for top in sorted({_top(maps) for maps in all_maps}):
        numbers = [n for n, maps in enumerate(all_maps) if _top(maps) == top and not maps.empty[top]]
        if not numbers:
            continue
        of_image = [all_maps[n] for n in numbers]
        one = model.preprocess.together([seen.images[top]])
        inside = image_share(of_image[0].grids[top].shape, places[top]) > 0
        if seen.sheet is not None:
            inside &= is_present(seen.images[top])[:, None]
        occlusions = Occlusions(model, seen.images[top], inside)
        randomised = randomisation(model, one, of_image, top, seed=options.seed)
        for number, maps, depths in zip(numbers, of_image, randomised, strict=True):
            other = asked.least_related(maps.target, features_VD[top], seen.modality)
            sensitivity = None
            if other is not None:
                elsewhere = compute_maps(model, one, [other], maps.method)[0].grids[0]
                sensitivity = Sensitivity(other.name, other.task, rank_correlation(maps.grids[top], elsewhere))
            results[number] = {
                "randomised": depths,
                "curves": curves(occlusions, maps.grids[top], maps.target, seed=options.seed),
                "sensitivity": sensitivity,
            }
    return results


def share_on_leads(explanation: Explanation, heat: HeatMap) -> Mapping[str, float]:
    """Return how much of an ECG's maps lies on each lead: a cutting of the sheet shows three, one below the other.

    The images count by the sum of their maps; the shares sum to 1 unless all maps are empty.
    """
    sums: dict[str, float] = {}
    for number, label in enumerate(explanation.labels):
        names = label.removeprefix("leads ").split(", ") if label.startswith("leads ") else [label]
        values = np.nan_to_num(explanation.in_image(heat, number)) / max(1, explanation.placements[number].height)
        bands = np.array_split(values, len(names), axis=0)
        sums |= {name: float(band.sum()) for name, band in zip(names, bands, strict=True)}
    total = sum(sums.values())
    return {name: round(value / total, 4) if total > 0 else 0.0 for name, value in sums.items()}
