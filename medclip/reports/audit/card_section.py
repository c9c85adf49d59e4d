"""The section of a model card that an audit fills: on the page, and as Markdown to be put into the card."""

from __future__ import annotations

from dataclasses import dataclass

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.annex.methods import LIMITS
from medclip.reports.audit.names import cell_name, gap_head, group_name, metric_head, plain, with_interval
from medclip.reports.audit.summary.check_words import red
from medclip.reports.audit.summary.words import HIDDEN, UNSEEN, summary, tested
from medclip.wording import NONE, capital, number, p_value

_METRICS = ("auroc", "c_index", "tpr", "fpr")
_GAPS = tuple(f"{metric}_max_min" for metric in _METRICS)
_SPECIAL = "\\`*_[]<>|#"


@dataclass(frozen=True)
class CardPart:
    """One heading of the section with its sentences and, perhaps, a table."""

    head: str
    sentences: tuple[str, ...]
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def card(result: AuditResult) -> tuple[CardPart, ...]:
    """Put the audit into the headings of a model card.

    Reference: Mitchell et al., Model cards for model reporting, FAT* (2019).
    """
    matters = {matter.head: matter.all for matter in summary(result)}
    return (
        CardPart(
            "Intended use of these figures", ("For research. Not a medical device. They hold for these patients.",)
        ),
        CardPart("Leakage", (*red(result), *matters.get("Leakage", ()))),
        CardPart("Evaluation data", matters.get("Size", ())),
        CardPart("Thresholds", matters.get("Thresholds", ())),
        _by_group(result),
        _gaps(result),
        CardPart("What could not have been seen", matters.get(UNSEEN, ())),
        CardPart(HIDDEN, matters.get(HIDDEN, ("All groups are shown.",))),
        CardPart("What this audit cannot tell you", LIMITS),
    )


def markdown(result: AuditResult) -> str:
    """Write the section as Markdown."""
    lines = ["## Performance by patient group", ""]
    for part in card(result):
        lines += [f"### {part.head}", ""]
        lines += [f"- {_escaped(sentence)}" for sentence in part.sentences]
        if part.rows:
            lines += [""] * bool(part.sentences)
            lines += [_row(part.heads), _row(("---",) * len(part.heads), raw=True)]
            lines += [_row(row) for row in part.rows]
        lines.append("")
    version = result.provenance.get("version")
    lines.append(f"Made by medclip{f' {version}' if version else ''}; the tables beside this file have every number.")
    return "\n".join(lines) + "\n"


def _by_group(result: AuditResult) -> CardPart:
    """Return one row for each group: a card tells how a model does for each, not only on average."""
    present = {row.get("metric") for row in result.metrics}
    metrics = [m for m in _METRICS if m in present]
    groups: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in result.metrics:
        key = (plain(row.get("model")), plain(row.get("label")), capital(cell_name(row)))
        groups.setdefault(key, {})[str(row.get("metric"))] = row
    rows = tuple(
        (*key, number(next(iter(own.values())).get("n_patients")), *(_shown(own.get(metric)) for metric in metrics))
        for key, own in groups.items()
    )
    heads = ("Model", "Label", "Group", "Patients", *(f"{metric_head(m)} (95 % interval)" for m in metrics))
    return CardPart("Metrics by group", (), heads, rows)


def _shown(row: Row | None) -> str:
    if row is None:
        return NONE
    return "not shown" if row.get("flag") == "suppressed" else with_interval(row)


def _gaps(result: AuditResult) -> CardPart:
    rows = tuple(
        (
            plain(row.get("model")),
            plain(row.get("label")),
            plain(row.get("attribute")),
            gap_head(str(row.get("gap"))),
            with_interval(row),
            group_name(row, "worst_group"),
            f"{p_value(row.get('p'))}, {p_value(row.get('p_holm'))}",
        )
        for row in tested(result.gaps)
        if row.get("gap") in _GAPS
    )
    heads = ("Model", "Label", "Attribute", "Gap", "Size (95 % interval)", "Worst", "p, p Holm")
    return CardPart("Gaps between groups", () if rows else ("No gap was tested.",), heads, rows)


def _row(cells: tuple[str, ...], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """Write text so that Markdown takes it as text."""
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in text)
