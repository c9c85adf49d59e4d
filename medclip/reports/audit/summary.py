"""What an audit found, in plain sentences made of its numbers: nothing is promised, and what was not seen is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medclip.auditing.checks.shortcuts.device import GAP, NOT_DONE
from medclip.auditing.checks.shortcuts.masked_pairs import MEAN_CHANGE
from medclip.auditing.groups.differences import REST
from medclip.auditing.groups.family import IDEAL
from medclip.auditing.groups.measure import PRIMARY
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit import findings as group_findings
from medclip.reports.audit.findings import Finding, Harm, by_harm, leads, primary_answers
from medclip.reports.audit.names import (
    alone_and_adjusted,
    alpha,
    cell_name,
    gap_head,
    is_all,
    metric_head,
    metric_in_words,
    of_model,
    plain,
    select,
    survives,
    with_interval,
)
from medclip.reports.audit.sections import (
    checks,
    left_out,
    masks,
    ordinal,
    representation,
    requirements,
    risk,
    sources,
    stress,
)
from medclip.statistics.metrics.catalogue import names_of
from medclip.wording import capital, count, figure, list_of, number, real

MOST = 6
"""Items of a list."""
MAIN_GAPS = (
    *("tpr_max_min", "fpr_max_min", "auroc_max_min", "c_index_max_min", "calibration_in_the_large_max_min"),
    "equalised_odds",
)
"""The gaps that the overview and the summary speak of first."""
COMPARED = "Models compared"
PRIMARY_HEAD = "Primary hypotheses"
FOUND, UNSEEN, HIDDEN = "What was found", "What could not have been seen", "Groups that are not shown"
UNSCORED = "Never scored"
_FEW_VALUES = 4
"""Different scores of a label, up to which the page says first that there are so few."""


@dataclass(frozen=True)
class Matter:
    """One matter of the summary."""

    head: str
    sentences: tuple[str, ...]
    items: tuple[str, ...] = ()
    """Listed below the sentences."""
    after: tuple[str, ...] = ()
    """Sentences below the list."""

    @property
    def all(self) -> tuple[str, ...]:
        """Everything in order."""
        return (*self.sentences, *self.items, *self.after)


def summary(result: AuditResult) -> tuple[Matter, ...]:
    """Return what was audited, what was found and what could not have been."""
    matters = (
        Matter(PRIMARY_HEAD, primary_answers(result)),
        _what_was_found(result),
        Matter("Declared beforehand", requirements.answers(result)),
        _unseen(result),
        Matter(HIDDEN, tuple(_hidden(result))),
        Matter(UNSCORED, tuple(left_out.unscored_sentences(result))),
        Matter("Size", tuple(_size(result))),
        Matter("Overall", tuple(_overall(result))),
        Matter("Thresholds", tuple(_thresholds(result))),
        _compared(result),
        Matter("Representativeness", representation.answers(result)),
        Matter("Ordered classes", ordinal.answers(result)),
        Matter("Masks", masks.answers(result)),
        Matter("Risk by year", risk.answers(result)),
        Matter("Sources", sources.answers(result)),
        _listed("Shortcuts", tuple(_shortcuts(result))),
        Matter("Embeddings", tuple(_embeddings(result))),
        Matter("Leakage", tuple(_leakage(result))),
        *(Matter(heading, sentences) for heading, sentences in checks.answers(result)),
    )
    return tuple(matter for matter in matters if matter.all)


def _listed(head: str, sentences: tuple[str, ...]) -> Matter:
    """Make the sentences after the first into a list."""
    return Matter(head, sentences[:1], sentences[1:])


def tested(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that were tested; a gap by another name shares the test of the first and does not count twice."""
    return [row for row in rows if real(row.get("p")) is not None and not row.get("same_as")]


def power(result: AuditResult) -> str:
    """Write the power that the smallest gaps are for: 80 %."""
    return f"{100 * float(result.settings.get('power', 0.8)):.0f} %"


def of_everybody(result: AuditResult) -> list[Row]:
    """Return the measures over everybody: of labels, of risks by year, of gradings and of masks."""
    return [row for row in (*result.metrics, *result.risk, *result.ordinal, *result.masks) if is_all(row)]


