"""The verb `pretrain`: a recipe and shards go in, a model pack comes out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.files.key_value import Overrides
from medclip.progress import Progress
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import Recipe
from medclip.training.result import PretrainResult


def pretrain(
    recipe: Path | str | Mapping[str, Any] | Recipe,
    *,
    overrides: Overrides = (),
    out: str | Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> PretrainResult:
    """Train an image-text model as a recipe says and write it as a model pack, or go on where a run stopped.

    On one machine with the same number of threads and ranks a stopped and resumed run gives the same losses and
    weights, bit for bit, as one that was never stopped: every draw is a function of the seed, the epoch and the sample.
    With another number of ranks it goes on with the same batches.

    Started by `torchrun`, each rank calls this; the folder must lie on a file system that all of them see.

    Args:
        recipe: YAML file, mapping or Recipe.
        overrides: What to change in the recipe, by its path: `{"train.lr": 1e-4}` or `["train.lr=1e-4"]`.
        out: The run's folder: recipe.json, tokenizer/, log.jsonl, checkpoints/, pack/. Where None: the
            recipe's `out`, else runs/NAME.
        resume: Go on with a run in the folder. False refuses a folder with a run in it.
        progress: Told of each step and of what happens.

    Returns:
        How the run ended; `.pack` is None where it was stopped before its end.

    Raises:
        MedclipError: RECIPE_INVALID; WRONG_USE for a device or split that is not there; OUTPUT_IN_USE when the folder
            holds another run; NON_FINITE when the loss stays not finite; TOO_MANY_BAD samples; DISK_FULL; whatever
            reading shards raises.
    """
    return run_recipe(recipe, overrides, None if out is None else Path(out), resume, progress=progress)
