"""What the checks of a heat map say, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator

from medclip.explaining.explanation import Explanation, HeatMap
from medclip.wording import figure, percent

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
