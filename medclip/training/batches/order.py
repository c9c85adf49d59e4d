"""Which samples make the batches of an epoch, and which shards they need: pure functions of (seed, epoch).

Ranks and workers change nothing of it. Reference for the policies: UniMed-CLIP's data pipeline (shards mixed as they
come) and its two common ablations; unlike it, no sample is read twice or left out because of how shards fall to
workers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.shards.reading.mapped_rows import Columns

ORDER = 2
"""The stream of chance that orders take; captions and augmentation have others."""
WINDOW_SHARDS = 64


@dataclass(frozen=True)
class Balance:
    """How `balanced` divides the places of an epoch among sources, and those of a source among its strata."""

    source_power: float = 0.5
    """Power of a source's size: 1 draws sources by size, 0 each as often as the others."""
    max_repeats: float = 4.0
    """A stratum gets at most so many times its size; what it would get beyond goes to the other strata of its source,
    then to other sources."""
    together: int = 1
    """Samples of one source that stand side by side. A batch of a few sources contrasts more samples within a source,
    where findings differ and the place does not."""


@dataclass(frozen=True, eq=False)
class Order:
    """What makes the batches of an epoch: see `epoch_plan`."""

    policy: str = "shard_mixed"
    """Of `SAMPLING`."""
    weights: Mapping[str, float] | None = None
    """By source, for policies that take them."""
    balance: Balance = Balance()
    """For policies that take it."""
    window_shards: int = WINDOW_SHARDS
    """Shards that are mixed, by policies that mix windows of them."""
    num_repeats: int = 1
    """Times that each sample stands in its batch, side by side."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """What a policy makes the batches of an epoch of."""

    columns: Columns
    """Shard, source, modality and stratum of the samples."""
    steps: int
    batch_size: int
    seed: int
    number: int
    weights: Mapping[str, float]
    balance: Balance
    window_shards: int

    @property
    def rng(self) -> np.random.Generator:
        """The stream of chance of the epoch, from its beginning."""
        return np.random.default_rng((self.seed, ORDER, self.number))

    def batches(self, order_N: NDArray[np.int32]) -> NDArray[np.int32]:
        """Cut an order of samples into batches, [steps, B]; what is over is left out."""
        return order_N[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)


@dataclass(frozen=True)
class Sampling:
    """One row of the table."""

    draw: Callable[[Epoch], NDArray[np.int32]]
    """Returns the samples of each batch, [steps, B]."""
    takes_weights: bool = False
    """It weighs sources; an epoch has as many places as the sources with a weight have samples."""
    takes_balance: bool = False
    """It draws as `Balance` says."""
    repeats: bool = False
    """A sample may stand several times in an epoch."""
    of_one_modality: bool = False
    """Each batch is of one modality, and an epoch has the whole batches of each."""
    in_windows: bool = False
    """It needs the shards of one window at a time; others need all at any time."""


def order_of_epoch(size: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Return the order of `size` samples in an epoch; depends on nothing else."""
    return np.random.default_rng((seed, ORDER, epoch)).permutation(np.arange(size, dtype=np.int32))


