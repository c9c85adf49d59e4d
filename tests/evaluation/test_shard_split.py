"""A split of shards is measured by patient: its labels in words, retrieval, chance, and nothing of training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.evaluation.label_retrieval import chance_of_recall
from medclip.evaluation.shard_split import choose_rows, measure_split
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.model import Model
from medclip.models.packs.card import SplitFigures
from medclip.models.packs.pack import load_model
from medclip.models.prototypes.class_vectors import class_vectors, score_features
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of
from medclip.text.vocabulary.load import load_task
from medclip.training.batches.samples import Drawing
from tests.kits.progress import Recorded
from tests.kits.scoring import make_pack
from tests.kits.training import make_shards

DRAWING = Drawing(Preprocess(1), seed=3, augment=None, native_share=0.3, report_share=0.5)
NUM_TEST = 24


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), num_test=NUM_TEST)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(make_pack(tmp_path_factory.mktemp("packs") / "tiny"))


@pytest.fixture
def reader(shards: Path) -> Iterator[ShardReader]:
    with ShardReader(shards, "test") as reader:
        yield reader


@pytest.fixture
def figures(model: Model, reader: ShardReader) -> SplitFigures:
    return measure_split(model, reader, DRAWING, num_resamples=200)


def test_the_area_of_a_finding_is_that_of_its_prompts_with_intervals_over_patients(
    model: Model, reader: ShardReader, figures: SplitFigures
) -> None:
    samples = [reader[i] for i in range(len(reader))]
    truth = np.array([s.record.labels["chest_xray_findings"]["pneumonia"] for s in samples])  # type: ignore[index]
    from medclip.imaging.geometry import letterbox

    features = model.encode_image(np.stack([letterbox(s.image, model.preprocess.size_px) for s in samples]))
    vectors = class_vectors(model, load_task("chest_xray_findings"), ["pneumonia"])
    logits = score_features(features, vectors, "multilabel", model.logit_scale)[0][:, 0]
    patients = [s.meta["patient"] for s in samples]
    expected = interval_of(measured(truth, logits, patients, ["auroc"], num_resamples=200)["auroc"])
    own = figures.figures["chest_xray_findings"]["macro_auroc"]
    assert (own["value"], own["low"], own["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-4
    )
    assert (own["chance"], own["num_images"], own["num_patients"]) == (0.5, NUM_TEST, NUM_TEST // 2)
    assert (figures.num_images, figures.num_patients, figures.num_in_training) == (NUM_TEST, NUM_TEST // 2, 0)


def test_the_words_of_a_finding_are_compared_with_others(figures: SplitFigures) -> None:
    control = figures.word_control["chest_xray_findings"]["pneumonia"]
    assert control.own_words.value == pytest.approx(figures.figures["chest_xray_findings"]["macro_auroc"]["value"])
    assert control.num_images == NUM_TEST
    assert control.unrelated.num == 24
    assert SplitFigures.model_validate_json(figures.model_dump_json()) == figures


def test_patients_and_files_of_training_are_left_out(model: Model, reader: ShardReader) -> None:
    first, second = islice(reader.provenance(), 2)
    assert first["patient"] != second["patient"]
    figures = measure_split(
        model, reader, DRAWING, seen=frozenset([first["patient"], *second["files"]]), num_resamples=50
    )
    assert figures.num_in_training == 3  # two images of a patient, one file
    assert figures.num_images == NUM_TEST - 3
    everybody = frozenset(row["patient"] for row in reader.provenance())
    with pytest.raises(MedclipError, match="trained on") as caught:
        measure_split(model, reader, DRAWING, seen=everybody)
    assert caught.value.reason is Reason.NOTHING_TO_DO


def test_chance_of_retrieval_is_that_of_a_shuffled_list() -> None:
    answers = list("aabbbcdefghijk")
    whose = [1, 1, 2, 3, 3, 1, 1, 1, 1, 1, 1, 3, 3, 3]
    rng = np.random.default_rng(0)
    hits = {1: 0, 5: 0, 10: 0}
    rounds = 3000
    for _ in range(rounds):
        for query, patient in zip(answers, whose, strict=True):
            gallery = [a for a, p in zip(answers, whose, strict=True) if a == query or p != patient]
            order = rng.permutation(len(gallery))
            place = next(n for n, i in enumerate(order) if gallery[i] == query)
            for k in hits:
                hits[k] += place < k
    for k, chance in chance_of_recall(answers, whose).items():
        assert chance == pytest.approx(hits[k] / rounds / len(answers), abs=0.01)


def test_the_model_that_training_began_with_stands_beside(model: Model, reader: ShardReader) -> None:
    figures = measure_split(model, reader, DRAWING, start=model, num_resamples=50)
    for metrics in figures.figures.values():
        by_class = metrics.get("auroc", {})  # the finding of the split that can be measured, by its name
        for pair in [*by_class.values(), *(pair for metric, pair in metrics.items() if metric != "auroc")]:
            assert pair["start"] == pair["zero_shot"]
    names = [row["metric"] for row in figures.rows()]
    assert "macro_auroc zero_shot" in names
    assert "image_to_text_r1 start" in names


def _with_sources(reader: ShardReader, monkeypatch: pytest.MonkeyPatch, sources: list[str]) -> list[str]:
    """Let the split's images be of these sources; return their patients."""
    rows = [{**row, "source": source} for row, source in zip(reader.provenance(), sources, strict=True)]
    monkeypatch.setattr(reader, "provenance", lambda: iter(rows))
    return [row["patient"] for row in rows]


