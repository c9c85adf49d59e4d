"""From a store and a table to a head, and from a head or words to answers: what is written and what is refused."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medclip.api.slides import learn, predict
from medclip.embeddings.embedded_unit import EmbeddingPack
from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode
from medclip.settings import Settings
from medclip.slides.learning.head_file import ARRAYS, CARD, check_fit, read_head
from medclip.slides.learning.labels import read_slide_labels
from medclip.slides.learning.learn import recipe_of
from medclip.slides.learning.predict import SlidePredictions, map_for
from medclip.slides.slide_store import SlideRow, open_slide_store
from medclip.text.vocabulary.task_kinds import TASK_KINDS
from tests.kits.slide_cohort import write_cohort
from tests.kits.slide_store import make_slide_features
from tests.kits.slides import draw_section, write_pyramid

QUICK = {"epochs": 20, "lr": 3e-3, "val_share": 0.0}
FAILED = SlideRow("f" * 16, "broken.tiff", 1, "failed", "corrupt", "a tile cannot be decoded")
EMPTY = SlideRow("e" * 16, "empty.tiff", 1, "skipped", "no_tissue", "no tissue was found")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A store, its labels, and a head that learned from both."""
    folder = tmp_path_factory.mktemp("slides")
    store, table = write_cohort(folder, others=[FAILED, EMPTY])
    settings = Settings(home=folder / "home")
    learn(
        store,
        table,
        "grade",
        out=folder / "head",
        pooling="abmil",
        num_folds=2,
        num_resamples=50,
        overrides=QUICK,
        settings=settings,
    )
    return store, table, folder / "head"


