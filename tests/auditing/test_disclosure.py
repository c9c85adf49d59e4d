from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from medclip.auditing.disclosure import (
    MIN_WIDTH,
    CellState,
    Policy,
    Rounding,
    Roundings,
    bounds_of,
    count_patients,
    hidden,
    roundings,
    state,
)
from medclip.auditing.input.groups import cross
from medclip.statistics.cohort import Attribute, Cell, Cohort, Label, cells_of
from medclip.statistics.resampling.intervals import wilson
from tests.kits.audit_input import cohort_of

CELL = Cell("sex", "F", (0, 0))


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ((9, 5, 4, 9), "fewer than 10 rows, fewer than 10 patients, fewer than 10 positives, fewer than 10 negatives"),
        ((100, 9, 91, 100), "fewer than 10 positives"),
        ((100, 91, 9, 100), "fewer than 10 negatives"),
        ((100, 50, 50, 4), "fewer than 10 patients"),
        ((100, 50, 50, 100), ""),
    ],
)
def test_a_cell_is_hidden_with_the_reason_and_without_its_count(counts, reason):
    found = state(CELL, *counts, Policy())
    assert found.reason == reason
    assert found.shown == (not reason)


def test_every_cell_is_counted_over_the_rows_that_have_score_and_truth():
    cohort = cohort_of([0, 0, 1, 2, 2], [1, 0, 1, np.nan, 1], sex=["F", "F", "M", "M", "M"])
    found = hidden(cohort, cohort.labels[0], Policy(1, 1, 1, 1))
    assert [(s.n, s.n_pos, s.n_neg, s.n_patients) for s in found] == [(4, 3, 1, 3), (2, 1, 1, 1), (2, 2, 0, 2)]
    assert [s.cell for s in found] == list(cells_of(cohort))
    assert [s.shown for s in found] == [True, True, False]


def test_of_times_to_events_nobody_needs_to_be_without_one():
    cohort = cohort_of(range(20), [1.0] * 20, sex=["F"] * 20)
    timed = replace(cohort.labels[0], time_N=np.arange(20.0))
    assert not hidden(cohort, cohort.labels[0], Policy())[0].shown
    assert hidden(cohort, timed, Policy())[0].shown


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=60))
def test_patients_are_counted_once_in_each_group(rows):
    codes = np.asarray([c for c, _ in rows], np.int16)
    patients = np.asarray([p for _, p in rows], np.int32)
    expected = [len({p for c, p in rows if c == g}) for g in range(5)]
    assert count_patients(codes, patients, 5, 10).tolist() == expected


def test_counts_are_exact_where_nothing_is_hidden_or_the_policy_says_so():
    big = cohort_of(range(200), [0, 1] * 100, sex=["F"] * 100 + ["M"] * 100)
    assert str(roundings(big, [hidden(big, big.labels[0], Policy())], Policy())) == "exact"
    small = cohort_of(range(200), [0, 1] * 100, sex=["F"] * 4 + ["M"] * 196)
    found = hidden(small, small.labels[0], Policy())
    assert str(roundings(small, [found], Policy())) == "rounded to 10 (sex)"  # 5 would leave two counts
    assert str(roundings(small, [found], Policy(exact_counts=True))) == "exact"


def test_only_the_attribute_with_the_hidden_group_is_coarsened_and_each_as_little_as_it_can_be():
    rng = np.random.default_rng(0)
    n = 600
    cohort = cohort_of(
        range(n),
        (np.arange(n) % 2).tolist(),
        sex=rng.choice(["F", "M"], n).tolist(),
        view=rng.choice(["AP", "PA"], n).tolist(),
        site=["rare"] * 7 + rng.choice(["A", "B"], n - 7).tolist(),
    )
    chosen = roundings(cohort, [hidden(cohort, cohort.labels[0], Policy())], Policy())
    assert list(chosen.by_attribute) == ["site"]
    assert chosen.of("site").base == 5
    assert [chosen.of(name).base for name in ("all", "sex", "view")] == [1, 1, 1]
    assert chosen.coarsest.base == 5


def export(cohort: Cohort) -> tuple[Roundings, list[int | str], tuple[CellState, ...]]:
    found = hidden(cohort, cohort.labels[0], Policy())
    chosen = roundings(cohort, [found], Policy())
    return chosen, [chosen.of(s.cell.attribute).count(s.n) for s in found], found


