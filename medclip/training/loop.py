"""Pre-training of a dual encoder: read a recipe, take steps, keep checkpoints, write a pack."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from medclip.errors import MedclipError
from medclip.files.key_value import Overrides
from medclip.files.locks import held_folder
from medclip.files.output import (
    claim_folder,
    disk_errors,
    in_use,
    is_draft,
    make_folder,
    refuse_other,
    remove_drafts,
    write_file,
)
from medclip.models.devices import check_device
from medclip.progress import Progress
from medclip.shards.folder import read_index
from medclip.shards.reading.samples import no_split
from medclip.training.recipe.data import Data
from medclip.training.recipe.schema import Recipe, RecipeSource, load_recipe
from medclip.training.result import (
    BEST,
    FILE_NAME,
    HEADS,
    LABELS_NOTE,
    MASKED,
    OWN_SHARDS,
    OWN_TASK,
    REPORT,
    TENSORBOARD,
    PretrainResult,
    read_log,
)

if TYPE_CHECKING:
    from medclip.training.ranks import World

NOTE = "recipe.json"
_RUN, _ELSEWHERE = "training run", "Name another folder with --out, or remove this one."
_NO_VALIDATION = "Name one with data.val_split; data.val_split=null trains without validation."
_NO_TEST = "Name one with data.test_split; data.test_split=null measures none."
_PREPARED = frozenset({LABELS_NOTE, OWN_SHARDS, OWN_TASK})
_OF_A_RUN = _PREPARED | {NOTE, FILE_NAME, TENSORBOARD, BEST, HEADS, MASKED, REPORT, "tokenizer", "checkpoints", "pack"}


def run_recipe(
    recipe: RecipeSource,
    overrides: Overrides = (),
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
    _check_splits(plan.data)
    check_device(plan.train.device)
    from medclip.training.ranks import joined

    with joined(plan.train.device) as world, ExitStack() as held:
        world.first(lambda: _claim(folder, plan, resume, held))
        return _train(plan, folder, world, progress=progress, stop=stop)


def _train(
    plan: Recipe, folder: Path, world: World, *, progress: Progress | None, stop: Callable[[int], bool] | None
) -> PretrainResult:
    from medclip.training.trainer import Trainer

    with _interruptible() as interrupted:
        trainer = Trainer(plan, folder, world, progress)
        return trainer.run(lambda step: interrupted.is_set() or (stop is not None and stop(step)))


def _check_splits(data: Data) -> None:
    """Refuse folders without shards, and splits that they lack, before torch is imported and anything is written.

    Raises:
        MedclipError: WRONG_USE for a split; as `medclip.shards.folder.read_index`.
    """
    indexes = [read_index(folder) for folder in data.shards]
    test = data.test_split if "test_split" in data.model_fields_set else None
    for split, remedy in (
        (data.train_split, "Name one with data.train_split."),
        (data.val_split, _NO_VALIDATION),
        (test, _NO_TEST),
    ):
        if split is not None and not any(split in index["counts"]["by_split"] for index in indexes):
            error = no_split(split, data.shards[0], indexes)
            raise MedclipError(error.reason, error.message, where=error.where, hint=f"{error.hint} {remedy}")


def _claim(folder: Path, recipe: Recipe, resume: bool, held: ExitStack) -> None:
    """Make the folder this recipe's, or refuse. A run that left nothing to go on with does not hold its folder.

    It is locked until `held` is closed: ranks go on for a while when their torchrun was killed.
    """
    is_run = claim_folder(folder, _RUN, marks=(NOTE, LABELS_NOTE))
    with disk_errors(folder):
        make_folder(folder)
    held.enter_context(held_folder(folder))
    if is_run:
        before = _recipe_in(folder / NOTE)
        others = {p.name for p in folder.iterdir() if not is_draft(p.name)} - _OF_A_RUN
        if before is None and others:
            raise in_use(folder, f"this folder holds something else beside a {NOTE} that cannot be read", _ELSEWHERE)
        _compare(folder, before, recipe, resume)
        remove_drafts(folder)
    write_file(folder / NOTE, json.dumps(recipe.model_dump(mode="json", exclude_unset=True), indent=1) + "\n")


def _compare(folder: Path, before: Recipe | None, recipe: Recipe, resume: bool) -> None:
    """Let the same recipe go on, and another one take the place of a run that came to nothing."""
    stored = _has_checkpoint(folder)
    if before is None and stored:
        raise in_use(
            folder,
            f"{NOTE} cannot be read, so nobody knows whose the checkpoints here are",
            f"Put the run's {NOTE} back, name another folder, or remove this one.",
        )
    old, new = before.decisive() if before is not None else {}, recipe.decisive()
    begun = stored or (before is not None and any(e.get("kind") == "step" for e in read_log(folder / FILE_NAME)))
    if begun:
        keys = sorted(old.keys() | new.keys())
        refuse_other(folder, _RUN, old, {k: new.get(k) for k in keys}, titles={k: k for k in keys}, remedy=_ELSEWHERE)
        if not resume:
            raise in_use(
                folder,
                "this folder holds a run of this recipe already",
                "Leave out --no-resume to go on with it, or name another folder.",
            )
    else:  # what was made for another recipe must not be taken up: the tokenizer depends on it
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)
        for name in (FILE_NAME, BEST):
            (folder / name).unlink(missing_ok=True)


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
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a flag that is looked at after each step; a second one ends it."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # Windows has no SIGHUP
    handlers = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def note(number: int, frame: FrameType | None) -> None:
        flag.set()
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield flag
    finally:
        restore()
