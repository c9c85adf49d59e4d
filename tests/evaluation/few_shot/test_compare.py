"""Whole comparisons on made-up images: the same bytes however they are run, and failures that end nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from markupsafe import escape

from medclip.adaptation import methods
from medclip.adaptation.data.heads import text_head
from medclip.adaptation.deviations import deviations_of
from medclip.adaptation.methods import Method
from medclip.adaptation.prompts.coop import words_embedded
from medclip.api.adapt import adapt
from medclip.errors import MedclipError, Reason
from medclip.evaluation.few_shot import compare as few_shot
from medclip.evaluation.few_shot import labelled_data as few_shot_data
from medclip.evaluation.few_shot.compare import Compared
from medclip.evaluation.few_shot.method_run import novel_head
from medclip.evaluation.few_shot.protocol import Design, make_protocol, parse_variant
from medclip.models.packs.pack import load_model
from medclip.models.packs.word_control import WordControl, control_lines
from medclip.progress import Silent
from medclip.reports.few_shot import render, summary
from tests.kits.adaptation import words
from tests.kits.few_shot import CLASSES, METHODS, compare_methods, table
from tests.kits.scoring import make_pack

TABLES = ("results.csv", "results.parquet", "paired.csv", "paired.parquet", "predictions.parquet")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base pack and a table."""
    folder = tmp_path_factory.mktemp("few_shot")
    return make_pack(folder / "tiny"), table(folder / "data")


def run(place: tuple[Path, Path], out: Path, **options: Any) -> Compared:
    asked: dict[str, Any] = {"methods": METHODS, "shots": (1, 2), "seeds": 2, "num_replicates": 200}
    return compare_methods(place[0], place[1], "shape", out=out, **(asked | options))


