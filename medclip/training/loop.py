"""Pre-training of a dual encoder: read a recipe, take steps, keep checkpoints, write a pack."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_faults
from medclip.progress import Progress
from medclip.shards.folder import read_index
from medclip.training.log import FILE_NAME, TENSORBOARD, read_log
from medclip.training.recipe.file import load_recipe
from medclip.training.recipe.schema import Recipe
from medclip.training.result import BEST, PretrainResult

if TYPE_CHECKING:
    from medclip.training.ranks.world import World

NOTE = "recipe.json"
_OF_A_RUN = frozenset({NOTE, FILE_NAME, TENSORBOARD, BEST, "tokenizer", "checkpoints", "pack"})


def run_recipe(
    recipe: Path | str | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = True,
    *,
    progress: Progress | None = None,
    stop: Callable[[int], bool] | None = None,
) -> PretrainResult:
    """Train a model, as `medclip.pretrain` says.

    `stop` is asked after each step with the number of steps done; True writes a checkpoint and stops, as Ctrl-C and
    SIGTERM do.
    """
    plan = load_recipe(recipe, overrides)
    folder = Path(out or plan.folder)
    for shards in plan.data.shards:
        read_index(shards)  # refuses a folder without shards before torch is imported
    _check_device(plan.train.device)
    from medclip.training.ranks.world import joined

    with joined(plan.train.device) as world:
        world.first(lambda: _claim(folder, plan, resume))
        return _train(plan, folder, world, progress=progress, stop=stop)


def _train(
    plan: Recipe, folder: Path, world: World, *, progress: Progress | None, stop: Callable[[int], bool] | None
) -> PretrainResult:
    from medclip.training.trainer import Trainer

    with _interruptible() as interrupted:
        trainer = Trainer(plan, folder, world, progress)
        return trainer.run(lambda step: interrupted.is_set() or (stop is not None and stop(step)))


def _check_device(device: str) -> None:
    """Refuse a device that this machine lacks, before anything is made or overwritten."""
    if device == "cpu":
        return
    import torch

    try:
        usable = torch.empty(0, device=device).device.type != "meta"
    except (RuntimeError, AssertionError, NotImplementedError):  # no such word, not in this torch, no driver, no card
        usable = False
    if not usable:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"train.device: {device!r} cannot be used on this machine.",
            hint="Say train.device=cpu, or install a torch and a driver that know the device.",
        )


def _claim(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Make the folder this recipe's, or refuse. A run that left nothing to go on with does not hold its folder."""
    with disk_faults(folder, "folder"):
        _claim_folder(folder, recipe, resume)


def _claim_folder(folder: Path, recipe: Recipe, resume: bool) -> None:
    note = folder / NOTE
    before = _recipe_in(note)
    if folder.exists() and (not folder.is_dir() or (before is None and not _has_only_run_files(folder))):
        raise MedclipError(
            Reason.OUTPUT_IN_USE, "there is something else here.", where=folder, hint="Name a new or empty folder."
        )
    if note.is_file():
        _compare(folder, before, recipe, resume)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{NOTE}.{os.getpid()}.tmp"
    fresh.write_text(json.dumps(recipe.model_dump(mode="json", exclude_unset=True), indent=1) + "\n", encoding="utf-8")
    fresh.replace(note)


def _compare(folder: Path, before: Recipe | None, recipe: Recipe, resume: bool) -> None:
    """Let the same recipe go on, and another one take the place of a run that came to nothing."""
    stored = _has_checkpoint(folder)
    if before is None and stored:
        raise MedclipError(
            Reason.OUTPUT_IN_USE,
            f"{NOTE} cannot be read, so nobody knows whose the checkpoints here are.",
            where=folder,
            hint=f"Put the run's {NOTE} back, name another folder with --out, or remove this one.",
        )
    old, new = before.decisive() if before is not None else {}, recipe.decisive()
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    begun = stored or (before is not None and any(e.get("kind") == "step" for e in read_log(folder / FILE_NAME)))
    if not begun:
        if changed:  # what was made for the other recipe must not be taken up: the tokenizer depends on it
            shutil.rmtree(folder / "tokenizer", ignore_errors=True)
            for name in (FILE_NAME, BEST):
                (folder / name).unlink(missing_ok=True)
        return
    if changed:
        raise MedclipError(
            Reason.OUTPUT_IN_USE,
            f"the folder holds a run of another recipe; they differ in {', '.join(changed[:6])}.",
            where=folder,
            hint="Name another folder with --out, or remove this one.",
        )
    if not resume:
        raise MedclipError(
            Reason.OUTPUT_IN_USE,
            "the folder already holds a run of this recipe.",
            where=folder,
            hint="Leave out --no-resume to go on with it, or name another folder.",
        )


def _has_only_run_files(folder: Path) -> bool:
    """Whether the folder is empty, or has a recipe.json and nothing that a run does not make."""
    names = {p.name for p in folder.iterdir() if not (p.name.startswith(".") and p.name.endswith(".tmp"))}
    return not names or (NOTE in names and names <= _OF_A_RUN)


def _has_checkpoint(folder: Path) -> bool:
    """Whether there is something to go on with, or a pack; without torch."""
    return any(folder.glob("checkpoints/step-*/state.json")) or (folder / "pack" / "manifest.json").is_file()


def _recipe_in(note: Path) -> Recipe | None:
    """Read the recipe of the run before; None where there is none, it is cut short, or of another version."""
    if not note.is_file():
        return None
    try:
        return Recipe.model_validate_json(note.read_text(encoding="utf-8"))
    except ValueError:  # not UTF-8, or pydantic's ValidationError
        return None


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a flag that is looked at after each step; a second one ends it at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def note(number: int, frame: FrameType | None) -> None:
        flag.set()
        give_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield flag
    finally:
        give_back()
