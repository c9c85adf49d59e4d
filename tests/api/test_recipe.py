"""A recipe names the options of a call, and the run.json of a run is the recipe that repeats it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.settings import Settings
from medclip.verbs import make_options, named_values
from tests.kits.scoring import digests, write_png


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three pictures, and one that is none."""
    for number in range(3):
        write_png(tmp_path / "in" / f"{number}.png", number)
    (tmp_path / "in" / "cut.png").write_bytes((tmp_path / "in" / "1.png").read_bytes()[:200])
    return tmp_path / "in"


def test_the_run_json_of_a_run_repeats_it_to_the_same_tables(
    films: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("file,modality\n0.png,mri\n")
    words = ["--modality", "xray", "--group-by", "file", "--prompt", "a fracture", "--against", "no fracture"]
    words += ["--task", "chest_xray_view", "--no-templates", "--batch-size", "2", "--no-thumbnails"]
    first, second = tmp_path / "first", tmp_path / "second"
    command = ["score", str(films), "--model", str(pack), "--table", str(table), "--workers", "1"]
    assert main([*command, "--out", str(first), *words, "--export", "csv", "--log", str(tmp_path / "l.jsonl")]) == 3
    text = (first / "run.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["recipe"] == {
        "path": "?",
        "model": "?",
        "table": "?",
        "modality": "xray",
        "group_by": "file",
        "prompt": ["a fracture"],
        "against": ["no fracture"],
        "task": ["chest_xray_view"],
        "templates": False,
        "batch_size": 2,
        "thumbnails": False,
    }
    assert main([*command, "--out", str(second), "--recipe", str(first / "run.json")]) == 3
    tables = ("files.parquet", "scores.parquet", "run.json")
    assert [(second / name).read_bytes() for name in tables] == [(first / name).read_bytes() for name in tables]
    capsys.readouterr()
    assert main(["score", "--out", str(tmp_path / "third"), "--recipe", str(first / "run.json")]) == 2
    assert "a run does not keep where its model was. Name it beside the recipe: --model." in capsys.readouterr().err
    recipe = first / "run.json"
    run = medclip.score(films, tmp_path / "python", model=pack, table=table, workers=1, recipe=recipe)
    assert digests(run.folder).items() >= {n: d for n, d in digests(second).items() if "ledger" not in n}.items()


def test_what_is_named_beside_a_recipe_overrides_it_and_it_overrides_the_settings_file(
    films: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "medclip.toml"
    settings.write_text('[score]\nmodality = "ct"\nthumbnails = false\ngroup_by = "folder"\nworkers = 1\n')
    monkeypatch.setenv("MEDCLIP_SETTINGS", str(settings))
    recipe = tmp_path / "night.yaml"
    asked = {"path": str(films), "model": str(pack), "modality": "mri", "group_by": "file", "thumbnails": True}
    recipe.write_text(json.dumps({**asked, "prompt": "a fracture"}))
    assert main(["score", "--out", str(tmp_path / "out"), f"--recipe={recipe}", "--group-by", "auto"]) == 3
    about = json.loads((tmp_path / "out" / "run.json").read_text())["recipe"]
    assert about["modality"] == "mri"
    assert "group_by" not in about, "the command line has the default back"
    assert "thumbnails" not in about
    command = ["score", str(films), "--out", str(tmp_path / "other"), "--model", str(pack), "--prompt", "a fracture"]
    assert main(command) == 3
    about = json.loads((tmp_path / "other" / "run.json").read_text())["recipe"]
    assert (about["modality"], about["group_by"], about["thumbnails"]) == ("ct", "folder", False)


def test_a_wrong_recipe_is_refused_before_anything_is_read(
    films: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "night.yaml"
    command = ["score", str(films), "--out", str(tmp_path / "out"), "--model", str(pack), "--recipe", str(recipe)]
    for text, said in (
        ("promt: a fracture", "Did you mean 'prompt'"),
        ("batch_size: many", "batch_size does not take 'many'"),
        ("report: {sort: x}", "report has no option 'sort'"),
        ("settings: {}", "'settings' is no option of this"),
        ("task: 3", "task does not take 3"),
        ("prompt: {a: 3}", "prompt does not take {'a': 3}"),
        ("log: 3", "log does not take 3"),
        ("reading: 3", "takes KEY=VALUE"),
        ("reading: {mpp: 1}", "night.yaml: reading: there is no choice 'mpp' of reading"),
        ("group_by: size", "folder"),
        ("a: [", "night.yaml"),
    ):
        recipe.write_text(text)
        assert main(command) == 2
        assert said in capsys.readouterr().err
    recipe.unlink()
    assert main(command) == 2
    assert not (tmp_path / "out").exists()
    with pytest.raises(MedclipError) as refused:
        medclip.score(films, tmp_path / "out", model=pack, recipe=recipe)
    assert refused.value.reason is Reason.MISSING_FILE


def test_verbs_over_runs_take_recipes_too(films: Path, pack: Path, tmp_path: Path) -> None:
    medclip.score(films, tmp_path / "out", model=pack, modality="xray", workers=1)
    recipe = tmp_path / "again.yaml"
    recipe.write_text(json.dumps({"folder": str(tmp_path / "out"), "reason": "truncated"}))
    assert main(["retry", "--recipe", str(recipe)]) == 3
    recipe.write_text(json.dumps({"folder": str(tmp_path / "out"), "as": ["csv"]}))
    assert main(["export", "--recipe", str(recipe)]) == 0
    assert (tmp_path / "out" / "files.csv").exists()
    recipe.write_text(json.dumps({"path": str(films), "model": str(pack), "modality": "xray", "dtype": "float16"}))
    assert medclip.embed(out=tmp_path / "e", recipe=recipe, workers=1).counts["embedded"] == 3  # pyright: ignore


def test_a_run_goes_on_with_the_choices_of_reading_that_it_began_with(films: Path, pack: Path, tmp_path: Path) -> None:
    options = {"model": pack, "modality": "xray", "settings": Settings(workers=1)}
    medclip.score(films, tmp_path / "out", reading={"uneven_slices": "resample", "mpp_um": 1}, **options)
    recipe = json.loads((tmp_path / "out" / "run.json").read_text())["recipe"]
    assert recipe["reading"] == {"mpp_um": 1.0, "uneven_slices": "resample"}
    for other in ((), ["mpp_um=1"], {"mpp_um": 2, "uneven_slices": "resample"}):
        with pytest.raises(MedclipError, match="--reading") as refused:
            medclip.score(films, tmp_path / "out", reading=other, **options)
        assert refused.value.reason is Reason.OUTPUT_IN_USE
    same = ["uneven_slices=resample", "mpp_um=1.0"]
    assert medclip.score(films, tmp_path / "out", reading=same, **options).already_finished


def test_shards_whose_choices_are_named_in_another_order_merge(films: Path, pack: Path, tmp_path: Path) -> None:
    choices = ["mpp_um=0.5", "accept_unterminated=true"]
    for number, named in ((1, choices), (2, choices[::-1])):
        out = tmp_path / f"{number}"
        medclip.score(films, out, model=pack, modality="xray", workers=1, shard=f"{number}/2", reading=named)
    merged = medclip.runs.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all", workers=1)
    assert merged.counts["files"] == 4


def test_one_place_to_leave_out_is_no_sequence_of_letters(films: Path, pack: Path, tmp_path: Path) -> None:
    run = medclip.score(films, tmp_path / "out", model=pack, modality="xray", workers=1, exclude=str(films / "0.png"))
    assert run.counts["files"] == 3


def test_a_name_that_is_no_option_of_a_verb_is_refused_with_the_one_that_may_be_meant(films: Path) -> None:
    with pytest.raises(TypeError, match=r"score\(\) got an unexpected keyword argument 'worker'.*'workers'"):
        medclip.score(films, worker=1)  # pyright: ignore


def test_of_keys_those_that_are_named_go_before_those_of_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "night.yaml"
    recipe.write_text("reading: {mpp_um: 0.25, uneven_slices: resample}\n")
    named = {"path": "in", "recipe": recipe, "reading": ["mpp_um=0.5"]}
    options = make_options(medclip.score.options, named_values(medclip.score.options, named))
    assert options.reading == {"mpp_um": 0.5, "uneven_slices": "resample"}
    recipe.write_text("set: [steps=200, lr=0.01]\n")
    verb = medclip.adapt.options
    named = {"labels": "t.csv", "label": "a", "recipe": recipe, "overrides": {"steps": 5}}
    assert make_options(verb, named_values(verb, named)).overrides == {"steps": 5, "lr": 0.01}
    with pytest.raises(MedclipError, match="takes KEY=VALUE") as refused:
        named_values(verb, {**named, "overrides": 3})
    assert refused.value.reason is Reason.WRONG_USE
