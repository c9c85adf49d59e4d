"""One model measured: every label in every group, differences, gaps, and what the sample could have seen.

Two models are compared on the same patients: paired differences in every group are one family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.declared import Declared, is_primary
from medclip.auditing.disclosure import FEW_CASES, CellState, Rounding, Roundings, hidden, roundings
from medclip.auditing.groups.differences import REST, against, rest_cells, with_rest
from medclip.auditing.groups.differences import paired as paired_differences
from medclip.auditing.groups.family import IDEAL, Tested, adjust_together, ideal_tests, sign_of_worse
from medclip.auditing.groups.gap_test import gap_test
from medclip.auditing.groups.gaps import Gap, gap_info, gaps
from medclip.auditing.input.read import paired
from medclip.auditing.options import MeasureOptions, shuffles_for
from medclip.auditing.thresholds.choose import Threshold
from medclip.statistics.cohort import ALL, Cohort, Label
from medclip.statistics.metrics import delong
from medclip.statistics.metrics.catalogue import METRICS, names_of
from medclip.statistics.resampling.bootstrap import Replicates, evaluate_many
from medclip.statistics.resampling.intervals import of, value_of
from medclip.statistics.resampling.standard_errors import cases_of, clusters_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.significance import benjamini_hochberg, holm

Row = dict[str, Any]
_NAMED_GAPS = ("cross_group_auroc", "equalised_odds_mean", "equalised_odds_ratio", "demographic_parity_ratio")
"""Gaps with a name of their own that are given with their interval only."""
JOINED = "equalised_odds"
"""The larger of two gaps that are tested already (TPR, FPR): it is one of them, shares its test and does not count.
Only where a group has one of the two rates and not the other may it be another gap; then it is tested itself."""
_SAME_AS = {
    "equal_opportunity": "tpr_max_min",
    "predictive_parity": "ppv_max_min",
    "demographic_parity": "selection_rate_max_min",
}
"""Gaps that are another one by its name in the literature: they share its test and do not count twice."""
PRIMARY = "primary"
"""What the family of hypotheses is called that were declared beforehand."""
EXPLORATORY = "exploratory"
"""What a family is called of which nothing was declared beforehand, where something was."""
_NO_COUNT = 1_000_000


@dataclass(frozen=True, eq=False)
class Measured:
    """One model on its audit set."""

    name: str
    cohort: Cohort
    thresholds: Mapping[str, Threshold]
    states: Mapping[str, tuple[CellState, ...]]
    """Of each label: which cells are shown."""
    roundings: Roundings
    weights_PB: NDArray[Any]
    replicates: Mapping[str, Replicates]

    def shown_G(self, label: str) -> NDArray[np.bool_]:
        """Return which cells of a label may be shown, [G]."""
        return np.array([s.shown for s in self.states[label]], bool)

    @property
    def rounding(self) -> Rounding:
        """How counts and values of no single attribute are written: as coarsely as those of any."""
        return self.roundings.coarsest

    @property
    def values(self) -> dict[str, float]:
        """Thresholds as numbers."""
        return {name: t.value for name, t in self.thresholds.items()}


def measure(
    name: str,
    cohort: Cohort,
    thresholds: Mapping[str, Threshold],
    weights_PB: NDArray[Any],
    options: MeasureOptions,
    step: Callable[[int, int], None] | None = None,
) -> Measured:
    """Evaluate every label of a cohort in every cell and every resample."""
    by_label = {label.name: hidden(cohort, label, options.small_cells) for label in cohort.labels}
    values = {name: t.value for name, t in thresholds.items()}
    replicates = evaluate_many(cohort, values, weights_PB, threads=options.threads, progress=step)
    rounded = roundings(cohort, by_label.values(), options.small_cells)
    return Measured(name, cohort, thresholds, by_label, rounded, weights_PB, replicates)


def compared(*, models: bool = False) -> tuple[str, ...]:
    """Name what each group is compared in with everybody else, or each model with the other."""
    return names_of(lambda m: m.compared == "groups" or (models and m.compared == "models"))


def gaps_tested() -> tuple[str, ...]:
    """Name the gaps that are tested by permutation; together they are one family over labels and attributes."""
    return tuple(f"{name}_max_min" for name in names_of(lambda m: m.gap == "tested"))


def gaps_shown() -> tuple[str, ...]:
    """Name the gaps that are given with their interval only."""
    return (
        *(f"{name}_max_min" for name in names_of(lambda m: m.gap == "shown", rates_first=True)),
        *(f"{name}_worst_overall" for name in names_of(lambda m: m.worst_gap)),
        *_NAMED_GAPS,
    )


def metric_rows(measured: Measured, dataset: str) -> list[Row]:
    """Return the table `metrics`: each metric of each label in each cell, with its interval; hidden ones by name."""
    rows: list[Row] = []
    for label in measured.cohort.labels:
        replicates = measured.replicates[label.name]
        clusters = clusters_of(measured.cohort, label)
        for metric in replicates.point:
            value_G, (low_G, high_G, undefined_G) = value_of(replicates, metric), of(replicates, metric, clusters)
            low_G, high_G = (np.where(low_G < high_G, end, np.nan) for end in (low_G, high_G))  # of no width: none
            weak_G = cases_of(replicates, metric, clusters) < FEW_CASES
            for g, state in enumerate(measured.states[label.name]):
                head = {
                    **_cell(measured.name, label.name, state),
                    **{"dataset": dataset, "metric": metric, "flag": "", "reason": ""},
                }
                if not state.shown:
                    rows.append({**head, "flag": "suppressed", "reason": state.reason})
                    continue
                rounded = measured.roundings.of(state.cell.attribute)
                rows.append(
                    {
                        **head,
                        **_counts(rounded, state),
                        **rounded_values(rounded, fewest_of(metric, state), value_G[g], low_G[g], high_G[g]),
                        "undefined_share": float(undefined_G[g]),
                        "flag": "underpowered" if weak_G[g] else "",
                    }
                )
    return rows


def suppressed_rows(measured: Measured, options: MeasureOptions) -> list[Row]:
    """Return the table `suppressed`: what is not shown, and why, with counts that name nobody."""
    rows = []
    for label, every in measured.states.items():
        for state in every:
            if not state.shown:
                least = options.small_cells.floor
                n = f"<{least}" if state.n < least else measured.roundings.of(state.cell.attribute).count(state.n)
                rows.append(
                    {
                        "label": label,
                        "attribute": state.cell.attribute,
                        "group": state.cell.group,
                        "reason": state.reason,
                        "n": str(n),
                    }
                )
    return rows


def difference_rows(
    measured: Measured,
    options: MeasureOptions,
    step: Callable[[int, int], None] | None = None,
    more: Sequence[Tested] = (),
) -> list[Row]:
    """Return the table `differences`: each shown group against everybody else, and scores of everybody against ideal.

    Args:
        measured: Model on its audit set.
        options: Options of measuring.
        step: Function called after each label.
        more: Tests of risks by year, which are of the same family.
    """
    rows: list[Row] = []
    tests: list[Tested] = list(more)
    names = compared()
    for a, attribute in enumerate(measured.cohort.attributes):
        halves = with_rest(measured.cohort, attribute.name)
        replicates = evaluate_many(
            halves, measured.values, measured.weights_PB, metrics=names, threads=options.threads, progress=step
        )
        rounded = measured.roundings.of(attribute.name)
        for label in measured.cohort.labels:
            clusters, rest = clusters_of(halves, label), hidden(halves, label, options.small_cells)
            states = [s for s in measured.states[label.name] if s.cell.position[0] == a]
            for g, state in enumerate(states):
                inside, outside = rest_cells(g)
                if not (state.shown and rest[outside].shown):
                    continue
                for metric in defined(replicates[label.name], names):
                    (d,) = against(replicates[label.name], metric, [inside], outside, clusters)
                    fewest = min(fewest_of(metric, state), fewest_of(metric, rest[outside]))
                    head = {**_cell(measured.name, label.name, state), "metric": metric, "reference": REST}
                    rows.append(head | rounded_values(rounded, fewest, d.value, d.low, d.high))
                    if METRICS[metric].gap == "tested":
                        drawn_GB = replicates[label.name].drawn[metric]
                        tests.append(Tested(rows[-1], d, drawn_GB[inside] - drawn_GB[outside], sign_of_worse(metric)))
    for label in measured.cohort.labels:
        head = {"model": measured.name, "label": label.name}
        tests += ideal_tests(head, measured.replicates[label.name], clusters_of(measured.cohort, label))
    adjust_together(tests, seed=options.seed)
    for test in tests:
        test.row["family"] = group_family(measured.name, options.declared)
    rows += [test.row for test in tests if test.row["reference"] == IDEAL]
    return [short(measured.roundings.of(row["attribute"]), row) for row in rows]


def num_primary_tests(measured: Measured, declared: Declared) -> int:
    """Count the gaps that are primary hypotheses: per label and attribute with two groups or more to show."""
    total = 0
    for label, every in measured.states.items():
        groups_of = Counter(s.cell.position[0] for s in every if s.shown)
        for a, attribute in enumerate(measured.cohort.attributes):
            names = [n for n in gaps_tested() if _measurable(n, measured.replicates[label])]
            total += groups_of[a] > 1 and sum(is_primary(declared, n, label, attribute.name) for n in names)
    return total


def gap_rows(
    measured: Measured,
    options: MeasureOptions,
    differences: Sequence[Row],
    step: Callable[[], None] | None = None,
) -> list[Row]:
    """Return the table `gaps`: per label and attribute, between the groups that are shown.

    A gap has the adjusted p of its group that has the smallest one: it is found where one of them is. Those of primary
    hypotheses are a family of their own, of their permutation tests.
    """
    gap_table: list[Row] = []
    primary = num_primary_tests(measured, options.declared)
    shuffles = options.permutations or shuffles_for(primary, measured.cohort.num_patients)
    of_groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in differences:
        if row.get("family") is not None:
            of_groups.setdefault((row["label"], row["attribute"], row["metric"]), []).append(row)
    copies: list[tuple[Row, Row]] = []
    copied = [*_SAME_AS, *(f"{name}_max_min" for name in names_of(lambda m: m.gap_as))]
    tested = gaps_tested()
    names = (*tested, JOINED, *gaps_shown(), *copied)
    for label in measured.cohort.labels:
        replicates = measured.replicates[label.name]
        every, clusters = measured.states[label.name], clusters_of(measured.cohort, label)
        for a, attribute in enumerate(measured.cohort.attributes):
            cells = [g for g, s in enumerate(every) if s.cell.position[0] == a and s.shown]
            wanted = [n for n in names if _measurable(n, replicates)]
            measured_gaps = gaps(replicates, cells, clusters, wanted)
            tests = gap_test(
                measured.cohort,
                label,
                attribute.name,
                [every[g].cell.position[1] for g in cells],
                [n for n in (*tested, JOINED) if n in measured_gaps],
                threshold=measured.values.get(label.name),
                num_permutations=shuffles,
                seed=options.seed,
            )
            rows: dict[str, Row] = {}
            used = {m for name in measured_gaps for m in gap_info(name).metrics}
            weak = {m for m in used if (cases_of(replicates, m, clusters)[cells] < FEW_CASES).any()}
            for name, gap in measured_gaps.items():
                fewest = min((fewest_of(m, every[g]) for m in gap_info(name).metrics for g in cells), default=_NO_COUNT)
                # Worst − overall can be below 0: everybody's AUROC may be below that of each group.
                low, high = np.minimum(gap.low, gap.value), gap.high
                row: Row = {
                    **{"model": measured.name, "label": label.name, "attribute": attribute.name, "gap": name},
                    **rounded_values(measured.roundings.of(attribute.name), fewest, gap.value, float(low), float(high)),
                    "worst_group": None if gap.worst_group is None else every[gap.worst_group].cell.group,
                    "best_group": None if gap.best_group is None else every[gap.best_group].cell.group,
                    "num_groups": gap.num_groups,
                    "flag": "underpowered" if weak & {*gap_info(name).metrics} else "",
                }
                if (same := _same(name, label, measured_gaps)) is not None:
                    copies.append((row | {"same_as": same}, rows[same]))
                    row = copies[-1][0]
                elif name in tests:
                    test = tests[name]
                    row |= {
                        **{"p": test.p, "null_mean": test.null_mean, "null_95": test.null_95},
                        **{"statistic": test.statistic, "smallest_gap": test.smallest},
                        "group": None if test.group is None else attribute.groups[test.group],
                        "smallest_gap_every": test.smallest_every,
                        "family": group_family(measured.name, options.declared),
                    }
                    places = [(label.name, attribute.name, metric) for metric in gap_info(name).metrics]
                    groups = [one for place in places for one in of_groups.get(place, ())]
                    row |= {key: _least(groups, key) for key in ("p_holm", "p_bh")}
                    if is_primary(options.declared, name, label.name, attribute.name):
                        row["family"] = f"{PRIMARY} gaps, {measured.name}"
                rows[name] = row
            gap_table += rows.values()
            if step is not None:
                step()
    adjust([row for row in gap_table if str(row.get("family")).startswith(PRIMARY)])
    for row, source in copies:
        row |= {key: source.get(key) for key in (*_TEST_COLUMNS, "group", "family")}
    return [short(measured.roundings.of(row["attribute"]), row) for row in gap_table]


_TEST_COLUMNS = ("p", "p_holm", "p_bh", "statistic", "null_mean", "null_95", "smallest_gap", "smallest_gap_every")


def _least(rows: Sequence[Row], key: str) -> float | None:
    """Return the smallest p of some groups; None where none of them was tested."""
    return min((row[key] for row in rows if np.isfinite(row[key])), default=None)


def group_family(model: str, declared: Declared) -> str:
    """Name the family of groups and calibration: exploratory where primary hypotheses are declared."""
    return f"{EXPLORATORY} groups, {model}" if declared.primary else f"groups, {model}"


def adjust(rows: Sequence[Row]) -> int:
    """Add Holm's and Benjamini and Hochberg's p-values within each family of tests, in place.

    Returns:
        Tests in the largest family: rows whose p is a number.
    """
    families: dict[object, list[Row]] = {}
    for row in rows:
        families.setdefault(row.get("family"), []).append(row)
    largest = 0
    for family_rows in families.values():
        p = [float("nan") if row.get("p") is None else float(row["p"]) for row in family_rows]
        for row, one, other in zip(family_rows, holm(p), benjamini_hochberg(p), strict=True):
            row["p_holm"], row["p_bh"] = one, other
        largest = max(largest, int(np.isfinite(p).sum()))
    return largest


def _cell(model: str, label: str, state: CellState) -> Row:
    return {"model": model, "label": label, "attribute": state.cell.attribute, "group": state.cell.group}


def _counts(rounded: Rounding, state: CellState) -> Row:
    counts = {"n": state.n, "n_pos": state.n_pos, "n_neg": state.n_neg, "n_patients": state.n_patients}
    return {name: exported(rounded, n) for name, n in counts.items()}


def exported(rounded: Rounding, n: int | None) -> int | None:
    """Return a count as all tables do, so that nothing hidden follows from a difference; None for a small one."""
    count = None if n is None else rounded.count(n)
    return None if isinstance(count, str) else count


def short(rounded: Rounding, row: Row) -> Row:
    """Write what stands beside a rounded value with three digits, so that it does not give the value back."""
    if rounded.base == 1:
        return row
    columns = {key: row[key] for key in (*_TEST_COLUMNS, "delong_p") if row.get(key) is not None}
    return row | {key: float(f"{value:.3g}") for key, value in columns.items()}


def rounded_values(rounded: Rounding, fewest: int, value: float, low: float, high: float) -> Row:
    """Return value, low and high as they are exported."""
    written = rounded.with_interval(float(value), float(low), float(high), fewest)
    return dict(zip(("value", "low", "high"), written, strict=True))


def fewest_of(metric: str, state: CellState) -> int:
    """Return the count that a rate's digits would give away, one for all rates of a cell; of an area half its pairs.

    Several grids for one cell (sensitivity, and underdiagnosis, which is its complement) would tell more than each.
    Calibration slope and intercepts and the Brier score are of sums of scores, which nobody has who has the export:
    their digits give nothing away.
    """
    reveals = METRICS[metric].reveals
    if reveals == "pairs":
        return max(state.n_pos * state.n_neg // 2, 1)
    return min(state.n_pos, state.n_neg) if reveals == "rows" else _NO_COUNT


def defined(replicates: Replicates, metrics: Sequence[str]) -> list[str]:
    """Keep the metrics that were measured and have a value somewhere."""
    return [m for m in metrics if m in replicates.point and not np.isnan(replicates.point[m]).all()]


def _measurable(gap: str, replicates: Replicates) -> bool:
    return all(m in replicates.point for m in gap_info(gap).metrics)


def _same(name: str, label: Label, measured_gaps: Mapping[str, Gap]) -> str | None:
    """Return the gap that a name stands for; of a label of healthy patients the two rates change places."""
    if name == JOINED:
        joined = measured_gaps[name]
        for part in ("tpr_max_min", "fpr_max_min"):
            gap = measured_gaps[part]
            if gap.num_groups == joined.num_groups and abs(gap.value - joined.value) <= 1e-12:
                return part
        return None
    metric = METRICS.get(name.removesuffix("_max_min"))
    if metric is not None and metric.gap_as is not None:
        return f"{metric.gap_as[label.no_finding]}_max_min"
    return _SAME_AS.get(name)


def model_rows(one: Measured, other: Measured, options: MeasureOptions) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the table `models`: the other model minus the first, on the rows that both scored.

    DeLong's p, in Obuchowski's form for several rows of a patient, stands beside the bootstrap's for everybody.

    Returns:
        Rows, of which p is adjusted within this pair of models, everybody apart from the groups; and sentences.
    """
    first, second = paired(one.cohort, other.cohort)
    notes = tuple(n for n in first.notes if n not in one.cohort.notes)
    weights_PB = draw_weights(first.num_patients, options.num_resamples, seed=options.seed)
    here = measure(one.name, first, one.thresholds, weights_PB, options)
    measured = measure(other.name, second, other.thresholds, weights_PB, options)
    rows: list[dict[str, Any]] = []
    for label, other_label in zip(first.labels, second.labels, strict=True):
        if not np.array_equal(label.valid_N, other_label.valid_N):
            notes += (f"{label.name} is not compared: the models scored different rows of it.",)
            continue
        if not np.array_equal(label.truth_N[label.valid_N], other_label.truth_N[label.valid_N]):
            notes += (f"{label.name} is not compared: the two tables state different truths for the same rows.",)
            continue
        a, b = here.replicates[label.name], measured.replicates[label.name]
        cells = [g for g, s in enumerate(here.states[label.name]) if s.shown]
        clusters = clusters_of(first, label)
        for metric in (m for m in defined(a, compared(models=True)) if m in b.point):
            for g, d in zip(cells, paired_differences(a, b, metric, cells, clusters), strict=True):
                state = here.states[label.name][g]
                rounded = here.roundings.of(state.cell.attribute)
                part = "overall" if state.cell.attribute == ALL else f"by group ({EXPLORATORY})"
                row = {
                    **{"model": one.name, "other": other.name, "label": label.name, "metric": metric, "p": d.p},
                    **{"attribute": state.cell.attribute, "group": state.cell.group},
                    **rounded_values(rounded, fewest_of(metric, state), d.value, d.low, d.high),
                    "family": f"models {part}, {one.name} and {other.name}",
                }
                if metric == "auroc" and state.cell.attribute == ALL and label.weight_N is None:
                    valid = label.valid_N
                    columns = (label.truth_N, label.score_N, other_label.score_N, first.patients_N)
                    row["delong_p"] = delong.paired(*(c[valid] for c in columns)).p
                rows.append(row)
    adjust(rows)
    rows = [short(here.roundings.of(row["attribute"]), row) for row in rows]
    return rows, notes