def _size(result: AuditResult) -> Iterator[str]:
    everybody = of_everybody(result)
    if not everybody:
        yield "There are no measures in this audit."
        return
    rows = max((int(row.get("n") or 0) for row in everybody), default=0)
    patients = max((int(row.get("n_patients") or 0) for row in everybody), default=0)
    names = list_of([plain(name) for name in result.model_names])
    models = f"{count(len(result.model_names), 'model')} ({names})" if result.model_names else "Scores"
    by = list_of([plain(name) for name in result.attributes]) or "no attribute"
    verb = "was" if len(result.model_names) == 1 else "were"
    dataset = result.settings.get("dataset")
    where = f" ({plain(dataset)})" if dataset else ""
    size = (
        f"{count(rows, 'row')} of {count(patients, 'patient')}" if patients else "too few patients to be counted here"
    )
    tables = (result.risk, result.ordinal, result.masks)
    risks, gradings, structures = (len({row["label"] for row in rows}) for rows in tables)
    answered = [count(len(result.labels), "label")] if result.labels or not (risks or gradings or structures) else []
    answered += [f"{count(risks, 'risk')} by year"] if risks else []
    answered += [count(gradings, "grading")] if gradings else []
    answered += [f"masks of {count(structures, 'structure')}"] if structures else []
    yield f"{models} {verb} audited on {size}{where}, for {list_of(answered)}, by {by}."


def _overall(result: AuditResult) -> Iterator[str]:
    for model in result.model_names:
        for metric in ("auroc", "c_index"):
            everybody = [row for row in select(result.metrics, model=model, metric=metric) if is_all(row)]
            rows = [row for row in everybody if real(row.get("value")) is not None]
            if not rows:
                continue
            who = f"Over everybody, {metric_head(metric)} of {plain(model)}"
            if len(rows) <= 3:
                each = [f"{plain(row.get('label'))} {with_interval(row)}" for row in rows]
                yield f"{who}: {list_of(each)}."
            else:
                low, high = min(rows, key=lambda r: r["value"]), max(rows, key=lambda r: r["value"])
                yield (
                    f"{who} runs from {with_interval(low)} for {plain(low.get('label'))} to {with_interval(high)} "
                    f"for {plain(high.get('label'))}."
                )


def collect_findings(result: AuditResult) -> tuple[Finding, ...]:
    """Return every finding, the worst harm first. A part of the page that makes findings is a word here."""
    parts = (requirements, sources, ordinal, masks, left_out, group_findings, stress, checks)
    return by_harm(
        [
            *_leaks(result),
            *_constant(result),
            *_few_values(result),
            *(finding for part in parts for finding in part.findings(result)),
        ]
    )


def lead(result: AuditResult) -> str:
    """Return the first sentence of the page: what leaks, else the first primary hypothesis, else the worst finding;
    where there is none, what that does not show.
    """
    primary = primary_answers(result)
    return primary[0] if primary and not _leaks(result) else _worst(result, collect_findings(result))


def _worst(result: AuditResult, findings: Sequence[Finding]) -> str:
    if findings:
        return findings[0].sentence
    if not num_tests(result):
        return "No gap was tested, so this audit cannot say whether groups differ."
    return (
        f"Of {_tests(result)} tested, none is larger than chance after adjusting for their number. This does not show "
        f"that there are none{_seen_from(result)}."
    )


def _what_was_found(result: AuditResult) -> Matter:
    findings = collect_findings(result)
    rest = len(findings) - 1 - MOST
    more = (f"The other {number(rest)} {'is' if rest == 1 else 'are'} in the table of findings.",) if rest > 0 else ()
    sentences = (_worst(result, findings), *(_how_many(result, findings) if findings else ()))
    items = tuple(finding.sentence for finding in findings[1 : MOST + 1])
    return Matter(FOUND, sentences, items, (*more, *lead_sentences(result, findings)))


def num_tests(result: AuditResult) -> int:
    """Count the tests that findings come from: a gap is found with its group, and is a test where it is primary."""
    return sum(len(rows) for rows in _tested_by_kind(result))


def _tested_by_kind(result: AuditResult) -> tuple[list[Row], ...]:
    """Return what was tested: groups, calibration, gaps of primary hypotheses, grades and masks."""
    differences = tested(result.differences)
    return (
        [row for row in differences if row.get("reference") == REST],
        [row for row in differences if row.get("reference") == IDEAL],
        [row for row in tested(result.gaps) if str(row.get("family")).startswith(PRIMARY)],
        tested(result.ordinal),
        tested(result.masks),
    )


