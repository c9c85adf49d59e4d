"""Explain one unit: read it, compute its maps, check them, draw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.explaining.checks import curves, randomisation, rank_correlation
from medclip.explaining.explanation import Explanation, HeatMap, Sensitivity, image_share, share_on_padding
from medclip.explaining.maps import Maps, compute_maps
from medclip.explaining.methods import ExplainOptions
from medclip.explaining.overlay import draw_overlay
from medclip.explaining.seen import Seen
from medclip.sample import Modality

if TYPE_CHECKING:
    from medclip.explaining.target import Target
    from medclip.models.model import Model


class Asked(Protocol):
    """What is asked of a unit."""

    def of(self, features_VD: NDArray[np.float32], modality: Modality | None) -> tuple[Target, ...]:
        """Return what is explained."""
        ...

    def unrelated(self, target: Target, feature_D: NDArray[np.float32], modality: Modality | None) -> Target | None:
        """Return a finding that has nothing to do with it."""
        ...


def explain_unit(
    model: Model, seen: Seen, asked: Asked, options: ExplainOptions, *, row: int, file: str, draw: bool = True
) -> Explanation:
    """Explain one unit.

    Args:
        model: The loaded model.
        seen: What reading made of it.
        asked: What is asked.
        options: How.
        row: Its number, from 1.
        file: Name of its first file.
        draw: Draw the overlay.

    Raises:
        MedclipError: NO_TASK where no question fits; NON_FINITE; NOT_SUPPORTED_YET for a tower that is not understood.
    """
    features_VD = model.encode_image(seen.images)
    if not np.isfinite(features_VD).all():
        raise MedclipError(Reason.NON_FINITE, "the model's features of this image are not finite numbers.")
    targets = asked.of(features_VD, seen.modality)
    places = tuple(model.preprocess.placement(*size) for size in seen.sizes)
    heat_maps = []
    for maps in compute_maps(model, seen.images, targets, options.method):
        top = int(np.argmax(maps.scores_V))
        checked: dict[str, Any] = {}
        if options.checks and not maps.empty[top]:
            other = asked.unrelated(maps.target, features_VD[top], seen.modality)
            checked = _checks(model, seen, maps, top, places[top], other, options)
        heat_maps.append(
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
                top,
                **checked,
            )
        )
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
    leads = {} if seen.kind.value != "signal" else {h.title: share_on_leads(plain, h) for h in plain.maps}
    return replace(plain, overlay=draw_overlay(plain, seen) if draw else b"", leads=leads)


def _checks(
    model: Model, seen: Seen, maps: Maps, top: int, place: Any, other: Target | None, options: ExplainOptions
) -> dict[str, Any]:
    """Check the map of the image that carries most."""
    one = model.preprocess.together([seen.images[top]])
    grid = maps.grids[top]
    sensitivity = None
    if other is not None:
        elsewhere = compute_maps(model, one, [other], maps.method)[0].grids[0]
        sensitivity = Sensitivity(other.name, rank_correlation(grid, elsewhere))
    inside = image_share(grid.shape, place) > 0
    return {
        "randomised": randomisation(model, one, maps, top, seed=options.seed),
        "curves": curves(model, seen.images[top], grid, maps.target, inside, seed=options.seed),
        "sensitivity": sensitivity,
    }


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
