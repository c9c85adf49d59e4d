"""Stop a run anywhere and go on with other ranks: the same samples. To the bit is in test_laws.py."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from medclip.training.recipe.schema import load_recipe
from medclip.training.trainer import Trainer
from tests.kits.training import batches_of


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (3, 6)])
def test_the_samples_of_an_epoch_do_not_depend_on_the_ranks_that_read_them(
    recipe: dict[str, Any], tmp_path: Path, sizes: tuple[int, int]
) -> None:
    """Stop after the first step of the second epoch with one number of ranks and go on with the other."""
    whole = Counter(_keys(recipe, tmp_path, 1, 3, 6))
    before, after = sizes
    assert Counter(_keys(recipe, tmp_path, before, 3, 4) + _keys(recipe, tmp_path, after, 4, 6)) == whole
    assert set(whole.values()) == {1}


def _keys(recipe: dict[str, Any], folder: Path, ranks: int, first: int, last: int) -> list[str]:
    plan = load_recipe(recipe)
    trainer = Trainer(plan, folder)
    found = []
    for rank in range(ranks):
        share = batches_of(
            trainer.reader,
            batch_size=plan.train.batch_size,
            preprocess=trainer.preprocess,
            seed=plan.seed,
            augment=plan.augment,
            rank=rank,
            world_size=ranks,
        )
        found += [key for batch in share.training(first, last) for key in batch.keys]
    return found