def read(folder: Path, names: tuple[str, ...] = TABLES) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def done(place: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Compared:
    return run(place, tmp_path_factory.mktemp("out") / "done")


def folder_of(compared: Compared) -> Path:
    assert compared.result.folder is not None
    return compared.result.folder


class Stop(Silent):
    """Progress that is interrupted after so many runs."""

    def __init__(self, after: int) -> None:
        self._left, self._stage = after, ""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        self._stage = name

    def step(self, count: int = 1, text: str = "") -> None:
        if self._stage == "Runs":
            self._left -= count
            if self._left < 0:
                raise KeyboardInterrupt


def test_every_method_has_a_figure_with_an_interval_at_every_k_and_a_mean(done: Compared):
    result = done.result
    for method in METHODS:
        for shots in (1, 2, None):
            cell = result.cell(method, shots)
            assert cell is not None
            assert 0 <= cell.value <= 1
            assert cell.low is None or cell.high is None or cell.low <= cell.value <= cell.high
    assert result.primary == "balanced_accuracy"
    assert result.averaged == (1, 2)  # no K of 4 and more
    assert {d.reference for d in result.differences} == {"zero-shot"}
    assert all(d.family == 2 for d in result.differences)


def test_all_methods_learn_from_the_same_shots_and_nobody_is_on_two_sides(done: Compared):
    rows = pq.read_table(folder_of(done) / "runs.parquet").to_pylist()
    drawn = {(r["shots"], r["seed"], tuple(r["train_rows"])) for r in rows if r["method"] != "zero-shot"}
    assert len(drawn) == 4
    patients = {u.number: u.patient for u in done.data.units}
    tested = {done.data.unit(r).patient for r in done.data.test}
    for row in rows:
        learned, chosen = ({patients[n] for n in row[name]} for name in ("train_rows", "val_rows"))
        assert not learned & tested
        assert not chosen & tested
        assert not learned & chosen


def test_the_same_call_again_computes_nothing_and_writes_the_same_bytes(
    place: tuple[Path, Path], done: Compared, monkeypatch: pytest.MonkeyPatch
):
    before = read(folder_of(done), (*TABLES, "runs.parquet", "compare.json"))
    monkeypatch.setattr(few_shot, "run_job", None)
    run(place, folder_of(done))
    assert read(folder_of(done), (*TABLES, "runs.parquet", "compare.json")) == before


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_tables(
    place: tuple[Path, Path], done: Compared, tmp_path: Path
):
    with pytest.raises(KeyboardInterrupt):
        run(place, tmp_path / "out", progress=Stop(after=4))
    assert 0 < len(list((tmp_path / "out" / "runs").iterdir())) < 9
    run(place, tmp_path / "out")
    assert read(tmp_path / "out") == read(folder_of(done))


def test_several_processes_give_the_same_tables(place: tuple[Path, Path], done: Compared, tmp_path: Path):
    run(place, tmp_path / "out", num_workers=2)
    assert read(tmp_path / "out") == read(folder_of(done))


def test_a_run_file_that_is_damaged_is_made_again(place: tuple[Path, Path], done: Compared, tmp_path: Path):
    run(place, tmp_path / "out")
    file = next((tmp_path / "out" / "runs").glob("ridge*"))
    file.write_bytes(file.read_bytes()[:100])
    run(place, tmp_path / "out")
    assert read(tmp_path / "out") == read(folder_of(done))


def test_asking_for_more_in_the_same_folder_computes_the_new_runs_only(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(place, tmp_path / "out", methods=["zero-shot", "ridge"])
    asked: Counter[str] = Counter()
    real = few_shot.run_job

    def counted(base: Any, examples: Any, job: Any) -> Any:
        asked[job.method] += 1
        return real(base, examples, job)

    monkeypatch.setattr(few_shot, "run_job", counted)
    run(place, tmp_path / "out")
    assert asked == {"knn": 4}


def broken(base: Any, text: Any, train: Any, val: Any, *, seed: int, how: str = "refuses") -> Any:
    assert len(train)  # fails at its examples: what it can refuse without them ends the comparison before any reading
    if how == "refuses":
        raise MedclipError(Reason.WRONG_USE, "this base has no such layers.")
    raise RuntimeError("secret path /home/x")


def test_a_method_that_fails_is_a_row_with_its_reason_and_is_tried_again(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entry = Method("broken", "Broken", "tests.evaluation.few_shot.test_compare:broken")
    monkeypatch.setitem(methods.METHODS, "broken", entry)
    result = run(place, tmp_path / "out", methods=["ridge", "broken", "broken:how=dies"]).result
    assert result.cell("broken", 1) is None
    assert result.cell("ridge", 1) is not None
    said = {f.method: f.message for f in result.failures}
    assert said["broken"] == "This base has no such layers."
    assert "RuntimeError at methods.py" in said["broken:how=dies"]
    assert "secret" not in (tmp_path / "out" / "compare.json").read_text()
    monkeypatch.setitem(methods.METHODS, "broken", replace(entry, target="medclip.adaptation.frozen.classical:fit_knn"))
    again = run(place, tmp_path / "out", methods=["ridge", "broken"]).result
    assert again.cell("broken", 1) is not None
    assert not again.failures


def test_a_folder_of_another_base_or_table_is_refused(place: tuple[Path, Path], done: Compared, tmp_path: Path):
    other = table(tmp_path / "data", num_patients=28)
    with pytest.raises(MedclipError, match="another comparison: the table") as refused:
        run((place[0], other), folder_of(done))
    assert refused.value.reason is Reason.OUTPUT_IN_USE
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(MedclipError, match="1 other file and no comparison"):
        run(place, tmp_path / "notes")


def test_nothing_that_is_written_holds_a_path_or_an_identifier(done: Compared):
    for path in folder_of(done).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content = str(pq.read_table(path).to_pylist()).encode()
            assert b"SECRET" not in content
            assert b"MRN-" not in content


def test_initialisations_are_crossed_with_draws_and_their_spread_stands_apart(place: tuple[Path, Path], tmp_path: Path):
    result = run(place, tmp_path / "out", methods=["zero-shot", "ridge"], inits=2).result
    cell = result.cell("ridge", 2)
    assert cell is not None
    assert cell.sd_inits == 0.0  # ridge has nothing that is drawn
    assert cell.sd_shots is not None
    assert len(list((tmp_path / "out" / "runs").glob("ridge*"))) == 8
    anchor = result.cell("zero-shot", 2)
    assert anchor is not None
    assert anchor.sd_shots is None


def test_base_to_novel_asks_only_methods_that_can_answer(place: tuple[Path, Path], tmp_path: Path):
    methods_ = ["zero-shot", "ridge", "cocoop:epochs=1", "norm:steps=2"]
    result = run(place, tmp_path / "out", methods=methods_, seeds=1, novel=True).result
    assert result.novel_classes == tuple(sorted(CLASSES))[2:]
    found = {n.method: n for n in result.novel if n.metric == "balanced_accuracy"}
    assert set(found) == {"zero-shot", "cocoop:epochs=1", "norm:steps=2"}
    for n in found.values():
        b, v, h = (part["value"] for part in (n.base, n.novel, n.hm_of_means))
        assert b is not None
        assert v is not None
        assert h == pytest.approx(2 * b * v / (b + v), abs=1e-3)
        assert n.mean_of_hms["value"] == pytest.approx(h, abs=1e-4)  # one seed: the same


def test_a_learned_prompt_is_put_around_other_names(place: tuple[Path, Path]):
    base, text = load_model(place[0]), words(4)
    learned = words_embedded(base, "a photo of a")
    fitted: Any = SimpleNamespace(
        head=text_head(text.vectors(base), 1.0),
        prompt=learned,
        settings={"position": "end"},
        clip=None,
        num_trainable=1,
    )
    others = replace(text, names=text.names[2:])
    head = novel_head(base, fitted, others)
    said = base.encode_text([f"a photo of a {name}." for name in others.names])
    np.testing.assert_allclose(head.arrays()["weight"], base.logit_scale * said.T, atol=1e-4)


def test_base_to_novel_needs_four_classes_with_one_answer(place: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(MedclipError, match="from base to novel"):
        compare_methods(place[0], place[1], ["left", "right"], out=tmp_path / "out", novel=True, quick=True)


def test_findings_that_may_go_together_are_measured_by_the_area(place: tuple[Path, Path], tmp_path: Path):
    compared = compare_methods(
        place[0],
        place[1],
        ["left", "right"],
        out=tmp_path / "out",
        methods=["zero-shot", "ridge"],
        shots=(4,),
        seeds=2,
        num_replicates=100,
    )
    assert compared.result.kind == "multilabel"
    assert compared.result.primary == "macro_auroc"
    cell = compared.result.cell("ridge", 4)
    assert cell is not None
    assert np.isfinite(cell.value)
    counts = next(c for c in compared.result.confusions if c.method == "ridge").counts
    tested = compared.data.examples.targets[list(compared.data.test)]
    assert sum(counts[1]) == pytest.approx(np.isfinite(tested[:, 1]).sum(), abs=0.2)


def test_a_pack_as_baseline_has_a_row_of_its_image_features_with_regression(place: tuple[Path, Path], tmp_path: Path):
    other = make_pack(tmp_path / "other", seed=1, name="other")
    asked: dict[str, Any] = {"methods": ["zero-shot", "linear-probe"], "references": (str(other),), "shots": (2,)}
    result = run(place, tmp_path / "out", **asked).result
    row = "linear-probe on other"
    assert result.references == (row, "zero-shot", "linear-probe")
    assert {d.method for d in result.differences_of(row, 2)} == {"zero-shot", "linear-probe"}
    stored = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    of_row = [tuple(p["probabilities"]) for p in stored if p["method"] == row]
    assert len(of_row) == len([p for p in stored if p["method"] == "linear-probe"])
    assert of_row != [tuple(p["probabilities"]) for p in stored if p["method"] == "linear-probe"]
    again = run(place, tmp_path / "processes", **asked, num_workers=2).result
    assert read(tmp_path / "processes") == read(tmp_path / "out")
    assert again.cell(row, 2) == result.cell(row, 2)


def test_a_baseline_that_is_neither_method_nor_pack_is_refused(place: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(MedclipError, match="neither a method nor a model pack") as caught:
        run(place, tmp_path / "out", references=("ridg",))
    assert "'ridge'" in str(caught.value)


def test_the_area_stands_beside_balanced_accuracy_in_text_and_on_the_page(done: Compared):
    text, page = "\n".join(done.result.lines()), render(done)
    titles = ("Balanced accuracy", "AUROC (each class against the rest, their mean)")
    assert all(f"{title} on " in text and f"<h3>{title}</h3>" in page for title in titles)
    area = done.result.cell(done.result.ranked[0], 2, "macro_auroc")
    assert area is not None
    assert f"{area.value:.3f}" in text


def test_json_holds_every_figure(done: Compared):
    values = json.loads((folder_of(done) / "compare.json").read_text())
    assert len(values["cells"]) == len(done.result.cells)
    assert values["counts"]["test"]["images"] == len(done.data.test)


def test_below_the_zero_shot_row_stands_whether_other_words_would_do(done: Compared):
    (control,) = done.result.word_control.values()
    cell = done.result.cell("zero-shot", None)
    assert cell is not None
    assert control.num_images == len(done.data.test)
    lines = list(done.result.lines())
    row = next(n for n, line in enumerate(lines) if line.startswith("zero-shot"))
    assert lines[row + 1 : row + 2] == list(control_lines(done.result.word_control))[:1]
    stored = json.loads((folder_of(done) / "compare.json").read_text())["word_control"]
    assert {name: WordControl.from_json(values) for name, values in stored.items()} == done.result.word_control
    assert "Would other words do as well in zero-shot?" in "\n".join(summary(done.result))


def test_without_zero_shot_no_words_are_compared(place: tuple[Path, Path], tmp_path: Path):
    compared = run(place, tmp_path / "out", methods=["ridge"], shots=(1,), seeds=1, num_replicates=20)
    assert compared.result.word_control == {}


def test_plans_put_cheap_methods_and_few_shots_first_and_zero_shot_once():
    keys = list(make_protocol(Design(["svd", "ridge", "zero-shot"], shots=(4, 1), seeds=2)).keys())
    assert [k.label for k in keys] == ["zero-shot", *["ridge"] * 4, *["svd"] * 4]
    assert [k.shots for k in keys] == [0, 1, 1, 4, 4, 1, 1, 4, 4]


def test_quick_leaves_out_what_trains_towers():
    labels = {v.label for v in make_protocol(Design(quick=True)).variants}
    assert "ridge" in labels
    assert not labels & {"svd", "lora", "norm", "full"}


def test_options_follow_colons():
    variant = parse_variant("svd:lr=0.01:layers=top")
    assert variant.options == {"lr": 0.01, "layers": "top"}
    assert variant.title == "CLIP-SVD (lr 0.01, layers top)"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ["nonsense"]}, "no method named"),
        ({"methods": ["svd:lr"]}, "svd takes svd:option=value"),
        ({"shots": (0,)}, "at least one"),
        ({"seeds": 0}, "at least one"),
        ({"references": ["full"], "methods": ["ridge"]}, "cannot be the baseline"),
    ],
)
def test_what_cannot_be_compared_is_said(options: dict[str, Any], said: str):
    with pytest.raises(MedclipError, match=said):
        make_protocol(Design(**options))


def test_a_copy_of_a_test_file_under_another_patient_is_refused(
    place: tuple[Path, Path], done: Compared, tmp_path: Path
):
    tested = done.data.unit(done.data.test[0])
    rows = place[1].read_text().splitlines()
    shutil.copytree(place[1].parent, tmp_path / "data")
    learned = done.data.unit(done.data.draws[2, 1].train[0])
    shutil.copy(place[1].parent / tested.file, tmp_path / "data" / learned.file)
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(MedclipError, match="byte for byte") as refused:
        run((place[0], tmp_path / "data" / "labels.csv"), tmp_path / "out")
    assert refused.value.reason is Reason.PATIENT_OVERLAP


def test_test_patients_that_the_base_was_trained_on_are_left_out_unless_a_class_would_be_gone(done: Compared):
    test, hashes = done.data.test, done.data.sha256
    first = done.data.unit(test[0]).patient
    fresh = few_shot_data._fresh(done.data.examples, hashes, test, frozenset({hashes[test[0]]}))
    assert fresh == tuple(r for r in test if done.data.unit(r).patient != first)
    everyone = frozenset(hashes)
    assert few_shot_data._fresh(done.data.examples, hashes, test, everyone) == test


def test_a_file_that_cannot_be_read_is_counted_and_another_takes_its_place(
    place: tuple[Path, Path], done: Compared, tmp_path: Path
):
    shutil.copytree(place[1].parent, tmp_path / "data")
    lost = done.data.unit(done.data.draws[1, 1].train[0]).file
    (tmp_path / "data" / lost).write_bytes(b"nothing")
    result = run((place[0], tmp_path / "data" / "labels.csv"), tmp_path / "out").result
    assert sum(result.problems.values()) == 1
    assert result.drawings[0].images == done.result.drawings[0].images


def test_every_method_states_its_budget_and_where_it_differs_from_its_code(place: tuple[Path, Path], tmp_path: Path):
    asked = ["zero-shot", "linear-probe", "clip-adapter", "coop:lr=0.02:epochs=3", "norm:steps=2"]
    compared = run(place, tmp_path / "out", methods=asked, shots=(2,), seeds=1)
    costs = {c.method: c for c in compared.result.costs}
    assert {m: c.images for m, c in costs.items()} == {
        "zero-shot": None,
        "linear-probe": None,
        "clip-adapter": 800,
        "coop:lr=0.02:epochs=3": 24,
        "norm:steps=2": 16,
    }
    assert {m: c.rates for m, c in costs.items() if c.images} == {
        "clip-adapter": 3,
        "coop:lr=0.02:epochs=3": 1,
        "norm:steps=2": 3,
    }
    assert costs["norm:steps=2"].chosen_on == costs["clip-adapter"].chosen_on == "val"
    assert costs["linear-probe"].chosen_on == "folds of shots and validation"
    assert costs["coop:lr=0.02:epochs=3"].chosen_on == "given"
    deviations = compared.result.deviations
    assert set(deviations) == {"linear-probe", "clip-adapter", "coop:lr=0.02:epochs=3", "norm:steps=2"}
    assert deviations["norm:steps=2"] == deviations_of("norm", {"chosen_on": "val"})
    page = render(compared)
    tuning = page[page.index('<section id="tuning">') :].split("</section>")[0]
    assert "<td>800</td><td>3</td><td>validation patients</td>" in tuning
    assert "<td>24</td><td>1</td><td>nothing: given</td>" in tuning
    for texts in deviations.values():
        assert all(str(escape(text)) in tuning for text in texts)


def test_a_run_predicts_what_medclip_adapt_predicts_with_the_same_seeds(place: tuple[Path, Path], done: Compared):
    alone = adapt(
        place[1], "shape", model=place[0], method="ridge", shots=2, test_share=0.3
    )  # defaults of both: the first draw
    rows = pq.read_table(folder_of(done) / "predictions.parquet").to_pylist()
    said = [r["probabilities"] for r in rows if (r["method"], r["shots"], r["seed"]) == ("ridge", 2, 0)]
    np.testing.assert_allclose(said, alone.test.probabilities_NC, atol=1e-4)


def test_the_same_seed_draws_the_same_files_in_adapt_and_in_compare(place: tuple[Path, Path], tmp_path: Path):
    """Whatever else is drawn beside it: a comparison comes to know of files that one adaptation never opens."""
    path = table(tmp_path / "data", num_patients=40)
    for n in (0, 3, 9, 12, 17, 21, 24, 33):  # of those with two files the first: it names the patient
        (tmp_path / "data" / f"images/SECRET{n}_0.png").write_bytes(b"")
    seeds = (5, 0, 3)
    compared = run((place[0], path), tmp_path / "out", methods=["knn"], shots=(1, 2, 3), seeds=seeds)
    rows = pq.read_table(tmp_path / "out" / "runs.parquet").to_pylist()
    of_number = {u.number: u.file for u in compared.data.units}
    by_run = {(r["shots"], r["seed"]): r for r in rows}
    for shots, seed in ((1, 5), (3, 0), (3, 3)):
        alone = adapt(path, "shape", model=place[0], method="knn", shots=shots, seed=seed, workers=1, test_share=0.3)
        sides = (alone.drawn.train, alone.drawn.val, alone.division.test)
        learned, chosen, tested = ([alone.units[i].file for i in side] for side in sides)
        assert [of_number[n] for n in by_run[shots, seed]["train_rows"]] == learned
        assert [of_number[n] for n in by_run[shots, seed]["val_rows"]] == chosen
        assert [compared.data.units[i].file for i in compared.data.division.test] == tested
