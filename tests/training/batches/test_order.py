"""Epoch plans are functions of (seed, epoch): the same samples whatever the ranks, workers and stops."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.shards.reading.mapped_rows import Columns, coded
from medclip.training.batches.order import (
    ORDER,
    SAMPLING,
    Balance,
    epoch_plan,
    order_of_epoch,
    repeats,
    steps_of_epoch,
    windows_of_epoch,
)


def columns(
    shards: list[int],
    sources: list[str] | None = None,
    modalities: list[str | None] | None = None,
    strata: list[str] | None = None,
) -> Columns:
    """Columns of shards with so many samples each."""
    shard_N = np.repeat(np.arange(len(shards)), shards).astype(np.int32)
    source_N, names = coded(sources or ["s"] * len(shard_N))
    modality_N, kinds = coded(modalities or ["xray"] * len(shard_N))
    of_strata = () if strata is None else coded(strata)
    return Columns(shard_N, len(shards), source_N, names, modality_N, kinds, *of_strata)


SHARDS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def test_small_numbers_are_drawn_in_the_order_of_large_ones() -> None:
    """Runs of earlier versions, whose plans were int64, go on with the batches they would have had."""
    for size in (7, 5000):
        assert np.array_equal(order_of_epoch(size, 3, 2), np.random.default_rng((3, ORDER, 2)).permutation(size))
    data = columns([40, 30, 50])
    rng, starts = np.random.default_rng((1, ORDER, 4)), [0, 40, 70, 120]
    shards = rng.permutation(3)
    groups = [np.arange(starts[s], starts[s + 1], dtype=np.int64) for s in shards]
    expected = np.concatenate([rng.permutation(np.concatenate(groups[:2])), rng.permutation(groups[2])])
    plan = epoch_plan(data, batch_size=10, seed=1, epoch=4, window_shards=2)
    assert np.array_equal(plan.ravel(), expected)


@given(
    shards=SHARDS, batch=st.integers(1, 7), seed=st.integers(0, 9), epoch=st.integers(0, 9), window=st.integers(1, 14)
)
def test_mixed_shards_give_every_sample_at_most_once(
    shards: list[int], batch: int, seed: int, epoch: int, window: int
) -> None:
    data = columns(shards)
    plan = epoch_plan(data, batch_size=batch, seed=seed, epoch=epoch, window_shards=window)
    assert plan.dtype == np.int32
    assert plan.shape == (sum(shards) // batch, batch) == (steps_of_epoch(data, "shard_mixed", batch_size=batch), batch)
    assert len(set(plan.ravel().tolist())) == plan.size
    assert np.array_equal(plan, epoch_plan(data, batch_size=batch, seed=seed, epoch=epoch, window_shards=window))
    assert not repeats(plan).any()


@given(shards=SHARDS, seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_one_window_is_a_plain_permutation(shards: list[int], seed: int, epoch: int) -> None:
    plan = epoch_plan(columns(shards), batch_size=1, seed=seed, epoch=epoch, window_shards=len(shards))
    assert np.array_equal(plan.ravel(), order_of_epoch(sum(shards), seed, epoch))


@given(size=st.integers(1, 50), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_every_epoch_is_a_permutation_of_its_own(size: int, seed: int, epoch: int) -> None:
    order = order_of_epoch(size, seed, epoch)
    assert sorted(order.tolist()) == list(range(size))
    assert np.array_equal(order, order_of_epoch(size, seed, epoch))


def test_the_order_is_fixed_for_all_time() -> None:
    """A run that was begun with an older version goes on with the same batches."""
    assert order_of_epoch(8, 3, 1).tolist() == [6, 2, 1, 5, 4, 3, 7, 0]
    plan = epoch_plan(columns([4] * 6), batch_size=6, seed=3, epoch=1, window_shards=2)
    assert plan[0].tolist() == [8, 6, 7, 9, 10, 4]


def test_a_window_reads_few_shards_at_a_time_and_epochs_differ() -> None:
    data = columns([100] * 40)
    plans = [epoch_plan(data, batch_size=50, seed=0, epoch=e, window_shards=4) for e in (0, 1)]
    for plan in plans:
        in_window = [set(data.shard_N[plan[8 * i : 8 * (i + 1)]].ravel().tolist()) for i in range(10)]
        assert all(len(shards) == 4 for shards in in_window)
        assert sum(map(len, in_window)) == 40
    assert not np.array_equal(*plans)


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    batch=st.integers(1, 8),
    seed=st.integers(0, 5),
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=4, max_size=4),
)
def test_proportional_repeats_no_sample_of_a_source_before_all_are_used(
    sizes: list[int], batch: int, seed: int, weights: list[float]
) -> None:
    names = [f"s{i}" for i, n in enumerate(sizes) for _ in range(n)]
    data = columns([len(names)], names)
    chosen = {f"s{i}": w for i, w in enumerate(weights[: len(sizes)])}
    if not any(chosen.values()):
        with pytest.raises(MedclipError, match="not all 0"):
            steps_of_epoch(data, "proportional", batch_size=batch, weights=chosen)
        return
    plan = epoch_plan(data, "proportional", batch_size=batch, seed=seed, epoch=2, weights=chosen)
    assert len(plan) == steps_of_epoch(data, "proportional", batch_size=batch, weights=chosen)
    assert len(plan) == sum(n for i, n in enumerate(sizes) if weights[i]) // batch
    used = Counter(plan.ravel().tolist())
    for i, size in enumerate(sizes):
        counts = [used[int(n)] for n in np.flatnonzero(data.source_N == data.sources.index(f"s{i}"))]
        assert len(counts) == size
        assert max(counts) - min(counts) <= 1
        assert weights[i] or not any(counts)
    again = repeats(plan).ravel()
    assert all(again[k] == plan.ravel()[:k].tolist().count(v) for k, v in enumerate(plan.ravel().tolist()))


def test_proportional_draws_sources_by_size_times_weight() -> None:
    names = ["a"] * 6000 + ["b"] * 2000 + ["c"] * 2000
    data = columns([len(names)], names)
    plan = epoch_plan(data, "proportional", batch_size=100, seed=0, epoch=0, weights={"b": 3.0, "c": 0.5})
    share = np.bincount(data.source_N[plan.ravel()]) / plan.size
    assert np.allclose(share, np.array([6000, 6000, 1000]) / 13000, atol=0.015)
    by_batch = (data.source_N[plan] == 1).sum(1)
    assert 30 < by_batch.mean() < 60
    assert by_batch.std() > 2  # drawn for each place, not dealt out


@given(
    kinds=st.lists(st.sampled_from(["xray", "ct", None]), min_size=1, max_size=60),
    batch=st.integers(1, 6),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_per_modality_batches_are_pure_and_whole(kinds: list[str | None], batch: int, seed: int, epoch: int) -> None:
    data = columns([len(kinds)], None, kinds)
    plan = epoch_plan(data, "per_modality", batch_size=batch, seed=seed, epoch=epoch)
    counts = Counter(k or "" for k in kinds)
    assert len(plan) == sum(n // batch for n in counts.values())
    assert len(plan) == steps_of_epoch(data, "per_modality", batch_size=batch)
    assert all(len(set(data.modality_N[row].tolist())) == 1 for row in plan)
    assert len(set(plan.ravel().tolist())) == plan.size


def test_batches_of_different_modalities_are_mixed() -> None:
    data = columns([400], None, ["xray"] * 200 + ["ct"] * 200)
    first = data.modality_N[epoch_plan(data, "per_modality", batch_size=4, seed=0, epoch=0)[:, 0]]
    assert np.count_nonzero(np.diff(first)) > 25


@pytest.mark.parametrize("policy", ["shard_mixed", "proportional", "per_modality", "balanced"])
@given(ranks=st.sampled_from([1, 2, 3, 4, 6]), kills=st.lists(st.integers(0, 24), max_size=4))
def test_the_samples_of_an_epoch_do_not_depend_on_ranks_and_kill_points(
    policy: str, ranks: int, kills: list[int]
) -> None:
    data = columns([25] * 12, ["a", "b", "c"] * 100, ["xray", "ct"] * 150)
    whole = epoch_plan(data, policy, batch_size=12, seed=1, epoch=5, window_shards=3)  # type: ignore[arg-type]
    seen: Counter[int] = Counter()
    stops = [*sorted(min(k, len(whole)) for k in kills), len(whole)]
    at = 0
    for stop in stops:  # a run from one kill point to the next, on its own number of ranks
        own = 12 // ranks
        for rank in range(ranks):
            plan = epoch_plan(data, policy, batch_size=12, seed=1, epoch=5, window_shards=3)  # type: ignore[arg-type]
            seen.update(plan[at:stop, rank * own : (rank + 1) * own].ravel().tolist())
        at, ranks = stop, {1: 2, 2: 4, 4: 1}.get(ranks, ranks)
    assert seen == Counter(whole.ravel().tolist())


def test_weights_that_do_not_fit_are_refused() -> None:
    data = columns([10], ["a", ""] * 5)
    for policy, weights, said in (
        ("proportional", {"x": 1.0}, "'x'.*a"),
        ("proportional", {"a": -1.0}, "from 0 up"),
        ("proportional", {"a": float("nan")}, "from 0 up"),
        ("shard_mixed", {"a": 1.0}, "nothing with shard_mixed"),
    ):
        with pytest.raises(MedclipError, match=said) as e:
            epoch_plan(data, policy, batch_size=2, seed=0, epoch=0, weights=weights)  # type: ignore[arg-type]
        assert e.value.reason is Reason.RECIPE_INVALID


def test_five_million_samples_are_planned() -> None:
    data = columns([1000] * 5000)
    plan = epoch_plan(data, batch_size=2048, seed=0, epoch=0)
    assert plan.shape == (5_000_000 // 2048, 2048)


CELLS = {("a", "ill"): 60, ("a", "well"): 20, ("b", "ill"): 4, ("b", "well"): 16}
"""At site a most are ill, at b most are well: who is ill can be told by the site."""


def of_cells(cells: dict[tuple[str, str], int]) -> tuple[Columns, list[tuple[str, str]]]:
    rows = [cell for cell, number in cells.items() for _ in range(number)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    return columns([len(rows)], [site for site, _ in rows], strata=[finding for _, finding in rows]), rows


def realised(cells: dict[tuple[str, str], int], balance: Balance, **options: object) -> Counter[tuple[str, str]]:
    data, rows = of_cells(cells)
    plan = epoch_plan(data, "balanced", batch_size=10, seed=0, epoch=0, balance=balance, **options)  # type: ignore[arg-type]
    return Counter(rows[i] for i in plan.ravel())


def test_what_is_found_no_longer_tells_the_source_where_every_source_has_every_finding() -> None:
    assert realised(CELLS, Balance(source_power=0, max_repeats=9)) == dict.fromkeys(CELLS, 25)
    by_size = realised(CELLS, Balance(source_power=1, max_repeats=9))
    assert by_size == {("a", "ill"): 40, ("a", "well"): 40, ("b", "ill"): 10, ("b", "well"): 10}


def test_a_stratum_is_not_repeated_beyond_its_room_and_the_rest_of_its_source_fills_the_places() -> None:
    shares = realised(CELLS, Balance(source_power=0, max_repeats=3))
    assert shares == {("a", "ill"): 25, ("a", "well"): 25, ("b", "ill"): 12, ("b", "well"): 38}
    tight = realised(CELLS, Balance(source_power=0, max_repeats=1))
    assert tight == CELLS, "with no repeats at all there is nothing to balance with"


def test_a_source_without_weight_is_left_out_of_a_balanced_epoch() -> None:
    shares = realised(CELLS, Balance(), weights={"a": 0})
    assert {site for site, _ in shares} == {"b"}
    assert sum(shares.values()) == 20


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
    power=st.floats(0, 1),
    repeats_most=st.floats(1, 5),
)
def test_a_balanced_epoch_depends_on_nothing_but_seed_and_epoch_and_gives_every_sample_of_a_stratum_as_often(
    sizes: list[int], seed: int, epoch: int, power: float, repeats_most: float
) -> None:
    data, rows = of_cells({(f"s{n % 3}", f"f{n}"): size for n, size in enumerate(sizes)})
    options = {"batch_size": 1, "seed": seed, "epoch": epoch, "balance": Balance(power, repeats_most)}
    plan = epoch_plan(data, "balanced", **options)  # type: ignore[arg-type]
    assert plan.shape == (sum(sizes), 1)
    assert np.array_equal(plan, epoch_plan(data, "balanced", **options))  # type: ignore[arg-type]
    counts = Counter(plan.ravel().tolist())
    for cell in set(rows):
        own = [counts[i] for i, row in enumerate(rows) if row == cell]
        assert max(own) - min(own) <= 1
        assert sum(own) <= np.ceil(repeats_most * len(own)) + len(set(rows))


def test_pieces_of_one_source_stand_together_and_every_sample_comes_as_often_as_without() -> None:
    data, rows = of_cells({("a", "ill"): 40, ("a", "well"): 24, ("b", "ill"): 32, ("c", "well"): 32})
    options = {"batch_size": 16, "seed": 3, "epoch": 1}
    loose = epoch_plan(data, "balanced", balance=Balance(1.0), **options)  # type: ignore[arg-type]
    plan = epoch_plan(data, "balanced", balance=Balance(1.0, together=8), **options)  # type: ignore[arg-type]
    sources = [[{rows[i][0] for i in piece} for piece in batch.reshape(2, 8)] for batch in plan]
    assert all(len(piece) == 1 for batch in sources for piece in batch)
    assert any(batch[0] != batch[1] for batch in sources), "a batch is not of one source alone"
    assert Counter(rows[i] for i in plan.ravel()) == Counter(rows[i] for i in loose.ravel())
    assert np.array_equal(plan, epoch_plan(data, "balanced", balance=Balance(1.0, together=8), **options))  # type: ignore[arg-type]


def test_what_fills_no_piece_is_not_lost_and_does_not_always_come_last() -> None:
    data, _ = of_cells({("a", "ill"): 13, ("b", "ill"): 11})
    last = set()
    for epoch in range(8):
        plan = epoch_plan(data, "balanced", batch_size=4, seed=0, epoch=epoch, balance=Balance(1.0, 1.0, together=4))
        assert sorted(plan.ravel()) == list(range(24))
        mixed = [n for n, batch in enumerate(plan) if len(set(data.source_N[batch].tolist())) > 1]
        assert len(mixed) == 1, "1 of a and 3 of b are left"
        last.update(mixed)
    assert len(last) > 1


@pytest.mark.parametrize("policy", sorted(SAMPLING))
@given(
    shards=st.lists(st.integers(2, 20), min_size=1, max_size=6),
    num_pairs=st.integers(1, 12),
    seed=st.integers(0, 99),
    batch=st.integers(2, 9),
)
def test_partners_stand_in_one_batch_and_nobody_is_lost_or_leaves_the_window(
    policy: str, shards: list[int], num_pairs: int, seed: int, batch: int
) -> None:
    """Pairs are neighbours, as `pairs rewrite` writes them; batches with single samples have room for partners."""
    plain = columns(shards)
    pair_N = np.zeros(len(plain), np.int32)
    for number in range(min(num_pairs, len(plain) // 2)):
        pair_N[2 * number : 2 * number + 2] = number + 1
    settings: dict[str, Any] = {"batch_size": min(batch, len(plain)), "seed": seed, "epoch": 1, "window_shards": 2}
    before = epoch_plan(plain, policy, **settings)
    paired = dataclasses.replace(plain, pair_N=pair_N)
    after = epoch_plan(paired, policy, **settings)
    np.testing.assert_array_equal(after, epoch_plan(paired, policy, **settings))
    np.testing.assert_array_equal(np.sort(after, axis=None), np.sort(before, axis=None))
    if SAMPLING[policy].in_windows:
        ends = [end for end, _ in windows_of_epoch(plain, policy, seed=seed, epoch=1, window_shards=2)]
        for part in zip([0, *ends], ends, strict=False):
            assert sorted(before.ravel()[slice(*part)]) == sorted(after.ravel()[slice(*part)])

    def together(plan: np.ndarray) -> int:
        return sum(len({*rows[pair_N[rows] == p].tolist()}) == 2 for rows in plan for p in range(1, num_pairs + 1))

    assert together(after) >= together(before)


def test_every_pair_is_in_one_batch_where_there_is_room() -> None:
    pair_N = np.zeros(400, np.int32)
    pair_N[:200] = np.repeat(np.arange(1, 101), 2)
    plan = epoch_plan(dataclasses.replace(columns([400]), pair_N=pair_N), batch_size=20, seed=0, epoch=0)
    assert all((np.bincount(pair_N[rows], minlength=101)[1:] != 1).all() for rows in plan)
    full = dataclasses.replace(columns([200]), pair_N=pair_N[:200])
    plan = epoch_plan(full, batch_size=20, seed=0, epoch=0)  # of nothing but pairs
    assert all((np.bincount(pair_N[rows], minlength=101)[1:] != 1).all() for rows in plan)
