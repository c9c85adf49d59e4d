"""What the page says of the stress test: curves, what each group loses, prompts, spoilt cells, and who would notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from medclip.auditing.checks.stress.shifts import CLEAN, FALSE_ALARMS, MEAN, MISSED
from medclip.auditing.result import AuditResult, Row
from medclip.imaging.corruptions import GRADE_WORDS, OPERATIONS
from medclip.reports.audit.names import (
    EVERYBODY,
    cell_name,
    group_name,
    is_all,
    metric_head,
    metric_in_words,
    of_model,
    plain,
    survives,
    with_interval,
)
from medclip.reports.audit.stress.curves import curves
from medclip.reports.audit.summary.finding import Finding, Harm
from medclip.reports.audit.table import Grid, Td, Tr
from medclip.statistics.metrics.catalogue import METRICS, names_of
from medclip.wording import NONE, capital, count, figure, list_of, number, p_value, real

_SEEN = 0.75
"""AUROC from which a score is said to see a corruption."""
_PLACE = ("model", "label", "attribute", "group")
_MOST_CURVES, _MOST_ATTRIBUTES = 3, 4
"""Labels, and attributes of each, whose curves are drawn; all are in the table."""
_LOSSES = ("tpr", "auroc", "fpr", "calibration_in_the_large")
_SCORES = {
    "max_logit": "largest cosine",
    "mcm": "softmax (MCM)",
    "energy": "energy",
    "entropy": "entropy",
    "distance": "distance of the vector",
}


@dataclass(frozen=True)
class Stressed:
    """One label of the section."""

    title: str
    worst: str
    """What is lost most, in a sentence."""
    drawings: tuple[Markup, ...]
    """Of the attribute that stands out most."""
    more: tuple[Markup, ...]
    """Of the others; on screen only."""
    losses: Grid
    """Of everybody and the attribute that stands out most."""
    more_losses: Grid
    prompts: Grid
    cells: Grid


@dataclass(frozen=True)
class StressView:
    """The whole section."""

    what: str
    """What was done, in a sentence."""
    labels: tuple[Stressed, ...]
    silent: str
    """Which corruptions cost answers and cannot be seen from the pack's outputs; "" where that is not known."""
    noticed: Grid


def stress_view(result: AuditResult) -> StressView | None:
    """Pick what the page shows of a stress test; None where there was none."""
    if not result.stress:
        return None
    names = _corruptions(result.stress)
    titles = [f"{title} ({OPERATIONS[name].like})" if name in OPERATIONS else title for name, title in names]
    what = (
        f"The pack was shown the same images with {list_of(titles)}, each mild, moderate and severe."
        if titles
        else "The pack was shown the same images in other forms, but too few patients had the finding, or lacked it, "
        "for any change to be shown."
    )
    labels = list(dict.fromkeys(str(row.get("label")) for row in result.stress))
    labels.sort(key=lambda label: -_fragile(result.stress, label))
    views = tuple(_label(result, label, names, n) for n, label in enumerate(labels))
    return StressView(what, views, _silent(result), _noticed(result, names))


def findings(result: AuditResult) -> list[Finding]:
    """Return what is lost on average over all corruptions beyond chance: by everybody, and by a group more than others.

    Gains are no findings. Of everybody, the sentence names the corruption that takes most.
    """
    return [
        _finding(result, row)
        for row in result.stress
        if row.get("kind") == MEAN and survives(result, row) and _lost(row, "change" if is_all(row) else "more") > 0
    ]


