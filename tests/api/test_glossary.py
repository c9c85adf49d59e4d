"""One glossary of arguments: the same thing has the same name, type and default in every verb and every command."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

import pytest
import typer

import medclip
from medclip.cli.main import COMMANDS

VERBS = (
    "adapt",
    "audit",
    "compare",
    "doctor",
    "embed",
    "evaluate",
    "explain",
    "finetune",
    "monitor",
    "open_study",
    "pathgen",
    "pretrain",
    "retry",
    "scan",
    "score",
    "search",
    "view",
)
NEEDED = inspect.Parameter.empty

GLOSSARY: dict[str, tuple[str, Any]] = {
    "model": ("str | Path | Model", "medclip-mini"),
    "images": ("str | Path | Embeddings | None", None),
    "patient": ("str | None", None),
    "workers": ("int | None", None),
    "memory": ("int | str | None", None),
    "seed": ("int", 0),
    "resume": ("bool", True),
    "overwrite": ("bool", False),
    "num_resamples": ("int", 2000),
    "overrides": ("Overrides", ()),
    "key_file": ("str | Path | None", None),
    "report_paths": ("bool", False),
    "table": ("Any", None),
    "labels": ("Any", ...),
    "device": ("str", "cpu"),
    "settings": ("Settings | None", None),
    "progress": ("Progress | None", None),
}
"""Argument -> type and default; ... where the default differs, since the argument is needed by some verbs only.

`table` is a manifest: it names files with their study, patient and modality. `labels` is a table of truths.
"""
OTHER_NAMES = {
    *("folder", "patient_from", "replicates", "num_replicates", "replace", "licence", "tasks", "pack", "num_workers"),
    *("quiet", "force", "data_dir", "output", "patients_column", "n_resamples", "random_state", "set"),
}
"""What the same things were called before, or are called elsewhere."""

OWN_WORDS = {
    ("audit", "model"),  # may be a table of scores
    ("finetune", "model"),  # may be a tower of timm, and nothing stands for it
    ("search", "model"),  # None: the pack of the embeddings
    ("search", "images"),  # the slides themselves, for small images; embeddings are what is searched
    ("search", "folder"),  # of embeddings, which is read; in other verbs the name would stand for `out`
    ("retry", "folder"),  # of a run that is there, as report and export name it
}
OWN_OF_THE_COMMAND = {"as_json", "json_out"}
WRITTEN = {"search": {"out", "html", "overwrite"}}
"""What a command writes, and Python's result writes by its methods."""
OWN_OF_PYTHON = {"settings", "progress", "show"}
IN_SETTINGS = {"uneven", "accept_unterminated", "mpp", "window"}
"""Choices of reading: `medclip.Settings(policy=...)` in Python."""


def parameters(verb: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(medclip, verb)).parameters)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_the_names_types_and_defaults_of_the_glossary(verb: str):
    for name, parameter in parameters(verb).items():
        if (verb, name) in OWN_WORDS:
            continue
        assert name not in OTHER_NAMES, name
        if name in GLOSSARY:
            kind, default = GLOSSARY[name]
            assert parameter.annotation == kind, name
            assert default is ... or parameter.default == default, name


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_calls_a_thing_by_another_name(command: str):
    module, _, function = COMMANDS[command][0].partition(":")
    options = inspect.signature(getattr(import_module(module), function), eval_str=True).parameters
    for name, parameter in options.items():
        kinds = [type(told) for told in getattr(parameter.annotation, "__metadata__", ())]
        assert name not in OTHER_NAMES or kinds == [typer.models.ArgumentInfo], name
        told = [t for t in getattr(parameter.annotation, "__metadata__", ()) if isinstance(t, typer.models.OptionInfo)]
        for option in (spelled for t in told for spelled in t.param_decls or ()):
            assert re.sub("-", "_", option.removeprefix("--")) not in OTHER_NAMES, option


@pytest.mark.parametrize(
    "command",
    [
        "adapt",
        "adapt compare",
        "doctor",
        "embed",
        "evaluate",
        "explain",
        "finetune",
        "monitor",
        "pathgen",
        "pretrain",
        "retry",
        "scan",
        "score",
        "search",
        "view",
    ],
)
def test_a_command_has_the_arguments_and_defaults_of_its_verb(command: str):
    module, _, function = COMMANDS[command][0].partition(":")
    options = inspect.signature(getattr(import_module(module), function)).parameters
    verb = parameters(command.split()[-1])
    if "ctx" in options:
        pytest.skip("derived from the verb's declaration")
    taken = {name: option for name, option in options.items() if name != "views"}  # one of the overrides of `adapt`
    own = OWN_OF_THE_COMMAND | IN_SETTINGS | WRITTEN.get(command, set())
    assert set(taken) - own == set(verb) - OWN_OF_PYTHON
    for name, option in taken.items():
        if name in verb and option.default is not NEEDED:
            assert plain(option.default) == plain(verb[name].default), name


def plain(default: Any) -> Any:
    """One value for what stands for "nothing named" in a command and in Python, and for lists and their text."""
    if isinstance(default, (tuple, list)):
        default = ",".join(map(str, default))
    return None if default == "" else default
