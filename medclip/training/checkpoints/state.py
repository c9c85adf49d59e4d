"""Checkpoints: tensors through torch.distributed.checkpoint into safetensors, plain values in JSON, no pickle.

A checkpoint is a folder that appears whole, with the hash of each file; the last two are kept. One that was written by
some number of ranks, DDP or FSDP, is read by any other number. It is written while the run goes on: a copy in memory,
and a thread that writes it.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader as loader
from torch.distributed.checkpoint import state_dict_saver as saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_error, disk_errors, draft_of, make_folder, new_file, publish_folder
from medclip.models.packs.manifest import file_sha256
from medclip.training.ranks import TIMEOUT, World

KEEP = 2
STATE = "state.json"
_PREFIX = "step-"


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], world: World
) -> Path:
    """Write folder/step-N and remove all but the last two. Every rank calls it, on one file system.

    Args:
        folder: The run's checkpoint folder.
        step: Steps done.
        tensors: Whole tensors (equal on all ranks) or DTensors, by name.
        state: Plain values: recipe digest, best validation loss, ...
        world: The ranks.

    Returns:
        The checkpoint.

    Raises:
        MedclipError: DISK_FULL, PERMISSION_DENIED, WRITE_ERROR, on all ranks; the checkpoints before stay.
    """
    target = folder / f"{_PREFIX}{step:07d}"
    fresh = draft_of(target, target.name)  # of one name on all ranks
    error: MedclipError | None = None
    try:
        if world.is_first:
            with disk_errors(target):
                shutil.rmtree(fresh, ignore_errors=True)
                make_folder(fresh)
    except MedclipError as e:
        error = e
    try:
        world.agree(error)
        try:
            with _quiet():
                saver.save(
                    {k: v.detach().contiguous() for k, v in tensors.items()},  # safetensors takes no others
                    storage_writer=HuggingFaceStorageWriter(str(fresh), save_distributed=True),
                    process_group=world.group,
                    no_dist=world.group is None,
                )
        except (Exception, CheckpointException) as e:  # the last is a BaseException, and holds what any rank met
            error = disk_error(e, target)
            if error is None:
                why = f"this cannot be written: {type(e).__name__}; what was there before is kept."
                error = MedclipError(Reason.WRITE_ERROR, why, where=target, hint="Run again.")
        world.agree(error)
        world.first(lambda: _publish(folder, fresh, target, {**state, "step": step}))
    except BaseException:
        if world.is_first:
            shutil.rmtree(fresh, ignore_errors=True)
        raise
    return target


def checkpoints(folder: Path) -> list[Path]:
    """List whole checkpoints, oldest first."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if (p / STATE).is_file())


def newest_sound(folder: Path) -> tuple[Path | None, dict[str, Any], list[Path]]:
    """Find the newest checkpoint whose files are what was written.

    Returns:
        The checkpoint (None where none is sound), its plain values, and the damaged ones that are newer.
    """
    damaged = []
    for path in reversed(checkpoints(folder)):
        try:
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
            files = dict(state["files"])
            int(state["step"])
            sound = all(file_sha256(path / name) == sha256 for name, sha256 in files.items())
        except (OSError, ValueError, KeyError, TypeError):
            sound, state = False, {}
        if sound:
            return path, state, damaged
        damaged.append(path)
    return None, {}, damaged


def newest_for_all(folder: Path, world: World) -> tuple[Path | None, dict[str, Any], int]:
    """Find the newest sound checkpoint on the first rank, for all of them.

    Returns:
        The checkpoint (None where there is none), its plain values, and the number of damaged ones that are newer.

    Raises:
        MedclipError: CORRUPT where all are damaged.
    """
    path, state, damaged = newest_sound(folder) if world.is_first else (None, {}, [])
    name, state, num_damaged = world.gather([path.name if path else None, state, len(damaged)])[0]
    if name is None and num_damaged:
        raise MedclipError(
            Reason.CORRUPT,
            f"none of the {num_damaged} checkpoints here holds what was written.",
            where=folder,
            hint="Remove the folder to begin again, or put the checkpoints back.",
        )
    return (folder / name if name is not None else None), state, num_damaged


def load_checkpoint(path: Path, tensors: Mapping[str, Tensor], world: World) -> None:
    """Read a checkpoint into tensors that are there already, whole or sharded in any way.

    Raises:
        MedclipError: CORRUPT when it is incomplete or belongs to another model.
    """
    into = {k: v.detach() for k, v in tensors.items()}
    try:
        with _quiet():
            reader = HuggingFaceStorageReader(str(path))
            loader.load(into, storage_reader=reader, process_group=world.group, no_dist=world.group is None)
        with torch.no_grad():
            for name, value in into.items():  # most were filled in place; scalars may have been replaced
                if value is not tensors[name]:
                    tensors[name].detach().copy_(value)
    except (Exception, CheckpointException) as e:
        raise MedclipError(
            Reason.CORRUPT,
            f"this checkpoint is incomplete or belongs to another model ({type(e).__name__}).",
            where=path,
            hint="Remove it; the run goes on from the one before.",
        ) from e


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Tensor]:
    """Name the optimizer's tensors after their parameters: "optim.NAME.exp_avg".

    Args:
        optimizer: Optimizer, whose state may be empty; call `fill_optimizer` first to load one.
        names: Name of each parameter by `id`.
    """
    return {
        f"optim.{names[id(p)]}.{key}": value
        for group in optimizer.param_groups
        for p in group["params"]
        for key, value in optimizer.state.get(p, {}).items()
        if isinstance(value, Tensor)
    }


def fill_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Fill AdamW with the zero state that it would make at its first step, so that a checkpoint can be read into it."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
            }


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file that is there whole or not at all."""
    from safetensors.torch import save_file

    with new_file(path) as draft:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, draft)


def _publish(folder: Path, fresh: Path, target: Path, state: dict[str, Any]) -> None:
    with disk_errors(target):
        hashes = {p.name: file_sha256(p) for p in sorted(fresh.iterdir()) if p.is_file()}
        (fresh / STATE).write_text(json.dumps({**state, "files": hashes}, indent=1), encoding="utf-8")
        publish_folder(fresh, target)
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from telling on every save that there is but one process, and how fast it was."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    # Left in place: what warnings.catch_warnings puts back is that of all threads, and this may be another.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    try:
        yield
    finally:
        logger.setLevel(level)


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
            MedclipError: DISK_FULL, PERMISSION_DENIED, WRITE_ERROR of the checkpoint before.
        """
        self.wait()
        copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        self._running = self._pool.submit(save_checkpoint, self._folder, step, copies, state, self._world)

    def wait(self) -> None:
        """Wait until what was begun is written. All ranks call it.

        Raises:
            MedclipError: DISK_FULL, PERMISSION_DENIED, WRITE_ERROR.
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
