"""What a few-shot comparison found, in plain sentences made of its numbers: nothing is promised, and doubt is said."""

from __future__ import annotations

from collections.abc import Iterator

from medclip.evaluation.few_shot.comparison import METRIC_TITLES, Cell, Comparison, Paired
from medclip.wording import capital, figure, interval, list_of, p_value

ALPHA = 0.05


def value_of(value: float | None, *, signed: bool = False) -> str:
    """Write a figure with three decimals, as all of a comparison are."""
    return figure(value, signed=signed, decimals=3)


def interval_of(cell: Cell | Paired) -> str:
    """Write the interval of a figure: 0.750 to 0.860."""
    return interval(cell.low, cell.high, decimals=3)


def excludes_zero(d: Paired) -> bool:
    """Whether the interval lies on one side of zero."""
    return d.low is not None and d.high is not None and (d.low > 0 or d.high < 0)


def ranked_at(result: Comparison) -> str:
    """Name the shots that methods are ranked by: "in the mean over K = 4 and 8", or "at K = 4" where it is one."""
    shots = f"K = {list_of([str(k) for k in result.averaged])}"
    return f"in the mean over {shots}" if len(result.averaged) > 1 else f"at {shots}"


def summary(result: Comparison) -> Iterator[str]:
    """Yield who was best and how sure that is."""
    metric = METRIC_TITLES[result.primary]
    metric = metric if metric.isupper() else metric.lower()
    test = result.counts["test"]
    best = next((m for m in result.ranked if result.cell(m, None) is not None), None)
    if best is None:
        yield f"No method gave predictions {ranked_at(result)}. The list of failures says why."
        return
    cell = result.cell(best, None)
    assert cell is not None
    figures = sum(result.cell(m, None) is not None for m in result.titles)
    yield (
        f"{capital(ranked_at(result))}, {result.titles[best]} had the highest {metric} of {figures} methods: "
        f"{value_of(cell.value)} (95 % interval {interval_of(cell)}) on {test['images']} test images of "
        f"{test['patients']} patients."
    )
    for reference in result.references:
        yield from _against(result, reference, best)
    if "svd" in result.titles and best != "svd":
        for reference in result.references:
            d = next((d for d in result.differences_of(reference, None) if d.method == "svd"), None)
            if d is not None:
                yield f"CLIP-SVD minus {result.titles[reference]}: {_difference(d)}."
    if figures > 2:
        yield (
            "The best of several is chosen with hindsight, so its figure flatters it; measure it again on patients "
            "that took no part here."
        )
    if len(result.seeds) == 1:
        yield "There was one draw of shots: intervals are over test patients only; other shots may give other figures."
    if result.num_in_training:
        yield (
            f"The base was trained on {result.num_in_training} of the {test['images']} test images, so figures are "
            "likely too high."
        )


def _against(result: Comparison, reference: str, best: str) -> Iterator[str]:
    differences = result.differences_of(reference, None)
    if not differences:
        return
    title = result.titles[reference]
    d = next((d for d in differences if d.method == best), None)
    if d is not None:
        yield f"{result.titles[best]} minus {title}: {_difference(d)}."
    above = sum(d.value > 0 and _sure(d) for d in differences)
    below = sum(d.value < 0 and _sure(d) for d in differences)
    if len(differences) > 1 and not above + below:
        yield f"After adjusting for their number, none of {len(differences)} methods surely differs from {title}."
    elif len(differences) > 1:
        rest = len(differences) - above - below
        others = f"; for the other {rest} this comparison cannot say which is better" if rest else ""
        sides = f"{above} of {len(differences)} methods are above {title} and {below} below"
        yield f"After adjusting for their number, {sides}{others}."


def _difference(d: Paired) -> str:
    text = f"{value_of(d.value, signed=True)} ({interval_of(d)}; adjusted p {p_value(d.p_holm)})"
    if d.low is None:
        why = ", of too few test patients for" if d.p is None else " in every resample, so without"
        return f"{value_of(d.value, signed=True)}{why} an interval"
    if not excludes_zero(d):
        return f"{text}; the interval includes zero, so this comparison cannot say which is better"
    if not _sure(d):
        return f"{text}; the interval leaves zero out, but not after adjusting for the number of methods"
    return text


def _sure(d: Paired) -> bool:
    return excludes_zero(d) and d.p_holm is not None and d.p_holm <= ALPHA
