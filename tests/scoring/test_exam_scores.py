"""Mammography examinations asked by their views: rows of the examination, its breasts and its images."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from medclip.adaptation.data.class_text import class_text
from medclip.adaptation.data.heads import HazardHead, LinearHead
from medclip.adaptation.pack.pack_head import HEADS_FILE, HEADS_TABLE, heads_table
from medclip.api.embed import embed
from medclip.api.score import score
from medclip.models.packs.card import TaskCard, read_card
from medclip.models.packs.pack import load_model, update_pack
from medclip.runs.outputs.score_run import ScoreRun
from medclip.sample import ViewType
from medclip.scoring.exam_scores import LOGIT_STEP
from medclip.text.vocabulary.load import load_task
from tests.kits.mammograms import write_exams, write_mammogram
from tests.kits.scoring import digests, make_pack, write_png


@pytest.fixture(scope="module")
def fusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that weighs the views of an examination."""
    return make_pack(tmp_path_factory.mktemp("fusing") / "tiny", fuses=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> tuple[Path, ScoreRun]:
    """Examinations, and their scores."""
    base = tmp_path_factory.mktemp("exams")
    root = write_exams(base / "in")
    return root, score(root, base / "out", model=pack, exam=True, workers=1, memory="8GB")


def rows_of(run: ScoreRun, folder: str, task: str = "breast_density") -> list[dict[str, Any]]:
    """Return the rows of the first class of an examination."""
    (study,) = {row["study"] for row in run.files.to_pylist() if row["path"].startswith(folder)}
    assert run.exam_scores is not None
    rows = [row for row in run.exam_scores.to_pylist() if row["study"] == study and row["task"] == task]
    return [row for row in rows if row["class"] == rows[0]["class"]]


def test_an_examination_has_a_row_for_itself_its_breasts_and_its_images_as_they_hang(
    made: tuple[Path, ScoreRun],
) -> None:
    _, run = made
    rows = rows_of(run, "whole")
    assert [(row["level"], row["side"], row["position"]) for row in rows] == [
        ("exam", None, None),
        ("breast", "R", None),
        ("breast", "L", None),
        *(("view", side, position) for position in ("CC", "MLO") for side in "RL"),
    ]
    assert [row["file"] for row in rows[3:]] == [f"whole/{n}.dcm" for n in (2, 0, 3, 1)]
    assert [row["num_views"] for row in rows] == [4, 2, 2, 1, 1, 1, 1]
    logits = [row["logit"] for row in rows]
    assert logits[0] == pytest.approx(np.mean(logits[3:]), abs=1.01 * LOGIT_STEP)
    assert logits[1] == pytest.approx(np.mean([logits[3], logits[5]]), abs=1.01 * LOGIT_STEP)
    assert {row["fusion"] for row in rows} == {"mean_of_logits"}
    assert [row["attention_exam"] for row in rows] == [None] * 3 + [0.25] * 4
    assert [row["attention_breast"] for row in rows] == [None] * 3 + [0.5] * 4


def test_the_answer_of_the_study_is_that_of_the_examination(made: tuple[Path, ScoreRun]) -> None:
    _, run = made
    assert run.exam_scores is not None
    exams = [row for row in run.exam_scores.to_pylist() if row["level"] == "exam"]
    of_exam = {(row["study"], row["task"], row["class"]): (row["probability"], row["num_views"]) for row in exams}
    studies = [row for row in run.scores.to_pylist() if row["modality"] == "mammography"]
    assert of_exam == {
        (row["study"], row["task"], row["class"]): (row["probability"], row["num_images"]) for row in studies
    }
    assert {row["modality"] for row in run.scores.to_pylist()} == {"mammography", "xray"}


def test_what_is_to_be_known_of_an_answer_stands_in_its_row(made: tuple[Path, ScoreRun]) -> None:
    _, run = made
    exam, right, left, *views = rows_of(run, "twice")
    assert (exam["num_views"], exam["note"]) == (2, "missing_views other_view repeat")
    assert json.loads(exam["missing"]) == ["R-MLO", "L-MLO"]
    assert (right["note"], left["note"]) == ("one_view other_view", "one_view repeat")
    assert [(row["file"], row["note"], row["attention_exam"]) for row in views] == [
        ("twice/2.dcm", None, 0.5),
        ("twice/0.dcm", None, 0.5),
        ("twice/1.dcm", "repeat", None),
        ("twice/3.dcm", "other_view", None),
    ]
    exam, breast, view = rows_of(run, "one")
    assert (exam["note"], breast["side"]) == ("one_view only_for_processing", "R")
    assert exam["probability"] == breast["probability"] == view["probability"]
    exam, *views = rows_of(run, "unstated")
    assert [row["level"] for row in views] == ["view", "view"]
    assert exam["note"] == "missing_views no_position"


def test_a_pack_that_fuses_views_is_asked_by_them_and_says_how_much_each_of_them_counts(
    made: tuple[Path, ScoreRun], fusing: Path, tmp_path: Path
) -> None:
    root, by_mean = made
    run = score(root, tmp_path / "out", model=fusing, workers=1, memory="8GB")
    rows = rows_of(run, "whole")
    views = rows[3:]
    assert {row["fusion"] for row in rows} == {"attention"}
    shares = [row["attention_exam"] for row in views]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert max(shares) > 0.3
    for side in "RL":
        assert sum(row["attention_breast"] for row in views if row["side"] == side) == pytest.approx(1, abs=1e-6)
    mean = rows_of(by_mean, "whole")
    assert views[0]["logit"] != pytest.approx(mean[3]["logit"], abs=1e-4), "fusion shifts a view by itself, too"
    assert rows[0]["logit"] != pytest.approx(mean[0]["logit"], abs=1e-6)
    model = load_model(fusing)
    vectors = model.embed_images([root / row["file"] for row in views])
    fused, weights = model.fuse(vectors, [ViewType(row["side"], row["position"]) for row in views])
    assert weights.tolist() == pytest.approx(shares, abs=1e-6)
    exam, breast, view = rows_of(run, "one")
    assert exam["probability"] == breast["probability"] == view["probability"]
    alone = score(root, tmp_path / "none", model=fusing, exam=False, workers=1, memory="8GB")
    assert alone.exam_scores is None
    assert fused.shape == (32,)


def test_heads_answer_their_tasks_from_the_fused_vector_and_a_risk_has_a_row_for_each_year(
    made: tuple[Path, ScoreRun], fusing: Path, tmp_path: Path
) -> None:
    root, _ = made
    pack = copytree(fusing, tmp_path / "pack")
    names = ("mammography_malignancy", "breast_cancer_risk")
    texts = {name: class_text(load_task(name)) for name in names}
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return rng.normal(0, 3, shape).astype(np.float32)

    years = np.arange(1, 6, dtype=np.float32)
    heads = {
        names[0]: LinearHead(drawn(32, 3), drawn(3)),
        names[1]: HazardHead(drawn(32), -2.0, drawn(32, 5), drawn(5), years),
    }
    arrays = {f"{name}/{key}": value for name, head in heads.items() for key, value in head.arrays().items()}
    files = {
        HEADS_FILE: save({key: np.ascontiguousarray(value) for key, value in arrays.items()}),
        HEADS_TABLE: heads_table(texts, {name: head.kind for name, head in heads.items()}).encode(),
    }
    entries = {name: TaskCard.model_validate({"classes": texts[name].names}) for name in names}
    update_pack(pack, card=read_card(pack).model_copy(update={"tasks": entries}), extra_files=files)
    run = score(root, tmp_path / "out", model=pack, workers=1, memory="8GB")
    assert run.exam_scores is not None
    risk = [row for row in run.exam_scores.to_pylist() if row["task"] == "breast_cancer_risk"]
    assert {row["class"] for row in risk} == {f"year_{n}" for n in range(1, 6)}
    for start in range(0, len(risk), 5):
        chances = [row["probability"] for row in risk[start : start + 5]]
        assert chances == sorted(chances)
        assert len(set(chances)) > 1
    exam, *_, last = rows_of(run, "whole", "breast_cancer_risk")
    model = load_model(pack)
    views = [row for row in rows_of(run, "whole", "breast_cancer_risk") if row["level"] == "view"]
    vectors = model.embed_images([root / row["file"] for row in views])
    fused, _ = model.fuse(vectors, [ViewType(row["side"], row["position"]) for row in views])
    assert exam["logit"] == pytest.approx(float(heads[names[1]].logits(fused[None], model)[0, 0]), abs=1e-4)
    alone, _ = model.fuse(vectors[-1:], [ViewType(last["side"], last["position"])])
    assert last["logit"] == pytest.approx(float(heads[names[1]].logits(alone[None], model)[0, 0]), abs=1e-4)


@pytest.mark.parametrize(("fuses", "hash_paths"), [(False, True), (True, False)])
def test_rows_from_vectors_are_those_from_files(
    made: tuple[Path, ScoreRun], pack: Path, fusing: Path, tmp_path: Path, fuses: bool, hash_paths: bool
) -> None:
    root, _ = made
    pack = fusing if fuses else pack
    asked = {"model": pack, "exam": True, "hash_paths": hash_paths}
    of_files = score(root, tmp_path / "files", workers=1, memory="8GB", **asked)
    stored = embed(root, tmp_path / "e", model=pack, workers=1, memory="8GB")
    fast = score(stored, tmp_path / "vectors", **asked)
    assert digests(tmp_path / "vectors") == digests(tmp_path / "files")
    fast_bytes, whole_bytes = ((tmp_path / out / "exam_scores.parquet").read_bytes() for out in ("vectors", "files"))
    assert fast_bytes == whole_bytes
    in_memory = score(stored, **{**asked, "model": load_model(pack)})
    assert in_memory.exam_scores is not None
    assert in_memory.exam_scores.equals(of_files.exam_scores)
    assert in_memory.scores.equals(fast.scores)


def test_an_image_that_came_later_takes_its_place_in_the_examination(pack: Path, tmp_path: Path) -> None:
    write_mammogram(tmp_path / "in" / "a.dcm", 1, "R", "CC")
    call = {"model": pack, "exam": True, "workers": 1, "memory": "8GB"}
    first = score(tmp_path / "in", tmp_path / "out", **call)
    assert rows_of(first, "a")[0]["note"] == "one_view"
    write_mammogram(tmp_path / "in" / "b.dcm", 2, "R", "MLO")
    later = score(tmp_path / "in", tmp_path / "out", add=True, **call)
    assert [row["note"] for row in rows_of(later, "a")] == ["missing_views", None, None, None]
    assert [row["file"] for row in rows_of(later, "a")[2:]] == ["a.dcm", "b.dcm"]


def test_images_with_a_table_hang_by_it_and_a_side_that_the_file_name_contradicts_is_not_known(
    pack: Path, tmp_path: Path
) -> None:
    names = {"1.png": ("R", "CC"), "2.png": ("L", "CC MAG"), "P_LEFT_MLO.png": ("R", "MLO")}
    lines = ["file,study,modality,laterality,view,view_kind"]
    for n, (name, (side, view)) in enumerate(names.items()):
        write_png(tmp_path / "in" / name, n)
        lines.append(f"{name},s,mammography,{side},{view},subtracted")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    run = score(tmp_path / "in", model=pack, exam=True, table=tmp_path / "table.csv", workers=1, memory="8GB")
    exam, _, _, *views = rows_of(run, "1")
    assert [(row["side"], row["position"], row["view_kind"], row["note"]) for row in views] == [
        ("R", "CC", "subtracted", None),
        ("L", "CC", "subtracted", "partial_view"),
        (None, "MLO", "subtracted", "sides_contradict"),
    ]
    assert exam["note"] == "missing_views partial_view sides_contradict"
    assert {row["path"]: (row["laterality"], row["view"]) for row in run.files.to_pylist()} == {
        "1.png": ("R", "CC"),
        "2.png": ("L", "CC"),
        "P_LEFT_MLO.png": (None, "MLO"),
    }


def test_without_being_asked_a_pack_that_fuses_no_views_has_no_table_of_examinations(
    pack: Path, tmp_path: Path
) -> None:
    write_mammogram(tmp_path / "in" / "a.dcm", 1, "R", "CC")
    run = score(tmp_path / "in", tmp_path / "out", model=pack, workers=1, memory="8GB")
    assert run.exam_scores is None
    assert not (tmp_path / "out" / "exam_scores.parquet").exists()
    assert pq.read_table(tmp_path / "out" / "scores.parquet").equals(run.scores)
