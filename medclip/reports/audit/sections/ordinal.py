"""Gradings in ordered classes on the page: findings by group, sentences, and one table for each grading."""

from __future__ import annotations

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import cell_name, group_name, is_all, of_model, parts, plain, survives, with_interval
from medclip.reports.audit.summary.finding import Finding, Harm
from medclip.reports.audit.table import Grid, Td, Tr
from medclip.statistics.metrics.grading_agreement import KAPPA, METRICS
from medclip.wording import capital, count, figure, list_of, number, p_value, real

_MEANS = {
    "one_down": (Harm.MISSED, 1, "is graded one class too low {more} often in {cell}"),
    "one_up": (Harm.FALSE_ALARM, 1, "is graded one class too high {more} often in {cell}"),
    "exact": (Harm.RANKING, -1, "is graded right {more} often in {cell}"),
    "within_one": (Harm.RANKING, -1, "is graded within one class {more} often in {cell}"),
    KAPPA: (Harm.RANKING, -1, "is graded with {more} agreement (quadratic kappa) in {cell}"),
}
"""What a difference does to patients, which sign of it is worse, and how it is said."""


def findings(result: AuditResult) -> list[Finding]:
    """Return the differences of a group from all others that survive their family."""
    return [_finding(result, row) for row in result.ordinal if row.get("reference") and survives(result, row)]


def _finding(result: AuditResult, row: Row) -> Finding:
    harm, worse, words = _MEANS[str(row.get("metric"))]
    value = real(row.get("value")) or 0.0
    text = words.format(more="more" if value > 0 else "less", cell=cell_name(row))
    place = ("model", "label", "attribute", "group", "metric")
    same = (r for r in result.ordinal if not r.get("reference") and all(r.get(k) == row.get(k) for k in place))
    own = next(same, {})
    figure_of_group = real(own.get("value"))
    against = (
        "" if figure_of_group is None else f"{figure(figure_of_group)} against {figure(figure_of_group - value)}, "
    )
    people = "".join(
        f"; {count(int(n), noun)}" if (n := real(own.get(name))) is not None else ""
        for name, noun in (("n", "row"), ("n_patients", "patient"))
    )
    p = f"p\u00a0{p_value(row.get('p'))} by itself, {p_value(row.get('p_holm'))} adjusted"
    sentence = (
        f"{capital(plain(row.get('label')))} {text} than in all others{of_model(result, row)}: {against}difference "
        f"{with_interval(row, signed=True)}{people}; {p}."
    )
    return Finding(harm, sentence, value * worse)


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return the agreement of each grading over everybody."""
    sentences = []
    for model in result.model_names:
        for label in dict.fromkeys(row.get("label") for row in result.ordinal if row.get("model") == model):
            own = [r for r in result.ordinal if (r.get("model"), r.get("label")) == (model, label) and is_all(r)]
            figures = [
                f"{METRICS[str(r['metric'])]} {with_interval(r)}" for r in own if real(r.get("value")) is not None
            ]
            if figures:
                patients = number(own[0].get("n_patients"))
                sentences.append(f"{plain(label)}{of_model(result, own[0])}, {patients} patients: {list_of(figures)}.")
    return tuple(sentences)


def grids(result: AuditResult) -> tuple[Grid, ...]:
    """Return the measures of each grading by group, with the difference of kappa from all others."""
    keys = dict.fromkeys((row.get("model"), row.get("label")) for row in result.ordinal)
    return tuple(
        _grid(result, [row for row in result.ordinal if (row.get("model"), row.get("label")) == k]) for k in keys
    )


def _grid(result: AuditResult, own: list[Row]) -> Grid:
    lines: list[Tr] = []
    cells = dict.fromkeys((str(row.get("attribute")), str(row.get("group"))) for row in own)
    attribute = ""
    for cell in cells:
        rows = [row for row in own if (row.get("attribute"), row.get("group")) == cell]
        if attribute != cell[0] and not is_all(rows[0]):
            lines.append(Tr(capital(plain(cell[0]))))
        attribute = cell[0]
        by_metric = {row["metric"]: row for row in rows if not row.get("reference")}
        apart = next((row for row in rows if row.get("reference") and row["metric"] == KAPPA), {})
        figures = [_figure(by_metric.get(metric, {})) for metric in METRICS]
        first = rows[0]
        lines.append(
            Tr(
                group_name(first),
                (
                    *(Td(number(first.get(name))) for name in ("n", "n_patients")),
                    *figures,
                    _figure(apart, signed=True),
                ),
            )
        )
    heads = ("Group", "Rows", "Patients", *(capital(words) for words in METRICS.values()), "Kappa, minus the rest")
    caption = f"{capital(plain(own[0].get('label')))}{of_model(result, own[0])}: agreement by group"
    return Grid(caption, heads, tuple(lines), dense=True)


def _figure(row: Row, *, signed: bool = False) -> Td:
    if row.get("flag") == "suppressed":
        return Td("not shown")
    value, around = parts(row, signed=signed)
    return Td(value, (around,) if around else ())
