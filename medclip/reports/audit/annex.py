"""The parts of the page that are about everything else: who, calibration, thresholds, models, shortcuts, embeddings."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from medclip.auditing.checks.shortcuts.reweighting import AFTER, BEFORE, CHANGE
from medclip.auditing.groups.gaps import is_gap
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.labels import (
    by_group,
    by_group_panels,
    calibration_measures,
    difference_cells,
    drawn_measures,
    groups_grid,
)
from medclip.reports.audit.names import (
    by_attribute,
    cell_name,
    gap_head,
    group_name,
    is_all,
    metric_head,
    parts,
    plain,
    select,
    survives,
)
from medclip.reports.audit.plots import net_benefit, reliability, scatter
from medclip.reports.html_page import Grid, Td, Tr, prose
from medclip.statistics.cohort import ALL
from medclip.statistics.metrics.catalogue import METRICS
from medclip.wording import NONE, capital, count, figure, number, p_value, real

_MOST_COLUMNS = 8
"""Labels that stand beside each other in the table of groups."""
_KINDS = {
    "probe": "What a simple classifier tells from the embeddings",
    "reident": "Finding the same patient again",
    "drift": "Drift between sites and months",
    "centroid": "Distance between the centres of groups",
}


_MANY, _KEPT = 24, 12
"""Groups of an attribute from which on the annex has but the worst, and how many these are."""
_BY_GROUP = ("metrics", "differences", "ratios", "models", "calibration", "decision", "representation", "ordinal")
_BY_GROUP += ("masks", "risk", "suppressed", "unscored", "stress", "stress_ood")


Folded = dict[str, Any]
"""One label of a section, folded: `title`, perhaps a `drawing` or `figures`, `tables`, and `more` tables below them."""


def with_worst_groups(result: AuditResult) -> tuple[AuditResult, tuple[str, ...]]:
    """Return an audit without most groups of attributes that have very many, and sentences about it.

    Those stay that differ most surely from all others to their harm. All are in the tables, and every finding is made
    of all of them.
    """
    groups_of: dict[str, dict[str, float]] = {}
    for row in (*result.metrics, *result.ordinal, *result.masks, *result.risk):
        if not is_all(row):
            shown = row.get("flag") != "suppressed"
            of_attribute = groups_of.setdefault(str(row.get("attribute")), {})
            group = str(row.get("group"))
            of_attribute[group] = min(of_attribute.get(group, 3.0), 2.0 if shown else 3.0)
    for row in (*result.differences, *select(result.ordinal, reference="rest")):
        metric, value, p = METRICS.get(str(row.get("metric"))), real(row.get("value")), real(row.get("p"))
        if value is None or p is None:
            continue
        is_worse = metric is None or metric.better is None or (value < 0) == (metric.better == "high")
        of_attribute = groups_of.setdefault(str(row.get("attribute")), {})
        group = str(row.get("group"))
        of_attribute[group] = min(of_attribute.get(group, 3.0), p if is_worse else 2.0 - p)
    kept = {
        attribute: set(sorted(ranks, key=lambda group: ranks[group])[:_KEPT])
        for attribute, ranks in groups_of.items()
        if len(ranks) > _MANY
    }
    if not kept:
        return result, ()
    tables = {
        name: tuple(
            row
            for row in result.rows(name)
            if row.get("attribute") not in kept or row.get("group") in (ALL, *kept[str(row.get("attribute"))])
        )
        for name in _BY_GROUP
    }
    sentences = tuple(
        f"{capital(plain(attribute))} has {number(len(groups_of[attribute]))} groups: the annex has the {_KEPT} that "
        "fare worst, the tables all."
        for attribute in kept
    )
    return replace(result, **tables), sentences


def who(result: AuditResult) -> Grid:
    """Count each group once: rows, patients, and positives by label where there are few labels."""
    model = result.model_names[0] if result.model_names else None
    labels = list(result.labels) if len(result.labels) <= _MOST_COLUMNS else []
    heads = ("Group", "Rows", "Patients", *(f"{plain(label)}, positives" for label in labels))

    def line(name: str, rows: Sequence[Row]) -> Iterator[Tr]:
        counts = [_most(rows, key) for key in ("n", "n_patients")]
        counts += [_most(select(rows, label=label), "n_pos") for label in labels]
        yield Tr(name, tuple(map(Td, counts)))

    lines = by_attribute(select(result.metrics, model=model), line)
    return Grid("Who was audited: the groups and their size", heads, lines, dense=True)


def calibration(result: AuditResult) -> tuple[Folded, ...]:
    """Return small reliability plots by group, and the measures of calibration, for each label: all of it folded."""
    return tuple(part for n, label in enumerate(result.labels) if (part := _calibrated(result, label, n)) is not None)


def calibration_overall(result: AuditResult) -> tuple[tuple[str, Markup], ...]:
    """Draw the reliability plots of everybody, one for each label and model."""
    figures = []
    for n, (label, model) in enumerate((label, model) for label in result.labels for model in result.model_names):
        rows = [row for row in select(result.calibration, label=label, model=model) if is_all(row)]
        if rows:
            name = f"{plain(label)} · {plain(model)}" if len(result.model_names) > 1 else plain(label)
            figures.append((name, reliability(rows, identity=f"all-bins-{n}", title=f"Reliability, {name}, everybody")))
    return tuple(figures)


def thresholds(result: AuditResult) -> Grid:
    """List the thresholds and the data that chose them."""
    heads = ("Label", "Model", "Threshold", "Policy", "Chosen on", "Rows", "Positives", "Patients", "Hash of the data")
    rows = tuple(
        Tr(
            plain(row.get("label")),
            (
                prose(plain(row.get("model"))),
                Td(figure(row.get("value"), decimals=3)),
                prose(plain(row.get("policy"))),
                prose(plain(row.get("chosen_on"))),
                *(Td(number(row.get(k))) for k in ("n", "n_pos", "n_patients")),
                prose(str(row.get("hash") or NONE)[:12]),
            ),
        )
        for row in result.thresholds
    )
    return Grid("Thresholds and where they come from", heads, rows, dense=True)


def decisions(result: AuditResult) -> tuple[tuple[str, Markup], ...]:
    """Draw net benefit over thresholds for each label, everybody together."""
    figures: list[tuple[str, Markup]] = []
    for n, label in enumerate(result.labels):
        rows = [row for row in select(result.decision, label=label) if is_all(row)]
        curves = {plain(model): points for model in result.model_names if (points := select(rows, model=model))}
        if curves:
            title = f"Net benefit for {plain(label)}"
            figures.append((title, net_benefit(curves, identity=f"benefit-{n}", title=title)))
    return tuple(figures)


def compared(result: AuditResult) -> tuple[Folded, ...]:
    """Draw the paired differences of models, and list them, for each label and pair."""
    parts: list[Folded] = []
    for n, label in enumerate(result.labels):
        rows = select(result.models, label=label)
        pairs = dict.fromkeys((str(row.get("model")), str(row.get("other"))) for row in rows)
        for k, (model, other) in enumerate(pairs):
            paired = [row for row in rows if (str(row.get("model")), str(row.get("other"))) == (model, other)]
            title = f"{plain(label)}: {plain(other)} minus {plain(model)}"
            drawing = by_group_panels(result, paired, drawn_measures(), f"paired-{n}-{k}", title, paired=True)
            parts.append({"title": title, "drawing": drawing, "more": (_paired_grid(result, paired, title),)})
    return tuple(parts)


def shortcuts(result: AuditResult) -> tuple[Folded, ...]:
    """List the shortcut tests of each label; single groups before and after reweighting stay folded, and so do changes
    that may be chance, which the title counts.
    """
    parts: list[Folded] = []
    for label in dict.fromkeys(str(row.get("label")) for row in result.shortcuts):
        tables, more = [], []
        changes = [row for row in select(result.shortcuts, label=label) if _is_change(row)]
        chance = [row for row in changes if _may_be_chance(row)]
        for model in dict.fromkeys(str(row.get("model")) for row in result.shortcuts):
            rows = [r for r in result.shortcuts if (str(r.get("label")), str(r.get("model"))) == (label, model)]
            # the words of a change have both of its values
            single = [row for row in rows if str(row.get("stratum")).endswith((BEFORE, AFTER)) and not _is_change(row)]
            single = [*(row for row in rows if any(row is c for c in chance)), *single]
            rest = [row for row in rows if not any(row is s for s in single)]
            of = f" · {plain(model)}" if len(result.model_names) > 1 else ""
            tables.append(_shortcut_grid(rest, f"{plain(label)}: shortcut tests{of}"))
            more.append(_shortcut_grid(single, f"{plain(label)}: before and after reweighting{of}"))
        counted = f": of {count(len(changes), 'change')} by reweighting {len(chance)} may be chance" if chance else ""
        parts.append(
            {"title": f"{plain(label)}{counted}", "tables": [*filter(None, tables)], "more": [*filter(None, more)]}
        )
    return tuple(parts)


def _is_change(row: Row) -> bool:
    return str(row.get("stratum")) == CHANGE


def _may_be_chance(row: Row) -> bool:
    low, high = real(row.get("low")), real(row.get("high"))
    return low is not None and high is not None and low <= 0 <= high


def embeddings(result: AuditResult) -> tuple[Folded, ...]:
    """List what was found in the embeddings, for each question; what has neither test nor words stays folded."""
    parts: list[Folded] = []
    for kind in dict.fromkeys(str(row.get("what")) for row in result.embeddings):
        rows = [row for row in result.embeddings if str(row.get("what")) == kind]
        main = [r for r in rows if kind == "reident" or r.get("value") is None or r.get("p") is not None] or rows
        if len(main) > _MANY:
            main = sorted(main, key=lambda row: 1.0 if row.get("p") is None else float(row["p"]))[:_KEPT]
        rest = [row for row in rows if not any(row is m for m in main)]
        title = _KINDS.get(kind, plain(kind))
        more = [*filter(None, (_embedding_grid(rest, f"{title}: further measures"),))]
        parts.append({"title": title, "tables": (_embedding_grid(main, title),), "more": more})
    return tuple(parts)


def projections(result: AuditResult) -> tuple[tuple[str, Markup], ...]:
    """Draw the 2-D view of the embeddings, once for each model and attribute."""
    parts: list[tuple[str, Markup]] = []
    pairs = dict.fromkeys((str(row.get("model")), str(row.get("attribute"))) for row in result.projection)
    for n, (model, attribute) in enumerate(pairs):
        points = [r for r in result.projection if (str(r.get("model")), str(r.get("attribute"))) == (model, attribute)]
        title = f"Embeddings of {plain(model)} by {plain(attribute)}"
        groups = sorted({str(row.get("group")) for row in points})
        parts.append((title, scatter(points, groups, identity=f"scatter-{n}", title=title)))
    return tuple(parts)


def leakage(result: AuditResult) -> Grid:
    """List every check, what it found, and those that could not be made."""
    lines = []
    for row in result.leakage:
        done = bool(real(row.get("tested")))
        red = row.get("severity") == "red"
        verdict = "✖ red" if red else "not tested" if not done else "✓ nothing red" if not row.get("found") else "note"
        lines.append(
            Tr(
                plain(row.get("check")),
                (
                    Td(verdict, css="alert" if red else ""),
                    Td(number(row.get("found")) if done else NONE),
                    Td(number(row.get("tested")) if done else NONE),
                    prose(str(row.get("sentence") or "")),
                ),
            )
        )
    return Grid("Checks for leakage", ("Check", "Result", "Found", "Tested", "In words"), tuple(lines), dense=True)


def suppressed(result: AuditResult) -> Grid:
    """List the groups that are not shown, and why."""
    lines = tuple(
        Tr(
            f"{plain(row.get('attribute'))}: {group_name(row)}",
            (prose(plain(row.get("label"))), prose(str(row.get("reason") or "")), Td(str(row.get("n") or NONE))),
        )
        for row in result.suppressed
    )
    return Grid("Groups that are not shown", ("Group", "Label", "Reason", "Rows"), lines, dense=len(lines) > 20)


def _most(rows: Sequence[Row], key: str) -> str:
    """Write the largest count; a row that may not be shown has none."""
    numbers = [value for row in rows if (value := real(row.get(key))) is not None]
    if numbers:
        return number(max(numbers))
    return "not shown" if any(row.get("flag") == "suppressed" for row in rows) else NONE


def _calibrated(result: AuditResult, label: str, number: int) -> Folded | None:
    names = calibration_measures()
    measures = [row for row in select(result.metrics, label=label) if row.get("metric") in names]
    figures: list[tuple[str, Markup]] = []
    tables: list[Grid] = []
    for k, model in enumerate(result.model_names):
        of = f" · {plain(model)}" if len(result.model_names) > 1 else ""
        cells: dict[tuple[str, str], list[Row]] = {}
        for row in select(result.calibration, label=label, model=model):
            cells.setdefault((str(row.get("attribute")), group_name(row)), []).append(row)
        for n, ((attribute, group), bins) in enumerate(cells.items()):
            if attribute == ALL:
                continue
            name = f"{plain(attribute)}: {group}{of}"
            drawn = reliability(bins, identity=f"bins-{number}-{k}-{n}", title=f"Reliability, {plain(label)}, {name}")
            figures.append((name, drawn))
        tables.append(
            groups_grid(select(measures, model=model), names, f"{plain(label)}: calibration by group{of}", counts=False)
        )
    tables = [table for table in tables if table]
    return {"title": plain(label), "figures": figures, "tables": tables} if figures or tables else None


def _paired_grid(result: AuditResult, rows: Sequence[Row], caption: str) -> Grid:
    heads = ("Group and measure", "Difference", "p", "p Holm", "p BH", "p DeLong")

    def cells(row: Row) -> tuple[Td, ...]:
        return difference_cells(row, ("p", "p_holm", "p_bh", "delong_p"), "▲ " if survives(result, row) else "")

    return Grid(caption, heads, by_group(rows, cells), dense=True)


def _embedding_grid(rows: Sequence[Row], caption: str) -> Grid:
    lines: list[Tr] = []
    for attribute in dict.fromkeys(row.get("attribute") for row in rows):
        lines.append(Tr(capital(plain(attribute or "all"))))
        for row in select(rows, attribute=attribute):
            cells = (
                prose(plain(row.get("model") or NONE)),
                Td(*_value_and_small(row)),
                Td(p_value(row.get("p"))),
                prose(str(row.get("note") or "")),
            )
            lines.append(Tr(plain(row.get("name")), cells))
    return Grid(caption, ("Measure", "Model", "Value", "p", "In words"), tuple(lines), dense=True)


def _shortcut_grid(rows: Sequence[Row], caption: str) -> Grid:
    heads = ("Stratum and measure", "Value", "Rows", "Positives", "In words")
    return Grid(caption, heads, tuple(_shortcut_lines(rows)), dense=True)


def _shortcut_lines(rows: Sequence[Row]) -> Iterator[Tr]:
    for test in dict.fromkeys(str(row.get("test")) for row in rows):
        yield Tr(capital(plain(test)))
        for row in (row for row in rows if str(row.get("test")) == test):
            yield Tr(
                " · ".join(filter(None, (plain(row.get("stratum") or ""), _head(str(row.get("metric") or ""))))),
                (
                    Td(*_value_and_small(row)),
                    Td(number(row.get("n"))),
                    Td(number(row.get("n_pos"))),
                    prose(str(row.get("note") or "")),
                ),
            )


def _value_and_small(row: Row) -> tuple[str, tuple[str, ...]]:
    value, around = parts(row)
    return value, (around,) if real(row.get("low")) is not None else ()


def _head(name: str) -> str:
    """Name a measure or a gap as the rest of the page does."""
    return gap_head(name) if is_gap(name) else metric_head(name)


Images = list[tuple[str, str]]
"""Small images in base64, "" where they are withheld, and what is said of each."""


def worst_errors(result: AuditResult) -> list[tuple[str, list[tuple[str, Images]]]]:
    """Return for each label the images of the worst errors of each group, where they were asked for."""
    labels: list[tuple[str, list[tuple[str, Images]]]] = []
    for label in dict.fromkeys(row["label"] for row in result.worst_errors):
        groups: dict[str, Images] = {}
        for row in select(result.worst_errors, label=label):
            data = base64.b64encode(row["image"]).decode()
            groups.setdefault(cell_name(row), []).append((data, f"{row['kind']}, score {figure(row['score'])}"))
        num_images = sum(len(images) for images in groups.values())
        labels.append(
            (
                f"{capital(plain(label))}: {count(num_images, 'image')} of the worst errors by group",
                list(groups.items()),
            )
        )
    return labels
