"""Options of verbs: how they are spelled, and which file of options a call reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.options import argument, option, options, options_of, recipe_in, recipe_of, verb


@options
class Tuned:
    """Options with another word for one of them."""

    changes: Mapping[str, Any] | Sequence[str] = option("What is changed.", default=(), form="KEY=VALUE", word="set")
    num_steps: int = option("Number of steps.", default=3)
    recipe: Path | None = option("File with values of these options.", default=None, of_call=True)


@verb(Tuned)
def tune(options: Tuned) -> Tuned:
    """Return what it was given."""
    return options


@options
class Trained:
    """Options of a verb whose recipe is of another kind."""

    recipe: Path = argument("Recipe of a training.")


@verb(Trained)
def train(options: Trained) -> Trained:
    """Return what it was given."""
    return options


def test_an_option_may_be_spelled_with_another_word_in_commands_and_recipes(tmp_path: Path) -> None:
    assert options_of(Tuned)["changes"].spelled == "set"
    recipe = tmp_path / "r.yaml"
    recipe.write_text("set: {lr: 0.1}\nnum_steps: 5\n")
    given = tune(recipe=recipe, num_steps=9)
    assert (given.changes, given.num_steps) == ({"lr": 0.1}, 9)
    assert recipe_of(given) == {"set": {"lr": 0.1}, "num_steps": 9}


def test_a_recipe_that_is_an_argument_is_the_verbs_own_and_not_a_file_of_options(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.yaml"
    assert train(path).recipe == train(recipe=path).recipe == path
    assert recipe_in({"recipe": path}, options_of(Trained)) is None
    assert recipe_in({"recipe": path}, options_of(Tuned)) == path
