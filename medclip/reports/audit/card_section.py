"""The section of a model card that an audit fills, as Markdown to be put into the card."""

from __future__ import annotations

from dataclasses import dataclass

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.annex.methods import LIMITS
from medclip.reports.audit.names import cell_name, is_all, metric_head, plain, with_interval
from medclip.reports.audit.summary.check_words import red
from medclip.reports.audit.summary.words import FOUND, HIDDEN, UNSEEN, summary
from medclip.wording import NONE, real

_METRICS = ("auroc", "c_index", "tpr")
_MOST_ROWS = 30
_SPECIAL = "\\`*_[]<>|#"


@dataclass(frozen=True)
class CardPart:
    """One heading of the section with its sentences and, perhaps, a table."""

    head: str
    sentences: tuple[str, ...]
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def card(result: AuditResult) -> tuple[CardPart, ...]:
    """Put the audit into the headings of a model card, in less than 60 lines of Markdown.

    Reference: Mitchell et al., Model cards for model reporting, FAT* (2019).
    """
    matters = {matter.head: matter.all for matter in summary(result)}
    return (
        CardPart("Use", ("For research. Not a medical device. These figures hold for these patients.",)),
        CardPart("Leakage", (*red(result), *matters.get("Leakage", ()))),
        CardPart("Evaluation data", matters.get("Size", ())),
        CardPart("Thresholds", matters.get("Thresholds", ())),
        CardPart(FOUND, matters.get(FOUND, ())),
        _by_label(result),
        CardPart(UNSEEN, matters.get(UNSEEN, ())),
        CardPart(HIDDEN, matters.get(HIDDEN, ("All groups are shown.",))),
        CardPart("What this audit cannot tell you", LIMITS),
    )


def markdown(result: AuditResult) -> str:
    """Write the section as Markdown."""
    lines = ["## Performance by patient group", ""]
    for part in card(result):
        lines += [f"**{part.head}.** {_escaped(' '.join(part.sentences))}".rstrip(), ""]
        if part.rows:
            lines += [_row(part.heads), _row(("---",) * len(part.heads), raw=True)]
            lines += [_row(row) for row in part.rows[:_MOST_ROWS]]
            lines.append("")
    version = result.provenance.get("version")
    lines.append(f"Made by medclip{f' {version}' if version else ''}; the tables beside this file have every number.")
    return "\n".join(lines) + "\n"


def _by_label(result: AuditResult) -> CardPart:
    """Return one row for each model, label and measure: everybody, and the group that fares worst and best."""
    rows = []
    for model in result.model_names:
        for label in result.labels:
            for metric in _METRICS:
                own = [
                    row
                    for row in result.metrics
                    if (row.get("model"), row.get("label"), row.get("metric")) == (model, label, metric)
                    and real(row.get("value")) is not None
                ]
                groups = sorted((row for row in own if not is_all(row)), key=lambda row: row["value"])
                everybody = next((row for row in own if is_all(row)), None)
                if everybody is not None:
                    ends = (groups[0], groups[-1]) if groups else (None, None)
                    shown = (with_interval(everybody), *(NONE if r is None else _of_group(r) for r in ends))
                    rows.append((plain(model), plain(label), metric_head(metric), *shown))
    rest = len(rows) - _MOST_ROWS
    more = (f"The first {_MOST_ROWS} of {len(rows)} rows; metrics.csv has all.",) if rest > 0 else ()
    heads = ("Model", "Label", "Measure", "Everybody (95 % interval)", "Lowest group", "Highest group")
    return CardPart("By label, with the groups at the ends", more, heads, tuple(rows))


def _of_group(row: Row) -> str:
    return f"{cell_name(row)} {with_interval(row)}"


def _row(cells: tuple[str, ...], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """Write text so that Markdown takes it as text."""
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in text)
