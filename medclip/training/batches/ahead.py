"""Which shards the steps of a run need, so that those of a store are brought here before they are read."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from medclip.shards.reading.mapped_rows import Columns
from medclip.training.batches.order import windows_of_epoch


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
        self._epochs = {epoch: known for epoch, known in self._epochs.items() if epoch >= first}
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
