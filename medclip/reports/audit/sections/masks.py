"""Masks on the page: what is no better than position, findings by group, sentences; tables, the worst group first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medclip.auditing.groups.differences import REST
from medclip.auditing.groups.masks import OTSU, POSITION
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.findings import Finding, Harm
from medclip.reports.audit.names import by_attribute, group_cell, is_all, of_model, plain, select, with_interval
from medclip.reports.audit.sections.ordinal import findings_of
from medclip.reports.html_page import Grid, Td, Tr
from medclip.statistics.metrics.masks import TITLES
from medclip.wording import capital, count, list_of, number, real

_RIVALS = {POSITION: "the mean mask of other patients", OTSU: "Otsu’s threshold"}
_KNOWS = {POSITION: "which sees no image", OTSU: "which was never taught"}
_EMPTY = "empty_marked"
_MEANS = {
    "lesion_sensitivity": (Harm.MISSED, -1, "is hit {more} often in {cell}"),
    "false_alarms": (Harm.FALSE_ALARM, 1, "has wrong pieces {more} often in {cell}"),
    "dice": (Harm.OUTLINES, -1, "is outlined with {more} overlap (Dice) in {cell}"),
}
"""What a difference does to patients, which sign of it is worse, and how it is said."""


def findings(result: AuditResult) -> list[Finding]:
    """Return structures that are marked no better than by position, and groups that fare worse than all others."""
    of_groups = [row for row in result.masks if row.get("method") == "model" and row.get("reference") in (None, REST)]
    return [*_blind(result), *findings_of(result, of_groups, _MEANS, TITLES)]


def _blind(result: AuditResult) -> Iterator[Finding]:
    for row in result.masks:
        rival, low = str(row.get("reference")), real(row.get("low"))
        if rival in _RIVALS and is_all(row) and real(row.get("value")) is not None and (low is None or low <= 0):
            value, of = with_interval(row, signed=True), capital(plain(row.get("label")))
            yield Finding(
                Harm.BLIND,
                f"{of} is marked no better than by {_RIVALS[rival]}, {_KNOWS[rival]}{of_model(result, row)}: Dice less "
                f"that of it is {value}.",
                -float(row["value"]),
                what=f"{of}{of_model(result, row)}: Dice less that of {_RIVALS[rival]}",
                value=value,
            )


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return the figures of each structure over everybody, beside what needs no image and no teaching."""
    return tuple(sentence for rows in _structures(result) for sentence in _sentences(result, rows))


def _sentences(result: AuditResult, rows: Sequence[Row]) -> Iterator[str]:
    everybody = [row for row in rows if is_all(row) and real(row.get("value")) is not None]
    of_model_alone = [row for row in everybody if row.get("method") == "model" and not row.get("reference")]
    figures = [
        f"{TITLES[str(row['metric'])]} {with_interval(row)}" for row in of_model_alone if row["metric"] != _EMPTY
    ]
    if figures:
        who = f"{number(of_model_alone[0].get('n'))} images of {number(of_model_alone[0].get('n_patients'))} patients"
        beside = [
            f"{name} has {with_interval(own)} (the model’s less it {with_interval(apart, signed=True)})"
            for rival, name in _RIVALS.items()
            for own in select(everybody, method=rival)
            for apart in select(everybody, reference=rival)
        ]
        than = f" Of what knows less, {list_of(beside)}." if beside else ""
        yield f"{capital(plain(rows[0]['label']))}{of_model(result, rows[0])}, {who}: {list_of(figures)}.{than}"
    for row in select(of_model_alone, metric=_EMPTY):
        images = count(int(real(row.get("n")) or 0), "image")
        yield f"Of {images} without {plain(rows[0]['label'])}, anything is marked in {with_interval(row)}."


def _structures(result: AuditResult) -> list[list[Row]]:
    keys = dict.fromkeys((row.get("model"), row.get("label")) for row in result.masks)
    return [select(result.masks, model=model, label=label) for model, label in keys]


def grids(result: AuditResult) -> tuple[Grid, ...]:
    """Return of each structure the figures by group, then the rivals, then images in which nothing is true."""
    tables: list[Grid] = []
    for rows in _structures(result):
        name = f"{capital(plain(rows[0]['label']))}{of_model(result, rows[0])}"
        rows = _worst_first(rows)
        own = [row for row in rows if row.get("method") == "model" and row.get("reference") in (None, REST)]
        metrics = [metric for metric in TITLES if metric != _EMPTY and select(own, metric=metric)]
        heads = (
            "Group",
            "Images",
            "Patients",
            *(capital(TITLES[metric]) for metric in metrics),
            "Dice, minus the rest",
        )
        columns = [*((metric, "model", None) for metric in metrics), ("dice", "model", REST)]
        tables.append(_grid(f"{name}: by group", heads, columns, own))
        rivals = [rival for rival in _RIVALS if select(rows, method=rival)]
        heads = (
            "Group",
            "Images",
            "Patients",
            "Dice",
            *(one for r in rivals for one in (capital(_RIVALS[r]), "The model’s less it")),
        )
        columns = [("dice", "model", None), *(one for r in rivals for one in (("dice", r, None), ("dice", "model", r)))]
        tables += [_grid(f"{name}: Dice beside what knows less", heads, columns, rows)] if rivals else []
        empty = select(rows, metric=_EMPTY)
        heads = ("Group", "Images", "Patients", "Anything is marked")
        tables += [_grid(f"{name}: images without it", heads, [(_EMPTY, "model", None)], empty)] if empty else []
    return tuple(tables)


def _worst_first(rows: list[Row]) -> list[Row]:
    """Order the groups of each attribute by their Dice; those that are not shown come last."""
    dice = {
        (row["attribute"], row["group"]): value
        for row in select(rows, metric="dice", method="model", reference=None)
        if (value := real(row.get("value"))) is not None
    }
    places = {name: place for place, name in enumerate(dict.fromkeys(row["attribute"] for row in rows))}
    return sorted(rows, key=lambda r: (places[r["attribute"]], dice.get((r["attribute"], r["group"]), 2.0)))


def _grid(
    caption: str, heads: tuple[str, ...], columns: Sequence[tuple[str, str, str | None]], rows: Sequence[Row]
) -> Grid:
    def line(name: str, of_group: list[Row]) -> list[Tr]:
        cells = []
        for metric, method, reference in columns:
            row = next(iter(select(of_group, metric=metric, method=method, reference=reference)), {})
            cells.append(group_cell(row, signed=reference is not None))
        first = next(iter(select(of_group, metric=columns[0][0], method="model", reference=None)), {})
        return [Tr(name, (Td(number(first.get("n"))), Td(number(first.get("n_patients"))), *cells))]

    return Grid(caption, heads, by_attribute(rows, line), dense=True)
