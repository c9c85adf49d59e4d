"""The stages of pipelines/mini that decide what goes into the table and what stays in the card."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import medclip
from medclip.models.packs.card import Card
from medclip.models.packs.pack import find_pack, pack_card
from medclip.models.prototypes.home_images import load_homes
from medclip.settings import Settings
from medclip.statistics.metrics.by_source import NOT_TESTABLE, WITHIN_ONLY
from medclip.wording import list_of
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"


@pytest.fixture(autouse=True)
def stages_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def stage(name: str) -> ModuleType:
    return load_stage(FOLDER, name)


def figure(low: float, chance: float, value: float = 0.9) -> dict[str, float]:
    return {"value": value, "low": low, "high": 0.99, "chance": chance}


def test_a_task_whose_interval_touches_chance_is_not_listed() -> None:
    task_cards = stage("publish").task_cards
    good = {"metrics": {"balanced_accuracy": {"zero_shot": figure(0.4, 0.33)}}}
    bad = {"metrics": {"balanced_accuracy": {"zero_shot": figure(0.33, 0.33)}}}
    assert set(task_cards({"good": good, "bad": bad})) == {"good"}


def test_a_task_that_fails_inside_one_source_is_not_listed() -> None:
    task_cards = stage("publish").task_cards
    figures = {"zero_shot": figure(0.9, 0.33), "zero_shot_site_only": figure(0.3, 0.33), "small_cnn": figure(0.1, 0.33)}
    assert task_cards({"t": {"metrics": {"balanced_accuracy": figures}}}) == {}
    figures["zero_shot_site_only"] = figure(0.4, 0.33)
    assert set(task_cards({"t": {"metrics": {"balanced_accuracy": figures}}})) == {"t"}


def test_a_task_that_a_small_network_answers_better_beyond_doubt_is_not_asked_in_words() -> None:
    task_cards = stage("publish").task_cards
    words = figure(0.4, 0.33, 0.5) | {"high": 0.6}
    for low, listed in ((0.59, {"t"}), (0.61, set())):
        rivals = {"zero_shot": words, "small_cnn": figure(low, 0.33)}
        assert set(task_cards({"t": {"metrics": {"balanced_accuracy": rivals}}})) == listed
        areas = {"metrics": {"auroc": {"edema": rivals}}, "calibration": {}, "counts": {"edema": 1}}
        assert set(task_cards({"t": areas})) == listed


def test_no_error_on_few_patients_is_not_certainty() -> None:
    evaluate = stage("evaluate")
    labels = np.array([0] * 16 + [1] * 16)
    found = evaluate.figure("balanced_accuracy", labels, np.eye(2)[labels], np.arange(32), 0.5)
    assert found["value"] == found["high"] == 1.0
    # Both classes count: below the end of 32 of 32 (Clopper and Pearson, 0.891), above that of 16 of 16 (0.794).
    assert 0.025 ** (1 / 16) < found["low"] < 0.025 ** (1 / 32)
    assert found["low"] == pytest.approx(0.8502, abs=1e-4)


def test_a_finding_is_judged_among_films_that_have_the_other_one() -> None:
    evaluate = stage("evaluate")
    said = [{"pneumonia": 1, "effusion": 1}, {"pneumonia": 1, "effusion": 0}, {"pneumonia": 0, "effusion": 0}, {}]
    records = [SimpleNamespace(labels={"chest_xray_findings": s}) for s in said]
    split = SimpleNamespace(records=records, generic=np.zeros(4, bool), sources=np.array(["a", "a", "a", "a"]))
    args = split, "chest_xray_findings", "effusion"
    rows, labels = evaluate.labelled_finding(*args, evaluate.Judged("a", "pneumonia"))
    assert (rows.tolist(), labels.tolist()) == ([0, 1], [1, 0])
    assert evaluate.labelled_finding(*args, evaluate.Judged("a"))[0].tolist() == [0, 1, 2]
    assert evaluate.labelled_finding(*args, evaluate.Judged("b"))[0].tolist() == []


def test_the_modality_task_needs_a_balanced_accuracy_of_097() -> None:
    task_cards = stage("publish").task_cards
    just = {"metrics": {"balanced_accuracy": {"zero_shot": figure(0.9, 0.2, 0.97)}}}
    under = {"metrics": {"balanced_accuracy": {"zero_shot": figure(0.9, 0.2, 0.969)}}}
    assert set(task_cards({"modality": just})) == {"modality"}
    assert task_cards({"modality": under}) == {}


def test_only_the_findings_above_chance_stay_and_the_others_are_named_as_tried() -> None:
    task = {
        "metrics": {"auroc": {"edema": {"zero_shot": figure(0.6, 0.5)}, "mass": {"zero_shot": figure(0.4, 0.5)}}},
        "calibration": {"scale": {"edema": 1.0, "mass": 1.0}, "bias": {"edema": 0.0, "mass": 0.0}},
        "counts": {"edema": 1, "mass": 2},
    }
    card = stage("publish").task_cards({"chest_xray_findings": task})["chest_xray_findings"]
    assert card["classes"] == ["edema"]
    assert card["tried"] == ["edema", "mass"]
    assert card["calibration"] == {"scale": {"edema": 1.0}, "bias": {"edema": 0.0}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"zero_shot": figure(0.4, 0.5)}, "not told from chance"),
        ({"zero_shot": figure(0.17, 0.5, 0.3) | {"high": 0.45}}, "worse than chance"),
        (
            {"zero_shot": figure(0.6, 0.5) | {"low_adjusted": 0.45}},
            "not told from chance once the number of classes that were tried is counted",
        ),
        (
            {"zero_shot_pa_only": figure(0.4, 0.5), "zero_shot_here_only": figure(0.4, 0.5)},
            "not told from chance on PA views and here alone",
        ),
        (
            {"zero_shot": figure(0.6, 0.5, 0.7) | {"high": 0.8}, "small_cnn": figure(0.81, 0.5)},
            "a small network answers better",
        ),
        ({}, ""),
    ],
)
def test_what_is_left_out_stands_in_the_card_with_its_figure_and_the_reason(
    change: dict[str, dict[str, float]], why: str
) -> None:
    publish = stage("publish")
    measured = {"zero_shot": figure(0.6, 0.5) | {"num_patients": 66}} | change
    good = {"zero_shot": figure(0.6, 0.5)}
    findings = {"auroc": {"edema": good, "mass": measured}}
    listing = {"metrics": findings, "calibration": {}, "counts": {"edema": 1, "mass": 1}}
    figures = {"findings": listing, "grade": {"metrics": {"balanced_accuracy": measured}}}
    left, listed = publish.not_claimed(figures), publish.task_cards(figures)
    if not why:
        assert left == {}
        assert set(listed) == {"findings", "grade"}
        assert listed["findings"]["classes"] == ["edema", "mass"]
        return
    assert set(listed) == {"findings"}
    assert listed["findings"]["classes"] == ["edema"]
    card = Card.model_validate({"name": "m", "not_claimed": left})
    assert {task: list(of) for task, of in card.not_claimed.items()} == {"findings": ["mass"], "grade": ["all"]}
    of_class, of_task = card.not_claimed["findings"]["mass"], card.not_claimed["grade"]["all"]
    assert (of_class.metric, of_task.metric) == ("auroc", "balanced_accuracy")
    assert {one.why for one in (of_class, of_task)} == {why}
    assert of_class.num_patients == measured["zero_shot"].get("num_patients")


def test_what_holds_in_no_source_and_a_modality_that_is_missed_too_often_are_left_out_with_that_reason() -> None:
    not_claimed = stage("publish").not_claimed
    below = {"verdict": WITHIN_ONLY, "sources": ["here"], "figures": {"within here": figure(0.4, 0.5)}}
    metrics = {"balanced_accuracy": {"zero_shot": figure(0.9, 0.2, 0.96)}}
    left = not_claimed({"t": {"metrics": metrics, "sources": {"all": below}}, "modality": {"metrics": metrics}})
    assert {task: of["all"]["why"] for task, of in left.items()} == {
        "t": "in no source above chance",
        "modality": "below 0.97",
    }


@pytest.mark.shared
def test_the_table_leaves_out_licences_without_derivatives_and_holds_the_examples_back(shared: Path) -> None:
    rows = list(stage("prepare").rows(shared / "data"))
    assert not [r for r in rows if "ND" in r["license"].replace("-", " ").split()]
    with (FOLDER.parents[1] / "examples/sources.csv").open() as f:
        examples = {r["training_patient"] for r in csv.DictReader(f)} - {""}
    sets = {r["patient"].partition(":")[0] for r in rows}
    examples = {patient for patient in examples if patient.partition(":")[0] in sets}  # others are of other tables
    held = {r["patient"]: r["split"] for r in rows if r["patient"] in examples}
    assert len(examples) > 4
    assert set(held) == examples
    assert set(held.values()) == {"test"}


@pytest.mark.shared
def test_generic_rows_say_nothing_but_the_modality(shared: Path) -> None:
    generic = [r for r in stage("prepare").rows(shared / "data") if r.get("adapter") == "generic"]
    assert {r["modality"] for r in generic} == {"xray", "ct", "mri", "fundus", "mammography"}
    allowed = {"file", "patient", "modality", "source", "license", "adapter", "split"}
    assert all(set(r) <= allowed for r in generic)


def test_the_linear_probe_separates_what_is_separable_and_gives_absent_classes_nothing() -> None:
    linear_probe = stage("baselines").linear_probe
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    features = (labels[:, None] + 0.1 * rng.normal(size=(60, 5))).astype(np.float32)
    p = linear_probe((features, labels), (features, labels), features, 3)
    assert (p.argmax(axis=1) == labels).all()
    assert (p[:, 2] == 0).all()


def test_calibration_never_turns_the_order_of_images_around() -> None:
    platt = stage("evaluate").platt
    rng = np.random.default_rng(1)
    logits = rng.normal(size=50).astype(np.float32)
    wrong_way = (logits < 0).astype(int)
    assert platt(logits, wrong_way)[0] > 0
    assert platt(logits, np.zeros(50, int)) == (1.0, 0.0)


def test_the_temperature_never_makes_a_model_surer_than_it_is() -> None:
    temperature = stage("evaluate").temperature
    labels = np.array([0, 1, 2] * 10)
    assert temperature(np.eye(3)[labels], labels) == pytest.approx(1.0, abs=1e-3)


def test_the_temperature_softens_an_overconfident_model() -> None:
    temperature = stage("evaluate").temperature
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 400)
    logits = 40 * (np.eye(3)[labels] + rng.normal(size=(400, 3)))
    assert temperature(logits, labels) < 0.5


@pytest.mark.shared
@pytest.mark.slow
def test_what_the_card_says_of_pneumonia_elsewhere_is_what_is_measured(shared: Path) -> None:
    """Either in a note, word by word, or as the figure of these two sources, which is of some of these films."""
    across = stage("across_sources")
    card = pack_card()
    seen = frozenset((find_pack("medclip-mini") / str(card.train_hashes_file)).read_text().split())
    films = across.score(
        [*across.nih_films(shared / "data", seen), *across.normal_films(shared / "data", seen)], "medclip-mini"
    )
    ill = [film for film in films if film.has_pneumonia]
    normal = [film for film in films if film.patient.startswith("covid:") and not film.was_trained_on]
    assert len(ill) > 100
    assert len(normal) >= 5
    task = card.tasks[across.TASK]
    if task.note:
        assert task.note == across.note(ill, normal)
    else:
        figure = task.sources["pneumonia"].figures["positives of nih_cxr, negatives of covid_cxr"]
        value = float(across.auroc([*ill, *normal]).split()[0])
        assert figure["low"] <= value <= figure["high"]


def test_each_sites_ill_stand_against_each_sites_well() -> None:
    across = stage("across_sources")

    def film(site: str, n: int, has_pneumonia: bool, probability: float) -> object:
        return across.Film(Path(f"{n}.png"), f"{site}:{n}", has_pneumonia, False, probability)

    here = [film("a", n, n % 2 == 0, 0.9 if n % 2 == 0 else 0.2) for n in range(20)]
    lines = across.table({"a": here, "b": [film("b", n, False, 0.95) for n in range(10)]}).splitlines()
    assert lines[0] == "| | a without | b without |"
    areas = [cell.split()[0] for cell in lines[2].split(" | ")[1:]]
    assert areas == ["1.00", "0.00"]
    assert lines[3].startswith("| called pneumonia | 0 of 10 films of 10 patients | 10 of 10 films")
    assert len(lines) == 4, "of b nobody is ill"


def test_the_spread_between_trainings_is_that_of_tasks_and_findings_that_all_have() -> None:
    def training(accuracy: float, **areas: float) -> dict[str, object]:
        findings = {name: {"zero_shot": {"value": value, "chance": 0.5}} for name, value in areas.items()}
        of_task = {"balanced_accuracy": {"zero_shot": {"value": accuracy, "chance": 0.25}}, "macro_auroc": {}}
        return {"grade": {"metrics": of_task}, "findings": {"metrics": {"auroc": findings}}, "retrieval": {}}

    spread = stage("spread").spread
    rows = spread([training(0.5, mass=0.7, edema=0.6), training(0.25, mass=0.75), training(0.375, mass=0.5, edema=0.6)])
    assert [(row["task"], row["values"], row["spread"]) for row in rows] == [
        ("grade", [0.5, 0.25, 0.375], 0.25),
        ("findings mass", [0.7, 0.75, 0.5], 0.25),
    ]


def test_films_of_patients_that_were_trained_on_are_left_out_across_sources(tmp_path: Path) -> None:
    across = stage("across_sources")
    folder = tmp_path / "nih_cxr"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    (folder / "labels.csv").write_text("file,patient_id,Pneumonia\na,1,1\nb,1,0\nc,2,0\n")
    seen = frozenset({hashlib.sha256(b"a").hexdigest()})
    assert [film.path.name for film in across.nih_films(tmp_path, seen)] == ["c"]


@pytest.mark.shared
def test_films_of_other_sites_lie_far_from_those_that_the_figure_for_pneumonia_is_of(shared: Path) -> None:
    stages = stage("home")
    home, sets = load_homes(find_pack("medclip-mini"))["xray"], stages.sets_of(pack_card("medclip-mini"))["xray"]
    assert home.source == list_of([stages.TITLES[name] for name in sets])
    assert "nih_cxr" in sets
    elsewhere = stages.elsewhere(shared / "data")
    of_run = {"modality": "xray", "task": "chest_xray_findings", "settings": Settings(workers=1)}
    for name, number, share in (("covid_cxr, No Finding", 11, 0.2), ("vqa_rad, chest", 61, 0.4)):
        run = medclip.score(elsewhere[name], **of_run)
        distances = [value for value in run.files["home_distance"].to_pylist() if value is not None]
        assert len(distances) == number
        if "covid_cxr" not in sets:  # a figure that was measured within both is at home in both
            assert sum(value > 1 for value in distances) > share * number, "at home one in twenty does"
    assert any("unlike those" in note and "ChestX-ray14" in note for note in run.notes)


def test_a_home_is_of_the_sets_that_the_figures_of_findings_are_of() -> None:
    def task(*sources: str, verdict: str = NOT_TESTABLE) -> dict[str, object]:
        return {"classes": ["a"], "sources": {"all": {"verdict": verdict, "sources": list(sources)}}}

    tasks = {
        "modality": task("nih_cxr", "isic2017"),
        "chest_xray_view": task("covid_cxr", "nih_cxr"),
        "chest_xray_findings": task("nih_cxr", verdict=WITHIN_ONLY),
        "mammography_malignancy": task("cdd_cesm", "mini_mias"),
        "breast_density": task("mini_mias"),
        "body_region": task("medpix2", "vqa_rad"),
        "brain_mri_tumour": task("brain_mri"),
        "ecg_sheet": task("ecg_sheet"),
    }
    sets = stage("home").sets_of(Card.model_validate({"name": "t", "tasks": tasks}))
    assert sets == {
        "ct": ("medpix2", "vqa_rad"),
        "mammography": ("cdd_cesm", "mini_mias"),
        "mri": ("brain_mri",),
        "xray": ("nih_cxr",),
    }
