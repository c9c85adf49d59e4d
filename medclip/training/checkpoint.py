"""Checkpoints: safetensors and JSON in a folder that appears whole, the last two kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason

KEEP = 2
_PREFIX = "step-"


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: Mapping[str, Tensor] | None,
    state: Mapping[str, Any],
) -> Path:
    """Write folder/step-N and remove all but the last two.

    Args:
        folder: The run's checkpoint folder.
        step: Steps done.
        model: All its parameters and buffers are stored.
        optimizer: All its per-parameter tensors are stored.
        averaged: The EMA state, if there is one.
        state: Plain values: recipe digest, best validation loss, ...

    Raises:
        MedclipError: DISK_FULL when there is no room; the checkpoints before stay.
    """
    target = folder / f"{_PREFIX}{step:07d}"
    fresh = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _save(model.state_dict(), fresh / "model.safetensors")
        _save(_optimizer_tensors(optimizer), fresh / "optimizer.safetensors")
        if averaged is not None:
            _save(averaged, fresh / "averaged.safetensors")
        (fresh / "state.json").write_text(json.dumps({**state, "step": step}, indent=1), encoding="utf-8")
        for path in (*fresh.iterdir(), fresh):
            _sync(path)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as e:
        shutil.rmtree(fresh, ignore_errors=True)
        raise MedclipError(
            Reason.DISK_FULL,
            "the checkpoint could not be written.",
            where=target,
            hint="Free some space and run again.",
        ) from e
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """List whole checkpoints, oldest first."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if (p / "state.json").is_file())


def read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint's plain values.

    Raises:
        MedclipError: CORRUPT.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        int(state["step"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise _corrupt(path) from e
    return state


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, averaged: dict[str, Tensor] | None
) -> None:
    """Put a checkpoint's tensors in place; memory layouts stay those of the model.

    Raises:
        MedclipError: CORRUPT when it is incomplete or belongs to another model.
    """
    try:
        model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
        _load_optimizer(optimizer, load_file(path / "optimizer.safetensors"))
        if averaged is not None:
            for name, value in load_file(path / "averaged.safetensors").items():
                averaged[name].copy_(value)
    except (OSError, SafetensorError, RuntimeError, KeyError) as e:
        raise _corrupt(path) from e


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file, atomically."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _save(tensors, fresh)
    _sync(fresh)
    fresh.replace(path)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {}
    for i, p in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(p, {}).items():
            found[f"{i}.{key}"] = torch.as_tensor(value)
    return found


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        p = parameters[int(index)]
        if value.ndim == 0:
            optimizer.state[p][key] = value.clone()  # the step count; AdamW keeps it on the CPU
        else:
            optimizer.state[p][key] = torch.empty_like(p, dtype=value.dtype).copy_(value)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _corrupt(path: Path) -> MedclipError:
    return MedclipError(
        Reason.CORRUPT,
        "this checkpoint is incomplete or belongs to another model.",
        where=path,
        hint="Remove it; the run goes on from the one before.",
    )
