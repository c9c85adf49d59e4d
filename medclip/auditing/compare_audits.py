"""Two audits held against each other: what was asked, what was read, which groups there are, and which values moved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medclip.auditing.option_groups import DEFAULTS
from medclip.auditing.result import AuditResult, Row, read_result
from medclip.result import Result
from medclip.wording import count, estimate, p_value, real

_CELL = ("model", "label", "attribute", "group")
_ABOUT = ("date", "auditor", "question", "seed")
_KINDS = {
    "input": "Inputs",
    "option": "What was asked",
    "software": "Software",
    "group": "Models, labels and groups",
    "finding": "Findings",
    "threshold": "Thresholds",
    "value": "Values that moved beyond the intervals of both",
}
_DEFAULTS = {name.replace("_", " "): value for name, value in DEFAULTS.items()}


@dataclass(frozen=True)
class Change:
    """One thing that differs."""

    kind: str
    """One of: input, option, software, group, finding, threshold, value."""
    what: str
    before: str
    """In the first audit; "" where it is not there."""
    after: str


@dataclass(frozen=True, repr=False)
class AuditComparison(Result):
    """What differs between two audits."""

    changes: tuple[Change, ...]
    num_values: int
    """Values that both have."""

    def _facts(self) -> Mapping[str, object]:
        return {title.lower(): len(self.of(kind)) for kind, title in _KINDS.items()} | {
            "values compared": self.num_values
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [vars(change) for change in self.changes[:most]]

    def of(self, kind: str) -> tuple[Change, ...]:
        """Return the changes of one kind."""
        return tuple(change for change in self.changes if change.kind == kind)

    def to_json(self) -> str:
        """Write everything as JSON."""
        return json.dumps({"num_values": self.num_values, "changes": self._rows()}, indent=1, ensure_ascii=False) + "\n"

    def lines(self) -> Iterator[str]:
        """Yield it in words."""
        for kind, title in _KINDS.items():
            changes = self.of(kind)
            if changes:
                yield f"{title}:"
                yield from (f"  {c.what}: {c.before or 'not there'} → {c.after or 'not there'}" for c in changes)
        of = f"of {count(self.num_values, 'value')} that both have"
        yield (
            f"{len(self.of('value')):,} {of} moved beyond the intervals of both."
            if self.changes
            else f"No change, {of}."
        )


def compare_audits(first: AuditResult | str | Path, second: AuditResult | str | Path) -> AuditComparison:
    """Compare two audits.

    A value has moved where each of the two lies outside the interval of the other: one that is merely less certain than
    before has not.

    Args:
        first: An audit, its folder or its `audit.json`.
        second: Another audit, its folder or its `audit.json`.

    Example:
        >>> row = {"model": "net", "label": "flu", "attribute": "sex", "group": "F", "metric": "tpr", "value": 0.9}
        >>> before = AuditResult(metrics=({**row, "low": 0.85, "high": 0.94},))
        >>> after = AuditResult(metrics=({**row, "value": 0.7, "low": 0.6, "high": 0.8},))
        >>> compare_audits(before, after).changes[0].what
        'net, flu, sex F, tpr'
    """
    a, b = (one if isinstance(one, AuditResult) else read_result(Path(one)) for one in (first, second))
    a, b = a.tidied(), b.tidied()
    old, new = (_by_place(one.metrics, "metric") for one in (a, b))
    both = [
        place for place in old if place in new and _value(old[place]) is not None and _value(new[place]) is not None
    ]
    changes = (
        *_inputs(a, b),
        *_options(a, b),
        *_mapping("software", a.provenance.get("software"), b.provenance.get("software")),
        *_groups(a, b),
        *_findings(a, b),
        *_thresholds(a, b),
        *(_moved(place, old[place], new[place]) for place in both if _has_moved(old[place], new[place])),
    )
    return AuditComparison(changes, len(both))


def _inputs(a: AuditResult, b: AuditResult) -> Iterator[Change]:
    old, new = ({(r["for"], r["name"]): str(r["sha256"]) for r in x.provenance.get("inputs") or ()} for x in (a, b))
    named = ({f"{key} ({name})": digest for (key, name), digest in files.items()} for files in (old, new))
    yield from _mapping("input", *named)


def _options(a: AuditResult, b: AuditResult) -> Iterator[Change]:
    old, new = ({**{k: x.provenance.get(k) for k in _ABOUT}, **(x.provenance.get("recipe") or {})} for x in (a, b))
    for one in _mapping("option", old, new):
        yield replace(one, before=one.before or _default(one.what), after=one.after or _default(one.what))
    if not (a.provenance.get("recipe") and b.provenance.get("recipe")):
        yield from _mapping("option", a.settings, b.settings)


def _default(name: str) -> str:
    """Write the default of an option, which audit.json names only where it is another; "" where it is nothing."""
    text = _text(_DEFAULTS.get(name))
    return f"{text} (default)" if text else ""


def _mapping(kind: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[Change]:
    old, new = old or {}, new or {}
    for name in dict.fromkeys((*old, *new)):
        before, after = (_text(values.get(name)) for values in (old, new))
        if before != after:
            yield Change(kind, name.replace("_", " "), before, after)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _groups(a: AuditResult, b: AuditResult) -> Iterator[Change]:
    """Yield what is measured in one of them only, or hidden in one of them only."""
    for what, old, new in (("model", a.model_names, b.model_names), ("label", a.labels, b.labels)):
        yield from (Change("group", f"{what} {name}", "there", "") for name in old if name not in new)
        yield from (Change("group", f"{what} {name}", "", "there") for name in new if name not in old)
    old, new = (_states(one) for one in (a, b))
    for place in dict.fromkeys((*old, *new)):
        if old.get(place) != new.get(place):
            yield Change("group", " ".join(place), old.get(place, ""), new.get(place, ""))


def _states(result: AuditResult) -> dict[tuple[str, str], str]:
    """Return of each group whether it is shown for all labels, for some or for none."""
    flags: dict[tuple[str, str], set[bool]] = {}
    for row in result.metrics:
        flags.setdefault((str(row["attribute"]), str(row["group"])), set()).add(row["flag"] == "suppressed")
    words = {(False,): "shown", (True,): "too small to show", (False, True): "too small to show for some labels"}
    return {place: words[tuple(sorted(hidden))] for place, hidden in flags.items()}


def _findings(a: AuditResult, b: AuditResult) -> Iterator[Change]:
    old, new = (_by_place(one.differences, "metric", "reference") for one in (a, b))
    for place in dict.fromkeys((*old, *new)):
        rows, audits = (old.get(place), new.get(place)), (a, b)
        sure = [row is not None and _survives(audit, row) for audit, row in zip(audits, rows, strict=True)]
        if sure[0] != sure[1]:
            yield Change("finding", _words(place[:5]), *(_difference(row) for row in rows))


def _survives(result: AuditResult, row: Row) -> bool:
    return row["p_holm"] is not None and row["p_holm"] <= float(result.settings.get("alpha", 0.05))


def _difference(row: Row | None) -> str:
    return "" if row is None else f"{_estimate(row)}, adjusted p {p_value(row['p_holm'])}"


def _thresholds(a: AuditResult, b: AuditResult) -> Iterator[Change]:
    old, new = ({f"{r['label']}, {r['model']}": estimate(r["value"], None, None) for r in x.thresholds} for x in (a, b))
    yield from _mapping("threshold", old, new)


def _has_moved(old: Row, new: Row) -> bool:
    return _is_outside(new, old) and _is_outside(old, new)


def _is_outside(row: Row, interval: Row) -> bool:
    low, high = real(interval["low"]), real(interval["high"])
    return low is not None and high is not None and not low <= row["value"] <= high


def _moved(place: tuple[str, ...], old: Row, new: Row) -> Change:
    return Change("value", _words(place), _estimate(old), _estimate(new))


def _words(place: tuple[str, ...]) -> str:
    model, label, attribute, group, metric = place
    where = "everybody" if attribute == group == "all" else f"{attribute} {group}"
    return f"{model}, {label}, {where}, {metric}"


def _estimate(row: Row) -> str:
    return estimate(row["value"], row["low"], row["high"])


def _value(row: Row) -> float | None:
    return real(row["value"])


def _by_place(rows: tuple[Row, ...], *more: str) -> dict[tuple[str, ...], Row]:
    return {tuple(str(row[name]) for name in (*_CELL, *more)): row for row in rows}
