"""Inputs come ahead of the steps, in order, with what went wrong and what was known of the data."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.objectives.pairs import Pairs
from medclip.training.batches.loader import Batch
from medclip.training.steps.inputs import Feed, Inputs

CPU = torch.device("cpu")


class Data:
    """Stands for Batches: numbers as images; fails at a step."""

    def __init__(self, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.fails_at, self.error, self.released, self.closed = fails_at, error, 0, threading.Event()
        self.seen, self.bad = 0, Counter[str]()
        self.buffer = np.zeros((2, 4, 4, 3), np.uint8)

    def training(self, first: int, last: int) -> Iterator[Any]:
        try:
            for step in range(first, last):
                if step == self.fails_at:
                    assert self.error is not None
                    raise self.error
                self.buffer[:] = step
                self.seen += 2
                self.bad["empty_caption"] += 1
                yield _Batch(self, step)
        finally:
            self.closed.set()

    def over_budget(self) -> MedclipError | None:
        return None if self.seen < 6 else MedclipError(Reason.TOO_MANY_BAD, "too many.")


class _Batch:
    def __init__(self, data: Data, step: int) -> None:
        self.images, self.data = data.buffer, data

    def release(self) -> None:
        self.data.released += 1


def _prepare(batch: Batch, step: int) -> Inputs:
    return Inputs(torch.from_numpy(batch.images).clone(), torch.full((2, 3), step), 3)


def _feed(data: Data, first: int, last: int) -> Feed:
    return Feed(data, _prepare, CPU, first, last)  # type: ignore[arg-type]


def test_each_step_gets_its_own_batch_though_all_lie_in_one_buffer() -> None:
    data = Data()
    feed = _feed(data, 3, 8)
    fed = list(feed)
    feed.close()
    assert [int(f.inputs.images[0, 0, 0, 0]) for f in fed if f.inputs is not None] == [3, 4, 5, 6, 7]
    assert [(f.seen, f.bad["empty_caption"]) for f in fed] == [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5)]
    assert [f.error is not None for f in fed] == [False, False, True, True, True]
    assert data.released == 5
    assert data.closed.wait(5)


def test_a_batch_that_cannot_be_read_is_told_at_its_step_and_at_all_that_follow() -> None:
    data = Data(1, MedclipError(Reason.CORRUPT, "changed."))
    fed = list(_feed(data, 0, 4))
    assert [f.inputs is None for f in fed] == [False, True, True, True]
    assert {f.error.reason for f in fed[1:] if f.error} == {Reason.CORRUPT}


def test_a_fault_of_our_own_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        list(_feed(Data(0, ZeroDivisionError()), 0, 2))


def test_a_run_that_stops_early_closes_what_it_read_from() -> None:
    data = Data()
    feed = _feed(data, 0, 1000)
    next(iter(feed))
    feed.close()
    assert data.closed.wait(5)
    assert data.seen < 20


def test_moved_inputs_keep_every_field() -> None:
    keys, valid = torch.ones(2, 1, dtype=torch.int64), torch.tensor([True, False])
    pairs, mask = Pairs(keys, keys, torch.ones(2), valid), torch.ones(2, 5, dtype=torch.bool)
    taught = {"text_teacher": {"input_ids": torch.ones(2, 4)}}
    inputs = Inputs(torch.ones(2, 4, 4, 3), torch.ones(2, 3), 8, pairs, 1, valid, mask, mask, taught)
    moved = inputs.to(torch.device("meta"))
    tensors = [*vars(moved).values(), *vars(moved.pairs).values(), *moved.extra["text_teacher"].values()]
    tensors = [x for x in tensors if isinstance(x, torch.Tensor)]
    assert {str(x.device) for x in tensors} == {"meta"}
    assert (len(moved), moved.num_tokens, moved.num_views, len(tensors)) == (2, 8, 1, 10)