def _finding(result: AuditResult, row: Row) -> Finding:
    metric = metric_in_words(str(row.get("metric")))
    label = f"{plain(row.get('label'))}{of_model(result, row)}"
    p = f"p\u00a0{p_value(row.get('p'))}, adjusted {p_value(row.get('p_holm'))}"
    counts = _counts(row)
    change, size = with_interval(_as_value(row, "change"), signed=True), _lost(row, "change")
    if is_all(row):
        worst = max(_of_place(result, row, "corruption"), key=lambda r: _lost(r, "change"), default=row)
        sentence = (
            f"{label} is fragile: over all corruptions {metric} changes by {change}; most by {_named(worst)}, to "
            f"{with_interval(worst)}; {counts}; {p}."
        )
    else:
        more = with_interval(_as_value(row, "more"), signed=True)
        size = _lost(row, "more")
        sentence = (
            f"{label} loses more in {cell_name(row)} where images are bad: over all corruptions {metric} changes by "
            f"{change}, {more} compared with all others; {counts}; {p}."
        )
    return Finding(
        Harm.FRAGILE,
        sentence,
        size,
        what=f"{label}, {cell_name(row)}: {metric_head(str(row.get('metric')))} under corruptions",
        value=with_interval(row),
        difference=change,
        counts=counts,
        p=p,
    )


def _counts(row: Row) -> str:
    parts = [count(int(row[key]), noun) for key, noun in (("n_pos", "positive"), ("n", "image")) if row.get(key)]
    return " of ".join(parts) or "few images"


def _named(row: Row) -> str:
    """Name a corruption and its grade: severe shot noise (a lower dose)."""
    operation = OPERATIONS.get(str(row.get("name")))
    grade = GRADE_WORDS.get(int(real(row.get("grade")) or 0), "")
    title = plain(row.get("name")) if operation is None else f"{operation.title} ({operation.like})"
    return f"{grade} {title}".strip()


def _as_value(row: Row, name: str) -> Row:
    return {"value": row.get(name), "low": row.get(f"{name}_low"), "high": row.get(f"{name}_high")}


def _lost(row: Row, name: str) -> float:
    """Return how much worse a row is; below 0 where it is better."""
    value = real(row.get(name)) or 0.0
    metric = METRICS.get(str(row.get("metric")))
    return value if metric is not None and metric.better == "low" else -value


def _of_place(result: AuditResult, row: Row, kind: str) -> list[Row]:
    keys = (*_PLACE, "metric")
    return [r for r in result.stress if r.get("kind") == kind and all(r.get(k) == row.get(k) for k in keys)]


def _corruptions(rows: Sequence[Row]) -> list[tuple[str, str]]:
    names = dict.fromkeys(str(row.get("name")) for row in rows if row.get("kind") == "corruption")
    return [(name, OPERATIONS[name].title if name in OPERATIONS else plain(name)) for name in names]


def _label(result: AuditResult, label: str, names: Sequence[tuple[str, str]], number_of: int) -> Stressed:
    rows = [row for row in result.stress if row.get("label") == label]
    attributes = [a for a in dict.fromkeys(str(row.get("attribute")) for row in rows) if a != "all"]
    attributes.sort(key=lambda a: -_apart(rows, a))
    drawn = [
        (attribute, curves(own, names, identity=f"stress-{number_of}-{n}-{metric}", title=title))
        for n, attribute in enumerate((attributes or ["all"])[: _MOST_ATTRIBUTES if number_of < _MOST_CURVES else 0])
        for metric in _drawn()
        if (own := _curve_rows(rows, attribute, metric))
        and (title := f"{capital(metric_in_words(metric))} by {plain(attribute)}")
    ]
    first = attributes[0] if attributes else "all"
    return Stressed(
        plain(label),
        _worst(rows),
        tuple(svg for attribute, svg in drawn if attribute == first),
        tuple(svg for attribute, svg in drawn if attribute != first),
        _losses(result, rows, ["all", first]),
        _losses(result, rows, attributes[1:]),
        _prompts(rows),
        _cells(rows),
    )


def _drawn() -> tuple[str, ...]:
    """Name the measures whose curves are drawn."""
    return names_of(lambda m: m.stress == "tested", rates_first=True)


def _fragile(rows: Sequence[Row], label: str) -> float:
    """Return what everybody loses of a label on average, of sensitivity or else of the AUROC."""
    own = {
        r.get("metric"): _lost(r, "change")
        for r in rows
        if r.get("label") == label and r.get("kind") == MEAN and is_all(r)
    }
    return next((own[metric] for metric in _drawn() if metric in own), 0.0)


