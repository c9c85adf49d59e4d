"""Batches from shards: order and chance are functions of (seed, epoch, index), so that a stopped run goes on exactly.

No torch here.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.text.captions.record import Region
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.order import (
    SAMPLING,
    WINDOW_SHARDS,
    Order,
    WindowsAhead,
    epoch_plan,
    repeats,
    source_weights,
    steps_of_epoch,
)
from medclip.training.batches.sample_texts import ROLES, RoleTexts, no_texts
from medclip.training.batches.samples import Drawing
from medclip.training.batches.slots import NUM_KEYS, Form
from medclip.training.batches.workers import Crew, CrewOptions, Pending, Row, Split
from medclip.wording import count

if TYPE_CHECKING:
    from medclip.shards.reading.samples import ShardReader

LABELS, TEXT, STUDY, KIND, SOURCE, STATED = range(NUM_KEYS)
"""Columns of `Batch.pair_keys`."""
_AHEAD = 3
_OTHER_INPUT = frozenset({Reason.OTHER_ORIENTATION, Reason.OTHER_UNIT, Reason.OTHER_INPUT, Reason.NO_SCALE})
"""Samples that are sound, and not what the recipe's model takes."""
BUDGET_OVER = 1000
"""The share of bad samples is judged over at least so many."""
TOKEN_STEP = 8
"""What lengths of captions are rounded up to, so that compiled towers see few shapes."""
_FEW_STEPS = 10
_SPEED_SAMPLES = 16
_SLOW_MB_S = 50


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's input: this rank's b samples of the global batch, with V images and T captions each.

    Rows of images are the first image of each sample, then the second of each, and so on; captions likewise.
    """

    images: NDArray[Any]
    """uint8 [V * b, S, S, 3], or [V * b, 1 + N, p * p * 3] from `TokenBudget.pack`, or a clip or an ECG each; black
    where a sample is bad or has no such view. Valid until `release`."""
    tokens: NDArray[np.int32]
    """int32 [T * b, L]: the captions, as the run's tokenizer cuts them; L = 0 without one."""
    num_tokens: int
    """Columns of `tokens` that the longest caption needs, rounded up to a multiple of 8, at most L."""
    pair_keys: NDArray[np.int64]
    """int64 [T * b, 6]: keys of label set, caption, study, kind of image and source (columns LABELS, TEXT, STUDY, KIND,
    SOURCE), as `Pairs` takes them: -1 where nothing is known that could be equal. STATED is the key of the label set
    where the caption says nothing else, and -1 where it is quoted."""
    texts: tuple[str, ...]
    """T * b captions."""
    label_keys: tuple[str, ...]
    """Equal for records that carry the same labels; "" where nothing is known that could be equal."""
    studies: tuple[str, ...]
    """Keyed hash of the examination, or of the patient where samples are examinations of several views; "" where it is
    not known."""
    keys: tuple[str, ...]
    """Keys of the samples in their shards."""
    valid: NDArray[np.bool_]
    """bool [b]; False for a bad sample, which must take no part in the loss."""
    wait_s: float = 0.0
    """Seconds the training waited for it."""
    num_views: int = 1
    """V: each sample's image so often, changed anew, or the views of its examination."""
    num_texts: int = 1
    """T."""
    view_types: NDArray[np.int64] | None = None
    """int64 [b, V, 3] of examinations: numbers of side, position and kind, -1 where a sample has no such view."""
    text_parts: NDArray[np.int64] | None = None
    """int64 [b, T] of examinations: number of the side that a caption is about, -1 for all that is shown."""
    weights: NDArray[np.float32] | None = None
    """float32 [b]: how much each sample counts in the loss; None where all count alike."""
    roles: Mapping[str, RoleTexts] = field(default_factory=dict)
    """Texts beside the captions, by their role, where a loss reads them."""
    stored: tuple[bytes, ...] = ()
    """Of each sample what `Made.stored` says."""
    regions: tuple[tuple[Region, ...], ...] = ()
    """Of each sample where what its texts name lies in its image, as shares of it."""
    pending: Pending | None = None

    def release(self) -> None:
        """Let the memory of the arrays be used for another batch.

        Calling it again does no harm. A batch that is never released keeps its memory, and the next ones take more.
        """
        if self.pending is not None:
            self.pending.release()