def test_the_area_within_a_source_is_that_of_its_images_alone(
    model: Model, reader: ShardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = [reader[i].record.labels["chest_xray_findings"]["pneumonia"] for i in range(len(reader))]  # type: ignore[index]
    whose = [row["patient"] for row in reader.provenance()]
    sides = [sorted({p for p, t in zip(whose, truth, strict=True) if t == answer}) for answer in (0, 1)]
    site_a = {patient for side in sides for patient in side[: len(side) // 2]}
    of = ["site a" if patient in site_a else "site b" for patient in whose]
    patients = _with_sources(reader, monkeypatch, of)
    figures = measure_split(model, reader, DRAWING, num_resamples=50)
    within = figures.figures["chest_xray_findings"]["macro_auroc_within"]
    assert set(within) == {"site_a", "site_b"}
    for name, source in (("site_a", "site a"), ("site_b", "site b")):
        others = frozenset(p for p, s in zip(patients, of, strict=True) if s != source)
        alone = measure_split(model, reader, DRAWING, seen=others, num_resamples=50)
        assert within[name] == alone.figures["chest_xray_findings"]["macro_auroc"]
        assert "macro_auroc_within" not in alone.figures["chest_xray_findings"]
    assert "macro_auroc_within site_b" in [row["metric"] for row in figures.rows()]


def test_sources_of_one_answer_each_have_no_area_and_a_note_says_what_the_figure_may_be(
    model: Model, reader: ShardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = [reader[i].record.labels["chest_xray_findings"]["pneumonia"] for i in range(len(reader))]  # type: ignore[index]
    _with_sources(reader, monkeypatch, ["hospital" if t else "clinic" for t in truth])
    figures = measure_split(model, reader, DRAWING, num_resamples=50)
    assert "macro_auroc_within" not in figures.figures["chest_xray_findings"]
    (note,) = [note for note in figures.notes if "within clinic and hospital" in note]
    assert "may tell these sources apart" in note


def test_of_a_long_split_a_few_samples_are_measured_from_all_of_it(model: Model, reader: ShardReader) -> None:
    told = Recorded()
    figures = measure_split(model, reader, DRAWING, limit=9, num_resamples=50, progress=told)
    assert figures.num_images == 9
    assert told.stages == [("Measuring on the split test", 9, 0)]
    assert sum(count for count, _ in told.steps) == 9
    assert any("data.max_test" in note for note in figures.notes)
    assert choose_rows(reader, frozenset(), 9).rows.tolist() == [0, 3, 6, 9, 12, 14, 17, 20, 23]
    again = measure_split(model, reader, DRAWING, limit=9, num_resamples=50, workers=1)
    assert again == figures


def test_samples_that_cannot_be_read_are_counted(model: Model, shards: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(shards, broken)
    tar = broken / "test-000000.tar"
    data = bytearray(tar.read_bytes())
    place = data.index(b"IDAT")
    data[place + 4 : place + 24] = b"\0" * 20
    tar.write_bytes(data)
    with ShardReader(broken, "test", verify="size") as reader:
        figures = measure_split(model, reader, DRAWING, num_resamples=50)
    assert sum(figures.problems.values()) == 1
    assert figures.num_images == NUM_TEST - 1


def test_without_patients_intervals_are_over_images_and_a_note_says_so(
    model: Model, reader: ShardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**row, "patient": None} for row in reader.provenance()]
    monkeypatch.setattr(reader, "provenance", lambda: iter(rows))
    figures = measure_split(model, reader, DRAWING, num_resamples=50)
    assert figures.num_patients is None
    assert "intervals are over images" in figures.notes[0]


def test_a_finding_of_too_few_patients_has_no_figure_and_is_named(model: Model, reader: ShardReader) -> None:
    everybody = [row["patient"] for row in reader.provenance()]
    few = measure_split(model, reader, DRAWING, seen=frozenset(everybody[4:]) - {everybody[0]}, num_resamples=50)
    assert "chest_xray_findings" not in few.figures
    assert any("Chest X-ray findings could not be measured" in note for note in few.notes)