def _tests(result: AuditResult) -> str:
    """Count what was tested; "" for nothing."""
    nouns = (
        ("difference of a group from all others", "differences of groups from all others"),
        ("measure of calibration", "measures of calibration"),
        ("gap of a primary hypothesis", "gaps of primary hypotheses"),
        ("difference of grades", "differences of grades"),
        ("difference of masks", "differences of masks"),
    )
    kinds = zip(_tested_by_kind(result), nouns, strict=True)
    return list_of([count(len(rows), *noun) for rows, noun in kinds if rows])


def _how_many(result: AuditResult, findings: Sequence[Finding]) -> tuple[str]:
    kinds = Counter(finding.head for finding in findings)  # in the order of harm, as they come
    by_kind = list_of([f"{head} {number(num)}" for head, num in kinds.items()])
    how_many = f"{count(len(findings), 'finding')} in all: {by_kind}."
    return (f"{how_many} {_tests(result)} tested. {error_rate(result)}" if _tests(result) else how_many,)


def error_rate(result: AuditResult) -> str:
    """State what the findings about groups and calibration can be relied on for."""
    each = " of each model" if len(result.model_names) > 1 else ""
    families = {"Grades": result.ordinal, "Masks": result.masks}
    grades = "".join(f" {name} are a family of their own." for name, rows in families.items() if tested(rows))
    if not tested(result.differences) and tested(result.masks):
        level = f"{100 * alpha(result):g} %"
        return f"Were no group worse off, the chance of any finding about masks{each} would be at most {level}."
    primary = f" Primary hypotheses have {100 * alpha(result):g} % of their own." if primary_answers(result) else ""
    return (
        f"Groups and calibration{each} share one error rate: were no group worse off and every score calibrated, the "
        f"chance of any finding among them would be at most {100 * alpha(result):g} %.{primary}{grades}"
    )


def _seen_from(result: AuditResult) -> str:
    """Write how small the sensitivity differences are that could have been seen at best, and at worst."""
    for metric in ("tpr", "auroc", "c_index"):
        rows = [r for r in result.differences if r.get("metric") == metric and real(r.get("smallest_gap")) is not None]
        if rows:
            most = _most_possible(result)
            sizes = sorted(row["smallest_gap"] for row in rows if row["smallest_gap"] <= _most_of(row, most))
            never = len(rows) - len(sizes)
            if not sizes:
                return f": no difference in {metric_in_words(metric)}, however large, could be seen"
            alike = figure(sizes[0]) == figure(sizes[-1])
            ends = figure(sizes[0]) if alike else f"{figure(sizes[0])} at best and {figure(sizes[-1])} at worst"
            unseen = f", and in {count(never, 'group')} none could be seen, however large" if never else ""
            return f": to be seen, a difference in {metric_in_words(metric)} had to be {ends}{unseen}"
    return ""


_PLACE = ("model", "label", "attribute", "group", "metric")


def _most_possible(result: AuditResult) -> dict[tuple[object, ...], float]:
    """Return the value of each group, by which a difference that is too large to be possible is known."""
    measured = (row for row in result.metrics if real(row.get("value")) is not None)
    return {tuple(row.get(name) for name in _PLACE): float(row["value"]) for row in measured}


def _most_of(row: Row, values: dict[tuple[object, ...], float]) -> float:
    """Return how far a share can be from that of all others: to 0 or to 1."""
    value, apart = values.get(tuple(row.get(name) for name in _PLACE)), real(row.get("value"))
    if value is None or apart is None:
        return 1.0
    return max(value - apart, 1 - value + apart)


