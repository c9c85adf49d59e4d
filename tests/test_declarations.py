"""All declarations read at once: one word is one thing in every verb, command and recipe, and none says too much."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import MISSING
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.main import COMMANDS, main
from medclip.errors import MedclipError
from medclip.options import Option
from medclip.runs.planning.plan import CHUNK_FILES
from medclip.verbs import read_recipe

LIBRARY = Path(__file__).resolve().parents[1] / "medclip"

OTHER_NAMES = {
    *(
        "patient_from",
        "replicates",
        "num_replicates",
        "licence",
        "tasks",
        "pack",
        "num_workers",
        "processes",
    ),
    *("quiet", "force", "data_dir", "output", "patients_column", "n_resamples", "random_state", "n", "threads"),
    *("seeds", "inits", "permutations", "folds", "sets", "methods", "mpp", "least_confidence", "retry_failed"),
}
"""What the same things were called before, or are called elsewhere."""

GLOSSARY: dict[str, tuple[str, Any]] = {
    "workers": ("int | None", None),
    "replace": ("str | Path | None", None),  # earlier results; the switch of that name is overwrite
    "memory": ("int | str | None", None),
    "device": ("str", "cpu"),
    "batch_size": ("int | None", None),
    "backend": ("str | Path | None", None),
    "seed": ("int", 0),
    "resume": ("bool", True),
    "overwrite": ("bool", False),
    "num_resamples": ("int", 2000),
    "overrides": ("Overrides", ()),
    "key_file": ("str | Path | None", None),
    "report_paths": ("bool", False),
    "hash_paths": ("bool", False),
    "min_confidence": ("float", 0.8),
    "reading": ("Overrides", ()),
    "log": ("str | Path | Sequence[str | Path]", ()),
    "group_by": ("GroupBy", "auto"),
    "test_share": ("float", 0.2),
    "val_share": ("float", 0.1),
    "settings": ("Settings | None", None),
    "progress": ("Progress | None", None),
}
"""Argument -> type and default, wherever it is."""

OWN_SENTENCES = {
    "path",
    "out",
    "folder",
    "images",
    "recipe",
    "model",
    "labels",
    "label",
    "table",
    "pairs",
    "steps",
    "split",
    "task",
    "modality",
    "patient",
    "query",
    "workers",
    "seed",
    "name",
    "license",
    "compare",
    "dataset",
    "format",
    "method",
    "shots",
    "shards",
    "store",
    "size_px",
    "thresholds",
    "thumbnails",
    "embeddings",
    "pooling",
    "baseline",
    "prompt",
    "file",
    "group",
    "splits",
    "where",
    "level",
    "like",
    "captions",
    "top",
    "dtype",
    "layout",
    "number",
    "dry_run",
    "num_captions",
    "study",
    "date",
    "report",
    "findings",
    "against",
    "agent",
    "as_",
}
"""Names whose thing is the same and whose help says what it is for this verb: what is worked on, where it goes, who."""
OF_SETTINGS = {"settings", "progress"}
MOST_OWN = 20
MOST_PARAMETERS = 12
MOST_LINES = 45


@cache
def declared(command: str) -> dict[str, Option]:
    module, _, function = COMMANDS[command][0].partition(":")
    options = getattr(import_module(module), function).options
    return {name: one for name, one in options.items() if name != "as_json"}


def every_option() -> Iterator[tuple[str, Option]]:
    for command in COMMANDS:
        for one in declared(command).values():
            yield command, one


def test_every_command_comes_from_a_declaration_and_no_word_has_an_old_name() -> None:
    assert sum(1 for _ in every_option()) > 400
    assert [(command, one.name) for command, one in every_option() if {one.name, one.key} & OTHER_NAMES] == []


def test_an_argument_has_the_type_and_default_of_the_glossary_everywhere() -> None:
    for command, one in every_option():
        if one.name in GLOSSARY:
            kind, default = GLOSSARY[one.name]
            assert (one.annotation, one.default) == (kind, default), (command, one.name)


def test_an_option_has_one_sentence_in_all_commands_but_what_is_worked_on() -> None:
    sentences: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for command, one in every_option():
        if one.name not in OWN_SENTENCES:
            sentences[one.name][one.help].append(command)
    assert {name: dict(kinds) for name, kinds in sentences.items() if len(kinds) > 1} == {}


def test_help_is_sentences_and_units_stand_in_names() -> None:
    for command, one in every_option():
        where = f"{command} {one.name}"
        assert re.match(r"[A-Z\"'`0-9]", one.help), where
        assert one.help.rstrip().endswith((".", ").")), where
        assert not one.help.startswith("Of "), where
        if one.annotation.startswith("int") and not one.is_argument and one.kind is int and one.name.startswith("num"):
            assert one.help.startswith(("Number of", "Which")), where
    assert f"blocks of {CHUNK_FILES};" in declared("score")["limit"].help


def test_a_number_says_what_it_may_be() -> None:
    anything = {"workers", "threshold", "horizon", "mean", "std", "start_s", "mm_per_mv", "patch_mpp_um"}
    for command, one in every_option():
        if one.kind in (int, float) and one.name not in anything:
            assert one.least is not None, (command, one.name)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recipe_of_every_verb_has_each_of_its_options_and_refuses_what_is_none(command: str, tmp_path: Path) -> None:
    known = declared(command)
    if known["recipe"].is_argument:  # of `pretrain`: a recipe of a training, which is checked elsewhere
        assert command == "pretrain"
        return
    # One that reads several forms has tests of its own.
    options = [one for one in known.values() if one.kind is not None and one.read is None and one.name != "recipe"]
    values = {one.key: _value_of(one) for one in options}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(values))
    read = read_recipe(path, known)
    assert set(read) == {one.name for one in options}
    for one in options:
        expected = _value_of(one)
        assert read[one.name] == (tuple(expected) if isinstance(expected, list) else expected), one.name
        path.write_text(json.dumps({one.key: object.__name__ if one.kind in (bool, int, float, dict) else False}))
        with pytest.raises(MedclipError, match="does not take"):
            read_recipe(path, known)


def _value_of(one: Option) -> Any:
    """Return a value that an option takes, as a recipe has it; most are not its default."""
    if one.kind is dict:
        return {"a": 1}
    value = {bool: one.default is False, int: 7, float: 0.5}.get(one.kind, "text")
    return [value, value] if one.is_repeatable else value


def test_no_verb_declares_many_options_of_its_own() -> None:
    for module in {target.partition(":")[0] for target, _ in COMMANDS.values()}:
        import_module(module)
    from dataclasses import fields, is_dataclass

    for file in sorted((LIBRARY / "api").glob("*.py")):
        for name, kind in inspect.getmembers(import_module(f"medclip.api.{file.stem}"), inspect.isclass):
            if is_dataclass(kind) and any("help" in field.metadata for field in fields(kind)):
                own = [one for one in inspect.get_annotations(kind) if one in kind.__dataclass_fields__]
                assert len(own) <= MOST_OWN, (name, len(own))


def test_no_other_function_has_many_parameters() -> None:
    allowed = {("options.py", "option"), ("options.py", "argument")}
    many = []
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                own = [one for one in taken if one.arg not in ("self", "cls")]
                if len(own) > MOST_PARAMETERS and (path.name, node.name) not in allowed:
                    many.append((path.relative_to(LIBRARY).as_posix(), node.name, len(own)))
    assert many == []


@pytest.mark.parametrize("command", COMMANDS)
def test_short_help_fits_a_page_and_says_how_to_see_the_rest(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out.rstrip().splitlines()
    assert len(shown) <= MOST_LINES
    assert "--help-all" in shown[-1]
    assert main([*command.split(), "--help-all"]) == 0
    whole = capsys.readouterr().out
    for one in declared(command).values():
        if one.is_on_command_line and not one.is_argument:
            assert f"--{one.spelled}" in whole, one.name


@pytest.mark.parametrize("command", COMMANDS)
def test_python_has_the_arguments_and_defaults_of_the_command(command: str) -> None:
    module, _, function = COMMANDS[command][0].partition(":")
    verb = getattr(import_module(module), function).verb
    parameters = inspect.signature(verb).parameters
    assert list(parameters) == list(declared(command))
    for name, one in declared(command).items():
        empty = inspect.Parameter.empty
        assert parameters[name].default == (empty if one.default is MISSING else one.default)
    assert "Args:" in (inspect.getdoc(verb) or "")


def test_users_see_what_is_declared() -> None:
    assert list(inspect.signature(medclip.score).parameters)[:2] == ["path", "out"]
    assert "prompt: What to score in your own words" in (inspect.getdoc(medclip.score) or "")
