"""Pre-training of a dual encoder: read a recipe, take steps, keep checkpoints, write a pack."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.training.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class PretrainResult:
    """How a run ended."""

    out: Path
    steps: int
    total_steps: int
    pack: Path | None
    """None when the run was stopped before its end."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """The last validation."""

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.pack is not None


def pretrain(
    recipe: Path | str | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = True,
    *,
    show: bool = True,
    stop: Callable[[int], bool] | None = None,
) -> PretrainResult:
    """Train a model as a recipe says, or go on where a run stopped.

    On one machine with the same number of threads a stopped and resumed run gives the same losses and weights, bit for
    bit, as one that was never stopped: every draw is a function of the seed, the epoch and the sample.

    Args:
        recipe: YAML file, mapping or Recipe.
        overrides: `key.sub=value`, applied to the recipe.
        out: The run's folder: recipe.json, tokenizer/, log.jsonl, checkpoints/, pack/. The recipe's where None.
        resume: Go on with a run in the folder. False refuses a folder with a run in it.
        show: Say on standard error what happens.
        stop: Asked after each step with the number of steps done; True writes a checkpoint and stops, as Ctrl-C does.

    Raises:
        MedclipError: RECIPE_INVALID; OUTPUT_IN_USE when the folder holds another run; NON_FINITE when the loss stays
            not finite; DISK_FULL; whatever reading shards raises.
    """
    plan = load_recipe(recipe, overrides)
    folder = Path(out or plan.out)
    _claim(folder, plan, resume)
    from medclip.training.trainer import Trainer

    with _interruptible() as interrupted:
        trainer = Trainer(plan, folder, show=show)
        return trainer.run(lambda step: interrupted.is_set() or (stop is not None and stop(step)))


def _claim(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Make the folder this recipe's, or refuse."""
    note = folder / "recipe.json"
    if note.is_file():
        before = Recipe.model_validate_json(note.read_text(encoding="utf-8"))
        old, new = before.decisive(), recipe.decisive()
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
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
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MedclipError(
            Reason.OUTPUT_IN_USE, "there is something else here.", where=folder, hint="Name a new or empty folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(recipe.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a flag that is looked at after each step; a second one interrupts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        flag.set()
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)
