"""Options that are declared once: how they are spelled, the forms of their values, their rules, their recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from medclip.errors import MedclipError, Reason
from medclip.options import argument, excludes, needs, option, options, options_of, recipe_in, recipe_of, verb


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


def words(value: Any) -> list[str]:
    """Take one word for a list of one."""
    if isinstance(value, dict):
        raise ValueError("takes words")
    return [value] if isinstance(value, str) else list(value)


@options
class Asked:
    """What is asked."""

    path: str = argument("Where.")
    table: Any = argument("Table.", default=None, kind=Path, named=True, needed=False)
    tag: Sequence[str] | str = option("Tag.", default=(), read=words)
    share: float = option("Share.", default=0.5)
    fast: bool = option("Hurry.", default=False)
    slow: bool = option("Wait.", default=False)
    recipe: str | None = option("Recipe.", default=None, of_call=True)

    rules = (
        needs(("tag", "slow"), "table", "{names} would do nothing.", hint="Name a table."),
        excludes("fast", "slow", "one of them."),
    )


@verb(Asked)
def ask(options: Asked) -> Asked:
    """Return what is asked."""
    return options


def test_a_value_has_one_form_however_it_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("tag: one\nshare: 1\ntable: t.csv\n")
    for given in (ask("a", "t.csv", tag="one", share=1), ask("a", recipe=str(recipe))):
        assert recipe_of(given, has_places=True) == {"path": "a", "table": "t.csv", "tag": ["one"], "share": 1.0}
        assert isinstance(given.share, float)
    with pytest.raises(MedclipError, match=r"tag takes words\.") as caught:
        ask("a", tag={"a": 1})  # pyright: ignore[reportArgumentType]
    assert caught.value.reason is Reason.WRONG_USE
    recipe.write_text("tag: {a: 1}\n")
    with pytest.raises(MedclipError, match=r"r\.yaml: tag takes words\.") as caught:
        ask("a", recipe=str(recipe))
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_a_rule_names_the_options_that_are_too_many() -> None:
    with pytest.raises(MedclipError, match=r"^--tag and --slow would do nothing\. Name a table\.$"):
        ask("a", tag="one", slow=True)
    with pytest.raises(MedclipError, match=r"^--tag would do nothing\."):
        ask("a", tag="one")


def test_an_argument_that_a_command_takes_by_name_need_not_be_named() -> None:
    declared = options_of(Asked)
    assert not declared["table"].is_needed
    assert not declared["table"].is_argument
    assert declared["path"].is_argument
