"""Heat maps of files: what is written, what is refused, and that what is explained is what was scored."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.explaining.explain_unit import Cost
from medclip.imaging.geometry import TokenBudget
from medclip.models.packs.pack import load_model, update_pack
from medclip.models.prototypes.open_set import OpenSet
from medclip.text.vocabulary.load import load_task
from tests.imaging.test_colourfulness import dermoscopy
from tests.kits import files
from tests.kits.image_only import image_only_pack
from tests.kits.scoring import PLANTED, make_pack, write_dicom, write_png

SETTINGS = medclip.Settings(workers=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(make_pack(tmp_path_factory.mktemp("explain") / "pack"))


def _explain(path: Any, *prompts: str, **options: Any) -> medclip.Explained:
    return medclip.explain(path, prompt=prompts, settings=SETTINGS, **{"checks": "none", **options})


def test_a_map_has_the_size_of_the_image_and_what_is_explained_is_what_is_scored(tmp_path: Path, model: Any):
    film = write_png(tmp_path / "film.png", 3, height=90, width=70)
    explained = _explain(film, "pneumonia", model=model, modality="xray")
    (unit,) = explained
    (maps,) = explained.maps
    assert {title: [m.shape for m in of_title] for title, of_title in maps.items()} == {
        "pneumonia against no pneumonia": [(90, 70)]
    }
    assert (unit.kind, unit.modality, unit.status, explained.exit_code) == ("image", "xray", "explained", 0)
    scored = medclip.score(film, prompt="pneumonia", model=model.path, modality="xray", settings=SETTINGS)
    row = scored.scores.to_pylist()[0]
    assert unit.maps[0].score == pytest.approx(row["logit"], abs=1e-4)
    assert unit.maps[0].probability == pytest.approx(row["probability"], abs=1e-5)
    assert "src=" not in explained._repr_html_().replace('src="data:', "")
    assert len(repr(explained).splitlines()) < 10
    assert list(explained.to_pandas()["prompt"]) == ["pneumonia"]


def test_the_folder_holds_page_json_overlay_and_arrays_for_its_owner_alone(
    tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str]
):
    film, out = write_dicom(tmp_path / "ROENTGEN.dcm", 4), tmp_path / "out"
    words = ["explain", str(film), "--prompt", "effusion", "--prompt", "mass", "--model", str(model.path)]
    assert main([*words, "--out", str(out), "--scale", "common", "--checks", "all", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert sorted(p.name for p in out.iterdir()) == [
        "explain.html",
        "explain.json",
        "explain.png",
        "explain.safetensors",
    ]
    assert {stat.S_IMODE(p.stat().st_mode) for p in out.iterdir()} == {0o600}
    (row,) = json.loads((out / "explain.json").read_text())["rows"]
    assert row["maps"] == printed["rows"][0]["maps"]
    first = row["maps"][0]
    assert {len(curve["insertion"]) for curve in first["insertion_and_deletion"]} == {21}
    assert first["prompt_sensitivity"]["other"]
    assert "xray" in load_task(first["prompt_sensitivity"]["task"]).modalities
    assert first["sanity_check"]
    assert (row["colour_scale"], first["method"]) == ("common", "grad-cam")
    arrays = load_file(out / "explain.safetensors")
    assert arrays["map1.image0"].shape == tuple(row["images"][0]["size_px"])
    assert list(arrays["map2.grid0"].shape) == first["grid"]
    page = (out / "explain.html").read_text()
    assert not [value for value in PLANTED.values() if value in page]
    assert "ROENTGEN" not in page
    assert "Model attention evidence" in page
    assert "<script" not in page
    with Image.open(out / "explain.png") as drawn:
        assert drawn.text == {"Software": "medclip"}  # pyright: ignore[reportAttributeAccessIssue]
    assert main([*words, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_quick_checks_have_the_verdicts_that_all_have_and_the_page_says_what_was_left_out(tmp_path: Path, model: Any):
    film = write_png(tmp_path / "film.png", 4)
    quick, full = (
        _explain(film, "mass", model=model, modality="xray", out=tmp_path / checks, checks=checks)
        for checks in ("quick", "all")
    )
    (some,), (every,) = quick[0].maps, full[0].maps
    assert [verdict.check for verdict in some.verdicts] == ["least related question", "random weights"]
    assert some.verdicts == every.verdicts[:2]
    assert some.randomised == every.randomised[-1:]
    assert (some.curves, len(every.curves)) == ((), 3)
    left_out = "Insertion and deletion were not checked; --checks all does."
    assert [left_out in (tmp_path / checks / "explain.html").read_text() for checks in ("quick", "all")] == [
        True,
        False,
    ]


def test_the_cost_is_said_before_the_first_map_with_that_of_other_checks(
    tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str]
):
    film = write_png(tmp_path / "film.png", 4)
    words = ["explain", str(film), "--prompt", "mass", "--model", str(model.path), "--modality", "xray"]
    assert main([*words, "--out", str(tmp_path / "out"), "--checks", "none"]) == 0
    cost = [line for line in capsys.readouterr().err.splitlines() if line.startswith("About ")]
    assert len(cost) == 1
    assert "for 1 map with --checks none (--checks quick " in cost[0]
    of_series = [Cost(9.0, 2.0, 1.0, 5.0).seconds(16, 3, checks) for checks in ("none", "quick", "all")]
    maps = 9 + 15 * (3 * 2 + 1)
    assert of_series == [maps, maps + 12 + 5, maps + 27 * 2 + 78 + 3 * 38 + 5]


def test_the_switch_that_checks_were_is_answered_with_the_word_of_today(
    tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str]
):
    film = write_png(tmp_path / "film.png", 4)
    assert main(["explain", str(film), "--no-checks", "--out", str(tmp_path / "out")]) == 2
    assert "--checks none" in " ".join(capsys.readouterr().err.replace("│", "").split())
    with pytest.raises(MedclipError, match="checks is one of none, quick and all: 'none' for False"):
        _explain(film, "mass", model=model, modality="xray", checks=False)


def test_a_folder_has_a_row_for_each_file_and_never_dies_of_one(tmp_path: Path, model: Any):
    write_png(tmp_path / "in" / "a.png", 5)
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:300])
    explained = _explain(tmp_path / "in", "mass", model=model, modality="xray", out=tmp_path / "out", report_paths=True)
    assert [(unit.file, unit.status) for unit in explained] == [("a.png", "explained"), ("b.png", "failed")]
    assert explained.exit_code == 3
    assert (tmp_path / "out" / "explain-1.png").is_file()
    assert "b.png" in (tmp_path / "out" / "explain.html").read_text().replace("<wbr>", "")
    with pytest.raises(MedclipError) as caught:
        _explain(tmp_path / "in" / "b.png", "mass", model=model, modality="xray")
    assert caught.value.reason in (Reason.TRUNCATED, Reason.CORRUPT)


def test_a_score_that_nothing_moves_is_an_empty_map_and_an_exit_code(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
):
    film, visual = write_png(tmp_path / "film.png", 6), model.clip.visual
    monkeypatch.setattr(visual, "forward", lambda image: image.mean() * 0 + visual.trunk(image)[:, :32].detach())
    explained = _explain(film, "mass", model=model, modality="xray", out=tmp_path / "out", checks="all")
    assert explained[0].status == "empty"
    assert explained.exit_code == 3
    assert "gradient of the score is zero" in (tmp_path / "out" / "explain.html").read_text()
    assert not np.nan_to_num(explained[0].in_image(explained[0].maps[0], 0)).any()


def test_without_a_question_the_top_finding_is_explained_and_a_class_may_be_named(tmp_path: Path, model: Any):
    film = write_png(tmp_path / "film.png", 7)
    (top,) = _explain(film, model=model, modality="xray")[0].maps
    assert top.task == "chest_xray_findings"
    (view,) = _explain(film, model=model, modality="xray", task="chest_xray_view:lateral")[0].maps
    assert (view.name, view.against) == ("lateral", "the other classes")
    (alone,) = _explain(film, "mass", model=model, modality="xray", contrast=False)[0].maps
    assert (alone.title, alone.probability) == ("mass", None)
    with pytest.raises(MedclipError, match="has no class 'lateralis'"):
        _explain(film, model=model, modality="xray", task="chest_xray_view:lateralis")


def test_a_prompt_that_is_too_long_is_cut_and_said(tmp_path: Path, model: Any):
    film = write_png(tmp_path / "film.png", 8)
    explained = _explain(film, " ".join(["a large mass"] * 60), model=model, modality="xray")
    assert any("has 180 words; the model reads the first" in note for note in explained.notes)


def test_what_the_pack_was_never_trained_on_is_explained_with_a_caution(tmp_path: Path, model: Any):
    tile = write_png(tmp_path / "tile.png", 3, height=60, width=60)
    other = _explain(tile, "a CT with a lung nodule", model=model, modality="endoscopy")
    assert any("the model was trained on" in note and "speaks of CT" in note for note in other.notes)
    assert other[0].maps[0].caution.startswith("Not learned: the model was trained on")
    assert other[0].maps[0].caution.endswith("not on endoscopy")
    known = _explain(tile, "pneumonia", model=model, modality="xray")
    assert not any("trained" in note for note in known.notes)
    assert known[0].maps[0].caution == ""


def test_an_explained_score_has_the_caution_of_a_scored_one_wherever_it_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """In the page, its JSON, the terminal, the repr and a notebook: grey, in the words of the table of scores."""
    task, figure = "chest_xray_findings", {"value": 0.86, "low": 0.78, "high": 0.92, "num_patients": 118}
    only = {"verdict": "within its source only", "sources": ["nih_cxr"], "figures": {"within nih_cxr": figure}}
    metrics = {"auroc": {name: {"zero_shot": figure} for name in ("pneumonia", "edema")}}
    own = {"classes": ["pneumonia", "edema"], "metrics": metrics, "sources": {"pneumonia": only}}
    view = {"classes": ["ap", "pa", "lateral"], "note": "Not measured after merging. Others."}
    pack = make_pack(tmp_path / "pack", tasks={"modality": {"classes": ["xray"]}, task: own, "chest_xray_view": view})
    film, out = write_png(tmp_path / "film.png", 3), tmp_path / "out"
    prompts = ["signs of pneumonia", "edema", "a pacemaker"]
    named = [f"{task}:pneumonia", f"{task}:edema", "chest_xray_view:pa"]
    options = {"model": pack, "modality": "xray"}
    run = medclip.score(
        film, prompt=prompts, task=[task, "chest_xray_view"], settings=SETTINGS, out=tmp_path / "scores", **options
    )
    beside = {(row["task"], row["class"]): row["caution"] for row in run.scores.to_pylist()}
    explained = _explain(film, *prompts, task=named, **options)
    cautions = {(heat.task, heat.name): heat.caution or None for heat in explained[0].maps}
    assert cautions == {pair: beside[pair] for pair in cautions}
    assert set(cautions.values()) == {
        None,
        "within its source only (nih_cxr)",
        "Not learned: it names nothing that the model’s card has a figure for",
        "Not measured after merging",
    }
    assert [note for note in explained.notes if "nih_cxr" in note] == [n for n in run.notes if "nih_cxr" in n]
    assert sum("AUROC 0.86 (0.78 to 0.92) within nih_cxr, 118 patients" in note for note in explained.notes) == 2
    assert not _explain(film, "edema", task=f"{task}:edema", **options).notes, "pneumonia was not explained"
    assert "pneumonia: within its source only (nih_cxr)" in repr(explained)
    grey = [line for line in explained._repr_html_().split("<tr") if "color: #80868b" in line]
    assert len(grey) == 4
    assert not any("edema" in line for line in grey)

    words = ["explain", str(film), "--modality", "xray", "--model", str(pack), "--out", str(out), "--checks", "none"]
    assert main([*words, *(f"--prompt={text}" for text in prompts), *(f"--task={name}" for name in named)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if " % · within its source only (nih_cxr)" in line]) == 2
    of_edema = " ".join(line for line in lines if line.startswith("film.png: edema"))
    assert of_edema
    assert not any(caution in of_edema for caution in cautions.values() if caution)
    (row,) = json.loads((out / "explain.json").read_text())["rows"]
    assert {(heat["task"], heat["prompt"]): heat["caution"] for heat in row["maps"]} == cautions
    page = (out / "explain.html").read_text()
    parts = {part.split("<h3>")[1].split(" against")[0]: part for part in page.split('<div class="heat')[1:]}
    quiet = {name: part.startswith(' quiet"') for name, part in parts.items()}
    assert quiet == {name: bool(caution) for (_, name), caution in cautions.items()}
    assert " · within its source only (nih_cxr)" in parts["signs of pneumonia"]
    assert ".heat.quiet h3 { font-weight: 400; }" in page


def test_a_pack_of_native_aspect_ratios_has_a_grid_of_the_shape_of_the_image(tmp_path: Path):
    model = load_model(make_pack(tmp_path / "native", budget=TokenBudget(16, 24)))
    tall = write_png(tmp_path / "tall.png", 3, height=120, width=40)
    explained = _explain(tall, "mass", model=model, modality="xray", checks="all")
    (heat,) = explained[0].maps
    (grid,) = heat.grids
    assert grid.size <= 24
    assert 2 <= grid.shape[0] / grid.shape[1] <= 4
    assert explained.maps[0][heat.title][0].shape == (120, 40)
    assert (heat.padding, heat.method, len(heat.curves)) == ((0.0,), "gradient-attention", 3)
    for method in ("score-cam", "gscore-cam"):
        with pytest.raises(MedclipError, match="takes images at their own aspect ratio") as caught:
            _explain(tall, "mass", model=model, modality="xray", method=method)
        assert caught.value.reason is Reason.WRONG_USE


def test_words_of_a_pack_without_any_are_refused_in_one_sentence(tmp_path: Path):
    film = write_png(tmp_path / "film.png", 9)
    with pytest.raises(MedclipError, match="no text tower") as caught:
        _explain(film, "mass", model=image_only_pack(tmp_path / "pack"), modality="pathology")
    assert caught.value.reason is Reason.WRONG_USE


def test_an_image_with_burned_in_text_is_not_shown(tmp_path: Path, model: Any):
    clean, marked = (write_dicom(tmp_path / f"{n}.dcm", 10, BurnedInAnnotation=n) for n in ("NO", "YES"))
    shown, hidden = (_explain(path, "mass", model=model)[0] for path in (clean, marked))
    assert (shown.burned_in, hidden.burned_in) == (False, True)
    for first, second in zip(shown.maps[0].grids, hidden.maps[0].grids, strict=True):
        np.testing.assert_array_equal(first, second)
    assert _first_panel(shown.overlay).std() > 10
    assert np.ptp(_first_panel(hidden.overlay)) == 0


def test_a_score_report_has_the_map_of_each_top_finding_and_another_call_computes_no_score_again(
    tmp_path: Path, model: Any
):
    write_dicom(tmp_path / "in" / "a.dcm", 11, study_uid="1.2.3.1")
    write_dicom(tmp_path / "in" / "b.dcm", 12, study_uid="1.2.3.2")
    call = {"model": model.path, "settings": SETTINGS}
    plain = medclip.score(tmp_path / "in", tmp_path / "out", **call)
    before, scores = plain.report_path.read_text(), plain.scores
    run = medclip.score(tmp_path / "in", tmp_path / "out", report={"explain": "top"}, **call)
    page = run.report_path.read_text()
    assert run.already_finished
    assert run.scores.equals(scores)
    assert page.count("<figcaption>heat map: ") == 2 > before.count("<figcaption>heat map: ")
    assert "no localisation" in page
    named = medclip.score(tmp_path / "in", tmp_path / "out", report={"explain": "chest_xray_view:lateral"}, **call)
    assert named.report_path.read_text().count("<figcaption>heat map: lateral") == 2
    for wrong, message in (
        ("chest_xray_view:latteral", "the task chest_xray_view has no class 'latteral'"),
        ("chest_xray_veiw", "heat maps of 'chest_xray_veiw' cannot be drawn, which this run does not ask"),
        ("prompt:mass", "heat maps of 'prompt' cannot be drawn"),
    ):
        with pytest.raises(MedclipError, match=message):
            medclip.score(tmp_path / "in", tmp_path / "new", report={"explain": wrong}, **call)
        assert not (tmp_path / "new").exists()
    with pytest.raises(MedclipError, match="once more, and paths are hashed"):
        medclip.score(tmp_path / "in", tmp_path / "hashed", report={"explain": "top"}, hash_paths=True, **call)


def _first_panel(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("L"))[140:300, 120:240]


def test_a_photograph_whose_header_says_cr_is_explained_only_where_the_caller_says_so(tmp_path: Path, model: Any):
    photograph = files.write_dicom(tmp_path / "skin.dcm", dermoscopy())
    with pytest.raises(MedclipError) as caught:
        _explain(photograph, "pneumonia", model=model)
    assert caught.value.reason is Reason.MODALITY_UNCERTAIN
    assert "in colour" in str(caught.value)
    assert _explain(photograph, "pneumonia", model=model, modality="xray")[0].status == "explained"


def test_an_image_unlike_those_that_the_model_has_seen_is_not_explained_as_one_of_them(tmp_path: Path):
    pack = make_pack(tmp_path / "guarded")
    eye, nothing = np.eye(32, dtype=np.float32), np.zeros(1, np.float32)
    names = ("xray", "mammography", "mri", "fundus")
    OpenSet(names, np.zeros((4, 32), np.float32), eye, np.repeat(nothing, 4)).save(pack)
    update_pack(pack)
    with pytest.raises(MedclipError, match="unlike"):
        _explain(write_png(tmp_path / "a.png", 3), "pneumonia", model=load_model(pack), min_confidence=0.0)