def steps_of_epoch(
    columns: Columns, policy: str, *, batch_size: int, weights: Mapping[str, float] | None = None
) -> int:
    """Count the whole batches of an epoch; the same for every epoch.

    Raises:
        MedclipError: RECIPE_INVALID for weights that do not fit the data, or with a policy that takes none.
    """
    row = SAMPLING[policy]
    if weights and not row.takes_weights:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"weights mean nothing with {policy}.",
            hint="Say policy: proportional, or drop them.",
        )
    if row.of_one_modality:
        return sum(size // batch_size for size in _sizes(columns.modality_N, len(columns.modalities)))
    if row.takes_weights:
        used = source_weights(columns, weights or {}) > 0
        return int(_sizes(columns.source_N, len(columns.sources))[used].sum()) // batch_size
    return len(columns) // batch_size


def epoch_plan(
    columns: Columns,
    policy: str = "shard_mixed",
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    weights: Mapping[str, float] | None = None,
    balance: Balance = Balance(),
    window_shards: int = WINDOW_SHARDS,
) -> NDArray[np.int32]:
    """Return which samples make each batch of an epoch.

    What fills no whole batch is left out; it is other samples in each epoch. Samples that differ by one edit change
    places with others, so that partners stand in one batch where there is room.

    Args:
        columns: Shard, source, modality and stratum of the samples.
        policy: Name of a policy of `SAMPLING`.
        batch_size: Samples of a batch over all ranks, B.
        seed: Seed of the run.
        epoch: Number of the epoch.
        weights: Weights by source, for policies that take them; 1 where a source is not named, 0 leaves it out.
        balance: Balance, for policies that take it.
        window_shards: Shards that are mixed.

    Returns:
        int32 [steps, B]: numbers of samples; of 5 million they take 20 MB.

    Raises:
        MedclipError: RECIPE_INVALID for weights that do not fit the data, or with a policy that takes none.
    """
    steps = steps_of_epoch(columns, policy, batch_size=batch_size, weights=weights)
    row = SAMPLING[policy]
    plan = row.draw(Epoch(columns, steps, batch_size, seed, epoch, weights or {}, balance, window_shards))
    if columns.pair_N is None:
        return plan
    windows = windows_of_epoch(columns, policy, seed=seed, epoch=epoch, window_shards=window_shards)
    pair_N = columns.pair_N
    if row.of_one_modality:  # no sample goes to a batch of another modality
        pair_N = pair_N * (columns.modality_N.astype(np.int64).max() + 1) + columns.modality_N * (pair_N > 0)
    return _partners_together(plan, pair_N, [end for end, _ in windows])


def draw_shard_mixed(epoch: Epoch) -> NDArray[np.int32]:
    """Take every sample at most once.

    Up to `window_shards` shards are one plain permutation; of more, the shards are permuted and samples mixed within
    windows of so many, so that reading is nearly sequential.
    """
    columns, rng, window_shards = epoch.columns, epoch.rng, epoch.window_shards
    if columns.num_shards <= window_shards:
        return epoch.batches(order_of_epoch(len(columns), epoch.seed, epoch.number))
    groups = _groups(columns.shard_N, columns.num_shards)
    shards = rng.permutation(columns.num_shards)
    windows = [shards[i : i + window_shards] for i in range(0, len(shards), window_shards)]
    order, first = np.empty(len(columns), np.int32), 0
    for window in windows:
        mixed = rng.permutation(np.concatenate([groups[s] for s in window]))
        order[first : first + len(mixed)] = mixed
        first += len(mixed)
    return epoch.batches(order)


def draw_per_modality(epoch: Epoch) -> NDArray[np.int32]:
    """Take every sample at most once, each batch of one modality; the batches are shuffled."""
    columns, rng, size = epoch.columns, epoch.rng, epoch.batch_size
    batches = [
        rng.permutation(group)[: len(group) // size * size].reshape(-1, size)
        for group in _groups(columns.modality_N, len(columns.modalities))
    ]
    return rng.permutation(np.concatenate(batches), axis=0)


def draw_proportional(epoch: Epoch) -> NDArray[np.int32]:
    """Draw the source of each place in a batch with a chance in proportion to its size times its weight.

    A source gives its samples without repeating one until all are used, then begins anew.
    """
    columns, rng, size = epoch.columns, epoch.rng, epoch.steps * epoch.batch_size
    weight = source_weights(columns, epoch.weights)
    groups = _groups(columns.source_N, len(columns.sources))
    share = weight * [len(g) for g in groups]
    source = rng.choice(len(groups), size=size, p=share / share.sum())
    order = np.empty(size, np.int32)
    for number, group in enumerate(groups):
        places = np.flatnonzero(source == number)
        rounds = [rng.permutation(group) for _ in range(-(-len(places) // len(group)))]
        if rounds:
            order[places] = np.concatenate(rounds)[: len(places)]
    return epoch.batches(order)


def draw_balanced(epoch: Epoch) -> NDArray[np.int32]:
    """Divide the places of an epoch among sources, and those of a source evenly among its strata (findings).

    Sources get a power of their size times their weight, so that what is found and where it is from go together as
    little as the data allow. Numbers are exact, not drawn; the places are then shuffled, one by one or in pieces of one
    source (`Balance.together`); what fills no piece is in batches of its own.
    """
    columns, balance, rng = epoch.columns, epoch.balance, epoch.rng
    size, weight = epoch.steps * epoch.batch_size, source_weights(columns, epoch.weights)
    stratum_N = np.zeros(len(columns), np.int64) if columns.stratum_N is None else columns.stratum_N.astype(np.int64)
    cell_N, cells = _cells(columns.source_N.astype(np.int64) * len(columns.strata) + stratum_N)
    groups = _groups(cell_N, len(cells))
    room = np.array([balance.max_repeats * len(group) for group in groups])
    source_of_cell = cells // len(columns.strata)
    present = np.unique(source_of_cell)
    sizes = _sizes(columns.source_N, len(columns.sources))[present]
    share = weight[present] * sizes.astype(np.float64) ** balance.source_power
    room_of_source = np.array([room[source_of_cell == source].sum() for source in present])
    places = _divided(size, share, np.where(share > 0, np.maximum(room_of_source, 1), 0))
    codes = []
    for source, number in zip(present, places, strict=True):
        of_source = np.flatnonzero(source_of_cell == source)
        codes.append(np.repeat(of_source, _divided(int(number), np.ones(len(of_source)), room[of_source])))
    code = rng.permutation(np.concatenate(codes))
    order = np.empty(len(code), np.int32)
    for of_group, group in zip(_groups(code, len(groups)), groups, strict=True):
        if len(of_group):
            rounds = [rng.permutation(group) for _ in range(-(-len(of_group) // len(group)))]
            order[of_group] = np.concatenate(rounds)[: len(of_group)]
    if balance.together == 1:
        return epoch.batches(order)
    pieces = order[_in_pieces(columns.source_N[order], balance.together, rng)]
    return rng.permutation(epoch.batches(pieces), axis=0)


def windows_of_epoch(
    columns: Columns, policy: str, *, seed: int, epoch: int, window_shards: int
) -> list[tuple[int, NDArray[np.int64]]]:
    """Return the windows of an epoch in order: how many samples of it come up to the end of each, and its shards.

    Whoever brings shards from afar learns from it what is wanted next. A policy whose samples lie in all shards at any
    time has one window.
    """
    if not SAMPLING[policy].in_windows or columns.num_shards <= window_shards:
        return [(len(columns), np.arange(columns.num_shards))]
    shards = np.random.default_rng((seed, ORDER, epoch)).permutation(columns.num_shards)
    ends = np.cumsum(_sizes(columns.shard_N, columns.num_shards)[shards])
    return [
        (int(ends[min(i + window_shards, len(shards)) - 1]), shards[i : i + window_shards])
        for i in range(0, len(shards), window_shards)
    ]


def repeats(plan: NDArray[np.int32]) -> NDArray[np.int32]:
    """Count, for each place of a plan, how often its sample stood before in the same epoch.

    Example:
        >>> repeats(np.array([[3, 1], [3, 3]])).tolist()
        [[0, 0], [1, 2]]
    """
    flat = plan.ravel()
    by_sample = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[by_sample], prepend=-1))
    lengths = np.diff(starts, append=len(flat))
    count = np.empty_like(flat)
    count[by_sample] = np.arange(len(flat)) - np.repeat(starts, lengths)
    return count.reshape(plan.shape)


def _partners_together(
    plan: NDArray[np.int32], pair_N: NDArray[np.integer], window_ends: Sequence[int]
) -> NDArray[np.int32]:
    """Exchange samples between batches, so that the two of a pair stand in one; nobody leaves their window of shards.

    Of a sample that stands several times each time has its own partner. A batch that is full of pairs takes no more.
    """
    order, size = plan.ravel().copy(), plan.shape[1]
    places = np.flatnonzero(pair_N[order])
    by_pair = places[np.argsort(pair_N[order[places]], kind="stable")]
    couples: list[tuple[int, int]] = []
    for of_pair in np.split(by_pair, np.flatnonzero(np.diff(pair_N[order[by_pair]])) + 1):
        halves: dict[int, list[int]] = {}
        for place in of_pair.tolist():
            halves.setdefault(int(order[place]), []).append(place)
        couples += zip(*list(halves.values())[:2], strict=False) if len(halves) > 1 else ()
    window = np.searchsorted(window_ends, np.arange(len(order)), side="right")
    settled = np.zeros(len(order), bool)
    now_at = {place: place for couple in couples for place in couple}  # places of the draw, which exchanges move
    stands_at = dict(now_at)
    for couple in couples:
        settled[list(couple)] = couple[0] // size == couple[1] // size
    next_free = np.arange(size, len(order) + 1, size) - 1
    for first, second in sorted(couples):
        a, b = now_at[first], now_at[second]
        if settled[a] or window[a] != window[b]:
            continue
        settled[a] = True
        batch, place = a // size, next_free[a // size]
        if b // size != batch:
            while place >= batch * size and (settled[place] or window[place] != window[a]):
                place -= 1
            next_free[batch] = place - 1
            if place < batch * size:
                continue
            order[[place, b]] = order[[b, place]]
            moved = stands_at.pop(int(place), None)
            stands_at.pop(b, None)
            if moved is not None:
                now_at[moved], stands_at[b] = b, moved
            now_at[second], stands_at[int(place)] = int(place), second
            b = int(place)
        settled[b] = True
    return order.reshape(plan.shape)


def _in_pieces(code_N: NDArray[np.integer], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return an order of places in which `size` of one code stand side by side; what is left of each comes last."""
    pieces, rest = [], []
    for code in np.unique(code_N):
        places = np.flatnonzero(code_N == code)
        num = len(places) // size
        pieces.append(places[: num * size].reshape(num, size))
        rest.append(places[num * size :])
    return np.concatenate([rng.permutation(np.concatenate(pieces)).ravel(), *rest])


def _cells(code_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the pairs of source and stratum that there are; with the code of each."""
    cells, number_N = np.unique(code_N, return_inverse=True)
    return number_N.astype(np.int64), cells


def _divided(total: int, share: NDArray[np.float64], room: NDArray[np.float64]) -> NDArray[np.int64]:
    """Divide a number by shares, none above its room unless all rooms are full; the result is whole and adds up.

    Example:
        >>> _divided(10, np.array([1.0, 1.0, 2.0]), np.array([1.0, 9.0, 9.0])).tolist()
        [1, 3, 6]
    """
    room = room if room.sum() >= total else room * (total / room.sum())
    parts = np.zeros(len(share))
    full = share <= 0
    while not full.all() and (remainder := total - parts[full].sum()) > 0:
        parts[~full] = remainder * share[~full] / share[~full].sum()
        over = ~full & (parts > room)
        if not over.any():
            break
        parts[over] = room[over]
        full |= over
    numbers = np.floor(parts + 1e-9).astype(np.int64)
    rest = np.argsort(numbers - parts, kind="stable")[: total - numbers.sum()]  # the largest fractions, by their place
    numbers[rest] += 1
    return numbers


def source_weights(columns: Columns, weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the weight of each source, in the order of `columns.sources`; 1 where it is not named.

    Raises:
        MedclipError: RECIPE_INVALID for an unknown source, or weights that are all 0.
    """
    check_sources(columns, weights)
    weight_N = np.array([weights.get(s, 1.0) for s in columns.sources], np.float64)
    if not (np.isfinite(weight_N).all() and (weight_N >= 0).all() and weight_N.any()):
        raise MedclipError(Reason.RECIPE_INVALID, "weights must be numbers from 0 up, and not all 0.")
    return weight_N


def check_sources(columns: Columns, names: Iterable[str]) -> None:
    """Check that shards have the sources that a recipe names.

    Raises:
        MedclipError: RECIPE_INVALID for one that they do not have.
    """
    unknown = sorted(set(names) - set(columns.sources))
    if unknown:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"the shards have no source {unknown[0]!r}.",
            hint=did_you_mean(unknown[0], (s or "(blank)" for s in columns.sources), "Sources are"),
        )


def _sizes(code_N: NDArray[np.integer], num: int) -> NDArray[np.int64]:
    return np.bincount(code_N, minlength=num)


def _groups(code_N: NDArray[np.integer], num: int) -> Sequence[NDArray[np.int32]]:
    """Return the numbers of the samples of each code, ascending."""
    is_sorted = bool((code_N[1:] >= code_N[:-1]).all())  # as shards are; sorting takes three times the memory
    order = np.arange(len(code_N), dtype=np.int32) if is_sorted else np.argsort(code_N, kind="stable").astype(np.int32)
    return np.split(order, np.cumsum(_sizes(code_N, num))[:-1])


SAMPLING: Mapping[str, Sampling] = {
    "shard_mixed": Sampling(draw_shard_mixed, in_windows=True),
    "proportional": Sampling(draw_proportional, takes_weights=True, repeats=True),
    "per_modality": Sampling(draw_per_modality, of_one_modality=True),
    "balanced": Sampling(draw_balanced, takes_weights=True, takes_balance=True, repeats=True),
}
"""What makes the batches of an epoch, as `data.policy` names it."""


class WindowsAhead:
    """The windows of shards of a run, epoch after epoch.

    Args:
        columns: Shards of the samples.
        policy: Policy that makes batches.
        batch_size: Samples of a step over all ranks.
        steps_per_epoch: Whole batches of an epoch; what fills none is never read.
        seed: Seed of the run.
        window_shards: Shards that are mixed.
    """

    def __init__(
        self, columns: Columns, policy: str, *, batch_size: int, steps_per_epoch: int, seed: int, window_shards: int
    ) -> None:
        self._columns, self._seed, self._window_shards = columns, seed, window_shards
        self._policy = policy
        self._batch_size, self._steps_per_epoch = batch_size, steps_per_epoch
        self._epochs: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}

    def needed(self, first_step: int, last_step: int, end: int) -> tuple[list[int], list[int]]:
        """Return what is needed now and soon.

        Args:
            first_step: First of the steps that are being made, counted from the run's start.
            last_step: The last of them.
            end: End of the run: nothing is fetched for steps from there on.

        Returns:
            The shards of those steps, the latest first; and those of the window that comes after them.
        """
        first, last = first_step // self._steps_per_epoch, last_step // self._steps_per_epoch
        per_epoch = self._steps_per_epoch * self._batch_size
        windows = [
            (epoch * per_epoch + min(end, per_epoch), shards)
            for epoch in range(first, last + 2)
            for end, shards in self._of_epoch(epoch)
        ]
        self._epochs = {epoch: windows_of for epoch, windows_of in self._epochs.items() if epoch >= first}
        ends = [end for end, _ in windows]
        low = bisect_right(ends, first_step * self._batch_size)
        high = bisect_left(ends, (last_step + 1) * self._batch_size)
        now = [int(s) for _, shards in reversed(windows[low : high + 1]) for s in shards]
        coming = windows[high + 1 : high + 2] if ends[high] < end * self._batch_size else []
        return list(dict.fromkeys(now)), [int(s) for _, shards in coming for s in shards]

    def _of_epoch(self, epoch: int) -> list[tuple[int, NDArray[np.int64]]]:
        if epoch not in self._epochs:
            self._epochs[epoch] = windows_of_epoch(
                self._columns, self._policy, seed=self._seed, epoch=epoch, window_shards=self._window_shards
            )
        return self._epochs[epoch]
