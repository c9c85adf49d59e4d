"""Blocks of batches: written by workers of any kind, not used again before they are released, gone with their maker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.models.inputs.preprocess import Preprocess
from medclip.shards.reading.samples import ShardReader
from medclip.training.batches import samples as samples_module
from medclip.training.batches.loader import Batch, Batches
from medclip.training.batches.slots import NUM_KEYS, Form, MappedSlots, Slots
from medclip.training.recipe.augment import Augment
from tests.kits.training import batches_of

FORM = Form(num_rows=3, image_shape=(5, 5, 3), context_length=4, num_views=4, num_texts=2)


def _batches(shards: Path, kind: Any, **options: Any) -> Batches:
    reader = ShardReader(shards, "train")
    return batches_of(
        reader, batch_size=6, preprocess=Preprocess(32), seed=1, augment=Augment(), worker_kind=kind, **options
    )


def _slots(data: Batches) -> Slots:
    running = data.crew._running
    assert running is not None
    return running._slots


def test_what_one_process_writes_another_sees(tmp_path: Path) -> None:
    slots = Slots(FORM, tmp_path)
    numbers = [slots.take(), slots.take()]
    mapped = MappedSlots(slots.path, FORM)
    for number in numbers:
        mapped.arrays(number).images[:, 1] = 7 + number
        mapped.arrays(number).tokens[:, 2] = 70_000 + number
        mapped.arrays(number).pair_keys[:, 0] = 2**62 + number
        mapped.arrays(number).view_types[1], mapped.arrays(number).text_parts[:, 1] = number, number + 1
    for number in numbers:
        own = slots.arrays(number)
        assert own.images.sum() == 75 * (7 + number) * 4
        assert own.tokens[:, 2].tolist() == [[70_000 + number] * 4] * 2
        assert own.pair_keys[:, 0].tolist() == [[2**62 + number] * NUM_KEYS] * 2
        assert own.view_types[1].tolist() == [[number] * 3] * 4
        assert own.text_parts[:, 1].tolist() == [number + 1] * 2
    slots.close()
    assert not os.path.exists(slots.path)


def test_a_block_is_taken_again_when_it_is_free_and_not_before() -> None:
    slots = Slots(FORM)
    first, second = slots.take(), slots.take()
    assert first != second
    slots.free(first)
    assert slots.take() == first
    assert len(slots) == 2


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_batch_keeps_its_pixels_until_it_is_released(shards: Path, kind: str) -> None:
    data = _batches(shards, kind)
    kept: list[tuple[Batch, Any]] = []
    for step, batch in enumerate(data.training(0, 30)):
        if step % 10 == 0:
            kept.append((batch, batch.images.copy()))
        else:
            batch.release()
    assert len(_slots(data)) <= 3 + 5  # those kept, and what is made ahead
    assert all(np.array_equal(batch.images, images) for batch, images in kept)
    data.close()
    assert all(np.array_equal(batch.images, images) for batch, images in kept)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_released_blocks_are_used_again(shards: Path, kind: str) -> None:
    data = _batches(shards, kind)
    for batch in data.training(0, 20):
        batch.release()
    assert len(_slots(data)) <= 5
    data.close()


def test_a_block_that_a_worker_still_writes_to_is_not_given_away(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave in the middle: rows that are being made are finished somewhere, and not in a batch of what comes next."""
    hold, began = threading.Event(), threading.Event()
    draw = samples_module.draw_stated

    calls: list[int] = []

    def held(*arguments: Any, **options: Any) -> tuple[str, bool]:
        calls.append(1)
        if len(calls) > 6:  # of the second batch
            began.set()
            hold.wait(30)
        return draw(*arguments, **options)

    monkeypatch.setattr(samples_module, "draw_stated", held)
    data = _batches(shards, "thread", workers=1)
    for batch in data.training(0, 9):
        batch.release()
        break
    assert began.wait(30)
    slots = _slots(data)
    free = set(slots._free)
    hold.set()
    for _ in range(500):
        if len(slots._free) == len(slots):
            break
        time.sleep(0.01)
    assert len(free) < len(slots._free) == len(slots)
    monkeypatch.undo()
    data.close()


def test_nothing_is_left_of_a_run_that_is_killed(shards: Path) -> None:
    code = f"""
import os, signal, sys
from tests.training.batches.test_slots import _batches, _slots
from pathlib import Path
data = _batches(Path({str(shards)!r}), "process", workers=1)
next(iter(data.training(0, 9)))
print(_slots(data).path, data.crew._running._folder.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    path, folder = done.stdout.split()
    assert not os.path.exists(path)
    assert sum(p.stat().st_size for p in Path(folder).iterdir()) == 0  # stacks of workers, empty
