"""Options of the verbs over slides: what stands together, where arguments stand, what a recipe may say."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.options import options_of
from medclip.shards.writing.splits import DEFAULT_SPLITS, read_shares


def verbs() -> list[Any]:
    names = ("tissue", "places", "embed", "learn", "predict", "export")
    return [medclip.pathgen, *(getattr(medclip.slides, name) for name in names)]


@pytest.mark.parametrize("verb", verbs(), ids=lambda verb: verb.__name__)
def test_arguments_stand_where_the_signature_says_and_no_verb_has_over_twenty_of_its_own(verb: Any):
    shown = inspect.signature(verb).parameters.values()
    made = inspect.signature(verb.options).parameters.values()
    by_position = inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert [one.name for one in shown if one.kind is by_position] == [
        one.name for one in made if one.kind is by_position
    ]
    assert len(inspect.get_annotations(verb.options)) <= 20


@pytest.mark.parametrize(
    "command", ["pathgen", *(f"slides {name}" for name in ("tissue", "patches", "embed", "learn", "predict", "export"))]
)
def test_short_help_is_a_page(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*command.split(), "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) <= 45


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda out: medclip.slides.learn("s", "t.csv", out=out), "either columns of labels are learned or the risk"),
        (lambda out: medclip.slides.learn("s", "t.csv", "a", out=out, years=2), "either columns of labels are learned"),
        (lambda out: medclip.slides.learn("s", "t.csv", "a", out=out, num_folds=1), "num_folds is at least 2, not 1"),
        (lambda out: medclip.slides.predict("s", out=out), "either a task is asked in words or a learned head answers"),
        (lambda out: medclip.slides.export("s", out, as_="zarr"), "as is one of anndata and spatialdata"),
        (lambda out: medclip.slides.places("s", out, min_coverage=1.5), "min_coverage is 0 to 1, not 1.5"),
        (lambda out: medclip.slides.embed("s", out, dtype="float64"), "dtype is one of float32 and float16"),
        (lambda out: medclip.pathgen("s", out, store="v", stage_to="d"), "nothing is embedded where a store is named"),
        (lambda out: medclip.pathgen("s", out, vlm="d"), "the measuring agent asks no endpoint and no model"),
    ],
)
def test_what_cannot_stand_together_is_refused_before_anything_is_read(call: Any, sentence: str, tmp_path: Path):
    with pytest.raises(MedclipError, match=sentence) as caught:
        call(tmp_path / "out")
    assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "out").exists()


def test_a_recipe_has_the_keys_of_the_options_and_what_is_named_beside_it_goes_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "night.yaml"
    recipe.write_text("task: histology_tumour\nhead: head\n")
    asked = ["slides", "predict", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--recipe", str(recipe)]
    assert main(asked) == 2
    assert "either a task is asked in words" in capsys.readouterr().err
    recipe.write_text("set: [epochs=3]\nnum_folds: 1\nlabel: grade\n")
    asked = ["slides", "learn", "s", "--labels", "t.csv", "--out", str(tmp_path / "out"), "--recipe", str(recipe)]
    assert main(asked) == 2
    assert "num_folds is at least 2" in capsys.readouterr().err
    recipe.write_text("folds: 3\n")
    assert main(asked) == 2
    assert "'folds' is no option of this" in capsys.readouterr().err


def test_columns_of_labels_need_not_be_named_on_the_command_line():
    assert not options_of(medclip.slides.learn.options)["label"].is_needed


def test_shares_are_a_mapping_a_text_or_several():
    assert read_shares({"train": 1.0}) == read_shares("train=1") == read_shares(["train=1"])
    assert read_shares("a=0.5,b=0.5") == read_shares(["a=0.5", "b=0.5"]) == {"a": 0.5, "b": 0.5}
    assert read_shares(()) == DEFAULT_SPLITS
    with pytest.raises(MedclipError, match=r"--splits takes train=0\.7"):
        read_shares("train=most")