def test_totals_of_other_attributes_do_not_give_a_hidden_group_away():
    """Vendors and a flag whose groups are sums of scanners: B1 = Siemens − A2, of two attributes that hide nothing."""
    scanner = ["A1"] * 60 + ["A2"] * 40 + ["B1"] * 7
    vendor = ["GE" if s == "A1" else "Siemens" for s in scanner]
    old = ["old" if s == "A2" else "new" for s in scanner]
    cohort = cohort_of(range(107), [0.0, 1.0] * 53 + [1.0], scanner=scanner, vendor=vendor, age=old)
    chosen, counts, found = export(cohort)
    of = dict(zip(((s.cell.attribute, s.cell.group) for s in found), counts, strict=True))
    widths = [
        (low, high)
        for low, high in [bounds_of(of["vendor", "Siemens"], chosen.of("vendor"))]
        for low, high in [
            (
                low - bounds_of(of["age", "old"], chosen.of("age"))[1],
                high - bounds_of(of["age", "old"], chosen.of("age"))[0],
            )
        ]
    ]
    assert widths[0][1] - widths[0][0] + 1 >= MIN_WIDTH
    assert set(chosen.by_attribute) >= {"scanner", "vendor", "age"}
    alone = cohort_of(range(107), [0.0, 1.0] * 53 + [1.0], scanner=scanner, vendor=vendor)
    assert list(export(alone)[0].by_attribute) == ["scanner"]  # without the flag nothing follows


@given(st.integers(0, 5000), st.sampled_from([5, 10, 20, 50, 100]), st.integers(1, 30))
def test_a_count_lies_within_the_bounds_of_how_it_is_exported(n, base, floor):
    chosen = Rounding(base, floor)
    low, high = bounds_of(chosen.count(n), chosen)
    assert low <= n <= high
    assert {chosen.count(m) for m in range(low, high + 1)} == {chosen.count(n)}


@given(st.integers(10, 2000), st.sampled_from([5, 10, 20]), st.data())
def test_no_count_that_is_exported_alike_is_ruled_out_by_an_exported_rate(n, base, data):
    k = data.draw(st.integers(0, n))
    chosen = Rounding(base)
    rate = chosen.value(k / n, n)
    low, high = bounds_of(chosen.count(n), chosen)
    for other in {low, high, data.draw(st.integers(low, high))}:
        near = range(max(int((rate - 0.5) * other) - 1, 0), min(int((rate + 0.5) * other) + 2, other) + 1)
        assert any(chosen.value(j / other, other) == rate for j in near)


def test_an_exported_rate_is_off_by_less_than_its_sampling_error():
    for n in (30, 100, 1000):
        worst = max(abs(Rounding(5).value(k / n, n) - k / n) for k in range(n + 1))
        assert worst < np.sqrt(0.25 / n)


def test_values_are_exact_where_counts_are():
    assert Rounding().value(1 / 3, 3) == 1 / 3
    assert np.isnan(Rounding(5).value(np.nan, 20))
    assert Rounding(5).value(0.123456, 10**9) == 0.1235


def _random_cohort(rng: np.random.Generator) -> Cohort:
    n = int(rng.integers(40, 300))
    attributes = []
    for name in ("a", "b", "c")[: int(rng.integers(1, 4))]:
        k = int(rng.integers(2, 5))
        codes = rng.choice(k, n, p=rng.dirichlet(np.full(k, 0.6)))
        there = np.unique(codes)
        codes = np.searchsorted(there, codes)
        attributes.append(Attribute(name, tuple(f"{name}{i}" for i in there), codes.astype(np.int16)))
    attributes += [cross(pair) for pair in itertools.combinations(list(attributes), 2)]
    truth = (rng.random(n) < rng.uniform(0.1, 0.6)).astype(float)
    return Cohort(np.arange(n, dtype=np.int32), (Label("x", np.linspace(0, 1, n), truth),), tuple(attributes))


def _attack(
    cohort: Cohort, counts: list[int | str], index: int, chosen: Roundings, total: int | None = None
) -> tuple[float, float]:
    """Subtract by linear programme over the atoms: every combination of all attributes is an unknown."""
    sizes = [len(a.groups) for a in cohort.attributes if " × " not in a.name]
    names = [a for a in cohort.attributes if " × " not in a.name]
    atoms = list(itertools.product(*[range(s) for s in sizes]))
    rows = []
    for cell in cells_of(cohort):
        if cell.position[0] < 0:
            rows.append(np.ones(len(atoms)))
            continue
        wanted = dict(zip(cell.attribute.split(" × "), cell.group.split(" × "), strict=True))
        rows.append(
            np.asarray(
                [
                    float(
                        all(a.groups[i] == wanted[a.name] for a, i in zip(names, atom, strict=True) if a.name in wanted)
                    )
                    for atom in atoms
                ]
            )
        )
    a = np.stack(rows)
    ways = [chosen.of(cell.attribute) for cell in cells_of(cohort)]
    bounds = np.asarray([bounds_of(c, way) for c, way in zip(counts, ways, strict=True)], float)
    if total is not None:
        bounds[0] = total
    ends = []
    for sign in (1, -1):
        found = linprog(
            sign * a[index], A_ub=np.vstack([a, -a]), b_ub=np.r_[bounds[:, 1], -bounds[:, 0]], method="highs"
        )
        ends.append(sign * found.fun)
    return ends[0], ends[1]


def test_a_hidden_count_follows_by_subtraction_from_exact_ones_and_not_from_exported_ones():
    cohort = cohort_of(range(107), [0, 1] * 53 + [1], sex=["F"] * 7 + ["M"] * 100)
    exact: list[int | str] = [107, "<10", 100]
    low, high = _attack(cohort, exact, 1, Roundings())
    assert low == high == 7
    chosen, counts, _ = export(cohort)
    low, high = _attack(cohort, counts, 1, chosen)
    assert high - low + 1 >= MIN_WIDTH