def lead_sentences(result: AuditResult, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the leads where nothing was found, and their number otherwise."""
    every = leads(result)
    if not every:
        return
    if findings:
        yield (
            f"{count(len(every), 'lead')}, with p at most {alpha(result):g} before adjusting only: to be looked at "
            f"again on other patients, no finding{'' if len(every) == 1 else 's'}."
        )
        return
    first = f"; the first {_LEADS} of {len(every)}" if len(every) > _LEADS else ""
    yield (
        f"{'A lead' if len(every) == 1 else 'Leads'}, not found: p is at most {alpha(result):g} before adjusting only, "
        f"to be looked at again on other patients{first}."
    )
    yield from (one.sentence for one in every[:_LEADS])


_LEADS = 3


def _unseen(result: AuditResult) -> Matter:
    rows = [row for row in tested(result.differences) if row.get("reference") == REST and not survives(result, row)]
    rows = rows or [row for row in tested(result.gaps) if not survives(result, row)]
    with_size = [row for row in rows if real(row.get("smallest_gap")) is not None]
    present = dict.fromkeys(_measure(row) for row in with_size)
    main = names_of(lambda m: m.main, rates_first=True)
    names = [name for name in (*main, *MAIN_GAPS) if name in present] or list(present)
    most = _most_possible(result)
    items = tuple(_smallest([row for row in with_size if _measure(row) == name], most) for name in names[:3])
    sentences: list[str] = []
    if with_size:
        adjusted = "after adjusting" if "metric" in with_size[0] else "that one test alone"
        sentences.append(
            "Where nothing was found, smaller differences may well be there. What would be seen in "
            f"{power(result)} of audits like this one ({adjusted}) is a difference of at least:"
        )
    elif rows or result.masks:
        sentences.append(
            "How large a difference had to be to be seen is not known, so nothing follows from one that was not found."
        )
    after = []
    if blank := sum(real(row.get("value")) is None for row in result.gaps):
        after.append(
            f"{count(blank, 'gap')} could not be worked out at all: fewer than two groups were large enough or had the "
            "measure."
        )
    return Matter(UNSEEN, tuple(sentences), items, tuple(after))


def _measure(row: Row) -> str:
    """Return what a row of `differences` or `gaps` measures."""
    return str(row.get("metric") or row.get("gap"))


def _size_seen(row: Row, most: dict[tuple[object, ...], float]) -> str:
    """Write the smallest difference that would be seen, as far as it is possible."""
    return (
        figure(row["smallest_gap"]) if row["smallest_gap"] <= _most_of(row, most) else "no difference, however large,"
    )


def _whose(row: Row) -> str:
    return cell_name(row) if row.get("group") else f"by {plain(row.get('attribute'))}"


def _smallest(rows: Sequence[Row], most: dict[tuple[object, ...], float]) -> str:
    """Write the smallest difference that could be seen, at best and at worst."""
    ordered = sorted(rows, key=lambda row: row["smallest_gap"])
    first = ordered[0]
    name = capital(metric_in_words(str(first["metric"])) if first.get("metric") else gap_head(str(first.get("gap"))))
    ends = [f"{_size_seen(row, most)} for {plain(row.get('label'))}, {_whose(row)}" for row in (first, ordered[-1])]
    alike = _size_seen(first, most) == _size_seen(ordered[-1], most)
    return (
        f"{name}: {ends[0]}."
        if len(rows) == 1 or (len(rows) == 2 and alike)
        else f"{name}: from {ends[0]}, to {ends[1]}."
    )


def _hidden(result: AuditResult) -> Iterator[str]:
    names = list(dict.fromkeys(cell_name(row) for row in result.suppressed))
    if not names:
        return
    yield (
        f"{count(len(names), 'group')} had too few patients or cases to be shown for at least one label: "
        f"{list_of(names, most=2 * MOST)}. Nothing is known here about how the scores do for them."
    )


def _compared(result: AuditResult) -> Matter:
    rows = tested(result.models)
    if not rows:
        return Matter(COMPARED, ())
    sure = [row for row in rows if survives(result, row)]
    main = [row for row in rows if is_all(row) and row.get("metric") in ("auroc", "c_index")]
    sentence = (
        f"Of {count(len(rows), 'paired difference')} tested, {number(len(sure))} {'is' if len(sure) == 1 else 'are'} "
        f"larger than chance after adjusting for their number (Holm).{' Over everybody:' if main else ''}"
    )
    after = (f"The other {len(main) - MOST} labels are below.",) if len(main) > MOST else ()
    return Matter(COMPARED, (sentence,), tuple(_paired(row) for row in main[:MOST]), after)


def _paired(row: Row) -> str:
    metric = metric_head(str(row.get("metric")))
    pair = f"{metric} of {plain(row.get('other'))} minus that of {plain(row.get('model'))}"
    difference = with_interval(row, signed=True)
    return f"{capital(plain(row.get('label')))}: {pair} {difference}, {alone_and_adjusted(row)}."


def red(result: AuditResult) -> tuple[str, ...]:
    """Return the sentences of the checks for leakage that came out red."""
    return tuple(str(row.get("sentence")) for row in select(result.leakage, severity="red"))


def _leaks(result: AuditResult) -> list[Finding]:
    """Return the checks for leakage that came out red."""
    return [
        Finding(Harm.LEAKED, str(row.get("sentence")), real(row.get("found")) or 0.0)
        for row in select(result.leakage, severity="red")
    ]


def _constant(result: AuditResult) -> list[Finding]:
    """Return the models whose scores of a label are all the same; they are in the red box, too."""
    return [
        Finding(
            Harm.CONSTANT,
            f"All scores of {plain(model)} for {list_of(_labels(rows))} are equal: they tell nobody apart, and no "
            "figure of a group means anything.",
            1.0,
        )
        for model in result.model_names
        if (rows := select(result.score_values, model=model, n_values=1))
    ]


def _few_values(result: AuditResult) -> list[Finding]:
    """Return the models whose scores of a label are few, such as decisions; predicted classes are few by nature."""
    gradings = {row.get("label") for row in result.ordinal}
    every: list[Finding] = []
    for model in result.model_names:
        rows = [row for row in select(result.score_values, model=model) if row.get("label") not in gradings]
        rows = [row for row in rows if 1 < int(row.get("n_values") or 0) <= _FEW_VALUES]
        if rows:
            most = max(int(row["n_values"]) for row in rows)
            number_of_values = f"{most}" if len(rows) == 1 else f"at most {most}"
            every.append(
                Finding(
                    Harm.CONSTANT,
                    f"Scores of {plain(model)} for {list_of(_labels(rows))} have {number_of_values} "
                    "different values: read sensitivity and specificity; ranking (AUROC) and calibration say little.",
                    0.5,
                )
            )
    return every


def _labels(rows: Sequence[Row]) -> list[str]:
    return [plain(row.get("label")) for row in rows]


def alarms(result: AuditResult) -> tuple[str, tuple[str, ...]]:
    """Return heading and sentences of the red box: leaks, scores that are all equal or follow the source, requirements
    not met.
    """
    leaks, constant = red(result), tuple(one.sentence for one in _constant(result))
    failed, followed = (tuple(one.sentence for one in part.findings(result)) for part in (requirements, sources))
    heads = ["leakage, so that the figures of this page may be too good"] * bool(leaks)
    heads += ["scores that are all equal"] * bool(constant)
    heads += ["a score that follows the source of the images"] * bool(followed)
    heads += [f"{count(len(failed), 'requirement')} not met"] * bool(failed)
    return f"Stop: {list_of(heads)}.", (*leaks, *constant, *followed, *failed)


def _thresholds(result: AuditResult) -> Iterator[str]:
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


def _shortcuts(result: AuditResult) -> Iterator[str]:
    """Yield the differences with and without a device whose interval leaves zero out, and what could not be tested."""
    rows = [row for row in result.shortcuts if _is_finding(result, row) and real(row.get("low")) is not None]
    yield from _clear_of_zero(result, rows)
    undone = sum(str(row.get("note")).startswith(NOT_DONE) for row in result.shortcuts)
    if undone:
        yield f"{count(undone, 'test')} of shortcuts could not be done; the table says why."


def _is_finding(result: AuditResult, row: Row) -> bool:
    """Whether a row compares with and without the device; of masked copies without controls, the change itself."""
    if str(row.get("stratum")).endswith(GAP):
        return True
    if row.get("metric") != MEAN_CHANGE or not str(row.get("stratum")).endswith("with device"):
        return False
    same = select(result.shortcuts, **{name: row.get(name) for name in ("model", "label", "test")})
    return not any(str(other.get("stratum")).endswith(GAP) for other in same)


def _clear_of_zero(result: AuditResult, rows: Sequence[Row]) -> Iterator[str]:
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


def _embeddings(result: AuditResult) -> Iterator[str]:
    """Yield what a classifier finds in the embeddings, and whether patients are found again."""
    probes = [row for row in select(result.embeddings, what="probe") if real(row.get("p")) is not None]
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
    drifts = [row for row in select(result.embeddings, what="drift") if real(row.get("p")) is not None]
    if drifts:
        seen = [row for row in drifts if row["p"] <= alpha(result)]
        names = dict.fromkeys(f"{plain(row.get('attribute'))} {str(row.get('name')).partition(':')[0]}" for row in seen)
        where = f": {list_of([plain(name) for name in list(names)[:MOST]])}" if names else ""
        yield (
            f"Of {count(len(drifts), 'test')} of drift, {len(seen)} {'has' if len(seen) == 1 else 'have'} p at most "
            f"{alpha(result):g}, each by itself (not adjusted){where}."
        )
    for row in select(result.embeddings, what="reident", name="verdict")[:MOST]:
        yield f"Finding patients again, {plain(row.get('attribute'))}{of_model(result, row)}: {row.get('note')}"


def _leakage(result: AuditResult) -> Iterator[str]:
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
