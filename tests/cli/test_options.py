"""The options that several commands take."""

from __future__ import annotations

import inspect
from collections import defaultdict
from importlib import import_module

import typer

from medclip.cli import options
from medclip.cli.main import COMMANDS
from medclip.runs.planning.plan import CHUNK_FILES

OF_ONE_COMMAND = {"audit"}
"""Its options are the keys of its recipe, which say what they mean."""
OTHER_THINGS = {
    "--out": {
        "view",
        "captions from-labels",
        "captions from-mammography",
        "captions from-ecg",
        "shards index",
        "search",
        "ecg render",
        "ecg digitise",
    },  # a file, or a place beside the input
    "--task": {"score", "watch", "explain", "models calibrate", "models set-thresholds"},  # several; of a card
    "--backend": {"models calibrate"},  # several, to try
    "--engine": {"search"},  # of an index
    "--dry-run": {"shards build"},  # of a table
    "--thumbnails": {"runs purge"},  # those of old runs, to be removed
    "--pooling": {"slides learn"},  # of patches
    "--prompt": {"explain"},  # what a heat map is of
    "--against": {"explain", "slides learn", "monitor"},  # of those; of poolings; results
    "--reference": {"monitor"},  # results, not ways of adapting
    "--method": {"explain", "models merge"},  # of heat maps; of merging
    "--shots": {"adapt compare"},  # several
    "--modality": {"shards index"},  # of all images
    "--format": {"slides export"},  # of tables of other programs, not of images
    "--images": {"slides predict", "search", "models calibrate"},  # the images themselves
    "--patient": {"shards index"},  # a field of json
    "--license": {"shards index"},  # of images, not of weights
}
"""Commands where an option of this name is another thing."""


def test_an_option_has_one_type_and_one_sentence_in_all_commands():
    sentences: dict[str, set[tuple[str, str | None, str | None]]] = defaultdict(set)
    for command in COMMANDS.keys() - OF_ONE_COMMAND:
        module, _, function = COMMANDS[command][0].partition(":")
        parameters = inspect.signature(getattr(import_module(module), function), eval_str=True).parameters
        if "ctx" in parameters:  # derived
            continue
        for name, parameter in parameters.items():
            for option in getattr(parameter.annotation, "__metadata__", ()):
                spelled = "--" + name.strip("_").replace("_", "-")
                if isinstance(option, typer.models.OptionInfo) and command not in OTHER_THINGS.get(spelled, ()):
                    kind = str(parameter.annotation.__origin__ | None)
                    sentences[spelled].add((kind, option.help, option.metavar))
    assert len(sentences) > 20
    assert {name: said for name, said in sentences.items() if len(said) > 1} == {}


def test_the_limit_says_in_which_blocks_files_are_taken():
    (option,) = [one for one in options.Limit.__metadata__ if isinstance(one, typer.models.OptionInfo)]
    assert f"blocks of {CHUNK_FILES}," in str(option.help)
