"""What an image-only pack does in every room: it is adapted without words, scores, is compared and audited."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import medclip
from medclip.adaptation.data.shot_features import take
from medclip.adaptation.frozen.linear_probe import fit_linear_probe
from medclip.adaptation.methods import METHODS, choose_method, without_words
from medclip.embeddings.open_embeddings import open_embeddings
from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import load_model
from medclip.settings import Settings
from tests.kits.adapt_tables import make_table, write_table
from tests.kits.adaptation import made_up, words
from tests.kits.image_only import WIDTH, image_only_pack


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_only_pack(tmp_path_factory.mktemp("base") / "tiles", pooling="token+mean")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("images"), patients=12)


@pytest.fixture(scope="module")
def adapted(base: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("adapted") / "pack"
    return out, medclip.adapt(table, "finding", model=base, out=out, shots=6, workers=1)


def test_the_methods_without_words_are_the_four_on_features_alone() -> None:
    assert without_words() == ("linear-probe", "ridge", "knn", "lda")
    assert without_words(ordered=True)[4:] == ("proportional-odds", "coral", "regression")
    assert choose_method(None, has_text=False).name == "linear-probe"
    assert choose_method(None, has_text=True).name == "svd"


def test_it_is_adapted_with_a_linear_probe_where_no_method_is_named(adapted: tuple[Path, Any]) -> None:
    pack, run = adapted
    assert run.adapted.method == "linear-probe"
    assert run.adapted.fitted.settings["start"] == "zeros"
    assert run.test.zero_shot_NC is None
    figure = next(iter(run.measured.figures.values()))
    assert figure.zero_shot is None
    assert figure.gain is None
    assert figure.adapted.value > 0.9, "the classes differ by stripes, which random weights see"
    assert not load_model(pack).has_text
    assert run.adapted.fitted.head.logits(run_features(pack), None).shape == (1, 2)
    assert "zero" not in json.dumps(json.loads((pack / "card.json").read_text())["tasks"])


def run_features(pack: Path) -> Any:
    model = load_model(pack)
    assert model.dim == 2 * WIDTH
    return model.encode_image(np.zeros((1, 32, 32, 3), np.uint8))


def test_the_report_of_an_adaptation_without_words_names_no_prompts(adapted: tuple[Path, Any]) -> None:
    from medclip.reports.adaptation_text import adapt_json, adapt_text

    text = adapt_text(adapted[1])
    assert "zero-shot" not in text
    assert "prompts" not in text
    assert "zero_shot" not in json.dumps(adapt_json(adapted[1]))
    assert "zero-shot" not in repr(adapted[1])


@pytest.mark.parametrize("method", ["ridge", "knn", "lda"])
def test_every_method_without_words_adapts_it(base: Path, table: Path, method: str, tmp_path: Path) -> None:
    run = medclip.adapt(table, "finding", model=base, method=method, shots=6, workers=1)
    assert next(iter(run.measured.figures.values())).adapted.value > 0.8


def test_findings_of_their_own_are_learned_without_words(base: Path, table: Path, tmp_path: Path) -> None:
    with table.open(encoding="utf-8") as stream:
        rows = [{**row, "hazy": int(row["finding"] == "hazy")} for row in csv.DictReader(stream)]
    findings = write_table(table.parent / "findings.csv", [{**row, "odd": n % 2} for n, row in enumerate(rows)])
    for method in without_words():
        run = medclip.adapt(findings, ["hazy", "odd"], model=base, method=method, shots=6, test_share=0.3, workers=1)
        assert run.measured.by_class["hazy"].adapted.value > 0.8, method


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if m.needs_words])
def test_a_method_that_needs_words_is_refused_before_anything_is_read(base: Path, method: str) -> None:
    with pytest.raises(MedclipError, match="needs the classes' words, and this pack is image only") as caught:
        medclip.adapt("no such table.csv", "finding", model=base, method=method)
    assert caught.value.reason is Reason.WRONG_USE
    assert "linear-probe, ridge, knn, lda" in str(caught.value)


def test_a_class_without_examples_has_no_words_to_stand_in(base: Path) -> None:
    model, text = load_model(base), words(3)
    two = made_up(num_classes=2, dim=model.dim)
    with pytest.raises(MedclipError, match="no examples of plum, and the base is image only"):
        take(model, text, two, None)
    with pytest.raises(MedclipError, match='start is "text", and the base is image only'):
        fit_linear_probe(model, text, made_up(dim=model.dim), None, seed=0, start="text")


def test_the_adapted_pack_scores_and_the_base_says_what_it_can_do(
    base: Path, table: Path, adapted: tuple[Path, Any], tmp_path: Path
) -> None:
    asked: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "and it was not adapted to a task"),
        ({"prompt": "a tumour"}, "which the prompt 'a tumour' needs"),
        ({"task": "chest_xray_view"}, "which the task chest_xray_view needs"),
    )
    for options, more in asked:
        with pytest.raises(MedclipError, match=f"tiles is image only: it has no text tower, {more}"):
            medclip.score(table.parent, tmp_path / "refused", model=base, table=table, workers=1, **options)
    assert not (tmp_path / "refused").exists()
    with pytest.raises(MedclipError, match="which the task chest_xray_view needs"):
        medclip.score(table.parent, tmp_path / "refused", model=adapted[0], task="chest_xray_view")
    run = medclip.score(table.parent, tmp_path / "scored", model=adapted[0], table=table, workers=1)
    scores = pq.read_table(run.folder / "scores.parquet").to_pylist()
    assert {row["class"] for row in scores} == {"clear", "hazy"}
    assert {row["probability_spread"] for row in scores} == {None}  # a head is not made of words
    assert len(scores) == 48


def test_images_are_embedded_once_for_the_base_and_the_pack_that_is_made_of_it(
    base: Path, table: Path, adapted: tuple[Path, Any], tmp_path: Path
) -> None:
    store = medclip.embed(table.parent, tmp_path / "store", model=base, table=table, workers=1).folder
    assert open_embeddings(store).dim == 2 * WIDTH
    from_files = medclip.score(table.parent, tmp_path / "files", model=adapted[0], table=table, workers=1)
    from_store = medclip.score(store, tmp_path / "vectors", model=adapted[0])
    columns = ["study", "class", "logit", "probability"]
    one, other = (pq.read_table(run.folder / "scores.parquet", columns=columns) for run in (from_files, from_store))
    assert one.equals(other)
    run = medclip.adapt(table, "finding", model=base, images=store, shots=6)
    assert run.adapted.fitted.head.arrays().keys() == adapted[1].adapted.fitted.head.arrays().keys()
    np.testing.assert_array_equal(run.test.logits_NC, adapted[1].test.logits_NC)
    with pytest.raises(MedclipError, match="image only: it has no text tower"):
        medclip.search(store, "haze", model=base)
    hits = medclip.search(store, like=table.parent / "hazy" / "00_0.png", model=base, num_hits=3)
    assert len(hits.to_pandas()) == 3


def test_a_comparison_leaves_out_the_methods_that_need_words_and_says_so(
    base: Path, table: Path, tmp_path: Path
) -> None:
    result = medclip.compare(
        table, "finding", model=base, out=tmp_path / "compared", shots=[2], num_seeds=1, num_resamples=50
    )
    assert tuple(result.titles) == without_words()
    assert not result.failures
    assert "Left out, as they need the classes' words: Zero-shot" in result.notes[0]
    assert "Left out, as they need" in (tmp_path / "compared" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(MedclipError, match=r"CLIP-SVD \(svd\) needs the classes' words"):
        medclip.compare(table, "finding", model=base, out=tmp_path / "other", method=["svd:lr=0.1"])


def test_zero_shot_evaluation_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="what is measured here are answers to prompts"):
        medclip.evaluate(tmp_path, model=base)


def test_it_is_audited_on_its_images_under_stress(base: Path, table: Path, tmp_path: Path) -> None:
    with table.open(encoding="utf-8") as stream:
        read = list(csv.DictReader(stream))
    rows = [
        {
            "file": row["file"],
            "patient": row["patient"],
            "view": ["AP", "PA"][n % 2],
            "hazy": int("hazy" in row["file"]),
        }
        for n, row in enumerate(read)
    ]
    labels = write_table(table.parent / "audited.csv", rows)
    run = medclip.adapt(labels, ["hazy"], model=base, modality="xray", out=tmp_path / "pack", shots=4, workers=1)
    result = medclip.audit(
        labels,
        by=["view"],
        num_resamples=100,
        num_permutations=100,
        min_cell=2,
        model=tmp_path / "pack",
        images=table.parent,
        task=run.text.task.name,
        stress=True,
        corruption=["contrast_down"],
        settings=Settings(workers=1),
    )
    assert {row["score"] for row in result.stress_ood} == {"distance"}
    assert "prompts" not in {row["kind"] for row in result.stress}
    assert result.embeddings
