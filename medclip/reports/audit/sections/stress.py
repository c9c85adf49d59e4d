"""What the page says of the stress test: curves, what each group loses, prompts, spoilt cells, and who would notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medclip.auditing.checks.stress.shifts import (
    CLASS_FREE,
    CLEAN,
    ERROR,
    FALSE_ALARMS,
    INFERRED,
    MEAN,
    MISSED,
    SHUFFLE,
)
from medclip.auditing.result import AuditResult, Row
from medclip.imaging.corruptions import GRADE_WORDS, OPERATIONS
from medclip.reports.audit.findings import Finding, Harm
from medclip.reports.audit.names import (
    EVERYBODY,
    cell_name,
    group_name,
    is_all,
    metric_head,
    metric_in_words,
    of_model,
    plain,
    select,
    survives,
    with_interval,
)
from medclip.reports.audit.plots import stress_curves
from medclip.reports.html_page import Grid, Td, Tr
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


def describe_stress(result: AuditResult) -> dict[str, Any] | None:
    """Return what the page shows of a stress test, None where there was none.

    Returns:
        `what` was done, in a sentence; `labels`, each with its `title`, what is lost most (`worst`), and drawings and
        tables; `silent`: which corruptions cost answers and cannot be seen from the pack's outputs, blank where that is
        not known; `noticed`: the table of what sees them.
    """
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
    return {
        "what": what,
        "labels": [_label(result, label, names, n) for n, label in enumerate(labels)],
        "silent": _silent(result),
        "noticed": _noticed(result, names),
    }


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
    return select(result.stress, kind=kind, **{name: row.get(name) for name in (*_PLACE, "metric")})


def _corruptions(rows: Sequence[Row]) -> list[tuple[str, str]]:
    names = dict.fromkeys(str(row.get("name")) for row in rows if row.get("kind") == "corruption")
    return [(name, OPERATIONS[name].title if name in OPERATIONS else plain(name)) for name in names]


def _label(result: AuditResult, label: str, names: Sequence[tuple[str, str]], number_of: int) -> dict[str, Any]:
    """Return the parts of a label; `drawings` and `losses` are of the attribute that stands out most."""
    rows = [row for row in result.stress if str(row.get("label")) == label]
    attributes = [a for a in dict.fromkeys(str(row.get("attribute")) for row in rows) if a != "all"]
    attributes.sort(key=lambda a: -_apart(rows, a))
    drawn = [
        (attribute, stress_curves(curve_rows, names, identity=f"stress-{number_of}-{n}-{metric}", title=title))
        for n, attribute in enumerate((attributes or ["all"])[: _MOST_ATTRIBUTES if number_of < _MOST_CURVES else 0])
        for metric in _drawn()
        if (curve_rows := _curve_rows(rows, attribute, metric))
        and (title := f"{capital(metric_in_words(metric))} by {plain(attribute)}")
    ]
    first = attributes[0] if attributes else "all"
    return {
        "title": plain(label),
        "worst": _worst(rows),
        "drawings": [svg for attribute, svg in drawn if attribute == first],
        "more": [svg for attribute, svg in drawn if attribute != first],
        "losses": _losses(result, rows, ["all", first]),
        "more_losses": _losses(result, rows, attributes[1:]),
        "prompts": _prompts(rows),
        "shuffled": _shuffled(rows),
        "cells": _cells(rows),
    }


def _drawn() -> tuple[str, ...]:
    """Name the measures whose curves are drawn."""
    return names_of(lambda m: m.stress == "tested", rates_first=True)


def _fragile(rows: Sequence[Row], label: str) -> float:
    """Return what everybody loses of a label on average, of sensitivity or else of the AUROC."""
    lost = {r.get("metric"): _lost(r, "change") for r in select(rows, label=label, kind=MEAN) if is_all(r)}
    return next((lost[metric] for metric in _drawn() if metric in lost), 0.0)


def _apart(rows: Sequence[Row], attribute: str) -> float:
    """Return by how much the group of an attribute that loses most loses more than the others."""
    lost = [_lost(row, "more") for row in select(rows, kind=MEAN, attribute=attribute)]
    return max(lost, default=0.0)


def _curve_rows(rows: Sequence[Row], attribute: str, metric: str) -> list[Row]:
    of_metric = select(rows, attribute=attribute, metric=metric)
    return [row for row in of_metric if row.get("kind") in (CLEAN, "corruption")]


def _worst(rows: Sequence[Row]) -> str:
    """Name the corruption under which everybody loses most, and the group that loses most under any."""
    for metric in _drawn():
        of_metric = select(rows, metric=metric)
        clean = {_group_of(row): row for row in select(of_metric, kind=CLEAN)}
        bad = [row for row in select(of_metric, kind="corruption") if _group_of(row) in clean]
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
            by_metric = {str(row.get("metric")): row for row in of_attribute if group_name(row) == group}
            lines.append(Tr(group, tuple(_loss(result, by_metric.get(metric)) for metric in metrics)))
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
    areas = select(rows, kind="prompts", metric="auroc")
    class_free = {_context_of(r): r for r in select(areas, strength=CLASS_FREE)}
    areas = [r for r in areas if r.get("strength") != CLASS_FREE]
    ways = {(str(r.get("name")), str(r.get("strength"))): f"{plain(r.get('name'))}, {r.get('strength')}" for r in areas}
    title = "Prompts that also name the context: change of the AUROC"

    def cell(row: Row | None) -> Td:
        other = class_free.get(_context_of(row)) if row is not None and row.get("strength") == INFERRED else None
        if row is None or other is None:
            return _change_of(row)
        small = f"without classes: {with_interval(_as_value(other, 'change'), signed=True)}"
        return Td(with_interval(_as_value(row, "change"), signed=True), (small,))

    return _by_group(title, areas, ("name", "strength"), ways, cell)


def _context_of(row: Row) -> tuple[object, ...]:
    return row.get("name"), row.get("attribute"), row.get("group")


def _shuffled(rows: Sequence[Row]) -> Grid:
    areas = select(rows, kind=SHUFFLE, metric=ERROR)
    ways = {(str(r.get("name")), str(r.get("strength"))): plain(r.get("strength")) for r in areas}
    title = "Patches shuffled: what is told by texture alone. AUROC, and its error over that of clean images"
    return _by_group(title, areas, ("name", "strength"), ways, _area_and_ratio)


def _area_and_ratio(row: Row | None) -> Td:
    if row is None:
        return Td(NONE)
    ratio = _as_value(row, "error_ratio")
    return Td(with_interval(row), (f"error × {with_interval(ratio)}",) if real(ratio["value"]) is not None else ())


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
    spoilt = select(rows, kind="patches")
    words = {MISSED: "ill, then called healthy", FALSE_ALARMS: "healthy, then called ill"}
    ways = dict.fromkeys((str(r.get("metric")), str(r.get("strength") or "")) for r in spoilt)
    heads = {(m, way): f"{words.get(m, plain(m))}{f', {way}' if way else ''}" for m, way in ways}
    title = "One cell of 49 spoilt by severe noise: share of cells that turn a right answer"
    return _by_group(title, spoilt, ("metric", "strength"), heads, _cell)


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
            by_score = {row.get("score"): row for row in select(rows, model=model, name=name, grade=grade)}
            cells = [_seen(by_score.get(score)) for score in scores]
            lines.append(Tr(f"{capital(title)}, {GRADE_WORDS[grade]}", tuple(cells)))
    heads = ("Corruption", *(capital(_SCORES.get(score, plain(score))) for score in scores))
    return Grid("Would anybody notice? AUROC of corrupted against clean images", heads, tuple(lines))


def _seen(row: Row | None) -> Td:
    if row is None:
        return Td(NONE)
    return Td(with_interval(row), (f"passes unseen: {figure(row.get('fpr95'))}",))