@pytest.fixture(scope="module")
def answered(learned: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> SlidePredictions:
    """The head's answers for its store."""
    store, _, head = learned
    return predict(store, head=head, out=tmp_path_factory.mktemp("answers") / "answers")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_head_is_read_back_with_its_card_and_gives_the_same_logits(learned: tuple[Path, Path, Path]):
    store, _, folder = learned
    head = read_head(folder)
    assert head.card.names == ("high", "low")
    assert head.card.record["slides"] == head.card.record["patients"] == 10
    assert head.card.pack == open_slide_store(store).pack
    metrics = {row["metric"]: row for row in head.card.record["out_of_fold"]}
    assert metrics["macro_auroc"]["low"] <= metrics["macro_auroc"]["value"] <= metrics["macro_auroc"]["high"]
    rows = rows_of(folder / "out_of_fold.csv")
    assert {row["slide"]: row["file"] for row in rows} == {r.key: r.file for r in open_slide_store(store).rows[-10:]}


def test_nothing_that_is_written_names_a_patient(learned: tuple[Path, Path, Path]):
    for path in learned[2].iterdir():
        assert b"Planted Name" not in path.read_bytes()


def test_a_learned_head_answers_for_each_slide_and_failed_ones_keep_their_reason(
    learned: tuple[Path, Path, Path], answered: SlidePredictions
):
    _, table, _ = learned
    assert answered.exit_code is ExitCode.SOME_FAILED
    assert answered.counts == {"failed": 1, "skipped": 1, "done": 10}
    answers = {row["file"]: row for row in rows_of(answered.out / "predictions.csv")}
    truth = {row["slide"]: row["grade"] for row in rows_of(table)}
    right = [answers[name]["answer"] == grade for name, grade in truth.items()]
    assert np.mean(right) > 0.8
    assert answers["empty.tiff"]["reason"] == "no_tissue"
    chances = [float(row["p_high"]) + float(row["p_low"]) for row in answers.values() if row["status"] == "done"]
    assert chances == pytest.approx([1.0] * 10, abs=1e-5)
    assert len(list((answered.out / "maps").glob("*.png"))) == 10


def test_the_peak_of_the_map_is_the_hottest_patch_of_the_geojson(answered: SlidePredictions):
    slide = next(s for s in answered.slides if s.answer == "high")
    document = json.loads((answered.out / "maps" / f"{slide.key}.geojson").read_text())
    hottest = max(document["features"], key=lambda f: f["properties"]["measurements"]["value"])
    left, top = hottest["geometry"]["coordinates"][0][0]
    assert slide.peak_um is not None
    assert (top * 0.25, left * 0.25) == pytest.approx(slide.peak_um)
    assert slide.map_of == "evidence for high against low"


def test_the_map_of_findings_that_may_go_together_is_of_the_most_probable_one_alone():
    features = make_slide_features(num=2)
    logits = np.array([[1.0, 4.0, 9.0], [0.0, 6.0, 2.0]])
    answer = np.array([0.0, 2.0, 1.0])
    alone = map_for(features, logits, answer, ("a", "b", "c"), "multilabel")
    assert (alone.title, alone.values_N.tolist()) == ("evidence for b", [4.0, 6.0])
    against = map_for(features, logits, answer, ("a", "b", "c"), "multiclass")
    assert (against.title, against.values_N.tolist()) == ("evidence for b against the others", [-1.0, 5.0])


OWN = """
kind: {kind}
modality: pathology
classes:
  - {{name: high, prompts: [high grade], negative_prompts: [no high grade]}}
  - {{name: low, prompts: [low grade], negative_prompts: [no low grade]}}
"""


@pytest.mark.parametrize("like", ["multiclass", "multilabel"])
def test_a_kind_of_ones_own_is_learned_and_answered_as_the_one_that_it_is_like(
    like: str, learned: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(TASK_KINDS, "own", TASK_KINDS[like])
    store, table, _ = learned
    text, labels, rows = OWN, ["grade"], rows_of(table)
    if like == "multiclass":
        text = re.sub(", negative_prompts: .*]", "", OWN)
    else:
        rows = [row | {g: str(int(row["grade"] == g)) for g in ("high", "low")} for row in rows]
        labels = ["high", "low"]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    found = []
    for kind in (like, "own"):
        place = tmp_path / kind
        place.mkdir()
        (place / "grading.yaml").write_text(text.format(kind=kind))
        learn(
            store,
            tmp_path / "labels.csv",
            labels,
            out=place / "head",
            task=place / "grading.yaml",
            num_folds=2,
            num_resamples=50,
            overrides={**QUICK, "epochs": 2},
            settings=Settings(home=tmp_path / "home"),
        )
        predict(store, head=place / "head", out=place / "answers")
        assert read_head(place / "head").card.kind == kind
        tables = ("head/figures.csv", "head/out_of_fold.csv", "answers/predictions.csv")
        found.append([(place / name).read_bytes() for name in tables])
    assert found[0] == found[1]


def test_maps_lie_over_their_slides_and_become_dicom_where_asked(learned: tuple[Path, Path, Path], tmp_path: Path):
    store, _, head = learned
    images = tmp_path / "images"
    images.mkdir()
    write_pyramid(images / "slide_0.tiff", draw_section(1500, 1900))
    write_pyramid(images / "slide_1.tiff", draw_section(600, 600))
    (images / "slide_2.tiff").write_bytes(b"no slide")
    predictions = predict(store, head=head, out=tmp_path / "a", images=images, dicom=True)
    notes = {slide.file: slide.map_note for slide in predictions.slides}
    assert notes["slide_0.tiff"] is None
    assert notes["slide_1.tiff"] == "The slide there has another size: the map is drawn by itself."
    assert str(notes["slide_2.tiff"]).startswith("The slide cannot be read")
    data = pydicom.dcmread(tmp_path / "a" / "maps" / f"{0:016x}.dcm")
    assert (data.Rows, data.Columns, data.PatientID) == (5, 6, "")


def test_a_risk_is_learned_from_months_and_answers_by_year(tmp_path: Path):
    store, table = write_cohort(tmp_path, 6)
    learn(
        store,
        table,
        years=3,
        out=tmp_path / "head",
        pooling="mean",
        num_folds=2,
        num_resamples=50,
        overrides=QUICK,
        settings=Settings(home=tmp_path / "home"),
    )
    for slide in predict(store, head=tmp_path / "head", out=tmp_path / "a").slides:
        assert slide.probabilities is not None
        chances = list(slide.probabilities.values())
        assert chances == sorted(chances)
        assert (slide.answer, slide.map_of) == (None, "attention")


def test_months_to_an_event_are_those_of_the_table_and_blank_where_none_was_seen(tmp_path: Path):
    store, _ = write_cohort(tmp_path, 4)
    table = tmp_path / "times.csv"
    table.write_text("slide,patient,event_months,followup_months\nslide_2.tiff,a,7,30\nslide_0.tiff,b,,24\n")
    bags = read_slide_labels(open_slide_store(store), table, (), years=3, key=b"k" * 32).bags
    assert (bags.kind, bags.names, bags.keys) == ("risk", ("1", "2", "3"), (f"{2:016x}", f"{0:016x}"))
    np.testing.assert_array_equal(bags.targets, [[7, 30], [np.nan, 24]])


def test_poolings_are_compared_in_the_table_of_figures(tmp_path: Path):
    store, table = write_cohort(tmp_path, 8)
    run = learn(
        store,
        table,
        "grade",
        out=tmp_path / "head",
        pooling="abmil",
        compare=["mean"],
        num_folds=2,
        num_resamples=50,
        overrides={"epochs": 1},
        settings=Settings(home=tmp_path / "home"),
    )
    rows = rows_of(tmp_path / "head" / "figures.csv")
    assert {(row["pooling"], row["minus"]) for row in rows} == {("abmil", ""), ("mean", ""), ("mean", "abmil")}
    assert "macro_auroc" in repr(run)
    assert any("the last epoch was kept" in note for note in run.notes)


def test_a_figure_of_too_few_patients_for_an_interval_says_so(tmp_path: Path):
    store, table = write_cohort(tmp_path, 4)
    run = learn(
        store,
        table,
        "grade",
        out=tmp_path / "head",
        num_folds=2,
        num_resamples=50,
        overrides={"epochs": 1},
        settings=Settings(home=tmp_path / "home"),
    )
    without = {row["metric"] for row in rows_of(tmp_path / "head" / "figures.csv") if row["value"] and not row["low"]}
    assert "macro_auroc" in without
    named = [note for note in run.notes if note.startswith("Too few patients for an interval of ")]
    assert len(named) == 1
    assert all(metric in named[0] for metric in without)


def test_a_head_of_another_pack_or_scale_is_refused_and_another_grid_is_named(learned: tuple[Path, Path, Path]):
    card = read_head(learned[2]).card
    fitting = make_slide_features(dim=16)
    assert check_fit(card, fitting) == ""
    assert "other options" in check_fit(card, make_slide_features(dim=16, grid="h" * 16))
    other = EmbeddingPack("other", "1", "o" * 64, "i" * 16, "p" * 16)
    for changed in ({"pack": other}, {"size_px": 224}, {"mpp_um": 1.0}):
        with pytest.raises(MedclipError, match="the head learned from") as refused:
            check_fit(card, make_slide_features(dim=16, **changed))
        assert refused.value.reason is Reason.WRONG_USE


def test_one_pooling_to_compare_with_needs_no_list(learned: tuple[Path, Path, Path], tmp_path: Path):
    store, table, _ = learned
    compared = learn(
        store,
        table,
        "grade",
        out=tmp_path / "head",
        compare="mean",
        num_folds=2,
        num_resamples=50,
        overrides={"epochs": 1, "val_share": 0.0},
        settings=Settings(home=tmp_path / "home"),
    )
    assert {row["pooling"] for row in compared._rows()} == {"abmil", "mean"}


def test_damaged_heads_are_refused(learned: tuple[Path, Path, Path], tmp_path: Path):
    with pytest.raises(MedclipError, match=f"there is no {CARD}"):
        read_head(tmp_path)
    for name in (CARD, ARRAYS):
        for part in (CARD, ARRAYS):
            (tmp_path / part).write_bytes((learned[2] / part).read_bytes())
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
        with pytest.raises(MedclipError, match="cannot be read") as refused:
            read_head(tmp_path)
        assert refused.value.reason is Reason.PACK_INVALID


def test_neither_and_both_of_words_and_head_are_refused(learned: tuple[Path, Path, Path], tmp_path: Path):
    for asked in ({}, {"task": "modality", "head": learned[2]}):
        with pytest.raises(MedclipError, match="either a task is asked in words or a learned head answers"):
            predict(learned[0], out=tmp_path / "a", **asked)
    with pytest.raises(MedclipError, match="were embedded with tiny 1"):
        predict(learned[0], out=tmp_path / "a", task="modality")


def test_tables_that_do_not_fit_are_refused_by_row(learned: tuple[Path, Path, Path], tmp_path: Path):
    cases = {
        "patient,grade\na,high\n": "no column names the slides",
        "slide,patient,grade\nslide_0,a,high\nslide_0.tiff,a,low\n": "rows 1 and 2 are of the same slide",
        "slide,patient,grade\nslide_0.tiff,,high\nslide_1.tiff,b,low\n": "row 1 of the slides that are used names no",
        "slide,patient,grade\nelsewhere.tiff,a,high\n": "no row of the table is a slide of the store",
    }
    for text, message in cases.items():
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(MedclipError, match=message):
            learn(
                learned[0],
                tmp_path / "labels.csv",
                "grade",
                out=tmp_path / "head",
                settings=Settings(home=tmp_path / "home"),
            )
    assert not (tmp_path / "head").exists()


def test_what_is_there_is_replaced_only_where_asked(learned: tuple[Path, Path, Path], answered: SlidePredictions):
    store, table, head = learned
    with pytest.raises(MedclipError, match="a slide head already"):
        learn(store, table, "grade", out=head)
    with pytest.raises(MedclipError, match="answers already"):
        predict(store, head=head, out=answered.out)
    (answered.out / "maps" / "old.png").write_bytes(b"")
    predict(store, head=head, out=answered.out, overwrite=True)
    assert not (answered.out / "maps" / "old.png").exists()


def test_settings_that_there_are_not_are_refused():
    assert recipe_of("mean", ["epochs=3", "lr=1e-3"]).epochs == 3
    for overrides in (["epoch=3"], ["epochs=many"], ["pooling=mean"]):
        with pytest.raises(MedclipError) as refused:
            recipe_of("mean", overrides)
        assert refused.value.reason is Reason.WRONG_USE