def _apart(rows: Sequence[Row], attribute: str) -> float:
    """Return by how much the group of an attribute that loses most loses more than the others."""
    lost = [_lost(r, "more") for r in rows if r.get("kind") == MEAN and r.get("attribute") == attribute]
    return max(lost, default=0.0)


def _curve_rows(rows: Sequence[Row], attribute: str, metric: str) -> list[Row]:
    return [
        row
        for row in rows
        if row.get("attribute") == attribute
        and row.get("metric") == metric
        and row.get("kind") in (CLEAN, "corruption")
    ]


def _worst(rows: Sequence[Row]) -> str:
    """Name the corruption under which everybody loses most, and the group that loses most under any."""
    for metric in _drawn():
        of_metric = [r for r in rows if r.get("metric") == metric]
        clean = {_group_of(r): r for r in of_metric if r.get("kind") == CLEAN}
        bad = [r for r in of_metric if r.get("kind") == "corruption" and _group_of(r) in clean]
        everybody = max(filter(is_all, bad), key=lambda r: _lost(r, "change"), default=None)
        if everybody is None:
            continue
        sentence = (
            f"{metric_head(metric)} of everybody falls most under {_named(everybody)}: from "
            f"{figure(clean[_group_of(everybody)].get('value'))} to {with_interval(everybody)}."
        )
        group = max((r for r in bad if not is_all(r)), key=lambda r: _lost(r, "change"), default=None)
        if group is None:
            return sentence
        under = "there" if _same_form(group, everybody) else f"under {_named(group)}"
        before = figure(clean[_group_of(group)].get("value"))
        most = f"{capital(cell_name(group))} falls most of all groups, {under}"
        return f"{sentence} {most}: from {before} to {with_interval(group)}."
    return ""


def _group_of(row: Row) -> tuple[object, object]:
    return row.get("attribute"), row.get("group")


def _same_form(row: Row, other: Row) -> bool:
    return (row.get("name"), row.get("grade")) == (other.get("name"), other.get("grade"))


def _losses(result: AuditResult, rows: Sequence[Row], attributes: Sequence[str]) -> Grid:
    mean = [row for row in rows if row.get("kind") == MEAN and row.get("attribute") in attributes]
    metrics = [m for m in _LOSSES if any(row.get("metric") == m for row in mean)]
    lines: list[Tr] = []
    for attribute in dict.fromkeys(attributes):
        of_attribute = [row for row in mean if str(row.get("attribute")) == attribute]
        if attribute != "all":
            lines.append(Tr(capital(plain(attribute))))
        for group in dict.fromkeys(group_name(row) for row in of_attribute):
            own = {str(row.get("metric")): row for row in of_attribute if group_name(row) == group}
            lines.append(Tr(group, tuple(_loss(result, own.get(metric)) for metric in metrics)))
    heads = ("Group", *(metric_head(metric) for metric in metrics))
    return Grid("What each group loses, mean over all corruptions and grades", heads, tuple(lines), dense=True)


def _loss(result: AuditResult, row: Row | None) -> Td:
    if row is None:
        return Td(NONE)
    small = []
    if real(row.get("more")) is not None:
        small.append(f"than others: {with_interval(_as_value(row, 'more'), signed=True)}")
    if real(row.get("p_holm")) is not None:
        sign = "▲" if survives(result, row) else "○"
        small.append(f"{sign} p\u00a0{p_value(row.get('p_holm'))}")
    return Td(with_interval(_as_value(row, "change"), signed=True), tuple(small))


def _prompts(rows: Sequence[Row]) -> Grid:
    own = [row for row in rows if row.get("kind") == "prompts" and row.get("metric") == "auroc"]
    ways = {(str(r.get("name")), str(r.get("strength"))): f"{plain(r.get('name'))}, {r.get('strength')}" for r in own}
    title = "Prompts that also name the context: change of the AUROC"
    return _by_group(title, own, ("name", "strength"), ways, _change_of)