class Batches:
    """Batches of a split.

    The numbers are the same for any number and kind of workers, any cache and any number of ranks: step s of a run has
    the same global batch everywhere, and rank r its rows r * b to (r + 1) * b - 1, b = batch_size / world_size.

    Args:
        reader: The split.
        drawing: Settings of making samples.
        batch_size: Samples of a step over all ranks; the rest of an epoch that does not fill a batch is left out (it is
            other samples each epoch).
        tokenizer: Tokenizer that cuts the captions into tokens, in the workers; none are cut where None.
        order: Policy that makes batches.
        loss_weights: Weights in the loss of the samples of each source.
        rank: Number of this process among those that train together.
        world_size: Number of processes that train together.
        making: Options of the workers that decode and augment.
        max_bad_share: Share of bad samples that `over_budget` allows.
        crew: Workers of another split that make this one, too; `making` then does not count.

    Raises:
        MedclipError: NOTHING_TO_DO when an epoch has no whole batch; RECIPE_INVALID when the batch cannot be divided
            among the ranks or the weights do not fit.
    """

    def __init__(
        self,
        reader: ShardReader,
        drawing: Drawing,
        *,
        batch_size: int,
        tokenizer: Tokenizer | None = None,
        order: Order | None = None,
        loss_weights: Mapping[str, float] | None = None,
        rank: int = 0,
        world_size: int = 1,
        making: CrewOptions | None = None,
        max_bad_share: float = 0.01,
        crew: Crew | None = None,
    ) -> None:
        if batch_size % world_size:
            raise MedclipError(
                Reason.RECIPE_INVALID,
                f"a batch of {batch_size} cannot be divided among {world_size} ranks.",
                hint="Make train.batch_size, the samples of all ranks together, a multiple of their number.",
            )
        self.reader, self.batch_size, self.seed, self.order = reader, batch_size, drawing.seed, order or Order()
        self.rank, self.world_size, self.max_bad_share = rank, world_size, max_bad_share
        length = tokenizer.context_length if tokenizer else 0
        pixels, self._drawing = drawing.preprocess, drawing
        form = Form(
            batch_size // world_size,
            pixels.image_shape,
            length,
            drawing.num_views,
            drawing.num_texts,
            pixels.image_dtype,
            sum(role.num_texts for role in drawing.roles if ROLES[role.name].is_encoded),
        )
        self.crew = crew or Crew(making or CrewOptions(), form, tokenizer)
        """Who makes the batches."""
        self._split = self.crew.add(Split(reader, drawing))
        self._loss_weights = source_weights(reader.columns, loss_weights).astype(np.float32) if loss_weights else None
        self._plan: tuple[int, NDArray[np.int32], NDArray[np.int32]] | None = None
        self._ahead: WindowsAhead | None = None
        self._wanted: tuple[list[int], list[int]] | None = None
        self._fetched_s = 0.0
        self.bad: Counter[str] = Counter()
        """Bad samples of this rank so far, by reason."""
        self.seen = 0
        """Samples of this rank so far, good and bad."""
        self._num_distinct = batch_size // self.order.num_repeats
        self.steps_per_epoch = steps_of_epoch(
            reader.columns, self.order.policy, batch_size=self._num_distinct, weights=self.order.weights
        )
        """Whole batches in an epoch."""
        if drawing.augment is not None and not self.steps_per_epoch:
            raise MedclipError(
                Reason.NOTHING_TO_DO,
                f"the split has {len(reader)} samples, fewer than one batch of {batch_size}"
                + (" of any one modality." if SAMPLING[self.order.policy].of_one_modality else "."),
                hint="Make train.batch_size smaller.",
            )

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield this rank's rows of the batches of steps first_step to last_step - 1, counted from the run's start.

        Raises:
            MedclipError: TIMEOUT, with where the workers hang; what `ShardReader.raw` raises, naming the shard.
        """
        yield from self._prepared(self._planned(step, first_step, last_step) for step in range(first_step, last_step))

    def validation(self, limit: int) -> Iterator[Batch]:
        """Yield this rank's part of the first samples of the split, in order; the last batch may be smaller.

        Rank r has rows r * n to (r + 1) * n - 1, n = ceil(size / world_size), so that all ranks have equally many and
        as many batches; what lies beyond the last sample is the last one again.

        Args:
            limit: The most samples, of all ranks together.
        """
        self.keep_validation(limit)
        size, most = min(limit, len(self.reader)), self.batch_size // self.world_size
        num_rows = -(-size // self.world_size)
        first = self.rank * num_rows
        rows = [(0, min(i, size - 1), 0) for i in range(first, first + num_rows)]
        yield from self._prepared(rows[start : start + most] for start in range(0, num_rows, most))

    def chosen(self, samples: Sequence[int]) -> Iterator[Batch]:
        """Yield some samples of the split as `validation` has them, in this order and on every rank the same.

        Args:
            samples: Numbers of the samples.
        """
        most = self.batch_size // self.world_size
        rows = [(0, sample, 0) for sample in samples]
        yield from self._prepared(rows[start : start + most] for start in range(0, len(rows), most))

    def keep_validation(self, limit: int) -> None:
        """Have the shards of `validation` brought here, where they lie in a store, and kept until this is closed.

        Raises:
            MedclipError: A shard cannot be fetched.
        """
        if self.reader.is_remote:
            self._want(np.unique(self.reader.columns.shard_N[:limit]).tolist(), [], keep=True)

    def over_budget(self) -> MedclipError | None:
        """Return the error to end a run with when too many samples were bad, else None."""
        num_bad = sum(self.bad.values())
        if num_bad <= self.max_bad_share * max(self.seen, BUDGET_OVER):
            return None
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.bad.items()))
        remedy = "`medclip shards check` names them"
        if not self.bad.keys().isdisjoint(_OTHER_INPUT):
            remedy = "Compare model.volume of the recipe with `volume` in the JSON of a sample"
        return MedclipError(
            Reason.TOO_MANY_BAD,
            f"{num_bad} of {self.seen} samples could not be used ({reasons}); {self.max_bad_share:.2%} are allowed.",
            where=self.reader.folder,
            hint=f"{remedy}; data.max_bad_share allows more.",
        )

    def close(self) -> None:
        """Let the workers go. They are called again when wanted."""
        self.crew.close()
        if self._wanted is not None:
            self._wanted = None
            self.reader.close()

    def _planned(self, step: int, first_step: int, end: int) -> list[Row]:
        """Return the rows of a step, once the shards of its window are here; those of the next one are fetched."""
        if self.reader.is_remote:
            self._ahead = self._ahead or WindowsAhead(
                self.reader.columns,
                self.order.policy,
                batch_size=self._num_distinct,
                steps_per_epoch=self.steps_per_epoch,
                seed=self.seed,
                window_shards=self.order.window_shards,
            )
            self._want(*self._ahead.needed(max(first_step, step - _AHEAD - 1), step, end))
        return self._rows(step)

    def _want(self, now: list[int], soon: list[int], *, keep: bool = False) -> None:
        if self._wanted != (now, soon):
            start = time.perf_counter()
            self.reader.want(now, soon, keep=keep, in_processes=self.crew.kind == "process" and not keep)
            self._wanted, self._fetched_s = (now, soon), self._fetched_s + time.perf_counter() - start

    def _rows(self, step: int) -> list[Row]:
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._plan is None or self._plan[0] != epoch:
            plan = epoch_plan(
                self.reader.columns,
                self.order.policy,
                batch_size=self._num_distinct,
                seed=self.seed,
                epoch=epoch,
                weights=self.order.weights,
                balance=self.order.balance,
                window_shards=self.order.window_shards,
            )
            plan = plan.repeat(self.order.num_repeats, axis=1)
            stand_again = SAMPLING[self.order.policy].repeats or self.order.num_repeats > 1
            again = repeats(plan) if stand_again else np.broadcast_to(np.int32(0), plan.shape)
            self._plan = epoch, plan, again
        _, plan, again = self._plan
        num_rows = self.batch_size // self.world_size
        part = slice(self.rank * num_rows, (self.rank + 1) * num_rows)
        places = list(zip(plan[number, part].tolist(), again[number, part].tolist(), strict=True))
        return [(epoch, i, r) for i, r in places]

    def _prepared(self, plan: Iterator[list[Row]]) -> Iterator[Batch]:
        """Have a few batches made ahead."""
        waiting: deque[tuple[list[Row], Pending]] = deque()
        try:
            for rows in plan:
                waiting.append((rows, self.crew.start(self._split, rows)))
                if len(waiting) > _AHEAD:
                    yield self._collect(*waiting.popleft())
            while waiting:
                yield self._collect(*waiting.popleft())
        except MedclipError:
            self.close()
            raise
        finally:
            for _, pending in waiting:
                pending.cancel()

    def _collect(self, rows: Sequence[Row], pending: Pending) -> Batch:
        start = time.perf_counter()
        arrays, strings = pending.wait()
        waited, self._fetched_s = time.perf_counter() - start + self._fetched_s, 0.0
        texts, label_keys, studies, keys, faults, role_texts, vectors, regions = zip(*strings, strict=True)
        self.seen += len(rows)
        self.bad.update(fault for fault in faults if fault)
        drawing, size = self._drawing, len(rows)
        views, several = drawing.num_views, drawing.num_texts
        tokens = _flat(arrays.tokens[:several, :size])
        types, parts = arrays.view_types[:size, :views].copy(), arrays.text_parts[:several, :size].T.copy()
        return Batch(
            images=_flat(arrays.images[:views, :size]),
            tokens=tokens,
            num_tokens=used_columns(tokens, self.crew.tokenizer),
            pair_keys=_flat(arrays.pair_keys[:several, :size]),
            texts=tuple(of_sample[n] if of_sample else "" for n in range(several) for of_sample in texts),
            label_keys=label_keys,
            studies=studies,
            keys=keys,
            valid=np.array([not fault for fault in faults]),
            wait_s=waited,
            num_views=views,
            num_texts=several,
            view_types=types if drawing.of_exam else None,
            text_parts=parts if drawing.of_exam else None,
            weights=self._weights(rows),
            roles=self._roles(role_texts, arrays.role_tokens[:, :size]),
            stored=vectors,
            regions=regions,
            pending=pending,
        )

    def _roles(
        self, role_texts: Sequence[tuple[tuple[str, ...], ...]], tokens_RBL: NDArray[np.int32]
    ) -> dict[str, RoleTexts]:
        """Return the texts of each role, whose tokens lie one role after the other."""
        roles, start = {}, 0
        for number, role in enumerate(self._drawing.roles):
            texts = tuple(of_sample[number] for of_sample in role_texts)
            if not ROLES[role.name].is_encoded:
                roles[role.name] = replace(no_texts(role, len(texts), 0), texts=texts)
                continue
            tokens_BKL = tokens_RBL[start : start + role.num_texts].swapaxes(0, 1)
            start += role.num_texts
            used = used_columns(tokens_BKL.reshape(-1, tokens_BKL.shape[2]), self.crew.tokenizer)
            roles[role.name] = RoleTexts(texts, tokens_BKL, used)
        return roles

    def _weights(self, rows: Sequence[Row]) -> NDArray[np.float32] | None:
        numbers = [index for _, index, _ in rows]
        by_source = None if self._loss_weights is None else self._loss_weights[self.reader.columns.source_N[numbers]]
        if self.reader.weight_N is None:
            return by_source
        selected = self.reader.weight_N[numbers]
        return selected if by_source is None else by_source * selected


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """Join the first two axes; no copy where all of a block is used."""
    return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])


def preflight(
    reader: ShardReader,
    *,
    world_size: int,
    workers: int,
    batch_size: int,
    policy: str = "shard_mixed",
    window_shards: int = WINDOW_SHARDS,
) -> tuple[str, ...]:
    """Return what is worth knowing of a split before a run begins.

    Args:
        reader: The split.
        world_size: Ranks that train together.
        workers: Workers of each.
        batch_size: Samples of a step over all ranks.
        policy: Policy that makes batches.
        window_shards: Shards that are mixed, by a policy that mixes windows of them.

    Returns:
        A sentence each: fewer shards than workers, an epoch of few batches, and how fast the first shard is read, or
        what the cache holds of shards of a store.

    Raises:
        MedclipError: The first shard is gone or not what the index says.
    """
    notes = []
    readers = world_size * workers
    if len(reader.shards) < readers:
        per_shard = max(1, len(reader) // readers)
        notes.append(
            f"the split {reader.split!r} has {count(len(reader.shards), 'shard')} for {world_size} ranks x {workers} "
            f"workers, which read the same files; --samples-per-shard {per_shard} gives as many shards"
        )
    steps = len(reader) // batch_size
    if steps < _FEW_STEPS:
        notes.append(f"an epoch has only {steps} batches of {batch_size}; warm-up and schedule count in steps")
    return (*notes, _room(reader, policy, window_shards) if reader.is_remote else _speed(reader))


def _room(reader: ShardReader, policy: str, window_shards: int) -> str:
    """Compare the cache with the largest window of shards that are needed at once."""
    sizes = sorted((s.num_bytes or 0 for s in reader.shards), reverse=True)
    window = sizes[:window_shards] if SAMPLING[policy].in_windows else sizes
    fitting = int(np.searchsorted(np.cumsum(window), reader.cache.max_bytes, side="right"))
    what = f"{count(len(window), 'shard')} of up to {sum(window) / 1e9:.3g} GB are needed at once"
    note = f"shards come from a store into a cache of {reader.cache.max_bytes / 1e9:.3g} GB; {what}"
    if fitting == len(window):
        return note
    remedy = "lower data.window_shards or " if SAMPLING[policy].in_windows else ""
    remainder = f"{len(window) - fitting} of them are read sample by sample, with a request each"
    return f"{note}, and {remainder}: {remedy}raise data.shard_cache_gb"


def _speed(reader: ShardReader) -> str:
    """Read a few samples of the first shard, after one that opens (and verifies) it."""
    first = int(reader.columns.shard_N[0])
    samples = np.flatnonzero(reader.columns.shard_N == first)
    chosen = samples[:: max(1, len(samples) // _SPEED_SAMPLES)][:_SPEED_SAMPLES]
    reader.raw(int(chosen[0]))
    start = time.perf_counter()
    num_bytes = sum(len(reader.raw(int(i))) for i in chosen)
    speed = num_bytes / 2**20 / max(time.perf_counter() - start, 1e-6)
    slow = "; that is slow, training will wait unless the shards lie on a faster disk" if speed < _SLOW_MB_S else ""
    return f"the first shard was read at {speed:.0f} MB/s{slow}"


def used_columns(tokens_BL: NDArray[np.int32], tokenizer: Tokenizer | None) -> int:
    """Count the columns up to the end of the longest caption, rounded up to a multiple of 8, at most L."""
    length = tokens_BL.shape[1]
    if tokenizer is None or not tokens_BL.size:
        return length
    columns = np.flatnonzero((tokens_BL != tokenizer.pad_id).any(axis=0))
    used = (int(columns[-1]) + 1 if len(columns) else 0) + (tokenizer.pad_id == tokenizer.eos_id)
    return min(length, -(-max(used, 1) // TOKEN_STEP) * TOKEN_STEP)