@pytest.mark.parametrize("seed", range(12))
def test_no_hidden_count_of_a_random_table_is_worked_out(seed):
    cohort = _random_cohort(np.random.default_rng(seed))
    found = hidden(cohort, cohort.labels[0], Policy())
    chosen = roundings(cohort, [found], Policy())
    for what in ("n", "n_pos", "n_neg"):
        counts = [chosen.of(s.cell.attribute).count(getattr(s, what)) for s in found]
        for index, count in enumerate(counts):
            if isinstance(count, str):
                low, high = _attack(cohort, counts, index, chosen, found[0].n if what == "n" else None)
                assert np.floor(high + 1e-6) - np.ceil(low - 1e-6) + 1 >= 2
                assert low - 1e-6 <= getattr(found[index], what) <= high + 1e-6


@pytest.mark.slow
def test_a_larger_multiple_is_taken_where_five_gives_a_count_away():
    cohorts = [_random_cohort(np.random.default_rng(s)) for s in range(30, 45)]
    bases = [export(c)[0].coarsest.base for c in cohorts]
    assert 10 in bases
    assert 5 in bases


@settings(max_examples=10)
@given(st.permutations(range(60)))
def test_the_order_of_rows_changes_nothing(order):
    truth = [float(i % 3 == 0) for i in range(60)]
    sex = ["F" if i % 7 == 0 else "M" for i in range(60)]
    one = cohort_of(range(60), truth, sex=sex)
    two = cohort_of(range(60), [truth[i] for i in order], sex=[sex[i] for i in order])
    a, b = (hidden(c, c.labels[0], Policy()) for c in (one, two))
    assert a == b
    assert roundings(one, [a], Policy()) == roundings(two, [b], Policy())


@given(st.integers(10, 400), st.integers(0, 400), st.sampled_from([5, 10, 20, 50, 100]))
@example(140, 1, 100)  # on the grid of 1/50 value and lower end would both be 0
def test_a_value_that_is_rounded_stays_within_its_interval_and_off_its_ends(n, k, base):
    value = min(k, n) / n
    low, high = (float(x) for x in wilson(value, n, 1.96))
    written = Rounding(base).with_interval(value, low, high, n)
    assert written[1] <= written[0] <= written[2]
    assert written[1] <= low + 1e-9
    assert written[2] >= high - 1e-9
    assert written[1] < written[0] or value == low
    assert written[0] < written[2] or value == high
    # no finer than one case changes it, unless an end is nearer than that
    step = 1 / bounds_of(Rounding(base).count(n), Rounding(base))[0]
    if min(value - low, high - value) > 2.6 * step:
        assert written[0] == Rounding(base).value(value, n)


def test_values_without_an_interval_are_rounded_all_the_same():
    assert Rounding(5).with_interval(0.347, np.nan, np.nan, 49)[0] == 0.35
    assert np.isnan(Rounding(5).with_interval(np.nan, 0.1, 0.2, 49)[0])
    assert Rounding().with_interval(1 / 3, 0.1, 0.5, 3) == (1 / 3, 0.1, 0.5)


def test_the_digits_of_an_auroc_fit_every_pair_of_counts_that_rounds_alike():
    rng = np.random.default_rng(0)
    for _ in range(200):
        pos, neg = rng.integers(10, 60, 2).tolist()
        pairs = int(rng.integers(pos * neg // 2, pos * neg))
        told = Rounding(5).value(pairs / (pos * neg), pos * neg // 2)
        near = [n for n in range(10, 65) for m in (pos, neg) if Rounding(5).count(n) == Rounding(5).count(m)]
        fitting = {
            (p, q)
            for p in near
            for q in near
            if Rounding(5).count(p) == Rounding(5).count(pos) and Rounding(5).count(q) == Rounding(5).count(neg)
            if any(Rounding(5).value(round(told * p * q + d) / (p * q), pos * neg // 2) == told for d in (-1, 0, 1))
        }
        possible = sum(Rounding(5).count(p) == Rounding(5).count(pos) for p in range(10, 65))
        possible *= sum(Rounding(5).count(q) == Rounding(5).count(neg) for q in range(10, 65))
        assert len(fitting) > possible / 2


def test_the_size_of_the_whole_set_is_known_however_it_is_rounded():
    """With multiples of 5 of everything, the hidden group of 7 could be worked out from the 54 that are said anyway."""
    scanner = ["A1"] * 22 + ["B1"] * 25 + ["A2"] * 7
    vendor = [s[0] for s in scanner]
    truth = [1.0] * 4 + [0.0] * 18 + [1.0] * 9 + [0.0] * 16 + [1.0] * 4 + [0.0] * 3
    chosen, _, _ = export(cohort_of(range(54), truth, scanner=scanner, vendor=vendor))
    assert str(chosen) == "rounded to 10 (everybody), 10 (scanner), 10 (vendor)"
