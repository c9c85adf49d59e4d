"""Checkpoints that are written while the run goes on: a copy in memory, and a thread that writes it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from medclip.training.checkpoints.state import save_checkpoint
from medclip.training.ranks.world import TIMEOUT, World


class BackgroundSaver:
    """Writes at most one checkpoint at a time, the same bytes as `save_checkpoint`.

    The run stops only for the copy of its tensors. What a kill cuts short was a draft: the checkpoint before stays. The
    ranks agree through a process group of their own, so that their threads do not get into the way of the steps.

    Args:
        folder: The run's checkpoint folder.
        world: The ranks; all of them make one.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self._folder = folder
        self._group: Any = None if world.group is None else dist.new_group(backend="gloo", timeout=TIMEOUT)
        self._world = replace(world, device=torch.device("cpu"), group=self._group)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="medclip-checkpoint")
        self._running: Future[Path] | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Copy the tensors, and begin to write them; waits for the checkpoint before. All ranks call it.

        Raises:
            MedclipError: As `save_checkpoint`, of the checkpoint before.
        """
        self.wait()
        copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        self._running = self._pool.submit(save_checkpoint, self._folder, step, copies, state, self._world)

    def wait(self) -> None:
        """Wait until what was begun is written. All ranks call it.

        Raises:
            MedclipError: As `save_checkpoint`.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """End the thread, without a word of what it met: for a run that ends with an error already."""
        self._pool.shutdown()
        if self._group is not None:
            dist.destroy_process_group(self._group)
            self._group = None
