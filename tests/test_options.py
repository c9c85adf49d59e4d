"""Options are declared once: signature, docstring, command, refusals and recipe come from the declaration."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.derive import by_heading, command_signature, help_of, must_be_named, spellings
from medclip.errors import MedclipError, Reason
from medclip.options import argument, check_options, excludes, needs, one_of, option, options, options_of
from medclip.verbs import fits, read_recipe, recipe_in, recipe_of, shared, verb


@options
class Shared:
    """A group."""

    heading = "This machine"

    workers: int | None = option("Number of processes. Default: one for each core.", default=None, least=1, beside=True)
    recipe: str | Path | None = option("File with values.", default=None, of_call=True, place=True)


@options
class BakeOptions(Shared):
    """What `bake` is asked."""

    path: Any = argument("What is baked. It may be a list.", kind=Path, place=True)
    out: str | Path | None = argument("Folder to write.", default=None, named=True, of_call=True, place=True)
    minutes: float = option("Minutes in the oven.", default=20.0, least=1, most=90)
    form: str = option("Shape.", default="round", choices=("round", "long"))
    filling: str | Sequence[str] = option("What is in it.", default=())
    dough: Mapping[str, float] | str = option("Shares of flour.", default="", kind=str)
    glaze: bool = option("Brush it.", default=False, often=True)
    seeds: bool | None = option("Put seeds on top. Default: where it is glazed.", default=None)
    not_: str | None = option("What stays out.", default=None, place=True)
    oven: object | None = option("Of Python alone.", default=None, kind=None)
    decoration: Mapping[str, Any] | None = option("Of recipes and Python.", default=None, kind=dict, beside=True)

    @property
    def is_dough(self) -> bool:
        """Whether nothing is baked."""
        return self.minutes == 1

    rules = (
        needs("filling", "dough", "a filling needs dough.", hint="Name it.", where="path"),
        excludes("glaze", "is_dough", "dough has no glaze.", hint="Leave one out."),
        one_of("seeds", "form", "seeds are of another form than the usual, and that has them."),
    )


@verb(BakeOptions)
def bake(options: BakeOptions) -> BakeOptions:
    """Bake it.

    Returns:
        What was asked.
    """
    return options


def refusal(**values: Any) -> MedclipError:
    with pytest.raises(MedclipError) as refused:
        bake("rye", **values)
    return refused.value


def test_the_signature_is_that_of_the_declaration_arguments_first_then_its_own_then_the_groups() -> None:
    parameters = inspect.signature(bake).parameters
    assert list(parameters)[:3] == ["path", "out", "minutes"]
    assert list(parameters)[-2:] == ["workers", "recipe"]
    kinds = {name: parameter.kind for name, parameter in parameters.items()}
    assert kinds["out"] is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert kinds["minutes"] is inspect.Parameter.KEYWORD_ONLY
    assert parameters["path"].default is inspect.Parameter.empty
    assert (parameters["minutes"].annotation, parameters["minutes"].default) == ("float", 20.0)
    assert inspect.signature(bake).return_annotation == "BakeOptions"


def test_the_docstring_has_each_option_before_what_is_returned() -> None:
    doc = inspect.getdoc(bake) or ""
    assert "    minutes: Minutes in the oven. At least 1. At most 90.\n" in doc
    assert "    form: Shape. One of round and long.\n" in doc
    assert doc.index("Args:") < doc.index("minutes:") < doc.index("Returns:")


def test_a_call_is_what_python_makes_of_it() -> None:
    made = bake("rye", "out", minutes=30, form="long")
    assert (made.path, made.out, made.minutes, made.workers) == ("rye", "out", 30, None)
    with pytest.raises(TypeError, match="minuts"):
        bake("rye", minuts=30)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="path"):
        bake()  # pyright: ignore[reportCallIssue]
    with pytest.raises(AttributeError):
        made.minutes = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"minutes": 0}, "minutes is 1 to 90, not 0."),
        ({"workers": 0}, "workers is at least 1, not 0."),
        ({"minutes": float("nan")}, "minutes is 1 to 90, not nan."),
        ({"form": "lnog"}, "form is one of round and long, not 'lnog'. Did you mean 'long'?"),
        ({"filling": ["jam"]}, "rye: a filling needs dough. Name it."),
        ({"glaze": True, "minutes": 1}, "dough has no glaze. Leave one out."),
        ({"seeds": True, "form": "long"}, "seeds are of another form than the usual, and that has them."),
    ],
)
def test_values_and_combinations_that_cannot_be_are_refused_in_the_declared_words(
    values: dict[str, Any], said: str
) -> None:
    full = {"seeds": True, **values} if "seeds" not in values else values
    error = refusal(**({"form": "round"} | full))
    assert error.reason is Reason.WRONG_USE
    assert said in f"{error} {error.hint}" or said in str(error)


def test_what_is_allowed_together_is() -> None:
    allowed: tuple[dict[str, Any], ...] = (
        {"form": "long"},
        {"seeds": True},
        {"seeds": True, "filling": "jam", "dough": {"rye": 1.0}},
    )
    for values in allowed:
        check_options(BakeOptions("rye", **values))


def test_a_command_has_what_a_terminal_can_name() -> None:
    declared = options_of(BakeOptions)
    names = list(command_signature(declared).parameters)
    assert names[:2] == ["ctx", "path"]
    assert {"workers", "as_json"} <= {*names[-3:]}
    assert not {"oven", "decoration"} & {*names}
    assert spellings(declared["not_"]) == ("--not",)
    assert spellings(declared["seeds"]) == ("--seeds/--no-seeds",)
    assert spellings(declared["glaze"]) == ("--glaze",)
    assert [name for name, one in declared.items() if must_be_named(one)] == ["path", "out"]
    headings = [one.heading for one in by_heading(declared.values())]
    assert headings == sorted(headings, key=headings.index)
    assert headings[-1] == "This machine"


def test_short_help_is_the_first_sentence_and_what_stands_where_nothing_is_named() -> None:
    declared = options_of(BakeOptions)
    assert help_of(declared["path"]) == "What is baked."
    assert help_of(declared["path"], is_short=False) == "What is baked. It may be a list."
    assert help_of(declared["seeds"]) == "Put seeds on top. Default: where it is glazed."
    assert help_of(declared["form"]) == "Shape. One of round, long."
    assert help_of(declared["filling"]) == "What is in it. Repeatable."


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_recipe_has_values_by_name_and_a_call_overrides_them(tmp_path: Path) -> None:
    text = "path: rye\nminutes: 30\nfilling: [jam, nuts]\ndough: {rye: 0.5}\nseeds: true\ndecoration: {top: 1}\n"
    recipe = written(tmp_path / "r.yaml", text)
    made = bake(recipe=recipe)  # pyright: ignore[reportCallIssue] (the recipe names it)
    assert (made.path, made.minutes, made.filling) == ("rye", 30, ("jam", "nuts"))
    assert (made.dough, made.decoration) == ({"rye": 0.5}, {"top": 1})
    made = bake("wheat", recipe=recipe, minutes=40)
    assert (made.path, made.minutes, made.seeds) == ("wheat", 40, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minuts: 30", "'minuts' is no option of this"),
        ("oven: 3", "'oven' is no option of this"),
        ("recipe: other.yaml", "'recipe' is no option of this"),
        ("minutes: soon", "minutes does not take 'soon'"),
        ("glaze: 1", "glaze does not take 1"),
        ("minutes: true", "minutes does not take True"),
        ("minutes:", "minutes does not take None"),
        ("filling: {a: b}", "filling does not take"),
        ("form: [round]", "form does not take"),
        ("decoration: nuts", "decoration does not take 'nuts'"),
        ("- path", "a recipe has names of options and their values"),
    ],
)
def test_a_key_that_is_no_option_and_a_value_of_another_kind_are_errors(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MedclipError) as refused:
        read_recipe(written(tmp_path / "r.yaml", text), options_of(BakeOptions))
    assert refused.value.reason is Reason.RECIPE_INVALID
    assert said in str(refused.value)


def test_what_overrides_a_value_is_checked_in_its_place(tmp_path: Path) -> None:
    recipe = written(tmp_path / "r.yaml", "minutes: soon\nform: long\n")
    assert bake("rye", recipe=recipe, minutes=40).minutes == 40
    recipe = written(tmp_path / "r.yaml", "minutes: 100\nform: long\n")
    with pytest.raises(MedclipError, match="minutes is 1 to 90, not 100"):
        bake("rye", recipe=recipe)


def test_a_place_that_a_run_did_not_keep_is_named_beside_its_recipe(tmp_path: Path) -> None:
    recipe = written(tmp_path / "run.json", json.dumps({"recipe": {"path": "?", "not": "?", "form": "long"}}))
    with pytest.raises(MedclipError, match="does not keep where its path was") as refused:
        bake(recipe=recipe)  # pyright: ignore[reportCallIssue] (the recipe names it)
    assert refused.value.hint == "Name it beside the recipe: PATH."
    with pytest.raises(MedclipError, match="does not keep where its not was") as refused:
        bake("rye", recipe=recipe)
    assert refused.value.hint == "Name it beside the recipe: --not."
    made = bake("rye", recipe=recipe, not_="nuts")
    assert (made.path, made.not_, made.form) == ("rye", "nuts", "long")


def test_the_recipe_of_a_call_repeats_it_and_names_no_place(tmp_path: Path) -> None:
    made = bake(
        tmp_path / "rye",
        tmp_path / "out",
        minutes=30,
        form="long",
        filling=("jam",),
        dough={"rye": 0.5},
        workers=2,
        not_=str(tmp_path),
        oven=object(),
        decoration={"top": 1},
    )
    recipe = recipe_of(made)
    assert recipe == {"path": "?", "minutes": 30, "form": "long", "filling": ["jam"], "dough": {"rye": 0.5}, "not": "?"}
    assert recipe_of(bake("rye", form="long", not_="nuts")) == {"path": "rye", "form": "long", "not": "nuts"}
    kept = written(tmp_path / "run.json", json.dumps({"recipe": recipe}))
    again = bake(tmp_path / "rye", recipe=kept, not_=str(tmp_path))
    assert recipe_of(again) == recipe


def test_options_of_the_same_names_are_handed_on() -> None:
    made = bake("rye", form="long", workers=3)
    assert shared(made, Shared) == {"workers": 3, "recipe": None}
    assert shared(made, bake)["form"] == "long"


def test_a_field_that_is_no_option_is_a_mistake_of_the_declaration() -> None:
    @options
    class Wrong:
        """It says nothing of its field."""

        path: str = "x"

    with pytest.raises(TypeError, match=r"Wrong\.path is no option"):
        options_of(Wrong)


def test_numbers_fit_numbers_and_lists_what_may_be_repeated() -> None:
    declared = options_of(BakeOptions)
    assert fits(declared["minutes"], 3)
    assert not fits(declared["workers"], 3.5)
    assert fits(declared["workers"], None)
    assert not fits(declared["filling"], [True])


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


def test_python_is_told_what_lacks_and_which_value_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^path must be named\.$"):
        medclip.score()  # pyright: ignore[reportCallIssue]
    for named, said in (
        ({"workers": "many"}, "workers takes a number, not 'many'"),
        ({"limit": "3"}, "limit takes a number, not '3'"),
        ({"templates": "no"}, "templates takes true or false, not 'no'"),
        ({"prompt": 3}, "prompt takes text, not 3"),
        ({"prompt": ["a dog", 3]}, "prompt takes text, not 3"),
    ):
        with pytest.raises(MedclipError, match=said) as refused:
            medclip.score(tmp_path, **named)
        assert refused.value.reason is Reason.WRONG_USE
