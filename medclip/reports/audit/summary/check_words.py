"""What an audit found beside the gaps, in plain sentences: thresholds, shortcuts, embeddings, leakage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medclip.auditing.checks.shortcuts.device import GAP, NOT_DONE
from medclip.auditing.checks.shortcuts.masked_pairs import MEAN_CHANGE
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import alpha, metric_head, of_model, plain, with_interval
from medclip.reports.audit.sections import requirements, sources
from medclip.reports.audit.summary.finding import Finding, Harm
from medclip.wording import capital, count, list_of, real

MOST = 6
"""Items of a list."""


def red(result: AuditResult) -> tuple[str, ...]:
    """Return the sentences of the checks for leakage that came out red."""
    return tuple(str(row.get("sentence")) for row in result.leakage if row.get("severity") == "red")


def findings(result: AuditResult) -> list[Finding]:
    """Return the checks for leakage that came out red."""
    return [
        Finding(Harm.LEAKED, str(row.get("sentence")), real(row.get("found")) or 0.0)
        for row in result.leakage
        if row.get("severity") == "red"
    ]


def alarms(result: AuditResult) -> tuple[str, tuple[str, ...]]:
    """Return heading and sentences of the red box: leaks, scores that follow the source, requirements not met."""
    leaks = red(result)
    failed, followed = (tuple(one.sentence for one in part.findings(result)) for part in (requirements, sources))
    heads = ["leakage, so that the figures of this page may be too good"] * bool(leaks)
    heads += ["a score that follows the source of the images"] * bool(followed)
    heads += [f"{count(len(failed), 'requirement')} not met"] * bool(failed)
    return f"Stop: {list_of(heads)}.", (*leaks, *followed, *failed)


def thresholds(result: AuditResult) -> Iterator[str]:
    """Yield where the thresholds come from."""
    if not result.thresholds:
        yield "No threshold took part, so rates at a threshold (TPR, FPR, predictive values) are not in this audit."
        return
    kinds = dict.fromkeys((str(r.get("policy")), str(r.get("chosen_on"))) for r in result.thresholds)
    for policy, source in list(kinds)[:3]:
        rows = [r for r in result.thresholds if (str(r.get("policy")), str(r.get("chosen_on"))) == (policy, source)]
        patients = max((int(r.get("n_patients") or 0) for r in rows), default=0)
        of = f" ({count(patients, 'patient')})" if patients else ""
        what = count(len(rows), "threshold")
        if source == "given":
            yield f"{what} given beforehand ({plain(policy)}): no data chose {'it' if len(rows) == 1 else 'them'} here."
        else:
            yield f"{what} by the policy “{plain(policy)}”, chosen on {plain(source)}{of}."


def shortcuts(result: AuditResult) -> Iterator[str]:
    """Yield the differences with and without a device whose interval leaves zero out, and what could not be tested."""
    rows = [row for row in result.shortcuts if _is_finding(result, row) and real(row.get("low")) is not None]
    yield from _told(result, rows)
    undone = sum(str(row.get("note")).startswith(NOT_DONE) for row in result.shortcuts)
    if undone:
        yield f"{count(undone, 'test')} of shortcuts could not be done; the table says why."


def _is_finding(result: AuditResult, row: Row) -> bool:
    """Whether a row compares with and without the device; of masked copies without controls, the change itself."""
    if str(row.get("stratum")).endswith(GAP):
        return True
    if row.get("metric") != MEAN_CHANGE or not str(row.get("stratum")).endswith("with device"):
        return False
    place = ("model", "label", "test")
    return not any(
        str(other.get("stratum")).endswith(GAP) and all(other.get(k) == row.get(k) for k in place)
        for other in result.shortcuts
    )


def _told(result: AuditResult, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    clear = [row for row in rows if not row["low"] <= _nothing(row) <= row["high"]]
    if not clear:
        yield (
            f"{count(len(rows), 'difference')} with and without a device measured; every interval holds what no "
            "shortcut would give, which does not show that the device plays no part."
        )
        return
    yield "What has an interval that leaves out what no shortcut would give (not adjusted for their number):"
    for row in sorted(clear, key=lambda row: -abs(row["value"] - _nothing(row)))[:MOST]:
        text = row.get("note") or f"{metric_head(str(row.get('metric')))} {with_interval(row, signed=True)}."
        yield f"{capital(plain(row.get('label')))}{of_model(result, row)}, {plain(row.get('test'))}: {text}"


def _nothing(row: Row) -> float:
    """Return the value of a difference, or of the AUROC of a device, where there is no shortcut."""
    return 0.5 if "AUROC of" in str(row.get("metric")) else 0.0


def embeddings(result: AuditResult) -> Iterator[str]:
    """Yield what a classifier finds in the embeddings, and whether patients are found again."""
    probes = [row for row in result.embeddings if row.get("what") == "probe" and real(row.get("p")) is not None]
    above: dict[str, str] = {}
    for row in probes:
        low = real(row.get("low"))
        if row["p"] <= alpha(result) and low is not None and low > 0.5:
            above.setdefault(plain(row.get("attribute")), f"{plain(row.get('name'))} {with_interval(row)}")
    if above:
        listed = list_of([f"{attribute} ({area})" for attribute, area in above.items()])
        yield f"A classifier tells from the embeddings, better than chance: {listed}."
    elif probes:
        yield "No attribute was told from the embeddings better than chance by the classifiers that were tried."
    drifts = [row for row in result.embeddings if row.get("what") == "drift" and real(row.get("p")) is not None]
    if drifts:
        seen = [row for row in drifts if row["p"] <= alpha(result)]
        names = dict.fromkeys(f"{plain(row.get('attribute'))} {str(row.get('name')).partition(':')[0]}" for row in seen)
        where = f": {list_of([plain(name) for name in list(names)[:MOST]])}" if names else ""
        yield (
            f"Of {count(len(drifts), 'test')} of drift, {len(seen)} {'has' if len(seen) == 1 else 'have'} p at most "
            f"{alpha(result):g}, each by itself (not adjusted){where}."
        )
    verdicts = [row for row in result.embeddings if row.get("what") == "reident" and row.get("name") == "verdict"]
    for row in verdicts[:MOST]:
        yield f"Finding patients again, {plain(row.get('attribute'))}{of_model(result, row)}: {row.get('note')}"


def leakage(result: AuditResult) -> Iterator[str]:
    """Yield how many checks came out red, and how many could not be made."""
    if not result.leakage:
        yield "Leakage was not looked for: whether audited patients took part in training is not known here."
        return
    done = [row for row in result.leakage if real(row.get("tested"))]
    reds = red(result)
    if reds:
        yield f"{count(len(reds), 'check')} came out red; see the box at the top. The other figures may be too good."
    elif done:
        yield f"None of {count(len(done), 'check')} that could be made came out red."
    missing = len(result.leakage) - len(done)
    if missing:
        yield f"{count(missing, 'check')} could not be made; the table of leakage says which."