def _by_group(
    title: str,
    rows: Sequence[Row],
    columns: tuple[str, str],
    heads: Mapping[tuple[str, str], str],
    cell: Callable[[Row | None], Td],
) -> Grid:
    """Lay rows out as groups x what two of their columns say, in the order of their first rows."""
    groups = list(dict.fromkeys((str(r.get("attribute")), group_name(r)) for r in rows))
    cells = {(*(str(r.get(c) or "") for c in columns), str(r.get("attribute")), group_name(r)): r for r in rows}
    lines = tuple(
        Tr(
            EVERYBODY if attribute == "all" else f"{group} ({plain(attribute)})",
            tuple(cell(cells.get((*way, attribute, group))) for way in heads),
        )
        for attribute, group in groups
    )
    return Grid(title, ("Group", *heads.values()), lines)


def _change_of(row: Row | None) -> Td:
    return Td(NONE) if row is None else Td(with_interval(_as_value(row, "change"), signed=True))


def _cells(rows: Sequence[Row]) -> Grid:
    own = [row for row in rows if row.get("kind") == "patches"]
    words = {MISSED: "ill, then called healthy", FALSE_ALARMS: "healthy, then called ill"}
    ways = dict.fromkeys((str(r.get("metric")), str(r.get("strength") or "")) for r in own)
    heads = {(m, way): f"{words.get(m, plain(m))}{f', {way}' if way else ''}" for m, way in ways}
    title = "One cell of 49 spoilt by severe noise: share of cells that turn a right answer"
    return _by_group(title, own, ("metric", "strength"), heads, _cell)


def _cell(row: Row | None) -> Td:
    return Td(NONE) if row is None else Td(with_interval(row), (f"{number(row.get('n'))} images",))


def _silent(result: AuditResult) -> str:
    """Name the corruptions that take sensitivity (or AUROC) of everybody and that no score of strangeness sees."""
    seen: dict[tuple[object, object], float] = {}
    for row in result.stress_ood:
        if is_all(row):
            place = row.get("name"), row.get("grade")
            seen[place] = max(seen.get(place, 0.0), real(row.get("value")) or 0.0)
    if not seen:
        return ""
    has_rates = any(row.get("metric") == "tpr" for row in result.stress)
    silent = [
        row
        for row in result.stress
        if row.get("kind") == "corruption"
        and is_all(row)
        and row.get("metric") == ("tpr" if has_rates else "auroc")
        and (real(row.get("change_high")) or 0.0) < 0
        and seen.get((row.get("name"), row.get("grade")), 1.0) < _SEEN
    ]
    if not silent:
        return (
            "Whatever costs sensitivity here is seen: some score of the pack’s outputs tells those images from clean "
            f"ones (AUROC {_SEEN:g} or more)."
        )
    named = list(dict.fromkeys(_named(row) for row in sorted(silent, key=lambda row: -_lost(row, "change"))))
    what = metric_in_words("tpr" if has_rates else "auroc")
    return (
        f"In silence: {list_of(named, most=6)} cost{'s' if len(named) == 1 else ''} {what}, and no score of the pack’s "
        f"outputs tells such images from clean ones (AUROC below {_SEEN:g}). A guard made of them is blind to it."
    )


def _noticed(result: AuditResult, names: Sequence[tuple[str, str]]) -> Grid:
    rows = [row for row in result.stress_ood if is_all(row)]
    scores = list(dict.fromkeys(str(row.get("score")) for row in rows))
    grades = sorted({int(row["grade"]) for row in rows if real(row.get("grade")) is not None})
    model = rows[0].get("model") if rows else None
    lines: list[Tr] = []
    for name, title in names:
        for grade in grades:
            own = {
                r.get("score"): r
                for r in rows
                if (r.get("model"), r.get("name"), r.get("grade")) == (model, name, grade)
            }
            cells = [_seen(own.get(score)) for score in scores]
            lines.append(Tr(f"{capital(title)}, {GRADE_WORDS[grade]}", tuple(cells)))
    heads = ("Corruption", *(capital(_SCORES.get(score, plain(score))) for score in scores))
    return Grid("Would anybody notice? AUROC of corrupted against clean images", heads, tuple(lines))


def _seen(row: Row | None) -> Td:
    if row is None:
        return Td(NONE)
    return Td(with_interval(row), (f"passes unseen: {figure(row.get('fpr95'))}",))
