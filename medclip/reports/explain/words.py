"""What the checks of a heat map say, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator

from medclip.explaining.explanation import Curve, Explanation, HeatMap, Sensitivity
from medclip.wording import figure, list_of, percent

_STUCK = 0.5
"""Correlation with the map of an all-random tower from which on a map is said to show the image and not the model."""

CANNOT = (
    "It is model attention evidence: it shows which pixels move the score of this model, not where a finding is. It is "
    "no localisation and no segmentation; the outline is a level of the map, not the border of anything.",
    "It does not say why. A marker, a tube or the edge of the film can move a score as well as a lesion can, and the "
    "same map can come with a wrong score.",
    "It shows what speaks for the prompt against what it is compared with. What speaks against it is not drawn, and a "
    "score that rests on the whole image has no place to show.",
    "Its resolution is that of the model's grid: within one place of the grid the smooth change of colour is "
    "interpolation.",
    "Another method draws another map of the same model. The checks below say how far this one can be believed, for "
    "this image alone.",
)
"""What a heat map cannot show."""


def sentences(unit: Explanation) -> Iterator[str]:
    """Yield a line for each prompt of a unit, with the checks that do not speak for its map."""
    if unit.problem is not None:
        yield unit.message
    for heat in unit.maps:
        caution = f" · {heat.caution}" if heat.caution else ""
        yield f"{heat.title}: {score_of(heat)}{caution}; {heat.method} at {heat.layer}{carries(unit, heat)}"
        for warning in warnings(heat):
            yield f"  {warning}"
    if unit.problem is None and unit.message:
        yield f"  {unit.message}."


def score_of(heat: HeatMap) -> str:
    """Return the score of a unit, and its probability where it has one."""
    probability = "" if heat.probability is None else f", {percent(heat.probability)}"
    return f"score {figure(heat.score)}{probability}"


def carries(unit: Explanation, heat: HeatMap) -> str:
    """Return which image of several carries most."""
    return f"; most is carried by {unit.labels[heat.top]}" if len(unit.labels) > 1 else ""


def warnings(heat: HeatMap) -> Iterator[str]:
    """Yield why a map should not be believed, where a check says so."""
    if heat.sensitivity is not None and heat.sensitivity.is_insensitive:
        yield (
            f"Text-insensitive: the map of {asked(heat.sensitivity)}, the least related question, is almost the same "
            f"(correlation {figure(heat.sensitivity.correlation)})."
        )
    if heat.randomised and (heat.randomised[-1].correlation or 0.0) >= _STUCK:
        yield (
            "The map hardly changes when all weights are random (correlation "
            f"{figure(heat.randomised[-1].correlation)}): it shows the image, not the model."
        )
    curves = {curve.order: curve for curve in heat.curves}
    if curves:
        worse = [other for other in ("random", "centre") if not _is_better(curves["map"], curves[other])]
        if worse:
            names = {"random": "a random order", "centre": "going from the middle outwards"}
            yield f"The score does not follow the map better than {list_of([names[n] for n in worse], 'or')}."
    top = heat.padding[heat.top]
    if top >= 0.1:
        yield f"{percent(top)} of the map lies on padding, where there is no image."


def asked(other: Sensitivity) -> str:
    """Return the other question in words: a class with its task.

    Example:
        >>> asked(Sensitivity("pa", "chest_xray_view", 0.9))
        '“pa” (chest xray view)'
    """
    return f"“{other.other.replace('_', ' ')}” ({other.task.replace('_', ' ')})"


def _is_better(own: Curve, other: Curve) -> bool:
    """Whether the score rises earlier and falls earlier along the map, both together."""
    return own.insertion_area - own.deletion_area > other.insertion_area - other.deletion_area
